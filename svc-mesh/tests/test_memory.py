"""What is held in memory fits what the settings say of it, measured as the system counts it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from patchbay_mesh.settings import MeshSettings

MIB = 1_048_576
COMPOSE = Path(__file__).parents[2] / "compose.yaml"

MEASURE = """
import gc, sys
def held():
    gc.collect()
    text = open("/proc/self/smaps_rollup").read()
    return 1024 * sum(int(line.split()[1]) for line in text.splitlines()
                      if line.startswith(("Private_Dirty", "Private_Clean")))
"""

CACHE = """
import asyncio
import patchbay.runtime, patchbay_mesh.edge.api
from patchbay_mesh.edge.cache import Cache
from patchbay_mesh.settings import MeshSettings
from patchbay.topics import Topics
class Air:
    client_id, topics = "mesh-api-test", Topics()
    def listen(self, pattern, callback): pass
settings = MeshSettings()
cache = Cache(Air(), print, settings.max_types, settings.cache_bytes, settings.max_nodes)
def fill(size):
    for node in range(2 * settings.max_nodes):
        known = cache._heard(node, f"2026-11-26T20:00:00.{node:06}Z")
        for type in range(settings.max_types):
            time = f"2026-11-26T20:00:00.{node:03}{type:03}Z"
            cache._put(known, b"T" + type.to_bytes(2, "big"), (time, bytes([node % 256]) * size))
    return cache._bytes
"""

RECENT = """
from datetime import UTC, datetime, timedelta
import patchbay.runtime, patchbay_mesh.domain
from patchbay_mesh.recent import Recent
from patchbay_mesh.settings import MeshSettings
settings = MeshSettings()
recent = Recent(settings.history_length, settings.history_bytes)
at = datetime.now(UTC)
def fill(size):
    for value in range(60):
        for node in range(settings.max_nodes):
            moment = at + timedelta(seconds=value, microseconds=node)
            recent.add(node, "GPS", moment, bytes([value]) * size)
    return recent.size
"""

NODES = """
import patchbay.runtime, patchbay_mesh.domain
from types import SimpleNamespace
from patchbay.inbox import Aggregate
from patchbay_mesh.messages import Value
from patchbay_mesh.rules import Node, report
from patchbay_mesh.room import Room
from patchbay_mesh.settings import MeshSettings
settings = MeshSettings()
nodes = {f"node-{n}": Aggregate(f"node-{n}", Node(n)) for n in range(settings.max_nodes)}
room = Room(SimpleNamespace(nodes=SimpleNamespace()), None, None, settings)
def fill(size):
    for type in range(settings.max_types):
        for node in nodes.values():
            time = f"2026-11-26T20:00:00.{node.state.node:03}{type:03}Z"
            value = Value(f"T{type:02}", bytes([node.state.node % 256]) * size)
            report(node.state, [value], time, settings.max_types)
            room.shrink([node])
    return room._size
"""


def measured(code: str, size: int) -> tuple[int, int, int]:
    """Bytes of a process with this code before and after it is filled with values of this size, and
    what the code itself counts."""
    script = (
        f"{MEASURE}{code}\nbefore = held()\ncounted = fill({size})\nprint(before, held(), counted)"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    before, after, counted = map(int, out.split()[-3:])
    return before, after, counted


def limit(unit: str) -> int:
    """What compose.yaml gives a unit, in bytes."""
    text = COMPOSE.read_text()
    name = "DOMAIN" if unit.endswith("domain") else "UNIT"
    found = re.search(rf"PATCHBAY_{name}_MEMORY:-(\d+)m", text)
    assert found is not None
    return int(found.group(1)) * MIB


@pytest.mark.parametrize("size", [1, pytest.param(255, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("unit", "code", "setting"),
    [
        ("mesh-api", CACHE, "cache_bytes"),
        ("mesh-domain", RECENT, "history_bytes"),
        ("mesh-domain", NODES, "values_bytes"),
    ],
)
def test_what_is_held_takes_no_more_than_its_setting_says_and_fits_its_container(
    unit: str, code: str, setting: str, size: int
) -> None:
    before, after, counted = measured(code, size)
    allowed = getattr(MeshSettings(), setting)
    assert 0.7 * allowed < counted <= allowed
    assert after - before <= 1.15 * allowed + MIB
    assert after <= limit(unit)
