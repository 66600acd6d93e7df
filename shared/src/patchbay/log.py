"""Logging: structlog for us, the standard library's loggers through the same formatter.

    console   2026-01-02T03:04:05.678901Z [info     ] listening   [locker.edge] port=5000
    json      {"timestamp": ..., "level": ..., "logger": ..., "event": "listening", "port": 5000}

On a terminal people read it, otherwise a program does, one JSON object a line. It goes to stderr:
stdout belongs to what a command prints.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO, TypeAlias

from patchbay.lean import without

with without("rich"):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

Format: TypeAlias = Literal["auto", "console", "json"]

Logger: TypeAlias = FilteringBoundLogger
"""What everybody logs with: ``log.info("what happened", key=value)``."""


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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*seen, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
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


def _console(*, colors: bool) -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        _said_first,
        structlog.processors.JSONRenderer(),
    ]


def _said_first(_logger: object, _method: str, line: EventDict) -> EventDict:
    """What every line has stands first, so that people can read JSON too."""
    first = {key: line.pop(key, None) for key in ("timestamp", "level", "logger", "event")}
    return {**first, **line}
