"""One table against the Struct that describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from patchbay.errors import SettingsError
from patchbay.tables import Given, build


class Pump(Struct, frozen=True, forbid_unknown_fields=True):
    gpio: int
    drink: str


class Sample(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port: Annotated[int, Meta(ge=0, le=65_535)] = 5000
    idle_s: float = 600.0
    simulate: bool = False
    serial: str | None = None
    speed: int | None = None
    level: Literal["low", "high"] = "low"
    nodes: list[str] = []
    pumps: list[Pump] = []
    sizes: dict[str, float] = {}
    either: str | list[str] = ""
    api_token: int = 0
    none: None = None


class Checked(Struct, frozen=True, kw_only=True):
    low: int
    high: int = 10

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


def text(value: str) -> Given:
    return Given("PATCHBAY_SAMPLE__KEY", value, text=True)


def filed(value: Any) -> Given:
    return Given("patchbay.toml: [sample] key", value)


@pytest.mark.parametrize(
    ("key", "said", "meant"),
    [
        ("port", "5001", 5001),
        ("idle_s", "0.5", 0.5),
        ("idle_s", "3", 3.0),
        ("simulate", "true", True),
        ("simulate", "0", False),
        ("serial", "/dev/ttyUSB0", "/dev/ttyUSB0"),
        ("serial", "5", "5"),
        ("serial", "[not json", "[not json"),
        ("serial", "", None),
        ("speed", "", None),
        ("speed", "9600", 9600),
        ("level", "high", "high"),
        ("nodes", '["a", "b"]', ["a", "b"]),
        ("pumps", '[{"gpio": 4, "drink": "rum"}]', [Pump(4, "rum")]),
        ("sizes", '{"small": 0.2}', {"small": 0.2}),
        ("either", "a", "a"),
        ("either", '["a"]', ["a"]),
        ("none", "", None),
    ],
)
def test_a_text_is_understood_by_the_type_of_its_key(key: str, said: str, meant: object) -> None:
    assert getattr(build("sample", Sample, {key: text(said)}), key) == meant


@pytest.mark.parametrize(
    ("key", "given", "complaint"),
    [
        (
            "port",
            text("abc"),
            'PATCHBAY_SAMPLE__KEY: must be an integer from 0 to 65535, got "abc"',
        ),
        ("port", text(""), 'PATCHBAY_SAMPLE__KEY: must be an integer from 0 to 65535, got ""'),
        (
            "port",
            text("70000"),
            'PATCHBAY_SAMPLE__KEY: must be an integer from 0 to 65535, got "70000"',
        ),
        (
            "port",
            filed("5000"),
            'patchbay.toml: [sample] key: must be an integer from 0 to 65535, got "5000"',
        ),
        (
            "port",
            filed(-1),
            "patchbay.toml: [sample] key: must be an integer from 0 to 65535, got -1",
        ),
        ("simulate", text("maybe"), 'PATCHBAY_SAMPLE__KEY: must be true or false, got "maybe"'),
        (
            "level",
            filed("mid"),
            'patchbay.toml: [sample] key: must be one of high, low, got "mid"',
        ),
        ("nodes", filed([1]), "patchbay.toml: [sample] key: [0] must be text, got 1"),
        (
            "pumps",
            filed([{"gpio": 4, "drnk": "rum"}]),
            "patchbay.toml: [sample] key: unknown field drnk in [0]",
        ),
        ("serial", filed(5), "patchbay.toml: [sample] key: must be text or null, got 5"),
        ("api_token", text("tell nobody"), "PATCHBAY_SAMPLE__KEY: must be an integer"),
        ("prot", filed(1), "patchbay.toml: [sample] key: unknown key (did you mean port?)"),
        ("zzz", text("1"), "PATCHBAY_SAMPLE__KEY: unknown key"),
        ("none", text("group"), 'PATCHBAY_SAMPLE__KEY: must be null, got "group"'),
    ],
)
def test_a_wrong_value_is_named_with_its_place(key: str, given: Given, complaint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build("sample", Sample, {key: given})
    assert str(caught.value) == complaint


def test_a_list_that_is_not_json_is_an_error() -> None:
    with pytest.raises(SettingsError, match="PATCHBAY_SAMPLE__KEY: must be JSON: "):
        build("sample", Sample, {"nodes": text("a,b")})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        build("checked", Checked, {})
    assert str(caught.value) == "[checked] low: missing"


def test_what_a_table_says_of_itself_is_an_error_of_the_settings() -> None:
    assert build("checked", Checked, {"low": filed(3)}) == Checked(low=3)
    with pytest.raises(SettingsError) as caught:
        build("checked", Checked, {"low": filed(11)})
    assert str(caught.value) == "[checked]: low is above high"
