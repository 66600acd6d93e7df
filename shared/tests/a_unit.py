"""A service with units that behave well and badly, for `test_runtime`."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys
import time

from msgspec import Struct

from patchbay.errors import Unavailable
from patchbay.runtime import Unit
from patchbay.services import Service


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: int = 5000
    listen_host: str | None = None


async def well(unit: Unit) -> None:
    unit.info_sources["backlog"] = lambda: 3
    unit.info_sources["boards"] = lambda: 5
    unit.info_sources["broken"] = lambda: 1 // 0
    unit.log.info(
        "ready",
        modules=[
            name
            for name in ("dns", "pymongo", "rich", "typer", "typing_extensions")
            if name in sys.modules
        ],
        state_dir=unit.state_dir.is_dir(),
        listen_host=unit.listen_host,
        port=unit.settings(Settings).port,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
    )
    await unit.serving()
    unit.log.info("taken down", connected=unit.bus.connected)


async def crash(unit: Unit) -> None:
    raise RuntimeError("a mistake in the set-up")


async def unavailable(unit: Unit) -> None:
    raise Unavailable("cannot listen on 127.0.0.1:5000: the port is in use")


async def task(unit: Unit) -> None:
    async def break_down() -> None:
        raise RuntimeError("a mistake in a task")

    unit.spawn(break_down(), "breaking down")
    await unit.serving()
    unit.log.info("taken down")


async def callback(unit: Unit) -> None:
    def break_down() -> None:
        raise RuntimeError("a mistake in a callback")

    asyncio.get_running_loop().call_soon(break_down)
    await unit.serving()


async def stuck(unit: Unit) -> None:
    unit.bus.progress.watch("wheel", lambda: True, lambda: "")
    await unit.serving()
    unit.log.info("taken down")


async def held(unit: Unit) -> None:
    unit.process.holds.append(lambda: True)
    await stuck(unit)


async def waits(unit: Unit) -> None:
    unit.bus.progress.watch("wheel", lambda: True, lambda: "store")
    await unit.serving()


async def early(unit: Unit) -> None:
    unit.log.info("nothing to do")


async def waiting(unit: Unit) -> None:
    unit.log.info("ready")
    try:
        await asyncio.Event().wait()
    finally:
        unit.log.info("taken down")


async def hanging(unit: Unit) -> None:
    unit.log.info("ready")
    await unit.serving()
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def blocking(unit: Unit) -> None:
    unit.log.info("ready")
    await unit.serving()
    time.sleep(600)  # noqa: ASYNC251 - that is the mistake


async def taken(unit: Unit) -> None:
    unit.connect()
    assert unit.bus.failed is not None
    unit.bus.failed.set_result("another client uses our instance id")
    await unit.serving()


ROLES = (
    stuck,
    held,
    waits,
    well,
    crash,
    unavailable,
    task,
    callback,
    early,
    waiting,
    hanging,
    blocking,
    taken,
)

SERVICE = Service(
    name="odd",
    settings="a_unit:Settings",
    roles={role.__name__: f"a_unit:{role.__name__}" for role in ROLES},
)
