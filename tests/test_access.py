"""Who may do what, seen at a real mosquitto: every user against every topic of every service."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from patchbay.access.certificates import Authority
from patchbay.access.directory import Directory
from patchbay.access.rights import Grant
from patchbay.access.users import Wanted, make_users
from patchbay.bus import Bus, Message
from patchbay.cli.forgetting import forget_unit
from patchbay.errors import Rejected
from patchbay.services import discover
from patchbay.testing import PATIENCE_S, until
from patchbay.topics import matches
from tests.secure import TESTER, SecureBroker

NOT_AUTHORIZED = 0x87


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    part = SecureBroker(tmp_path_factory.mktemp("secure"))
    part.start()
    yield part
    part.stop()


def a_topic(pattern: str) -> str:
    """A topic that the filter matches."""
    return pattern.replace("#", "x/y").replace("+", "x")


def topics(grants: dict[str, Grant]) -> list[str]:
    """A topic for each filter of each user."""
    filters = (one for grant in grants.values() for one in (*grant.publish, *grant.subscribe))
    return sorted({a_topic(one) for one in filters})


def may(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(one, topic) for one in filters)


USERS = [
    *(f"{service.name}-{role}-test" for service in discover().values() for role in service.roles),
    "operator",
    "operator.8",
    "viewer",
]


@pytest.mark.parametrize("user", USERS)
async def test_a_user_publishes_where_it_may_and_nowhere_else(
    secure: SecureBroker, user: str
) -> None:
    grants = secure.grants()
    async with secure.bus(user) as bus:
        await bus.wait_connected(PATIENCE_S)
        for topic in topics(grants):
            code = await bus.publish(topic, b"")
            allowed = may(grants[user].publish, topic)
            assert (code != NOT_AUTHORIZED) == allowed, f"{user}: {topic}: {code:#x}"


@pytest.mark.parametrize("user", USERS)
async def test_a_user_is_sent_what_it_may_read_and_nothing_else(
    secure: SecureBroker, user: str
) -> None:
    grants = secure.grants()
    seen: set[str] = set()

    def hear(message: Message) -> None:
        message.ack()
        seen.add(message.topic)

    bus, tester = secure.bus(user), secure.bus(TESTER)
    bus.listen("patchbay/#", hear)
    async with bus, tester:
        await bus.wait_connected(PATIENCE_S)
        await tester.wait_connected(PATIENCE_S)
        last = f"patchbay/reply/{user}"
        sent = [topic for topic in topics(grants) if topic != last]
        for topic in [*sent, last]:
            assert await tester.publish(topic, b"from the tester") in (0, 0x10)
        await until(lambda: last in seen)
    expected = {topic for topic in [*sent, last] if may(grants[user].subscribe, topic)}
    assert seen == expected


def test_units_of_two_services_share_only_the_topics_of_answers(secure: SecureBroker) -> None:
    grants = secure.grants()
    units = [user for user in grants if user in secure.instances]
    for one in units:
        for other in units:
            if one.partition("-")[0] == other.partition("-")[0]:
                continue
            theirs = {a_topic(t) for t in (*grants[other].publish, *grants[other].subscribe)}
            mine = {topic for topic in theirs if may(grants[one].publish, topic)}
            answers = (f"patchbay/reply/{other}", "patchbay/reply/x", "patchbay/reply/x/y")
            assert mine <= set(answers), (one, other)
            assert not {topic for topic in theirs if may(grants[one].subscribe, topic)}


def test_every_filter_of_a_service_stays_below_its_own_name() -> None:
    for service in discover().values():
        assert set(service.rights) == set(service.roles), f"{service.name}: a role without rights"
        for role, rights in service.rights.items():
            for one in (*rights.publish, *rights.subscribe):
                said = f"{service.name}.{role}: {one}: too wide, or what every unit may anyhow"
                assert one.startswith(f"{service.name}/"), said
                assert "#" not in one, said


async def test_a_viewer_who_sends_a_command_is_told_that_it_may_not(secure: SecureBroker) -> None:
    async with secure.bus("viewer") as bus:
        await bus.wait_connected(PATIENCE_S)
        with pytest.raises(Rejected, match="not_allowed"):
            await bus.request("patchbay/locker/1953/cmd/assign", b"{}", timeout_s=PATIENCE_S)


async def refusal(bus: Bus) -> str:
    """Why this client does not get in: the first thing that it logs of it."""
    said: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    class Listener:
        def warning(self, event: str, **fields: object) -> None:
            if not said.done():
                said.set_result(str(fields["why"]))

        def info(self, event: str, **fields: object) -> None:
            if not said.done():
                said.set_result(event)

    bus.log = Listener()
    async with bus, asyncio.timeout(PATIENCE_S):
        return await said


async def test_a_right_password_gets_in(secure: SecureBroker) -> None:
    assert await refusal(secure.bus("viewer")) == "connected"


async def test_a_wrong_password_does_not(secure: SecureBroker) -> None:
    bus = secure.bus("locker-edge-test", password="guessed")
    assert await refusal(bus) == "the broker refuses us: Not authorized"


async def test_the_password_of_another_user_does_not(secure: SecureBroker) -> None:
    bus = secure.bus("locker-edge-test", password=secure.password("locker-domain-test"))
    assert await refusal(bus) == "the broker refuses us: Not authorized"


@pytest.mark.parametrize("tls", [True, False], ids=["with TLS", "on loopback"])
async def test_nobody_is_anonymous(secure: SecureBroker, tls: bool) -> None:
    plain = {} if tls else {"tls": False, "ca_file": None, "port": secure.plain_port}
    bus = secure.bus("viewer", username=None, password=None, **plain)
    assert await refusal(bus) == "the broker refuses us: Not authorized"


@pytest.mark.parametrize(
    "topic",
    ["bartender/bar-pumps/cmd/run", "bartender/bar-pumps/cmd/confirm", "allocator/x/cmd/mix"],
)
async def test_what_a_domain_tells_its_edges_no_person_does(
    secure: SecureBroker, topic: str
) -> None:
    async with secure.bus("operator") as bus:
        await bus.wait_connected(PATIENCE_S)
        assert await bus.publish(f"patchbay/{topic}", b"{}") == NOT_AUTHORIZED
        assert await bus.publish("patchbay/bartender/bar-pumps/cmd/stop", b"{}") in (0, 0x10)


async def test_passwords_and_rules_hold_on_loopback_too(secure: SecureBroker) -> None:
    plain = {"tls": False, "ca_file": None, "port": secure.plain_port}
    async with secure.bus("viewer", **plain) as bus:
        await bus.wait_connected(PATIENCE_S)
        assert await bus.publish("patchbay/locker/1/cmd/open", b"") == NOT_AUTHORIZED
    bus = secure.bus("viewer", password="guessed", **plain)
    assert await refusal(bus) == "the broker refuses us: Not authorized"


async def test_who_does_not_know_the_authority_does_not_trust_the_broker(
    secure: SecureBroker, tmp_path: Path
) -> None:
    other = Directory(tmp_path)
    Authority.make(datetime.datetime.now(datetime.UTC)).write(other)
    why = await refusal(secure.bus("viewer", ca_file=str(tmp_path / "ca.crt")))
    assert why.startswith(f"the certificate of 127.0.0.1:{secure.port} is not to be trusted: ")
    assert "issuer" in why or "signature" in why


async def test_a_certificate_for_another_name_is_not_trusted(secure: SecureBroker) -> None:
    why = await refusal(secure.bus("viewer", host="127.0.0.2"))
    assert "is not to be trusted" in why
    assert "127.0.0.2" in why


async def test_a_certificate_that_has_ended_is_not_trusted(tmp_path: Path) -> None:
    broker = SecureBroker(tmp_path)
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=10)
    certificate, key = Authority.read(broker.secrets).sign(
        ["127.0.0.1"], moment, datetime.timedelta(days=9)
    )
    broker.secrets.write("mosquitto/server.crt", certificate)
    broker.secrets.write("mosquitto/server.key", key)
    broker.start()
    try:
        assert "expired" in await refusal(broker.bus("viewer"))
    finally:
        broker.stop()


async def test_who_says_another_units_client_id_does_not_throw_it_out(secure: SecureBroker) -> None:
    async with secure.bus("locker-edge-test") as unit:
        await unit.wait_connected(PATIENCE_S)
        for thief, password in [("viewer", None), ("allocator-domain-test", None), ("x", "y")]:
            bus = secure.bus(
                "viewer",
                client_id="locker-edge-test",
                username=thief,
                password=password or secure.password(thief),
            )
            assert await refusal(bus) in ("connected", "the broker refuses us: Not authorized")
        assert await unit.publish("patchbay/locker/1/event/report", b"") in (0, 0x10)
        assert unit.reconnects == 0


async def test_a_person_has_several_connections_at_once(secure: SecureBroker) -> None:
    async with secure.bus("operator") as one, secure.bus("operator.2") as two:
        await one.wait_connected(PATIENCE_S)
        await two.wait_connected(PATIENCE_S)
        assert await one.publish("patchbay/locker/all/cmd/boards", b"{}") in (0, 0x10)
        assert await two.publish("patchbay/locker/all/cmd/boards", b"{}") in (0, 0x10)
        assert (one.reconnects, two.reconnects) == (0, 0)


def test_the_c_clients_get_in_with_the_same_files(secure: SecureBroker) -> None:
    ca = str(secure.secrets.path / "ca.crt")
    options = ["-p", str(secure.port), "--cafile", ca, "-u", "operator"]
    topic = ["-t", "patchbay/locker/1953/cmd/state", "-m", "{}", "-q", "1", "-V", "5"]
    good = ["mosquitto_pub", *options, "-P", secure.password("operator"), *topic]
    assert subprocess.run(good, timeout=PATIENCE_S, check=False).returncode == 0
    bad = ["mosquitto_pub", *options, "-P", "guessed", *topic]
    refused = subprocess.run(bad, timeout=PATIENCE_S, check=False, capture_output=True)
    assert refused.returncode != 0
    assert b"Not authorized" in refused.stderr


async def test_mosquitto_takes_over_who_is_new_and_who_is_gone_when_it_is_told(
    tmp_path: Path,
) -> None:
    broker = SecureBroker(tmp_path)
    broker.start()
    try:
        async with broker.bus("viewer") as gone:
            await gone.wait_connected(PATIENCE_S)
            wanted = Wanted(instances=("locker-edge-pi2",), removed=("viewer",))
            make_users(broker.secrets, broker.services, wanted)
            os.kill(broker.pid, signal.SIGHUP)
            async with broker.bus("locker-edge-pi2") as new:
                await new.wait_connected(PATIENCE_S)
                assert await new.publish("patchbay/locker/1/event/report", b"") in (0, 0x10)
            await until(lambda: not gone.connected)
    finally:
        broker.stop()


async def test_a_member_of_a_group_is_sent_what_it_may_read_and_nothing_else(
    secure: SecureBroker,
) -> None:
    """Replicas of the allocator's domain share their subscriptions."""
    seen: list[str] = []

    def hear(message: Message) -> None:
        message.ack()
        seen.append(message.topic)

    bus, tester = secure.bus("allocator-domain-test"), secure.bus(TESTER)
    bus.listen("$share/replicas/patchbay/allocator/+/event/+", hear)
    async with bus, tester:
        await bus.wait_connected(PATIENCE_S)
        await tester.wait_connected(PATIENCE_S)
        for name in ("changed", "requested"):
            await tester.publish(f"patchbay/allocator/x/event/{name}", b"")
        await until(lambda: seen)
    assert seen == ["patchbay/allocator/x/event/requested"]


async def test_an_operator_clears_what_a_unit_has_left_behind_and_a_viewer_may_not(
    secure: SecureBroker,
) -> None:
    async with secure.bus(TESTER) as tester:
        await tester.wait_connected(PATIENCE_S)
        for topic in ("patchbay/status/gone", "patchbay/status/gone/info"):
            await tester.publish(topic, b"offline", retain=True)
    with pytest.raises(Rejected, match="not_allowed: the broker does not let us clear"):
        await forget_unit(secure.bus("viewer"), secure.bus("viewer.2"), "gone")
    cleared = await forget_unit(secure.bus("operator"), secure.bus("operator.2"), "gone")
    assert cleared == ["patchbay/status/gone", "patchbay/status/gone/info"]
