"""The settings of the mesh, and where its port is."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.errors import SettingsError
from patchbay.services import discover, resolve
from patchbay.settings import Config
from patchbay_mesh.settings import DEMO_LINK, MeshSettings, serial_port


def read(tmp_path: Path, **environ: str) -> Config:
    state = {"PATCHBAY_RUNTIME__STATE_DIR": str(tmp_path)}
    return Config.read(None, {**state, **environ}, discover())


def test_without_a_name_there_is_no_port_and_in_a_demo_the_simulated_one(tmp_path: Path) -> None:
    assert serial_port(read(tmp_path)) is None
    demo = read(tmp_path, PATCHBAY_RUNTIME__DEMO="true")
    assert serial_port(demo) == str(tmp_path / DEMO_LINK)


def test_a_port_that_is_named_is_the_port(tmp_path: Path) -> None:
    config = read(tmp_path, PATCHBAY_RUNTIME__DEMO="true", PATCHBAY_MESH__SERIAL="/dev/ttyUSB0")
    assert serial_port(config) == "/dev/ttyUSB0"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ESCAPE_XOR", "256"),
        ("TX_FRAMING", "dots"),
        ("GET_ORDER", "both"),
        ("SHARE_GROUP", "mesh"),
        ("HISTORY_LENGTH", "-1"),
        ("ACTIVE_TIMEOUT_S", "0"),
        ("SERIALS", "/dev/ttyUSB0"),
    ],
)
def test_a_wrong_setting_is_an_error_that_names_it(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(SettingsError, match=key):
        read(tmp_path, **{f"PATCHBAY_MESH__{key}": value})


def test_everything_that_the_service_names_is_there() -> None:
    service = discover()["mesh"]
    assert resolve(service.settings) is MeshSettings
    for role in service.roles:
        assert callable(resolve(service.function(role)))
        assert role in service.rights
    assert service.demo is not None
    assert service.cli is not None
    assert callable(resolve(service.demo))
    assert resolve(service.cli)
    assert set(service.ports.values()) <= set(MeshSettings.__struct_fields__)
