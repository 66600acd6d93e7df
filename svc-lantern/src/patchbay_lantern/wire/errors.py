"""What can go wrong on the lanterns' wires.

LanternError
└── WireError     what came, or is to go out, is not of the wire's form
"""

from __future__ import annotations


class LanternError(Exception):
    """The root of every error that this distribution raises on purpose."""


class WireError(LanternError):
    """Not of the wire's form. ``code`` is stable and for programs, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
