"""An ESP32 mesh behind a serial port, on the Patchbay bus.

Nothing is imported here: `patchbay_mesh.client` is for programs that have nothing of ours but it.
"""
