"""Every test gets the real parts, a Mosquitto and a store; a run shows which suites took long."""

pytest_plugins = ["patchbay.testing", "patchbay.suite_times"]
