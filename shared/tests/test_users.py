"""Who is made, what is kept, and what mosquitto and mongosh are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchbay.access.directory import Directory
from patchbay.access.passwords import fits
from patchbay.access.users import Wanted, grants, make_users
from patchbay.errors import SettingsError
from patchbay.services import Rights, Service

GATE = Service(
    name="gate",
    settings="",
    roles={"edge": "", "domain": ""},
    rights={
        "edge": Rights(publish=("gate/<instance>/event/batch",), subscribe=("gate/+/desired",)),
        "domain": Rights(publish=("gate/+/desired",), subscribe=("gate/+/cmd/+",)),
    },
    collections=("gates",),
)
BELL = Service(name="bell", settings="", roles={"edge": ""}, rights={"edge": Rights()})
SERVICES = {"bell": BELL, "gate": GATE}
UNITS = ("gate-edge-pi1", "gate-domain-pi1", "bell-edge-pi1")


def make(directory: Directory, **wanted: tuple[str, ...]) -> list[str]:
    return make_users(directory, SERVICES, Wanted(**wanted))


def passwords(directory: Directory) -> dict[str, str]:
    lines = directory.read("mosquitto/passwords").splitlines()
    return dict(line.split(":", 1) for line in lines)


def test_each_user_is_made_once(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    new = make(directory, instances=UNITS, operators=("operator",), viewers=("viewer",))
    assert sorted(new) == [
        "operators/operator",
        "store/admin",
        "store/gate",
        "units/bell-edge-pi1",
        "units/gate-domain-pi1",
        "units/gate-edge-pi1",
        "viewers/viewer",
    ]
    assert make(directory, instances=UNITS, operators=("operator",)) == []


def test_the_second_time_no_file_changes(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, instances=UNITS, operators=("operator",))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    make(directory, instances=UNITS, operators=("operator",))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_user_who_was_made_before_stays_without_being_named_again(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, instances=(*UNITS, "gate-edge-pi2"), viewers=("ann",))
    make(directory, instances=UNITS)
    assert {"gate-edge-pi2", "ann"} <= set(passwords(directory))
    assert "user gate-edge-pi2\n" in directory.read("mosquitto/acl")


def test_a_user_who_is_removed_is_gone_from_all_files(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, instances=UNITS, viewers=("ann",))
    make(directory, removed=("ann", "bell-edge-pi1"))
    assert not {"ann", "bell-edge-pi1"} & set(passwords(directory))
    assert "ann" not in directory.read("mosquitto/acl")
    with pytest.raises(SettingsError, match="ann: there is no such user to remove"):
        make(directory, removed=("ann",))


def test_every_password_of_the_file_is_hashed(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, instances=UNITS, operators=("operator",))
    found = passwords(directory)
    assert fits(directory.password("units", "gate-edge-pi1"), found["gate-edge-pi1"])
    assert fits(directory.password("operators", "operator"), found["operator"])
    assert fits(directory.password("operators", "operator"), found["operator.8"])
    assert "operator.9" not in found


def test_a_password_that_was_changed_by_hand_is_taken_over(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, viewers=("ann",))
    (tmp_path / "viewers/ann").write_text("mine\n")
    make(directory)
    assert fits("mine", passwords(directory)["ann"])


def test_a_new_edge_gets_its_acknowledgements_and_is_seen_by_its_domain(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, instances=UNITS)
    make(directory, instances=("gate-edge-pi2",))
    found = grants(directory, SERVICES, "patchbay")
    assert "patchbay/ack/gate-edge-pi2" in found["gate-domain-pi1"].publish
    assert "patchbay/status/gate-edge-pi2" in found["gate-domain-pi1"].subscribe
    assert "patchbay/ack/gate-edge-pi2" in found["gate-edge-pi2"].subscribe
    assert "patchbay/ack/gate-edge-pi1" not in found["gate-edge-pi2"].subscribe


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"instances": ("gate-egde-pi1",)}, "gate-egde-pi1: no instance of a unit"),
        ({"instances": ("gate-edge",)}, "gate-edge: no instance of a unit"),
        ({"viewers": ("gate-edge-pi1",)}, "gate-edge-pi1: would be the name of a unit"),
        ({"viewers": ("boss",)}, "boss: is among the operators already"),
        ({"operators": ("a",), "viewers": ("a",)}, "a: is among the operators already"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_made(
    tmp_path: Path, wanted: dict[str, tuple[str, ...]], said: str
) -> None:
    directory = Directory(tmp_path)
    make(directory, operators=("boss",))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError) as caught:
        make(directory, **wanted)
    assert str(caught.value).startswith(said)
    assert sorted(tmp_path.rglob("*")) == before


def test_who_was_an_operator_may_become_a_viewer(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    make(directory, operators=("ann",))
    make(directory, removed=("ann",), viewers=("ann",))
    assert directory.names("operators") == []
    assert grants(directory, SERVICES, "patchbay")["ann"].publish == ("patchbay/reply/ann",)
