"""The three wires of the mesh.

uart         the root of the mesh at a serial port
content      what the root's frames mean
opcodes      the same, of today's firmware: types of one byte
socket_api   client programs over TCP
monitor      dashboards over WebSocket
"""
