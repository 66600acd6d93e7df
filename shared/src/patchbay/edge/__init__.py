"""An edge of devices that connect by TCP: all of it but what their bytes mean.

A service brings a decoder (`patchbay.framing` has two) and a session. What a frame means is said in
four calls:

    record      a durable event, once however often the device repeats the frame
    reply       bytes for the device, after the commit, in order with all other replies
    reject      a dead letter; who sends too much that is invalid is closed
    identify    this device is on this connection: commands for it find it here

The session need not know that replies wait for commits, that a commit may fail and takes back what
built on it, or that a full outbox pauses reading.

    DeviceSession   one connection; subclass it
    DeviceEdge      the sessions of one unit, and the commands to connected devices
    serve_tcp       the whole unit
    EdgeSettings    the settings that every such unit has
    Memory          values that are stored with the commits
    Number          tells a repeat, for devices that number what they send
"""

from patchbay.edge.device_edge import DeviceEdge, EdgeSettings, WireCommand, serve_tcp
from patchbay.edge.memory import Memory
from patchbay.edge.repeats import Number, Repeats
from patchbay.edge.session import Decoder, DeviceSession
from patchbay.framing import WireError

__all__ = [
    "Decoder",
    "DeviceEdge",
    "DeviceSession",
    "EdgeSettings",
    "Memory",
    "Number",
    "Repeats",
    "WireCommand",
    "WireError",
    "serve_tcp",
]
