"""Every test directory gets the real parts: a Mosquitto and a store."""

pytest_plugins = ["patchbay.testing"]
