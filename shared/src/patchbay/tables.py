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

from patchbay.accepted import options
from patchbay.errors import SettingsError
from patchbay.validation import explain

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
    kinds = options(inspect.type_info(field.type))
    if given.text:
        value, lax = _understand(kinds, given)
    try:
        return msgspec.convert(value, field.type, strict=not lax)
    except msgspec.ValidationError as error:
        secret = any(word in field.name for word in _SECRET)
        words = explain(error, field.type, value, secret=secret)
        raise SettingsError(f"{given.source}: {words}") from error


def _understand(kinds: list[inspect.Type], given: Given) -> tuple[Any, bool]:
    """The value that a text stands for, and whether it is a text still (``5`` for a number)."""
    text = given.value
    if not text and any(isinstance(one, inspect.NoneType) for one in kinds):
        return None, False
    structured = any(isinstance(one, _STRUCTURED) for one in kinds)
    plain = any(isinstance(one, inspect.StrType) for one in kinds)
    if not structured or (plain and not text.startswith(("[", "{"))):
        return text, True
    try:
        return msgspec.json.decode(text), False
    except (msgspec.DecodeError, RecursionError) as error:
        raise SettingsError(f"{given.source}: must be JSON: {explain(error)}") from error
