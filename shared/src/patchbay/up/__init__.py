"""``patchbay up``: the whole system, or a part of it, on this machine.

    plan          what is to run, and where it listens: from the settings, without doing anything
    supervisor    supervisord: its configuration, its process, its XML-RPC
    ports         are they free, do they accept?
    record        what a running `up` leaves in the state directory, for ``status`` and others
    roster        who is online, as the bus says
    progress      what the person at the terminal sees meanwhile
    status        how it is, asked from outside
    start         the foreground process: start all, wait, say ready, stop all
    orphans       what a killed supervisord leaves us
    daemon        supervisord, ended when `up` is killed
    demo          a service's simulated devices as a process

The supervised processes are the broker, the embedded store, a unit each, and a demo each.
"""
