"""The command line: ``patchbay up``, ``status``, ``watch``, ..., and a group for each service.

    app           the commands, put together
    bus           a bus client for a command
    system        up, run, status, health
    watching      watch
    development   check, test

What a command needs is imported when it runs, so that ``--help`` and ``health`` are quick.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of ``sys.argv``. Exits."""
    from patchbay.cli.app import run

    run()
