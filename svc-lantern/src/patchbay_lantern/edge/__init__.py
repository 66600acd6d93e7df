"""The edges of the lanterns: wire <-> bus.

tlv         lanterns connect and obey
api         people and programs command them by HTTP
http_server the port of the API, and what is no HTTP
page        browsers show them
hosts       which names the API and the page answer to
following   what the edges that obey learn from the bus
"""
