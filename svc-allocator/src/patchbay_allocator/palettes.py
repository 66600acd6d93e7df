"""Which combinator can mix which colour. Pure.

A combinator of the seed's project looks a colour up in a table, and ends with an error if it is not
there. So a job goes only to a combinator that has its colour in its palette; one without a palette
mixes every colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from patchbay_allocator.messages import Rejected, color

Palette = frozenset[str] | None
"""The colours that a combinator can mix, as `messages.color` writes them. None: every one."""

SHOWN: Final = 20
"""Colours that an error lists: the table of the seed's project has 16."""


class Palettes:
    """The palettes of all combinators."""

    def __init__(self, devices: Iterable[int], palettes: Mapping[str, Iterable[str]]) -> None:
        """``palettes``: by number as text, as the settings have them."""
        self._of: dict[int, Palette] = {}
        for device in devices:
            codes = palettes.get(str(device))
            self._of[device] = None if codes is None else frozenset(map(color, codes))
        found = list(self._of.values())
        known = [one for one in found if one is not None]
        self.all: Palette = (
            frozenset().union(*known) if found and len(known) == len(found) else None
        )
        """The colours that any combinator can mix."""
        self.distinct: set[Palette] = {*found}

    def of(self, device: int) -> Palette:
        """The palette of a combinator."""
        return self._of.get(device)

    def has(self, device: int, code: str) -> bool:
        """Can this combinator mix this colour?"""
        return includes(self.of(device), code)

    def complaint(self, code: str) -> str:
        """Why no combinator can mix this colour; or empty."""
        if includes(self.all, code):
            return ""
        return f"no combinator can mix {code}: {_listed(self.all)}"

    def need_any(self, code: str) -> None:
        """Raises Rejected, bad_color, if no combinator can mix this colour."""
        if why := self.complaint(code):
            raise Rejected("bad_color", why)

    def need(self, device: int, code: str) -> None:
        """Raises Rejected, bad_color, if this combinator cannot mix this colour."""
        if not self.has(device, code):
            listed = _listed(self.of(device))
            raise Rejected("bad_color", f"combinator {device} cannot mix {code}: {listed}")


def includes(palette: Palette, code: str) -> bool:
    """Is this colour in this palette?"""
    return palette is None or code in palette


def spellings(palette: Iterable[str]) -> list[str | int]:
    """The forms in which these colours are found in documents, the seed's too."""
    forms: list[str | int] = []
    for code in palette:
        forms += [code, code.lower(), f"#{code}", f"#{code.lower()}"]
        if code.isdigit():
            forms.append(int(code))
    return forms


def _listed(palette: Palette) -> str:
    codes = sorted(palette or ())
    if not codes:
        return "its palette is empty"
    more = len(codes) - SHOWN
    return f"it must be {', '.join(codes[:SHOWN])}{f' or one of {more} others' * (more > 0)}"
