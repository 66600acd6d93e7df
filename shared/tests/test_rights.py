"""What each user may, and mosquitto's file of it."""

from __future__ import annotations

import msgspec
import pytest

from patchbay.access.acl import acl
from patchbay.access.rights import (
    Grant,
    Person,
    commands,
    is_unit,
    person_grant,
    session_names,
    unit_grant,
    unit_of,
)
from patchbay.errors import SettingsError
from patchbay.services import Rights, Service
from patchbay.topics import matches

GATE = Service(
    name="gate",
    settings="",
    roles={"edge": "", "edge-two": "", "domain": ""},
    rights={
        "edge": Rights(
            publish=("gate/+/event/passed", "gate/<instance>/event/batch"),
            subscribe=("gate/+/desired", "gate/+/cmd/open"),
        ),
        "domain": Rights(
            publish=("gate/+/desired", "gate/+/cmd/open"),
            subscribe=("gate/+/event/passed", "gate/+/event/batch", "gate/+/cmd/+"),
        ),
    },
)
SERVICES = {"gate": GATE}
ALL = ("gate-domain-a", "gate-edge-a", "gate-edge-b")


def test_an_edge_may_what_it_says_and_what_every_edge_does() -> None:
    grant = unit_grant("gate-edge-a", ALL, SERVICES, "root")
    assert set(grant.publish) == {
        "root/status/gate-edge-a",
        "root/status/gate-edge-a/info",
        "root/dead/gate",
        "root/confirm/gate-domain-a",
        "root/gate/+/event/passed",
        "root/gate/gate-edge-a/event/batch",
    }
    assert set(grant.subscribe) == {
        "root/reply/gate-edge-a",
        "root/ack/gate-edge-a",
        "root/status/gate-domain-a",
        "root/status/gate-edge-a",
        "root/status/gate-edge-b",
        "root/gate/+/desired",
        "root/gate/+/cmd/open",
    }


def test_a_domain_acknowledges_its_own_edges_and_answers_everybody() -> None:
    grant = unit_grant("gate-domain-a", ALL, SERVICES, "root")
    assert {"root/ack/gate-edge-a", "root/ack/gate-edge-b", "root/reply/#"} <= set(grant.publish)
    assert "root/ack/gate-domain-a" not in grant.publish
    assert "root/fence/gate-domain-a" in grant.publish
    own = {"root/fence/gate-domain-a", "root/dead/gate", "root/confirm/gate-domain-a"}
    assert own <= set(grant.subscribe)


def test_a_role_that_says_nothing_may_what_every_unit_may_and_no_more() -> None:
    grant = unit_grant("gate-edge-two-a", ("gate-edge-two-a",), SERVICES, "root")
    assert not any("/gate/" in one for one in (*grant.publish, *grant.subscribe))


@pytest.mark.parametrize(
    ("instance", "role"),
    [("gate-edge-pi1", "edge"), ("gate-domain-x-2", "domain"), ("gate-edge-two-a", "edge-two")],
)
def test_an_instance_id_names_its_service_and_role(instance: str, role: str) -> None:
    assert unit_of(instance, SERVICES) == (GATE, role)
    assert is_unit(instance, SERVICES)


@pytest.mark.parametrize(
    "name", ["gate-edge-", "gate-edge", "gate", "operator", "gates-edge-a", ""]
)
def test_another_name_is_no_instance_and_the_error_says_how_they_are_named(name: str) -> None:
    assert not is_unit(name, SERVICES)
    with pytest.raises(SettingsError, match="they are named gate-edge-NAME"):
        unit_of(name, SERVICES)


def test_an_operator_reads_all_and_sends_the_commands_that_domains_serve() -> None:
    assert commands(SERVICES, "root") == ("root/gate/+/cmd/+",)
    named = {"gate": msgspec.structs.replace(SERVICES["gate"], commands=("close", "state"))}
    assert commands(named, "root") == ("root/gate/+/cmd/close", "root/gate/+/cmd/state")
    grant = person_grant(Person.OPERATOR, "ann", SERVICES, "root")
    assert grant.subscribe == ("root/#",)
    assert grant.publish == (
        "root/gate/+/cmd/+",
        "root/confirm/+",
        "root/reply/ann",
        "root/forget/+",
        "root/status/+",
        "root/status/+/info",
    )


@pytest.mark.parametrize(
    "topic",
    ["gate/1/desired", "gate/1/cmd/open", "reply/x", "confirm/x", "dead/gate", "ack/x", "fence/x"],
)
def test_a_viewer_reads_nothing_that_may_carry_a_secret(topic: str) -> None:
    grant = person_grant(Person.VIEWER, "ann", SERVICES, "root")
    assert not any(matches(one, f"root/{topic}") for one in grant.subscribe)


@pytest.mark.parametrize(
    "topic", ["gate/1/event/passed", "gate/1/state", "gate/1/status", "status/x", "status/x/info"]
)
def test_a_viewer_sees_what_happens(topic: str) -> None:
    grant = person_grant(Person.VIEWER, "ann", SERVICES, "root")
    assert any(matches(one, f"root/{topic}") for one in grant.subscribe)


def test_a_person_has_eight_names() -> None:
    assert session_names("ann") == ("ann", *(f"ann.{n}" for n in range(2, 9)))


def test_the_file_says_each_filter_once() -> None:
    text = acl({"a": Grant(("x", "y/+"), ("y/+", "z/#")), "b": Grant((), ())})
    assert text.split("\n\n", 1)[1] == (
        "user a\ntopic readwrite y/+\ntopic write x\ntopic read z/#\n\nuser b\n"
    )
