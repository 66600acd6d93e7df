"""``broker/TOPICS.md``, taken apart."""

from __future__ import annotations

import re
from itertools import islice

from tests.pages import ROOT, Table, tables

PAGE = "broker/TOPICS.md"


def sections() -> dict[str, str]:
    """The text of the page by its headings of the second level."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {heading: body for heading, _, body in (part.partition("\n") for part in parts)}


def the_table(section: str, heading: str | None = None) -> Table:
    """The table below a heading of a section: two services may have messages of one name."""
    rest = iter(tables(PAGE))
    for name, body in sections().items():
        inside = list(islice(rest, len(re.findall(r"^\|-", body, flags=re.MULTILINE))))
        if name == section:
            (found,) = [table for table in inside if table.heading == (heading or section)]
            return found
    raise AssertionError(f"there is no section {section}")


def topics_of(service: str) -> Table:
    return the_table(f"The {service}'s topics")


def commands_of(service: str) -> Table:
    return the_table(f"The {service}'s commands")
