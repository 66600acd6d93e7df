"""One settings table: values of several sources against the Struct that describes them.

Each key is converted by itself, so that an error can name the one place that is wrong: the file
and key, or the environment variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, inspect
from msgspec.structs import FieldInfo

from patchbay.errors import SettingsError

T = TypeVar("T", bound=Struct)

_SECRET: Final = ("password", "secret", "token", "uri")
"""Keys with such a word in their name: what they were set to is not repeated in an error."""

_STRUCTURED: Final = (
    inspect.CollectionType,
    inspect.TupleType,
    inspect.DictType,
    inspect.StructType,
    inspect.AnyType,
)


class Given(Struct, frozen=True):
    """A value as somebody set it.

    ``source`` is what to name in an error. ``text``: it came as a string and has to be understood
    by the type of its key, lists and tables as JSON.
    """

    source: str
    value: Any
    text: bool = False


def build(name: str, kind: type[T], given: Mapping[str, Given]) -> T:
    """The table ``name`` of type ``kind``.

    Raises SettingsError for a wrong, unknown or missing key.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key, one in given.items():
        if key not in fields:
            raise SettingsError(f"{one.source}: unknown key{hint(key, fields)}")
    for key, field in fields.items():
        if field.required and key not in given:
            raise SettingsError(f"[{name}] {key}: missing")
    values = {key: _convert(fields[key], one) for key, one in given.items()}
    try:
        return kind(**values)
    except ValueError as error:  # what a __post_init__ says of keys that contradict each other
        raise SettingsError(f"[{name}]: {error}") from error


def hint(wrong: str, known: Iterable[str]) -> str:
    """`` (did you mean port?)`` for a name that is close to a known one, or nothing."""
    import difflib  # by those few who need it

    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _convert(field: FieldInfo, given: Given) -> Any:
    value = given.value
    lax = False
    options = _options(inspect.type_info(field.type))
    if given.text:
        value, lax = _understand(options, given)
    try:
        return msgspec.convert(value, field.type, strict=not lax)
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"{given.source}: {_expected(options, error)}{_shown(field.name, given)}"
        ) from error


def _understand(options: list[inspect.Type], given: Given) -> tuple[Any, bool]:
    """The value that a text stands for, and whether it is a text still (``5`` for a number)."""
    text = given.value
    if not text and any(isinstance(one, inspect.NoneType) for one in options):
        return None, False
    structured = any(isinstance(one, _STRUCTURED) for one in options)
    plain = any(isinstance(one, inspect.StrType) for one in options)
    if not structured or (plain and not text.startswith(("[", "{"))):
        return text, True
    try:
        return msgspec.json.decode(text), False
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(f"{given.source}: expected JSON: {error}") from error


def _options(info: inspect.Type) -> list[inspect.Type]:
    """The types that a value may have: a union taken apart."""
    if isinstance(info, inspect.Metadata):
        return _options(info.type)
    if isinstance(info, inspect.UnionType):
        return [option for one in info.types for option in _options(one)]
    return [info]


def _expected(options: list[inspect.Type], error: msgspec.ValidationError) -> str:
    """What msgspec says of a value, without what our caller says better."""
    said, _, place = str(error).replace("`", "").partition(" - at $")
    choices = [v for one in options if isinstance(one, inspect.LiteralType) for v in one.values]
    if choices and not place:
        said = f"expected one of {', '.join(str(choice) for choice in choices)}"
    said = said.partition(", got ")[0]
    return said[:1].lower() + said[1:] + (f" at {place}" if place else "")


def _shown(key: str, given: Given) -> str:
    return "" if any(word in key for word in _SECRET) else f", got {given.value!r}"
