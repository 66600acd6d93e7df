"""What the containers of compose.yaml weigh: memory of each while it runs, and size of the images.

    .venv/bin/python bench/containers.py [--project NAME]

It measures a project that is up (the name of this directory, if none is given) and starts nothing.
Memory is what the engine charges a container with, less the file cache that it could give back.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import docker
from docker.models.containers import Container

MIB = 1024 * 1024


class Weight(NamedTuple):
    """One container, in bytes."""

    service: str
    used: int
    limit: int


def main() -> int:
    """Print two tables. The exit code is 1 if nothing of the project runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--project", default=Path(__file__).resolve().parents[1].name)
    project = parser.parse_args().project
    client = docker.from_env()
    containers = client.containers.list(filters={"label": f"com.docker.compose.project={project}"})
    if not containers:
        print(f"nothing of the project {project} runs", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(len(containers)) as threads:  # the engine takes a second for each
        weights = sorted(threads.map(weigh, containers))
    print("| container | MiB | limit |\n|---|---|---|")
    for one in weights:
        print(f"| {one.service} | {one.used / MIB:.1f} | {one.limit / MIB:.0f} |")
    used, limits = sum(one.used for one in weights), sum(one.limit for one in weights)
    print(f"| all {len(weights)} | {used / MIB:.0f} | {limits / MIB:.0f} |")
    print("\n| image | MB |\n|---|---|")
    for name in sorted({container.attrs["Config"]["Image"] for container in containers}):
        print(f"| {name} | {client.images.get(name).attrs['Size'] / 1e6:.0f} |")
    return 0


def weigh(container: Container) -> Weight:
    """What a container uses now."""
    memory: dict[str, Any] = container.stats(stream=False)["memory_stats"]
    detail = memory["stats"]
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    service = container.labels["com.docker.compose.service"]
    return Weight(service, memory["usage"] - cache, container.attrs["HostConfig"]["Memory"])


if __name__ == "__main__":
    sys.exit(main())
