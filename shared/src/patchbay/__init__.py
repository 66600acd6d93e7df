"""Patchbay: odd devices on one MQTT bus.

This distribution is what every service stands on: the bus, the outbox and the inbox that lose
nothing, the store, the settings, the runtime of a unit and the command line. It never imports a
service; services register themselves by the entry point ``patchbay.services``.
"""

__version__ = "0.1.0"
