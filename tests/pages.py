"""Reads the tables of our Markdown pages, so that tests can hold them against the code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Table:
    """One table: the heading above it, and its rows by column."""

    heading: str
    rows: list[dict[str, str]]

    def column(self, name: str) -> list[str]:
        """A column from top to bottom."""
        return [row[name] for row in self.rows]


def tables(page: str) -> list[Table]:
    """The tables of a page of the repository. Code marks are taken off the cells."""
    found: list[Table] = []
    heading, header = "", list[str]()
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        if not line.startswith("|"):
            header = []
            continue
        cells = [_bare(cell) for cell in line.strip()[1:-1].split("|")]
        if not header:
            header = cells
            found.append(Table(heading, []))
        elif set("".join(cells)) != {"-"}:
            found[-1].rows.append(dict(zip(header, cells, strict=True)))
    return found


def _bare(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1] if cell.startswith("`") and cell.endswith("`") else cell


def default(field: msgspec.structs.FieldInfo) -> str:
    """A field's default as our pages write it: JSON, ``none`` for null, or ``required``."""
    if field.required:
        return "required"
    value: Any = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None:
        return "none"
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else json.dumps(value)


def kind(field: msgspec.structs.FieldInfo) -> str:
    """A field's type as our pages write it."""
    return _kind(inspect.type_info(field.type))


def _kind(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _kind(info.type)
        case inspect.UnionType():
            return " or ".join(_kind(one) for one in info.types)
        case inspect.ListType():
            return f"list of {_kind(info.item_type)}"
        case inspect.TupleType():
            return f"({', '.join(_kind(one) for one in info.item_types)})"
        case inspect.DictType():
            return f"object of {_kind(info.value_type)}"
        case inspect.StructType():
            return info.cls.__name__
        case inspect.LiteralType():
            return " or ".join(json.dumps(value) for value in info.values)
    return _PLAIN[type(info)]


_PLAIN: dict[type, str] = {
    inspect.StrType: "text",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
    inspect.NoneType: "null",
    inspect.AnyType: "anything",
    inspect.RawType: "anything",
    inspect.BytesType: "bytes",
}
