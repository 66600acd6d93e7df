"""How services are found, and how units are named."""

from __future__ import annotations

import pytest

from patchbay.errors import SettingsError
from patchbay.services import Service, discover, resolve, units

LOCKER = Service(
    name="locker",
    settings="patchbay.settings:StoreSettings",
    roles={"edge": "os.path:join", "domain": "os.path:split"},
)
BARE = Service(name="bare", settings="patchbay.settings:StoreSettings", roles={"edge": "os:walk"})
SERVICES = {"bare": BARE, "locker": LOCKER}


def test_installed_services_are_found_in_the_order_of_their_names() -> None:
    found = discover()
    assert list(found) == sorted(found)
    assert all(name == service.name for name, service in found.items())
    assert "locker" in found


def test_a_reference_is_imported() -> None:
    assert resolve("patchbay.services:Service") is Service
    assert resolve("patchbay.services:Service.function") is Service.function


@pytest.mark.parametrize("reference", ["patchbay.nowhere:run", "patchbay.services:nothing"])
def test_a_reference_to_nothing_says_so(reference: str) -> None:
    with pytest.raises((ImportError, AttributeError)):
        resolve(reference)


def test_a_unit_is_named_by_service_and_role() -> None:
    assert units(SERVICES, ["locker.domain"]) == [(LOCKER, "domain")]


def test_a_service_alone_means_all_its_roles() -> None:
    assert units(SERVICES, ["locker"]) == [(LOCKER, "edge"), (LOCKER, "domain")]


def test_a_unit_named_twice_is_run_once() -> None:
    named = units(SERVICES, ["locker.domain", "locker", "bare.edge"])
    assert named == [(LOCKER, "domain"), (LOCKER, "edge"), (BARE, "edge")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("loker", "loker: no such service; there are bare, locker"),
        ("locker.egde", "locker.egde: no such unit; locker has locker.edge, locker.domain"),
        ("locker.", "locker.: no such unit; locker has locker.edge, locker.domain"),
        ("bare.domain", "bare.domain: no such unit; bare has bare.edge"),
        ("", ": no such service; there are bare, locker"),
    ],
)
def test_an_unknown_unit_is_refused_and_the_known_ones_are_listed(name: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        units(SERVICES, [name])
    assert str(caught.value) == said
