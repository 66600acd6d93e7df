"""The settings that would be dangerous are refused."""

from __future__ import annotations

import pytest

from patchbay.errors import SettingsError
from patchbay.services import discover
from patchbay.settings import Config
from patchbay_bartender.settings import BartenderSettings


def read(**given: str) -> BartenderSettings:
    environ = {f"PATCHBAY_BARTENDER__{key}": text for key, text in given.items()}
    return Config.read(None, environ, discover()).table("bartender", BartenderSettings)


def test_the_machine_is_the_seed_s() -> None:
    settings = read()
    assert settings.port == 8765
    assert settings.pins == [7, 11, 12, 13, 15, 16, 18, 22]
    assert settings.refill_times == [2, 2, 3, 3, 4, 4, 5, 5]
    assert settings.sec_per_liter == 213
    assert settings.active_low


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("PINS", "[7, 7, 12, 13, 15, 16, 18, 22]"),
        ("PINS", "[7, 11]"),
        ("PINS", "[7, 11, 12, 13, 15, 16, 18, 41]"),
        ("REFILL_TIMES", "[0, 2, 3, 3, 4, 4, 5, 5]"),
        ("SEC_PER_LITER", "0"),
        ("MAX_RUN_SECONDS", "1e9"),
        ("START_DEADLINE_S", "60"),
        ("WATCHDOG_S", "0.2"),
        ("GPIO", "pigpio"),
        ("BAR", "The Bar"),
        ("SHARE_GROUP", "bars"),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error_that_names_it(key: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"(?i){key}"):
        read(**{key: text})
