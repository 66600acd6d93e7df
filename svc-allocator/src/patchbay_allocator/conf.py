"""The seed's files, as its users have them.

    conf.conf           ClientName, ServerAddr, ServerPort: a Chromebook
    data.dat            line 1 the customer's name, line 2 the colour
    allocatemgr.conf    ColorCombinator1Addr, ColorCombinator1Port, ...: the server
    color_table.json    the colours that a combinator can mix

Conf files are configparser's: ``key: value`` or ``key = value``, in a section or in none. All are
UTF-8; a BOM, CR and white space around a value are dropped.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import msgspec
from msgspec import Struct

from patchbay_allocator.wire.json_objects import AllocatorError

_COMBINATOR = re.compile(r"colorcombinator([0-9]+)(addr|port)")
_CODE = re.compile(r"[0-9A-F]{6}")
_IGNORED = ("signaladdr", "signalport")
"""On their way out in the seed."""

_HIGHEST_PORT = 65_535


class ConfError(AllocatorError):
    """A file that cannot be used; the text names it and what is wrong."""


class Chromebook(Struct, frozen=True):
    """What ``conf.conf`` says."""

    client: str
    host: str
    port: int


def read_conf(path: Path) -> Chromebook:
    """Read a ``conf.conf``. Raises ConfError."""
    values = _values(path)
    return Chromebook(
        _needed(path, values, "ClientName"),
        _needed(path, values, "ServerAddr"),
        _port(path, "ServerPort", _needed(path, values, "ServerPort")),
    )


def read_data(path: Path) -> tuple[str, str]:
    """Read a ``data.dat``: the customer's name and the colour code. Raises ConfError."""
    lines = [line.strip() for line in _text(path).splitlines()]
    if len(lines) < 2 or not lines[0] or not lines[1]:
        raise ConfError(f"{path}: line 1 is the name, line 2 the colour")
    return lines[0], lines[1]


def read_combinators(path: Path) -> list[str]:
    """The addresses (``host:port``) of an ``allocatemgr.conf``, number 1 first.

    Raises ConfError, also for numbers that do not begin at 1 or have a gap.
    """
    values = _values(path)
    found: dict[int, dict[str, str]] = {}
    for key, value in values.items():
        match = _COMBINATOR.fullmatch(key)
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = value
        elif key not in _IGNORED:
            raise ConfError(f"{path}: {key}: unknown key")
    if sorted(found) != list(range(1, len(found) + 1)):
        raise ConfError(f"{path}: combinators are numbered 1, 2, ... without a gap")
    addresses = []
    for number in sorted(found):
        for part in ("addr", "port"):
            if not found[number].get(part):
                raise ConfError(f"{path}: ColorCombinator{number}{part.title()}: missing")
        host, port = found[number]["addr"], found[number]["port"]
        checked = _port(path, f"ColorCombinator{number}Port", port)
        addresses.append(f"[{host}]:{checked}" if ":" in host else f"{host}:{checked}")
    return addresses


def read_table(path: Path) -> list[str]:
    """The colours of a ``color_table.json``, ``{"EF9595": [20, 80, 0, 0], ...}``; keys that are no
    colours, which nobody can send, are left out. Raises ConfError."""
    try:
        table = msgspec.json.decode(_text(path), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfError(f"{path}: must be a JSON object of colours: {error}") from error
    codes = [code for code in table if _CODE.fullmatch(code)]
    if not codes:
        raise ConfError(f"{path}: no key is a colour, RRGGBB in hexadecimal")
    return codes


def toml(addresses: list[str], codes: list[str] | None = None) -> str:
    """The table ``[allocator]`` of patchbay.toml with these combinators, and with these colours as
    the palette of each."""
    text = f"[allocator]\ncombinators = {_listed(addresses)}\n"
    if codes is not None:
        text += "\n[allocator.palettes]\n"
        text += "".join(f"{number} = {_listed(codes)}\n" for number in range(1, len(addresses) + 1))
    return text


def _listed(texts: list[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"


def _values(path: Path) -> dict[str, str]:
    """Keys, lower case, and values of all sections."""
    text = _text(path)
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string("[DEFAULT]\n" + text)
    except configparser.Error as error:
        raise ConfError(f"{path}: {' '.join(str(error).split())}") from error
    values = dict(parser.defaults())
    for section in parser.sections():
        values.update(parser[section])
    return {key: value.strip() for key, value in values.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfError(f"{path}: not UTF-8") from error


def _needed(path: Path, values: dict[str, str], key: str) -> str:
    value = values.get(key.lower(), "")
    if not value:
        raise ConfError(f"{path}: {key}: missing")
    return value


def _port(path: Path, key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _HIGHEST_PORT):
        raise ConfError(f"{path}: {key} must be 1 to {_HIGHEST_PORT}, got {text}")
    return int(text)
