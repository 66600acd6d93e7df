"""Why a value is invalid, in words: the field, what is accepted, and what was there.

    Expected `int | float`, got `bool` - at `$.cup_size`   cup_size must be a number, got true
    Expected `int` >= 1 - at `$.minutes`                   minutes must be an integer from 1 to
                                                           525600, got 0
    Object missing required field `color`                  color is required
    Object contains unknown field `colour`                 unknown field colour

msgspec stops at the first fault, and its text has the place but neither the value nor the other
bound. Both are looked up: the value in what was decoded, what is accepted in the type. Values are
cut and printable, since they go into logs, terminals and web pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, inspect

from patchbay.accepted import accepted, options
from patchbay.printable import printable

T = TypeVar("T")

SHOWN_CHARS: Final = 40
"""Characters of a value that an error repeats: enough to recognize it."""

MAX_LOOKED_AT: Final = 65_536
"""Bytes of a payload that is decoded once more to show the value: garbage must cost us little."""

_PLACE = re.compile(r" - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MALFORMED = re.compile(r"(?:JSON|MessagePack data) is malformed: (?P<why>.*) \(byte (?P<at>\d+)\)")
_VALUE = re.compile(
    r"(?:Expected `|Invalid (?:enum value|value|UUID|decimal string|epoch timestamp"
    r"|ISO8601 duration|RFC3339 encoded|base64 encoded|MessagePack timestamp)"
    r"|(?:Integer value|Number|Duration is|Timestamp is) out of range).*",
    re.DOTALL,
)
_TYPES = re.compile(r"Expected `(?P<types>[^`]*)`, got `(?P<got>[^`]*)`")
_BOUND = re.compile(r"Expected `(?P<type>\w+)` (?P<sign>[<>]=?) (?P<bound>.*)")
_LENGTH = re.compile(r"Expected `(?P<type>\w+)` of length (?P<sign>[<>]=) (?P<bound>\d+)")

_NAMES: Final = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "null": "null",
    "object": "an object",
    "array": "an array",
    "bytes": "base64 text",
    "datetime": "an RFC 3339 time",
    "date": "a date (YYYY-MM-DD)",
    "time": "a time of day",
    "duration": "an ISO 8601 duration",
    "uuid": "a UUID",
    "decimal": "a decimal number",
}
_WITH_FIELDS: Final = (
    inspect.StructType,
    inspect.TypedDictType,
    inspect.DataclassType,
    inspect.NamedTupleType,
)
_SIGNS: Final = {">=": "of at least", "<=": "of at most", ">": "above", "<": "below"}
_UNITS: Final = {"str": "characters", "array": "items", "object": "fields", "bytes": "bytes"}


def convert(value: Any, kind: type[T], **how: Any) -> T:
    """As `msgspec.convert`; the `msgspec.ValidationError` that it raises is in words."""
    try:
        converted: T = msgspec.convert(value, kind, **how)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(explain(error, kind, value, **how)) from None
    return converted


def explain(
    error: Exception,
    kind: Any = None,
    value: Any = UNSET,
    *,
    whole: str = "",
    secret: bool = False,
    **how: Any,
) -> str:
    """What is wrong, in words, of an error that msgspec raised for ``value`` as a ``kind``.

    Without them, what its text has. ``whole`` names the value itself (``the body``). ``secret``:
    the value is not repeated. ``how``: as it was given to `msgspec.convert`. Any other text, such
    as that of a ``__post_init__``, stays as it is, printable.
    """
    if isinstance(error, RecursionError):
        return "nested too deep"
    if isinstance(error, UnicodeError):
        return "text that is not UTF-8"
    text = str(error)
    if found := _MALFORMED.fullmatch(text):
        return f"{found['why'].replace('`', '')} at byte {found['at']}"
    if text == "Input data was truncated":
        return "it ends too early"
    place = _PLACE.search(text)
    problem = text[: place.start()] if place else text
    path, types, found_value = _follow(place["path"] if place else "", kind, value, how)
    where = f"a key of {path or whole or 'the object'}" if place and place["key"] else path
    if found := _MISSING.fullmatch(problem):
        return f"{path}.{found['name']} is required" if path else f"{found['name']} is required"
    if found := _UNKNOWN.fullmatch(problem):
        return f"unknown field {cut(found['name'])}{f' in {path}' if path else ''}"
    if not _VALUE.fullmatch(problem):
        return f"{path}: {printable(problem)}" if path else printable(problem)
    subject = where or whole
    wanted = accepted(types, problem) if types and not (place and place["key"]) else ""
    if not wanted:
        wanted, found_value = _without_type(problem), UNSET
    got = "" if secret or found_value is UNSET else f", got {shown(found_value)}"
    if not got and not secret and (named := _TYPES.fullmatch(problem)):
        got = f", got {_named(named['got'])}"
    return f"{subject} must be {wanted}{got}".lstrip()


def explain_payload(error: Exception, kind: Any, payload: bytes | str, codec: Any) -> str:
    """`explain` of a payload that ``codec`` (`msgspec.json` or `msgspec.msgpack`) has refused."""
    value: Any = UNSET
    if isinstance(error, msgspec.ValidationError) and len(payload) <= MAX_LOOKED_AT:
        try:
            value = codec.decode(payload)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            value = UNSET  # the fault came before the end of what can be decoded
    return explain(error, kind, value)


def shown(value: Any) -> str:
    """A value as an error repeats it: as JSON has it, cut, printable."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return cut(repr(value)) if abs(value) < 10**SHOWN_CHARS else "a larger number"
        case str() if len(value) > SHOWN_CHARS:
            return f'"{cut(value)}" ({len(value)} characters)'
        case str():
            return f'"{printable(value)}"'
        case bytes() | bytearray():
            return f"{len(value)} bytes"
        case dict():
            return f"an object of {len(value)} fields"
        case list() | tuple():
            return f"an array of {len(value)} items"
    return cut(type(value).__name__)


def cut(text: str) -> str:
    """Text of others as an error repeats it."""
    return printable(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}...")


def _follow(
    path: str, kind: Any, value: Any, how: dict[str, Any]
) -> tuple[str, list[inspect.Type], Any]:
    """A place as people write it, and the types and the value that are there, if known."""
    name = ""
    types = options(inspect.type_info(kind)) if kind is not None else []
    for step in _STEP.finditer(path):
        if step["name"] is not None:
            key: Any = step["name"]
            types = _of_field(types, key, value)
        elif step["index"] is not None:
            key = int(step["index"])
            types = _of_item(types, key)
        else:
            types, key = _of_any(types, value, how)
        if key is not None:
            value = _at(value, key)
        name += _written(step, key, first=not name)
    return name, types, value


def _written(step: re.Match[str], key: Any, *, first: bool) -> str:
    if isinstance(key, str):
        return cut(key) if first else f".{cut(key)}"
    return step.group() if step["index"] is not None else "[...]"


def _at(value: Any, key: Any) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return UNSET


def _of_field(types: list[inspect.Type], name: str, value: Any) -> list[inspect.Type]:
    structs = [one for one in types if isinstance(one, inspect.StructType)]
    tags = tuple(one.tag for one in structs if one.tag_field == name)
    if tags:
        return [inspect.LiteralType(tags)]
    for one in types:
        if len(structs) > 1 and one in structs and _at(value, one.tag_field) != one.tag:
            continue
        if isinstance(one, _WITH_FIELDS):
            for field in one.fields:
                if field.encode_name == name:
                    return options(field.type)
    return []


def _of_item(types: list[inspect.Type], index: int) -> list[inspect.Type]:
    for one in types:
        if isinstance(one, inspect.TupleType) and index < len(one.item_types):
            return options(one.item_types[index])
        if isinstance(one, inspect.CollectionType):
            return options(one.item_type)
        if isinstance(one, inspect.StructType) and one.array_like and index < len(one.fields):
            return options(one.fields[index].type)
    return []


def _of_any(
    types: list[inspect.Type], value: Any, how: dict[str, Any]
) -> tuple[list[inspect.Type], Any]:
    """The value in a dictionary that is at fault, of which msgspec does not tell the key."""
    for one in types:
        if isinstance(one, inspect.DictType):
            inner = options(one.value_type)
            items = value.items() if isinstance(value, dict) else ()
            return inner, next((key for key, item in items if not _fits(inner, item, how)), None)
        if isinstance(one, inspect.CollectionType):
            return options(one.item_type), None
    return [], None


def _fits(types: list[inspect.Type], value: Any, how: dict[str, Any]) -> bool:
    """Does a value look like one of these types? By its class and bounds: for plain values."""
    return any(_FITS.get(type(one), _anything)(one, value) for one in types)


def _within(one: Any, value: Any) -> bool:
    return not (
        (one.ge is not None and value < one.ge)
        or (one.gt is not None and value <= one.gt)
        or (one.le is not None and value > one.le)
        or (one.lt is not None and value >= one.lt)
    )


def _is_int(one: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _within(one, value)


def _is_float(one: Any, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _within(one, value)


def _is_str(one: Any, value: Any) -> bool:
    return (
        isinstance(value, str)
        and len(value) >= (one.min_length or 0)
        and (one.max_length is None or len(value) <= one.max_length)
        and (one.pattern is None or re.search(one.pattern, value) is not None)
    )


def _anything(one: Any, value: Any) -> bool:
    return not isinstance(value, bool | int | float | str)


_FITS: Final[dict[type, Callable[[Any, Any], bool]]] = {
    inspect.IntType: _is_int,
    inspect.FloatType: _is_float,
    inspect.StrType: _is_str,
    inspect.BoolType: lambda _one, value: isinstance(value, bool),
    inspect.NoneType: lambda _one, value: value is None,
    inspect.LiteralType: lambda one, value: value in one.values,
    inspect.AnyType: lambda _one, _value: True,
}


def _without_type(problem: str) -> str:
    """What is accepted, as far as msgspec's text tells it."""
    if found := _TYPES.fullmatch(problem):
        return _named(found["types"])
    if found := _LENGTH.fullmatch(problem):
        unit = _UNITS.get(found["type"], "elements")
        return f"{_named(found['type'])} {_SIGNS[found['sign']]} {found['bound']} {unit}"
    if found := _BOUND.fullmatch(problem):
        return f"{_named(found['type'])} {_SIGNS[found['sign']]} {found['bound']}"
    said = printable(problem.replace("`", ""))
    return f"valid ({cut(said[:1].lower() + said[1:])})"


def _named(types: str) -> str:
    names = types.split(" | ")
    if "float" in names and "int" in names:
        names.remove("int")
    return " or ".join(_NAMES.get(name, name) for name in names)
