"""Logging: structlog for us, the standard library's loggers through the same formatter.

    console   2026-01-02T03:04:05.678901Z [info     ] listening   [locker.edge] port=5000
    json      {"timestamp": ..., "level": ..., "logger": ..., "event": "listening", "port": 5000}

A line that is repeated is logged a few times, and then now and then with the number of those that
were left out (``repeated``): what goes wrong for hours must neither fill the disk nor push
everything else out of the log. Lines of one logger and one event are the same.

On a terminal people read it, otherwise a program does, one JSON object a line. It goes to stderr:
stdout belongs to what a command prints.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Literal, TextIO, TypeAlias

from patchbay.lean import without
from patchbay.printable import printable

with without("rich"):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

Format: TypeAlias = Literal["auto", "console", "json"]

Logger: TypeAlias = FilteringBoundLogger
"""What everybody logs with: ``log.info("what happened", key=value)``."""


BURST: Final = 5
PERIOD_S: Final = 60.0
"""Warnings and errors of one kind: so many at once, after those one in so long."""

INFO_BURST: Final = 20
INFO_PERIOD_S: Final = 10.0
"""The same of what is no warning."""

VALUE_CHARS: Final = 1_000
TRACEBACK_CHARS: Final = 8_000
"""How much of a text that was sent to us, and of a traceback, a line has. With `PERIOD_S` and
`INFO_PERIOD_S` it bounds what a log takes an hour, whatever devices send: see docs/retention.md."""

KINDS: Final = 256
"""Kinds that are counted. Whatever is new when there are more is of one kind, all together: a text
that a peer makes up must neither have lines of its own without end, nor reset the others."""

_OTHERS: Final = ("", "")


def configure(level: str = "info", form: Format = "auto", stream: TextIO | None = None) -> None:
    """Set logging up for this process. ``stream`` is stderr if None. May be called again."""
    stream = stream or sys.stderr
    console = stream.isatty() if form == "auto" else form == "console"
    number = logging.getLevelNamesMapping()[level.upper()]
    seen: list[Processor] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(stream)
    handler.addFilter(Repetitions())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*seen, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _cut,
                *(_console(colors=stream.isatty()) if console else _json()),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*seen, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Logger:
    """A logger by this name; ``.bind(key=value)`` gives one that says so on every line."""
    logger: Logger = structlog.get_logger(name)
    return logger


class Repetitions(logging.Filter):
    """Lets a few lines of each kind pass, and counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Is this line to be logged?"""
        warning = record.levelno >= logging.WARNING
        burst, period_s = (BURST, PERIOD_S) if warning else (INFO_BURST, INFO_PERIOD_S)
        line = record.msg if isinstance(record.msg, dict) else None  # structlog's, or another's
        kind = (record.name, str(line.get("event") if line else record.msg)[:200])
        clock = self._clock()
        if len(self._kinds) >= KINDS and kind not in self._kinds:
            self._forget_old(clock)
            if len(self._kinds) >= KINDS:
                kind = _OTHERS
        tokens, since, repeated = self._kinds.get(kind, (float(burst), clock, 0))
        tokens = min(burst, tokens + (clock - since) / period_s)
        if tokens < 1:
            self._kinds[kind] = tokens, clock, repeated + 1
            return False
        self._kinds[kind] = tokens - 1, clock, 0
        if repeated and line is not None:
            line["repeated"] = repeated
        elif repeated:
            record.repeated = repeated
        return True

    def _forget_old(self, clock: float) -> None:
        """Forget kinds that have not been logged for so long that they begin anew anyway."""
        longest_s = max(BURST * PERIOD_S, INFO_BURST * INFO_PERIOD_S)
        for kind, (_, since, _) in list(self._kinds.items()):
            if clock - since > longest_s:
                del self._kinds[kind]


def _cut(_logger: object, _method: str, line: EventDict) -> EventDict:
    return {key: _shortened(value) for key, value in line.items()}


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= VALUE_CHARS else f"{value[:VALUE_CHARS]}..."
    if isinstance(value, list | tuple | dict | set | bytes):
        text = repr(value)
        return value if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}..."
    return value


def _console(*, colors: bool) -> list[Processor]:
    return [
        _printable,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback),
    ]


def _printable(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Text of devices must not move the cursor of whoever reads along."""
    return {
        printable(key): printable(value) if isinstance(value, str) else value
        for key, value in line.items()
    }


def _traceback(stream: TextIO, exc_info: Any) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    lines = text.getvalue()[-TRACEBACK_CHARS:].split("\n")
    stream.write("\n".join(map(printable, lines)))


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        _cut_traceback,
        _said_first,
        structlog.processors.JSONRenderer(),
    ]


def _cut_traceback(_logger: object, _method: str, line: EventDict) -> EventDict:
    """The end of it says what went wrong."""
    if isinstance(text := line.get("exception"), str):
        line["exception"] = text[-TRACEBACK_CHARS:]
    return line


def _said_first(_logger: object, _method: str, line: EventDict) -> EventDict:
    """What every line has stands first, so that people can read JSON too."""
    first = {key: line.pop(key, None) for key in ("timestamp", "level", "logger", "event")}
    return {**first, **line}
