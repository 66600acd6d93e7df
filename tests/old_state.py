"""A state that an older version has left, put back from text: outboxes, documents, and the broker.

A state is a directory below ``tests/states``:

    taken.json        when it was taken, and by which version
    outboxes.sql      the outbox of each edge, behind a line ``-- <instance>``
    documents.json    the collections of the store, in MongoDB's extended JSON
    retained.json     the retained messages
    sessions.json     the durable sessions: what they subscribe to, and the messages queued for them
    expected.json     documents and retained messages after that version itself has gone on with it

All times are moved so that the state was taken just now: a rental that had an hour left has it
again, and nothing is older than the store keeps it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import json_util
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from pymongo import MongoClient

from patchbay.testing import PATIENCE_S

STATES = Path(__file__).with_name("states")
DAY_S = 86_400
QUIET_S = 1.0

_TIME = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z")
_BLOB = re.compile(r"X'([0-9A-Fa-f]*)'")
_PROPERTIES = ("ContentType", "CorrelationData", "ResponseTopic", "PayloadFormatIndicator")


class OldState:
    """The state of this name."""

    def __init__(self, name: str) -> None:
        self._directory = STATES / name
        taken = json.loads((self._directory / "taken.json").read_text())
        age = datetime.now(UTC) - datetime.fromisoformat(taken["at"])
        self._shift = timedelta(seconds=int(age.total_seconds()))

    def write_outboxes(self, state: Path) -> None:
        """Make the files that edges with this state directory find."""
        text = (self._directory / "outboxes.sql").read_text()
        for part in re.split(r"^-- (?=[a-z0-9-]+\n)", text, flags=re.MULTILINE)[1:]:
            instance, _, script = part.partition("\n")
            path = state / "units" / instance / "outbox" / f"{instance}.sqlite"
            path.parent.mkdir(parents=True)
            db = sqlite3.connect(path)
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(_BLOB.sub(self._blob, self._moved(script.encode()).decode()))
            db.close()

    def write_documents(self, uri: str, database: str) -> None:
        """Insert all documents."""
        with MongoClient[dict[str, Any]](uri) as client:
            for name, documents in self.documents("documents").items():
                if documents:
                    client[database][name].insert_many(documents)

    def write_broker(self, port: int) -> None:
        """Make the sessions, then publish what is retained and what waits for them."""
        sessions = self._json("sessions")
        for session in sessions:
            with connected(port, session["client_id"], expiry_s=DAY_S) as client:
                client.subscribe(session["subscriptions"])
        with connected(port, "old-state") as client:
            client.publish(self._json("retained"), retain=True)
            seen: set[str] = set()
            for session in sessions:
                for message in session["queued"]:
                    if (text := json.dumps(message)) not in seen:  # two sessions may wait for it
                        seen.add(text)
                        client.publish([message], retain=False)

    def documents(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """The documents of ``documents`` or ``expected``, by collection."""
        text = self._moved((self._directory / f"{name}.json").read_bytes()).decode()
        found: dict[str, Any] = json_util.loads(text)
        return found["documents"] if name == "expected" else found

    def retained(self, name: str) -> dict[str, Any]:
        """The payloads of ``retained`` or ``expected``, by topic."""
        found = self._json(name)
        return payloads(found["retained"] if name == "expected" else found)

    def _json(self, name: str) -> Any:
        return json.loads(self._moved((self._directory / f"{name}.json").read_bytes()))

    def _blob(self, match: re.Match[str]) -> str:
        return f"X'{self._moved(bytes.fromhex(match[1])).hex()}'"

    def _moved(self, text: bytes) -> bytes:
        def later(match: re.Match[bytes]) -> bytes:
            moved = datetime.fromisoformat(match[0].decode()) + self._shift
            digits = "milliseconds" if b"." in match[0] else "seconds"
            return moved.isoformat(timespec=digits).replace("+00:00", "Z").encode()

        return _TIME.sub(later, text)


class Wire:
    """An MQTT client that does one thing after the other. ``with`` `connected`."""

    def __init__(self, port: int, client_id: str, expiry_s: int) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv5)
        self._port = port
        self._expiry_s = expiry_s
        self._acked = threading.Event()
        self.messages: list[MQTTMessage] = []
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.on_subscribe = lambda *_: self._acked.set()
        self._client.on_connect = lambda *_: self._acked.set()

    def __enter__(self) -> Wire:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._expiry_s
        properties.ReceiveMaximum = 65_535
        self._client.connect("127.0.0.1", self._port, clean_start=False, properties=properties)
        self._client.loop_start()
        self._wait()
        return self

    def __exit__(self, *_error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, filters: Iterable[str]) -> None:
        """Subscribe at QoS 1, and wait for the answer."""
        wanted = [(one, SubscribeOptions(qos=1)) for one in filters]
        self._client.subscribe(wanted)
        self._wait()

    def publish(self, messages: Iterable[dict[str, Any]], *, retain: bool) -> None:
        """Publish at QoS 1, and wait until the broker has all."""
        infos = []
        for one in messages:
            properties = Properties(PacketTypes.PUBLISH)
            for name, value in one.get("properties", {}).items():
                setattr(properties, name, value.encode() if name == "CorrelationData" else value)
            infos.append(self._client.publish(one["topic"], _bytes(one), 1, retain, properties))
        for info in infos:
            info.wait_for_publish(PATIENCE_S)
            assert info.is_published()

    def _wait(self) -> None:
        assert self._acked.wait(PATIENCE_S)
        self._acked.clear()


def connected(port: int, client_id: str, expiry_s: int = 0) -> Wire:
    """A client of the broker at this port."""
    return Wire(port, client_id, expiry_s)


async def retained(port: int) -> list[dict[str, Any]]:
    """All retained messages, as they are written down."""
    with connected(port, "old-state-reader") as client:
        client.subscribe(["#"])
        await quiet(lambda: len(client.messages))
        return [written(one) for one in client.messages if one.retain]


async def quiet(measure: Callable[[], object]) -> None:
    """Wait until this has not changed for a second."""
    before = None
    while (now := measure()) != before:
        before = now
        await asyncio.sleep(QUIET_S)


def written(message: MQTTMessage) -> dict[str, Any]:
    """A message as it is written down: its payload as text, or as base64."""
    found: dict[str, Any] = {"topic": message.topic}
    try:
        found["text"] = message.payload.decode()
    except UnicodeDecodeError:
        found["base64"] = base64.b64encode(message.payload).decode()
    properties = {
        name: value.decode() if isinstance(value, bytes) else value
        for name in _PROPERTIES
        if (value := getattr(message.properties, name, None)) is not None
    }
    return {**found, "properties": properties} if properties else found


def payloads(messages: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What messages say, by topic: JSON decoded, else as text."""
    found: dict[str, Any] = {}
    for one in messages:
        try:
            found[one["topic"]] = json.loads(one["text"])
        except (KeyError, ValueError):
            found[one["topic"]] = one.get("text", one.get("base64"))
    return found


def _bytes(message: dict[str, Any]) -> bytes:
    if "base64" in message:
        return base64.b64decode(message["base64"])
    return str(message["text"]).encode()
