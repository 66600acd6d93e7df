"""The request that the README shows works as it stands there."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path

from patchbay.testing import PATIENCE_S
from tests.house import House
from tests.pages import ROOT


async def test_the_request_of_the_readme_is_answered(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^    (mosquitto_rr .*)$", page, flags=re.MULTILINE)
    async with House(tmp_path) as house:
        async with asyncio.timeout(PATIENCE_S):
            process = await asyncio.create_subprocess_exec(
                *shlex.split(command),
                *("-p", str(house.broker.port), "-W", "30"),
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await process.communicate()
    assert json.loads(out) == {"ok": True, "boards": [], "total": 0}
