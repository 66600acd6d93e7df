"""The doorbell of CONTRIBUTING.md as a service that can be started: its code as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def sources() -> dict[str, str]:
    """Path below ``src`` -> text, of each file of the example."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(r"^`svc-bell/src/(\S+)`:\n\n```python\n(.*?)^```$", text, flags=re.M | re.S)
    return dict(found)


def install(directory: Path) -> None:
    """Write the example so that it is a distribution for whoever has ``directory`` on its path."""
    for name, source in sources().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    information = directory / "patchbay_bell-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: patchbay-bell\nVersion: 0.1.0\n"
    )
    (information / "entry_points.txt").write_text(
        "[patchbay.services]\nbell = patchbay_bell:SERVICE\n"
    )
