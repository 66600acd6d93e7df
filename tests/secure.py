"""A broker that nobody gets into without a password, as `patchbay broker` sets it up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchbay import broker
from patchbay.access.certificates import make_certificates
from patchbay.access.conf import write_configuration
from patchbay.access.directory import MOSQUITTO, UNITS, Directory
from patchbay.access.passwords import hashed
from patchbay.access.rights import Grant, Person
from patchbay.access.users import ACL, PASSWORDS, Wanted, grants, make_users
from patchbay.bus import Bus
from patchbay.health import instance_id
from patchbay.services import Service, discover
from patchbay.settings import BrokerSettings
from patchbay.testing import Part, free_port
from patchbay.topics import Topics

HOST = "test"
TESTER = "tester"
"""Somebody whom no set-up makes: may publish everything."""


class SecureBroker(Part):
    """Mosquitto with TLS, passwords and rules; ``port`` is the one with TLS. Not started.

    All units of the installed services are its users, an operator and a viewer, and the tester.
    It logs all that it says of clients.
    """

    def __init__(self, place: Path, services: Mapping[str, Service] | None = None) -> None:
        self.services = services or discover()
        self.secrets = Directory(place / "secrets")
        self.instances = tuple(
            instance_id(f"{service.name}.{role}", HOST)
            for service in self.services.values()
            for role in service.roles
        )
        wanted = Wanted(instances=self.instances, operators=("operator",), viewers=("viewer",))
        make_users(self.secrets, self.services, wanted)
        make_certificates(self.secrets, ["localhost", "127.0.0.1"])
        port = free_port()
        self.plain_port = free_port()
        configuration = write_configuration(
            self.secrets,
            place,
            tls_port=port,
            plain_port=self.plain_port,
            user="root",
        )
        self._append(configuration, "log_type all\n")
        self._append(self.secrets.path / ACL, f"\nuser {TESTER}\ntopic readwrite patchbay/#\n")
        self._append(self.secrets.path / PASSWORDS, f"{TESTER}:{hashed(TESTER)}\n")
        command = [broker.binary(), "-c", str(configuration)]
        super().__init__(MOSQUITTO, place, lambda: command, port)

    def grants(self) -> dict[str, Grant]:
        """What each user may."""
        return grants(self.secrets, self.services, "patchbay")

    def password(self, user: str) -> str:
        """The password of any of its users."""
        if user == TESTER:
            return TESTER
        base = user.partition(".")[0]
        kinds = (UNITS, *(person.value for person in Person))
        [kind] = [one for one in kinds if self.secrets.has(f"{one}/{base}")]
        return self.secrets.password(kind, base)

    def settings(self, user: str, **changed: object) -> BrokerSettings:
        """How this user connects, over TLS."""
        given: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "username": user,
            "password": self.password(user),
            "tls": True,
            "ca_file": str(self.secrets.path / "ca.crt"),
            "backoff_initial_s": 0.05,
            "backoff_max_s": 0.5,
            **changed,
        }
        return BrokerSettings(**given)  # type: ignore[arg-type]

    def bus(self, user: str, client_id: str | None = None, **changed: object) -> Bus:
        """A client of this user, not started."""
        return Bus(
            self.settings(user, **changed),
            client_id=client_id or user,
            topics=Topics(),
            announce=False,
        )

    @staticmethod
    def _append(path: Path, text: str) -> None:
        with path.open("a") as file:
            file.write(text)
