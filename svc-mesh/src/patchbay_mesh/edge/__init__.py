"""The edges of the mesh: three units.

line      the serial port: open for ever, read, write
uart      mesh.uart: frames to events, commands to the root
cache     the latest values, as the bus says
api       mesh.api: the socket API for client programs
session   one connection of it
monitor   mesh.monitor: what dashboards see
"""
