"""compose.yaml says of every unit what it has to; no engine is needed to see that."""

from __future__ import annotations

import re

import pytest

from patchbay.services import DOMAIN, discover, units
from patchbay.settings import NOT_SETTINGS, Config
from tests.pages import ROOT

TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
FILES = sorted(ROOT.glob("compose*.yaml"))
UNITS = [(service, role) for service, role in units(discover(), discover())]


def block(service: str) -> str:
    """The lines of one service."""
    found = re.search(rf"^  {service}:.*\n((?:    .*\n|\n)+)", TEXT, re.MULTILINE)
    assert found, f"compose.yaml has no service {service}"
    return found.group(1)


def uid(service: str) -> int:
    found = re.search(r'user: "(\d+):\1"', block(service))
    assert found, f"{service}: no user of its own"
    return int(found.group(1))


@pytest.mark.parametrize("unit", [f"{service.name}-{role}" for service, role in UNITS])
def test_a_unit_owns_its_password_and_no_other_unit_does(unit: str) -> None:
    assert f"command: [run, {unit.replace('-', '.', 1)}]" in block(unit)
    owners = dict(re.findall(r"--owner ([\w/-]+)=(\d+)", TEXT))
    assert int(owners[f"{unit}-compose"]) == uid(unit)
    service, _, role = unit.partition("-")
    if role == DOMAIN:
        assert int(owners[f"store/{service}"]) == uid(unit)
        assert f"PATCHBAY_STORE__USERNAME: {service}" in block(unit)


def test_no_two_units_are_the_same_user() -> None:
    uids = [uid(f"{service.name}-{role}") for service, role in UNITS]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("unit", [f"{service.name}-{role}" for service, role in UNITS])
def test_what_a_unit_keeps_is_in_a_volume_of_its_own(unit: str) -> None:
    service, _, role = unit.partition("-")
    settings = (ROOT / f"svc-{service}/src/patchbay_{service}/edge").glob(f"{role}.py")
    sources = [ROOT / f"svc-{service}/src/patchbay_{service}/{role}.py", *settings]
    keeps = any("unit.state_dir" in one.read_text() for one in sources if one.exists())
    mounted = f'"{unit}:/var/lib/patchbay/units"' in block(unit)
    assert mounted == keeps
    assert not mounted or re.search(rf"^  {unit}:$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_variable_is_a_setting_or_known_to_be_none(file: object) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in FILES if path == file)
    variables = set(re.findall(r"\$\{(\w+)", text))
    given = {name: "1" for name in variables if "__" in name}
    given = {name: "info" if name.endswith("LOG_LEVEL") else one for name, one in given.items()}
    lists = ("COMBINATORS", "HOSTS")
    given = {name: "[]" if name.endswith(lists) else one for name, one in given.items()}
    Config.read(None, given, discover())
    assert variables - set(given) <= NOT_SETTINGS


def test_what_is_no_setting_stands_in_the_page_of_containers() -> None:
    page = (ROOT / "docs/containers.md").read_text(encoding="utf-8")
    text = "".join(path.read_text(encoding="utf-8") for path in FILES)
    for name in set(re.findall(r"\$\{(PATCHBAY_(?!\w*__)\w+)", text)):
        assert f"`{name}`" in page, name
