"""How much the mesh's store grows in a day: 20 nodes, a value of 6 bytes every 10 seconds.

    .venv/bin/python bench/mesh_growth.py [--nodes 20] [--every 10]

It stores a day's readings in an empty embedded store, with its index, and says what they take: as
BSON, and on disk.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path

import bson

from patchbay.messages import new_id, now
from patchbay.settings import StoreSettings
from patchbay.store import Store
from patchbay.testing import store_part
from patchbay_mesh.store import MeshStore, reading

DAY_S = 86_400
ROUND = 500


async def main() -> None:
    """Measure, and print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS")
    given = parser.parse_args()
    count = int(given.nodes * DAY_S / given.every)
    with tempfile.TemporaryDirectory() as directory:
        part = store_part(Path(directory))
        part.start()
        try:
            before = size(Path(directory))
            one = await fill(part.port, given.nodes, given.every, count)
        finally:
            part.stop()
        grown = size(Path(directory)) - before
    print(f"readings a day          {count:>12,}")
    print(f"BSON of one, bytes      {one:>12,}")
    print(f"BSON a day, bytes       {one * count:>12,}")
    print(f"on disk a day, bytes    {grown:>12,}")
    print(f"on disk of one, bytes   {grown / count:>12,.0f}")


async def fill(port: int, nodes: int, every_s: float, count: int) -> int:
    """Store a day's readings. Returns the bytes of one as BSON."""
    async with Store(StoreSettings(), f"mongodb://127.0.0.1:{port}") as store:
        kept = MeshStore(store, 2_592_000, 2_592_000)
        await kept.prepare()
        begin, epoch = now() - timedelta(days=1), new_id()
        documents = (
            reading(
                f"{epoch}/{number:012}",
                0,
                number % nodes + 5,
                "GPS",
                begin + timedelta(seconds=number // nodes * every_s),
                number.to_bytes(6, "big"),
            )
            for number in range(count)
        )
        some = []
        for document in documents:
            some.append(document)
            if len(some) == ROUND:
                await kept.save_facts(some, [])
                some = []
        await kept.save_facts(some, [])
        return len(bson.encode(document))


def size(directory: Path) -> int:
    """Bytes that the files of a directory take."""
    return sum(one.stat().st_size for one in directory.rglob("*") if one.is_file())


if __name__ == "__main__":
    asyncio.run(main())
