"""The bartender's edges.

gui        GUIs on WebSocket; `countdown` is what they are told of a run
pumps      the pumps on the bus; `order` decides on an order, `runs` remembers them,
           `bank` switches and keeps times, `watchdog` sees to it when nobody else does
pins       what is asked of a machine's pins: `rpi` does it on a Raspberry Pi,
           `simulated` in a file
"""
