"""A store that a newer version has written is refused in one sentence, and others are claimed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from patchbay import __version__
from patchbay.chaos import StoreLink
from patchbay.domain_store import FORMAT, FORMATS, check_format
from patchbay.errors import SettingsError, Unavailable
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import PATIENCE_S, Part, free_port

NEWER = {"_id": "lantern", "format": FORMAT + 1, "version": "9.1.0"}
SENTENCE = f"the store has documents of lantern in format {FORMAT + 1}, written by patchbay 9.1.0"


async def test_a_store_of_an_older_version_is_claimed_once(store: Store) -> None:
    await check_format(store, "lantern")
    await check_format(store, "lantern")
    await check_format(store, "locker")
    ours = {"format": FORMAT, "version": __version__}
    assert await store.find(FORMATS, {}, sort=[("_id", 1)]) == [
        {"_id": "lantern", **ours},
        {"_id": "locker", **ours},
    ]


async def test_a_store_of_a_newer_version_is_refused_for_that_service(store: Store) -> None:
    await store.save(FORMATS, [NEWER])
    with pytest.raises(SettingsError, match=SENTENCE):
        await check_format(store, "lantern")
    assert await store.find(FORMATS, {}) == [NEWER]
    await check_format(store, "locker")


@pytest.mark.parametrize("format", [0, None, "one"])
async def test_an_older_or_unreadable_format_becomes_ours(store: Store, format: object) -> None:
    await store.save(FORMATS, [{"_id": "lantern", "format": format}])
    await check_format(store, "lantern")
    [found] = await store.find(FORMATS, {})
    assert found["format"] == FORMAT


async def test_a_store_that_is_away_is_looked_at_later(store_server: Part) -> None:
    async with (
        StoreLink("127.0.0.1", store_server.port) as link,
        Store(StoreSettings(), link.uri) as store,
    ):
        link.refuse()
        with pytest.raises(Unavailable):
            await check_format(store, "lantern")


async def started(state: Path, uri: str, database: str) -> asyncio.subprocess.Process:
    """A lantern domain on this store, without a broker."""
    settings = {
        "RUNTIME__STATE_DIR": str(state),
        "BROKER__PORT": str(free_port()),
        "STORE__URI": uri,
        "STORE__DATABASE": database,
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "patchbay.runtime", "lantern.domain"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **{f"PATCHBAY_{key}": value for key, value in settings.items()}},
    )


@pytest.mark.parametrize("away", [False, True])
async def test_a_domain_stops_with_one_sentence_as_soon_as_it_can_see(
    store_server: Part, tmp_path: Path, *, away: bool
) -> None:
    database = f"format_{os.getpid()}_{away}"
    uri = f"mongodb://127.0.0.1:{store_server.port}"
    async with Store(StoreSettings(database=database), uri) as store:
        await store.save(FORMATS, [NEWER])
    async with StoreLink("127.0.0.1", store_server.port) as link:
        if away:
            link.refuse()
        process = await started(tmp_path, link.uri, database)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                if away:
                    while b"starting without" not in await process.stdout.readline():
                        pass
                    link.resume()
                output = (await process.stdout.read()).decode()
                assert await process.wait() == 1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert SENTENCE in output
    assert "Traceback" not in output
