"""A whole system that is attacked: `patchbay up` with small logs, and what is to be seen of it.

Its units have the settings of their containers in compose.yaml, where those are bounds, and may
take as much memory as these. Its logs turn over as early as an hour's would, times `HOUR_S` / 3600.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from patchbay.services import discover, resolve, units
from patchbay.testing import PATIENCE_S
from tests.hostile_attacks import LONGEST_S, Attack
from tests.hostile_served import Guests, Served
from tests.pages import ROOT
from tests.running import System

HOUR_S: Final = 30.0
"""What stands for an hour in these tests: an attack takes so long, or somewhat longer."""

LOG_FILE_BYTES: Final = int(5_000_000 * HOUR_S / 3600)
"""A container's log has two files of 5 MB; `up` keeps three. Both are cut to this, and two files
are looked at."""

QUIET: Final = {
    "PATCHBAY_LOCKER__DEMO_BOARDS": "0",
    "PATCHBAY_LANTERN__DEMO_LANTERNS": "0",
    "PATCHBAY_BARTENDER__DEMO_INTERVAL_S": "100000",
    "PATCHBAY_ALLOCATOR__DEMO_INTERVAL_S": "100000",
}
"""Of the demo only the root of the mesh says something, and the combinators mix."""

BOUND: Final = re.compile(r"PATCHBAY_[A-Z]+__(MAX_\w+|\w+_BYTES|\w+_ROWS)")
"""Settings of compose.yaml that are bounds; the others say where things are."""

_SMALL_LOGS: Final = """\
import re
from patchbay.up import supervisor
supervisor._PROGRAM = re.sub("(logfile_maxbytes) = .*", r"\\1 = {bytes}", supervisor._PROGRAM)
from patchbay.cli import main
main()
"""

END_S: Final = 15.0
"""An attacker that takes longer to end is killed."""

Lines: TypeAlias = asyncio.StreamReader


@dataclass
class Memory:
    """What a unit has taken at most, and may take. MiB."""

    peak: float
    limit: float


@dataclass
class Seen:
    """What came of an attack: ``wrong`` is what must not be."""

    did: dict[str, int] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Attacked(System):
    """The whole system, of all services."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "--demo", "--only", ",".join(discover()))
        self.program = [sys.executable, "-c", _SMALL_LOGS.format(bytes=LOG_FILE_BYTES)]
        self._before: dict[str, int] = {}
        self._first_lines: dict[str, str] = {}
        self.units = [f"{one.name}.{role}" for one, role in units(discover(), discover())]
        self.limits = limits((ROOT / "compose.yaml").read_text(encoding="utf-8"))

    def spawn(self, environ: Mapping[str, str] | None = None) -> None:
        bounds = settings((ROOT / "compose.yaml").read_text(encoding="utf-8"))
        super().spawn({**bounds, **QUIET, **(environ or {})})

    @property
    def ports(self) -> dict[str, int]:
        """Address name -> port, of the devices, and of ``mqtt`` and ``mongo``."""
        found = {"mqtt": 1883, "mongo": 27_017}
        for service in discover().values():
            table = resolve(service.settings)()
            found |= {name: getattr(table, key) for name, key in service.ports.items()}
        return {name: port + self.offset for name, port in found.items()}

    # What is seen

    def remember(self) -> None:
        """An attack begins: what must still be so at its end?"""
        self._before = self.pids()
        self._first_lines = {}
        for path in (self.state / "log").iterdir():
            if path.suffix == ".log" and path.stem in self.units and path.stat().st_size:
                self._first_lines[path.stem] = path.read_text().splitlines()[-1]
        for pid in self._before.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew

    def look(self) -> Seen:
        """What has come of it: memory, deaths, logs."""
        seen = Seen()
        status = self.status()
        for unit in status["units"]:
            if unit["status"] != "online":
                seen.wrong.append(f"{unit['unit']} is {unit['status']}")
        for name, pid in self.pids().items():
            if pid != self._before[name]:
                seen.wrong.append(f"{name} was started again")
                continue
            seen.memory[name] = memory = Memory(peak_mib(pid), self.limits[name])
            if memory.peak > memory.limit and name in self.units:
                seen.wrong.append(f"{name} took {memory.peak:.1f} MiB of {memory.limit:.0f}")
        for name, line in self._first_lines.items():
            path = self.state / "log" / f"{name}.log"
            files = [one for one in (path, path.with_suffix(".log.1")) if one.exists()]
            if not any(line in one.read_text(errors="replace") for one in files):
                seen.wrong.append(f"the log of {name} does not hold what was before")
        return seen

    @contextlib.asynccontextmanager
    async def attacked(self, attack: Attack, share: float, seen: Seen) -> AsyncIterator[Lines]:
        """The attack goes on while this lasts, and is over then; ``seen.did`` says what it did."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hostile_attacks"),
            *(attack.name, str(share), json.dumps(self.ports)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        lines = process.stdout
        assert lines is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                assert await lines.readline() == b"begun\n", attack.name
            yield lines
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(END_S):
                    told = (await lines.read()).splitlines()
                    await process.wait()
                seen.did.update(json.loads(told[-1]))
            except TimeoutError:
                process.kill()
                await process.wait()


async def served_under(
    attack: Attack, system: Attacked, guests: Guests, *, share: float = 1.0, seconds: float = 0.0
) -> tuple[dict[str, Served], Seen]:
    """How honest clients are served during an attack, and what was seen of the system.

    ``share``: of the attack's amount, for a short test, and ``seconds`` in place of its own.
    """
    await asyncio.to_thread(system.remember)
    did = Seen()
    async with system.attacked(attack, share, did) as lines:
        over = asyncio.Event()
        serving = asyncio.ensure_future(guests.serve(over))
        await asyncio.sleep(seconds or attack.seconds)
        if attack.amount:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONGEST_S):
                    await lines.readline()
        over.set()
        served = await serving
    seen = await asyncio.to_thread(system.look)
    return served, replace(seen, did=did.did)


def limits(compose: str) -> dict[str, float]:
    """Of each unit, of ``broker`` and ``store``: MiB that its container may take."""
    anchors = dict(re.findall(r"^x-[\w-]+: &([\w-]+) \$\{\w+:-(\d+)m\}$", compose, re.MULTILINE))
    kinds: dict[str, str] = {}
    for kind in ("unit", "domain"):
        found = re.search(rf"^x-{kind}: .*\n((?:  .*\n|\n)+)", compose, re.MULTILINE)
        assert found, kind
        kinds[kind] = _limit(found.group(1), anchors)
    named = [f"{service.name}.{role}" for service, role in units(discover(), discover())]
    result = {}
    for name in (*named, "broker", "store"):
        found = re.search(
            rf"^  {name.replace('.', '-')}:.*\n((?:    .*\n|\n)+)", compose, re.MULTILINE
        )
        assert found, name
        block = found.group(1)
        kind = "domain" if name.endswith(".domain") else "unit"
        result[name] = float(_limit(block, anchors) or kinds[kind])
    return result


def _limit(block: str, anchors: Mapping[str, str]) -> str:
    given = re.search(r"^ +mem_limit: (?:\*([\w-]+)|\$\{\w+:-(\d+)m\})", block, re.MULTILINE)
    if given is None:
        return ""
    return anchors[given[1]] if given[1] else given[2]


def settings(compose: str) -> dict[str, str]:
    """The settings that bound the containers' units: as they are where no variable is set."""
    anchors = dict(re.findall(r"&([\w-]+) (\$\{\w+:-[^}]*\})$", compose, re.MULTILINE))
    found = {}
    for name, text in re.findall(r"(PATCHBAY_\w+): \"?([^\"\s}]*\}?)", compose):
        if BOUND.fullmatch(name):
            given = anchors[text.strip("*}")] if text.startswith("*") else text
            found[name] = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", given)
    return found


def peak_mib(pid: int) -> float:
    """The most that a process has had since `Attacked.remember`, without what it shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    kib = {name: int(number) for name, number in re.findall(r"^(\w+): +(\d+) kB", rollup, re.M)}
    most = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert most is not None
    return (int(most[1]) - kib["Rss"] + kib["Pss"]) / 1024
