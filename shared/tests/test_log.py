"""What a line of the log looks like, for people and for programs."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from patchbay import log
from patchbay.up.supervisor import LOG_BYTES, LOG_FILES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_is_no_terminal_gets_a_json_object_a_line() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    log.get_logger("locker.edge").bind(instance="locker-edge-pi1").info("listening", port=5000)
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "listening",
        "instance": "locker-edge-pi1",
        "level": "info",
        "logger": "locker.edge",
        "port": 5000,
    }


HOUR_S = 3600
KINDS = 40
"""Different lines that a unit has; each is logged as often as a device likes."""


def test_the_hour_before_an_hour_of_hostile_input_is_still_in_a_units_log() -> None:
    stream, now = io.StringIO(), 0.0
    log.configure(stream=stream)
    [handler] = [one for one in logging.getLogger().handlers if one.filters]
    handler.filters[:] = [log.Repetitions(lambda: now)]
    loggers = [log.get_logger(f"edge.{kind}") for kind in range(KINDS)]
    for second in range(0, HOUR_S, 10):
        now = float(second)
        for number, logger in enumerate(loggers):
            say = logger.warning if number % 4 else logger.info
            say("invalid input", peer="10.0.0.7:1234", why="x" * 500)
    taken = len(stream.getvalue())
    assert taken > 1_000_000
    assert 2 * taken < LOG_BYTES * (LOG_FILES - 1), "the hour before is gone"


def test_no_line_is_longer_than_what_a_text_may_take() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    long = "x" * 1_000_000
    log.get_logger("edge").info(long, one=long, more=[long], bytes=long.encode())
    try:
        raise ValueError(long)
    except ValueError as error:
        log.get_logger("edge").error("failed", exc_info=error)
    first, second = stream.getvalue().splitlines()
    assert len(first) < 5 * log.VALUE_CHARS
    assert log.TRACEBACK_CHARS < len(second) < log.TRACEBACK_CHARS + log.VALUE_CHARS


def test_text_of_devices_does_not_move_the_cursor_of_a_terminal() -> None:
    stream = Terminal()
    log.configure(form="console", stream=stream)
    wild = "\x1b[2J\r\x07\u202eevil\x9b1A"
    log.get_logger("locker.edge").info("listening", peer=wild, more=[wild], key=wild)
    logging.getLogger("other").warning("said %s", wild)
    try:
        raise ValueError(wild)
    except ValueError as error:
        log.get_logger("locker.edge").error("failed", exc_info=error)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())  # our own colours
    assert all(line.isprintable() for line in text.split("\n")), text
    assert text.count("evil") >= 5


def test_a_terminal_gets_lines_for_people() -> None:
    stream = Terminal()
    log.configure(stream=stream)
    log.get_logger("locker.edge").info("listening", port=5000)
    assert "listening" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(stream)


def test_the_form_can_be_forced() -> None:
    stream = Terminal()
    log.configure(form="json", stream=stream)
    log.get_logger("a").info("said")
    assert lines(stream)[0]["event"] == "said"
    stream = Terminal()
    log.configure(form="console", stream=stream)
    log.get_logger("a").info("said")
    assert "[info     ]" in stream.getvalue().replace("\x1b[32m\x1b[1m", "").replace("\x1b[0m", "")


def test_the_level_holds_for_us_and_for_the_standard_library() -> None:
    stream = io.StringIO()
    log.configure("warning", stream=stream)
    log.get_logger("a").info("not said")
    logging.getLogger("b").info("not said")
    log.get_logger("a").warning("said")
    logging.getLogger("b").warning("said %s", "too", extra={"key": 1})
    assert [line["event"] for line in lines(stream)] == ["said", "said too"]
    assert lines(stream)[1]["key"] == 1
    assert lines(stream)[1]["logger"] == "b"


def test_configured_twice_a_line_is_said_once() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    log.configure(stream=stream)
    logging.getLogger("a").warning("said")
    assert len(lines(stream)) == 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_exception_comes_with_its_traceback(form: log.Format) -> None:
    stream = io.StringIO()
    log.configure(form=form, stream=stream)
    try:
        raise ValueError("wrong")
    except ValueError as error:
        log.get_logger("a").error("failed", exc_info=error)
    assert "ValueError: wrong" in stream.getvalue()
    assert "Traceback (most recent call last)" in stream.getvalue()
    assert "╭" not in stream.getvalue()


def test_a_unit_that_logs_does_not_carry_rich() -> None:
    program = (
        "import sys, patchbay.log as log; log.configure(); log.get_logger('a').info('said');"
        "assert 'rich' not in sys.modules; import rich"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_a_line_that_is_repeated_for_hours_stays_a_few_lines_with_a_count() -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    (handler,) = [one for one in logging.getLogger().handlers if one.filters]
    clock = [0.0]
    handler.filters[:] = [log.Repetitions(lambda: clock[0])]
    for second in range(3600):  # an hour of two a second
        for number in range(2):
            log.get_logger("inbox").warning("nothing can be persisted", why=f"{second} {number}")
            log.get_logger("bus").info("refused", topic="a")
            logging.getLogger("asyncio").error("failed: %s", number)
        clock[0] += 1.0
    log.get_logger("inbox").error("another")
    found = lines(stream)
    warnings = [one for one in found if one["event"] == "nothing can be persisted"]
    assert 60 <= len(warnings) <= 70
    assert sum(one.get("repeated", 0) + 1 for one in warnings) >= 7200 - 120
    assert 60 <= len([one for one in found if one["logger"] == "asyncio"]) <= 70
    assert len([one for one in found if one["event"] == "refused"]) <= 400
    assert found[-1]["event"] == "another"
    assert "repeated" not in found[-1]


def test_texts_that_a_peer_makes_up_take_no_lines_and_no_room_without_end() -> None:
    now = 0.0
    kinds = log.Repetitions(lambda: now)

    def passes(text: str) -> bool:
        return kinds.filter(logging.LogRecord("a", logging.ERROR, "", 0, text, (), None))

    assert sum(passes("ours") for _ in range(100)) == log.BURST
    assert sum(passes(f"{number}") for number in range(10_000)) <= log.KINDS + log.BURST
    assert not passes("ours"), "its count was reset"
    assert len(kinds._kinds) <= log.KINDS + 1
    now = 2 * log.BURST * log.PERIOD_S
    assert passes("new"), "there is no room again"
