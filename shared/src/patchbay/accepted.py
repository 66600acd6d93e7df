"""What a type accepts, in words: ``an integer from 1 to 525600``, ``one of high, low``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import inspect

_LARGEST: Final = str(2**53)
"""The bound of numbers that have no other. Who sent a text wants to know of the type only."""
_TYPES_DIFFER: Final = "`, got `"
_UNBOUNDED: Final = ("an integer", "a number")
_OUT_OF_RANGE: Final = ("Integer value out of range", "Number out of range")


def options(info: inspect.Type) -> list[inspect.Type]:
    """The types that a value may have: a union taken apart."""
    if isinstance(info, inspect.Metadata):
        return options(info.type)
    if isinstance(info, inspect.UnionType):
        return [option for one in info.types for option in options(one)]
    return [info]


def accepted(types: list[inspect.Type], problem: str = "") -> str:
    """What these types accept; empty if that is anything, or cannot be said.

    ``problem``: msgspec's own text, of a number that no integer of 64 bits holds.
    """
    floats = any(isinstance(one, inspect.FloatType) for one in types)
    found: list[str] = []
    for one in types:
        if floats and isinstance(one, inspect.IntType):
            continue  # a number is an integer, too
        said = _said(one)
        if not said:
            return ""
        if said not in found:
            found.append(said)
    if problem.startswith(_OUT_OF_RANGE):
        found = [f"{one} of 64 bits" if one in _UNBOUNDED else one for one in found]
    words = " or ".join(found)
    if _TYPES_DIFFER in problem:
        words = words.replace(f" from -{_LARGEST} to {_LARGEST}", "")
    return words.replace(_LARGEST, "2^53")


def _said(one: inspect.Type) -> str:
    return _WORDS.get(type(one), lambda _one: "")(one)


def _range(one: Any) -> str:
    low, high = one.ge, one.le
    words = ""
    if low is not None and high is not None:
        words = f" from {low} to {high}"
    elif low is not None:
        words = f" of at least {low}"
    elif high is not None:
        words = f" of at most {high}"
    if one.gt is not None:
        words += f" above {one.gt}"
    if one.lt is not None:
        words += f"{' and' if one.gt is not None else ''} below {one.lt}"
    return words + (f" that is a multiple of {one.multiple_of}" if one.multiple_of else "")


def _length(one: Any, unit: str) -> str:
    low, high = one.min_length or None, one.max_length
    if low is not None and high is not None:
        return f" of {low} {unit}" if low == high else f" of {low} to {high} {unit}"
    if low is not None:
        return f" of at least {low} {unit}"
    return "" if high is None else f" of at most {high} {unit}"


def _text(one: inspect.StrType) -> str:
    words = f"text{_length(one, 'characters')}"
    return words if one.pattern is None else f"{words} that matches {one.pattern}"


def _values(values: Any) -> str:
    names = [str(value) for value in values]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _fields_array(one: Any) -> str:
    least = sum(1 for field in one.fields if field.required)
    return f"an array of {least} to {len(one.fields)} items"


_ARRAY = "an array"
_WORDS: Final[dict[type, Callable[[Any], str]]] = {
    inspect.NoneType: lambda _one: "null",
    inspect.BoolType: lambda _one: "true or false",
    inspect.IntType: lambda one: f"an integer{_range(one)}",
    inspect.FloatType: lambda one: f"a number{_range(one)}",
    inspect.StrType: _text,
    inspect.BytesType: lambda one: f"base64 text{_length(one, 'bytes')}",
    inspect.ByteArrayType: lambda one: f"base64 text{_length(one, 'bytes')}",
    inspect.DateTimeType: lambda one: "an RFC 3339 time" + _zone(one),
    inspect.TimeType: lambda one: "a time of day" + _zone(one),
    inspect.DateType: lambda _one: "a date (YYYY-MM-DD)",
    inspect.TimeDeltaType: lambda _one: "an ISO 8601 duration",
    inspect.UUIDType: lambda _one: "a UUID",
    inspect.DecimalType: lambda _one: "a decimal number",
    inspect.EnumType: lambda one: _values(member.value for member in one.cls),
    inspect.LiteralType: lambda one: _values(one.values),
    inspect.ListType: lambda one: _ARRAY + _length(one, "items"),
    inspect.SetType: lambda one: _ARRAY + _length(one, "items"),
    inspect.FrozenSetType: lambda one: _ARRAY + _length(one, "items"),
    inspect.VarTupleType: lambda one: _ARRAY + _length(one, "items"),
    inspect.TupleType: lambda one: f"an array of {len(one.item_types)} items",
    inspect.NamedTupleType: _fields_array,
    inspect.DictType: lambda one: "an object" + _length(one, "fields"),
    inspect.TypedDictType: lambda _one: "an object",
    inspect.DataclassType: lambda _one: "an object",
    inspect.StructType: lambda one: _fields_array(one) if one.array_like else "an object",
}


def _zone(one: Any) -> str:
    if one.tz is None:
        return ""
    return " with a time zone" if one.tz else " without a time zone"
