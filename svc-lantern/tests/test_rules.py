"""What becomes of the state: no loop, no broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from patchbay.errors import Rejected
from patchbay_lantern import rules
from patchbay_lantern.commands import COMMANDS
from patchbay_lantern.messages import Commanded, Order, Set
from patchbay_lantern.rules import Lanterns

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def obey(lanterns: Lanterns, *orders: Order, remember: int = 100) -> Lanterns:
    for number, order in enumerate(orders):
        lanterns, _ = rules.obey(
            lanterns,
            order,
            COMMANDS,
            by="test",
            at=NOW + timedelta(seconds=number),
            epoch="e",
            remember=remember,
        )
    return lanterns


def body(text: str) -> Set:
    return msgspec.json.decode(text, type=Set)


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ('{"command": "COLOR", "value": "#FF0000"}', [Order("COLOR", "ff0000")]),
        ('{"command": "ON", "by": "me"}', [Order("ON")]),
        ('{"state": "ON"}', [Order("ON")]),
        ('{"state": "OFF"}', [Order("OFF")]),
        ('{"color": {"r": 0, "g": 171, "b": 255}}', [Order("COLOR", "00abff")]),
        (
            '{"state": "ON", "color": {"r": 255, "g": 0, "b": 0}}',
            [Order("COLOR", "ff0000"), Order("ON")],
        ),
        (
            '{"color": {"r": 1, "g": 2, "b": 3}, "state": "OFF"}',
            [Order("COLOR", "010203"), Order("OFF")],
        ),
        (
            '{"state": "ON", "brightness": 128, "transition": 2.5, "effect": "rainbow",'
            ' "flash": "short", "color_temp": 153, "white": 255}',
            [Order("ON")],
        ),
    ],
)
def test_both_forms_of_a_command_are_understood(text: str, orders: list[Order]) -> None:
    assert rules.orders_of(body(text), COMMANDS) == orders


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{}", "bad_request"),
        ('{"value": "ff0000"}', "bad_request"),
        ('{"command": "ON", "state": "ON"}', "bad_request"),
        ('{"command": "ON", "color": {"r": 1, "g": 2, "b": 3}}', "bad_request"),
        ('{"command": "ON", "brightness": 5}', "bad_request"),
        ('{"brightness": 5}', "bad_request"),
        ('{"command": "BLINK"}', "unknown_command"),
        ('{"command": "COLOR", "value": 1}', "bad_value"),
    ],
)
def test_what_means_nothing_is_refused_with_its_code(text: str, code: str) -> None:
    with pytest.raises(Rejected) as caught:
        rules.orders_of(body(text), COMMANDS)
    assert caught.value.code == code


def test_a_field_of_neither_form_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `dim`"):
        body('{"state": "ON", "dim": 5}')


def test_before_the_first_command_nothing_is_known() -> None:
    state = rules.state(Lanterns(), COMMANDS, "e")
    assert (state.on, state.color, state.since, state.by, state.orders) == (
        None,
        None,
        None,
        None,
        [],
    )


def test_a_command_changes_the_state_and_is_told() -> None:
    lanterns, told = rules.obey(
        Lanterns(), Order("COLOR", "ff0000"), COMMANDS, by="me", at=NOW, epoch="e", remember=9
    )
    assert told == Commanded(command="COLOR", value="ff0000", by="me", epoch="e", rev=1)
    state = rules.state(obey(lanterns, Order("ON")), COMMANDS, "e")
    assert (state.on, state.color, state.rev, state.by) == (True, "ff0000", 2, "test")
    assert state.since == "2026-11-20T12:00:00.000Z"
    assert state.orders == [Order("COLOR", "ff0000"), Order("ON")]


def test_the_history_is_bounded_and_shown_newest_first() -> None:
    lanterns = obey(Lanterns(), *[Order("ON"), Order("OFF")] * 10, remember=3)
    assert [one.rev for one in lanterns.history] == [18, 19, 20]
    shown = rules.given(lanterns, 2)
    assert [(one.rev, one.command) for one in shown] == [(20, "OFF"), (19, "ON")]
    assert obey(Lanterns(), Order("ON"), remember=0).history == []
