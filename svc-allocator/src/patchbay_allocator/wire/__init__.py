"""The wires of the colour jobs: JSON objects over TCP, with nothing between them.

json_objects   where an object ends
intake         Chromebook -> server
combinator     server -> combinator, and its answer
"""
