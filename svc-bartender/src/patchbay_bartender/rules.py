"""What the scheduler decides: may it be poured, for how long, and what has become of it.

Pure: (bar, message, now) -> bar changed, effects. Whoever calls saves the bar, then does what the
effects say. A refusal is `Rejected`, and its message is what people read.

    seconds of a pump = ratio x cup size x seconds per litre x speed ratio      (seed: 213 s/l, 1.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from patchbay_bartender.bar import UNSETTLED, Bar, Ended, Run, Status
from patchbay_bartender.messages import (
    Blend,
    Configure,
    Failed,
    Finished,
    PumpsFinished,
    PumpsRefused,
    PumpsStarted,
    Refill,
    Rejected,
    Started,
    whole_seconds,
)

MAX_SPEED_RATIO: Final = 100.0
MAX_SEC_PER_LITER: Final = 36_000.0
"""Ten hours: a pump that drips. What is more is a slip of the finger."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What no blend may exceed: litres, and seconds of one pump."""

    max_cup_size: float
    max_run_s: float


@dataclass(frozen=True, slots=True)
class Publish:
    """An event for everybody, after the bar is saved."""

    name: Literal["started", "finished", "failed"]
    data: Started | Finished | Failed


@dataclass(frozen=True, slots=True)
class Record:
    """What the history says of a run from now on."""

    run: Run
    status: Status
    ended: Ended | None = None


Effect = Publish | Record


# May it be poured?


def busy(run: Run | None, remaining_s: float) -> None:
    """Raise Rejected if something is poured already. The seed has the text."""
    if run is None:
        return
    doing = "blending" if run.kind == "blend" else "refilling"
    seconds = max(1, whole_seconds(remaining_s))
    raise Rejected("busy", f"Already {doing} ! Retry in {seconds} sec")


def blend(
    bar: Bar, wanted: Blend, sec_per_liter: float, limits: Limits, id: str, now: datetime
) -> Run:
    """The run of a blend. Raises Rejected."""
    cup = wanted.cup_size
    if not _finite(cup) or cup <= 0:
        raise Rejected("bad_cup_size", "cup_size must be more than 0 litres")
    if cup > limits.max_cup_size:
        raise Rejected("bad_cup_size", f"cup_size is over {limits.max_cup_size:g} litres")
    if not wanted.ratios:
        raise Rejected("no_ratios", "ratios names no pump")
    seconds: dict[str, float] = {}
    millilitres: dict[str, float] = {}
    for name, ratio in wanted.ratios.items():
        pump = bar.pumps[_pump(bar, name)]
        if not _finite(ratio) or not 0 <= ratio <= 1:
            raise Rejected("bad_ratio", f"the ratio of pump {name} is not in 0.0 to 1.0")
        wanted_s = round(float(ratio * cup * sec_per_liter * pump.speed_ratio), 4)
        if not wanted_s:  # also a slider's 5.5e-17
            continue
        if not pump.enabled:
            raise Rejected("pump_disabled", f"pump {name} is disabled")
        seconds[name] = wanted_s
        millilitres[name] = round(float(ratio * cup * 1000), 3)
    if not seconds:
        raise Rejected("nothing_to_do", "a blend of zero seconds")
    _not_too_long(seconds, limits)
    return Run(
        id=id,
        kind="blend",
        by=wanted.by,
        ordered_at=now,
        seconds=dict(sorted(seconds.items())),
        millilitres=millilitres,
        cup_size=cup,
        ratios=wanted.ratios,
    )


def refill(bar: Bar, wanted: Refill, limits: Limits, id: str, now: datetime) -> Run:
    """The run of a refill. Raises Rejected."""
    name = str(wanted.pump)
    pump = bar.pumps[_pump(bar, name)]
    if not pump.enabled:
        raise Rejected("pump_disabled", f"pump {name} is disabled")
    seconds = {name: float(pump.refill_time)}
    _not_too_long(seconds, limits)
    return Run(id=id, kind="refill", by=wanted.by, ordered_at=now, seconds=seconds, millilitres={})


def configure(
    bar: Bar, wanted: Configure, limits: Limits
) -> Literal["pumps_states", "config", "sec_per_liter"]:
    """Change the bar's pumps; what has changed, as GUIs call it. Raises Rejected."""
    what: Literal["pumps_states", "config", "sec_per_liter"] = "config"
    if wanted.sec_per_liter is not None:
        _in_range("sec_per_liter", wanted.sec_per_liter, MAX_SEC_PER_LITER)
        what = "sec_per_liter"
    of_a_pump = (wanted.enabled, wanted.refill_time, wanted.speed_ratio)
    if wanted.pump is None:
        if any(one is not None for one in of_a_pump):
            raise Rejected("no_such_pump", "which pump?")
        return what
    pump = bar.pumps[_pump(bar, str(wanted.pump))]
    if wanted.refill_time is not None:
        _in_range("refill_time", wanted.refill_time, limits.max_run_s)
    if wanted.speed_ratio is not None:
        _in_range("speed_ratio", wanted.speed_ratio, MAX_SPEED_RATIO)
    if wanted.enabled is not None:
        pump.enabled = wanted.enabled
        what = "pumps_states"
    if wanted.refill_time is not None:
        pump.refill_time = wanted.refill_time
        what = "pumps_states"
    if wanted.speed_ratio is not None:
        pump.speed_ratio = wanted.speed_ratio
        what = "config"
    return "config" if wanted.sec_per_liter is not None and what != "sec_per_liter" else what


# What has become of it?


def started(bar: Bar, said: PumpsStarted) -> list[Effect]:
    """The pumps run."""
    run = bar.run
    if run is None or run.id != said.run_id or run.started:
        return []
    run.started = True
    event = Started(run.id, run.kind, run.by, run.seconds, run.request)
    return [Publish("started", event), Record(run, "running")]


def refused(bar: Bar, said: PumpsRefused, at: datetime) -> list[Effect]:
    """The pumps have not begun it, and will not: somebody has stopped it, or they must not."""
    run = bar.run
    if run is None or run.id != said.run_id:
        bar.unsettled = [one for one in bar.unsettled if one.id != said.run_id]
        return []
    if said.code == "stopped":
        return _failed(bar, run, "stopped", "stopped", said.reason, at, {})
    return _failed(bar, run, "failed", "refused", f"the pumps refused it: {said.reason}", at, {})


def finished(bar: Bar, said: PumpsFinished, at: datetime) -> list[Effect]:
    """All pumps of a run are off. One that was given up is only counted now."""
    run = bar.run
    if run is not None and run.id == said.run_id:
        pumped = _count(bar, run, said, at)
        if said.result == "done":
            event = Finished(run.id, run.kind, run.by, pumped, run.request)
            return [Publish("finished", event), _over(bar, run, "done", "", at, pumped)]
        code = "stopped" if said.result == "stopped" else "pumps_failed"
        return _failed(bar, run, said.result, code, said.reason, at, pumped)
    for one in bar.unsettled:
        if one.id == said.run_id:
            bar.unsettled.remove(one)
            pumped = _count(bar, one, said, at)
            reason = f"given up before the pumps said: {said.result}"
            ended = Ended(run=one, status="failed", reason=reason, at=at, pumped=pumped)
            return [Record(one, "failed", ended)]
    return []


def give_up(bar: Bar, code: str, reason: str, at: datetime) -> list[Effect]:
    """The run was never confirmed, or nobody can say what has become of it: it has failed. What the
    pumps say of it later still counts what was pumped."""
    run = bar.run
    if run is None:
        return []
    bar.unsettled = [*bar.unsettled, run][-UNSETTLED:]
    status: Status = "stopped" if code == "stopped" else "failed"
    return _failed(bar, run, status, code, reason, at, {})


def _failed(
    bar: Bar,
    run: Run,
    status: Status,
    code: str,
    reason: str,
    at: datetime,
    pumped: dict[str, float],
) -> list[Effect]:
    event = Failed(run.id, run.kind, run.by, code, reason, pumped, run.request)
    return [Publish("failed", event), _over(bar, run, status, reason, at, pumped)]


def _over(
    bar: Bar, run: Run, status: Status, reason: str, at: datetime, pumped: dict[str, float]
) -> Record:
    bar.run = None
    bar.ended = Ended(run=run, status=status, reason=reason, at=at, pumped=pumped)
    return Record(run, status, bar.ended)


def _count(bar: Bar, run: Run, said: PumpsFinished, at: datetime) -> dict[str, float]:
    """Add what was pumped. A refill that is done begins the count anew."""
    pumped = run.pumped(said.ran)
    for name, millilitres in pumped.items():
        bar.pumps[int(name)].millilitres += millilitres
    if run.kind == "refill" and said.result == "done":
        for name in run.seconds:
            bar.pumps[int(name)].millilitres = 0.0
            bar.pumps[int(name)].refilled_at = at
    return pumped


# Details


def _pump(bar: Bar, name: str) -> int:
    known = {str(number): number for number in range(len(bar.pumps))}
    if name not in known:
        raise Rejected("no_such_pump", f"there is no pump {name[:20]!r}")
    return known[name]


def _finite(number: float) -> bool:
    return math.isfinite(number)


def _in_range(name: str, number: float, most: float) -> None:
    if not _finite(number) or not 0 < number <= most:
        raise Rejected("bad_number", f"{name} must be more than 0 and at most {most:g}")


def _not_too_long(seconds: dict[str, float], limits: Limits) -> None:
    longest = max(seconds.values())
    if longest > limits.max_run_s:
        raise Rejected("too_long", f"{longest:.0f} s is over {limits.max_run_s:g} s")
