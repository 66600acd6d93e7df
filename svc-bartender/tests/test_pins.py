"""Which driver is taken, and that nothing knows RPi.GPIO off a Pi."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from patchbay.errors import SettingsError
from patchbay.testing import PATIENCE_S
from patchbay_bartender.edge.pins import choose


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """What a Raspberry Pi says of itself."""
    model = tmp_path / "model"
    model.write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    return model


def name(
    gpio: Literal["auto", "rpi", "simulated"], model: Path, tmp_path: Path, demo: bool = False
) -> str:
    file = tmp_path / "pins"
    return choose(gpio, demo=demo, file=file, release=False, model=model).name


def test_auto_is_simulated_where_there_are_no_pins(tmp_path: Path) -> None:
    assert name("auto", tmp_path / "none", tmp_path) == "simulated"
    (tmp_path / "other").write_text("Some Other Board")
    assert name("auto", tmp_path / "other", tmp_path) == "simulated"


def test_auto_is_the_real_thing_on_a_pi_but_not_in_a_demo(
    tmp_path: Path, pi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "RPi.GPIO", ModuleType("RPi.GPIO"))
    assert name("auto", pi, tmp_path) == "rpi"
    assert name("auto", pi, tmp_path, demo=True) == "simulated"
    assert name("simulated", pi, tmp_path) == "simulated"
    assert name("rpi", tmp_path / "none", tmp_path, demo=True) == "rpi"


def test_a_pi_without_the_library_does_not_only_seem_to_pour(
    tmp_path: Path, pi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "RPi.GPIO", None)
    with pytest.raises(SettingsError):
        name("auto", pi, tmp_path)


def test_nothing_imports_rpi_gpio_off_a_pi(tmp_path: Path) -> None:
    program = """
import importlib, pathlib, pkgutil, sys
import patchbay_bartender
from patchbay_bartender.edge.pins import choose
for module in pkgutil.walk_packages(patchbay_bartender.__path__, "patchbay_bartender."):
    importlib.import_module(module.name)
gpio = choose("auto", demo=False, file=pathlib.Path("pins"), release=False,
              model=pathlib.Path("none"))
gpio.setup([7], True)
print(sorted(name for name in sys.modules if name.split(".")[0] in ("RPi", "lgpio")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=PATIENCE_S,
    )
    assert done.stdout.strip() == "[]"
