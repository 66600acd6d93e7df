"""The command line: ``patchbay up``, ``status``, ``watch``, ..., and a group for each service.

    app           the commands, put together
    bus           a bus client for a command
    system        up, run, status
    health        health, which needs none of the others
    watching      watch
    development   check, test

What a command needs is imported when it runs, so that ``--help`` and ``health`` are quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of ``sys.argv``. Exits."""
    if sys.argv[1:2] == ["health"]:
        from patchbay.cli.health import main as health

        sys.exit(health(sys.argv[2:]))
    from patchbay.cli.app import run

    run()
