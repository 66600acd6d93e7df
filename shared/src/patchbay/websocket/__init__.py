"""The WebSocket server behind every edge that browsers, GUIs or dashboards connect to.

WebSocketServer   one port
Client            the other end of one connection
Session           what an edge does with it
Limits            what a server puts up with
ClientSlots       who is served when there are too many
Page              what a plain GET of one path answers
"""

from patchbay.websocket.client import Client, Session
from patchbay.websocket.limits import Limits, Page
from patchbay.websocket.server import WebSocketServer
from patchbay.websocket.slots import ClientSlots, Place

__all__ = ["Client", "ClientSlots", "Limits", "Page", "Place", "Session", "WebSocketServer"]
