"""The bus: MQTT 5 on Mosquitto, wrapped once. Nobody else imports paho.

Bus         one client: connects for ever, subscribes again, publishes, says online and offline
Message     what arrived, and its acknowledgement
Commands    serves ``cmd/<name>`` topics and answers them
Request     what a command's handler learns about the request itself
"""

from patchbay.bus.client import Bus
from patchbay.bus.commands import Commands, Request
from patchbay.bus.message import Message

__all__ = ["Bus", "Commands", "Message", "Request"]
