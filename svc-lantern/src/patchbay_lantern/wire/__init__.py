"""The lanterns' wires; none knows which commands there are.

tlv     server -> lantern: type, length, value
http    what the API is asked and answers
page    what the page's WebSocket says
"""
