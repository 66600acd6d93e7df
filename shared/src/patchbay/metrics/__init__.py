"""Numbers for Prometheus: an HTTP endpoint of a process, if ``[runtime] metrics_port`` is set.

    meter       what is counted as it happens, of one unit
    collector   what is looked up when somebody asks
    endpoint    GET /metrics

Imported only when switched on. docs/metrics.md has every name.
"""
