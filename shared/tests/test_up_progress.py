from __future__ import annotations

import io

from patchbay.up.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_elsewhere_each_change_is_a_line() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.waiting(["broker", "store"])
    progress.waiting(["broker", "store"])
    progress.waiting(["store"])
    progress.say("done")
    assert stream.getvalue().splitlines() == [
        "patchbay: waiting for broker, store",
        "patchbay: waiting for store",
        "patchbay: done",
    ]


def test_on_a_terminal_one_line_is_written_over() -> None:
    stream = Terminal()
    progress = Progress(stream)
    progress.waiting(["broker", "store"])
    progress.waiting(["store"])
    assert stream.getvalue().count("\n") == 0
    progress.say("done")
    assert stream.getvalue().endswith("\r\033[Kpatchbay: done\n")
