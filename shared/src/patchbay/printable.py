"""Text of others, made safe to show: devices and people name things as they like."""

from __future__ import annotations

import re

_UNSAFE_IN_JSON = re.compile(r"[^\n\x20-\x7e]")


def printable(text: str) -> str:
    """The text with what would move a terminal's cursor, or reverse its text, spelled out."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def printable_json(text: str) -> str:
    """JSON with the same content, such characters as JSON's own escapes."""
    return _UNSAFE_IN_JSON.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found.group()
    if char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
