"""The bus client that every unit has one of.

It connects for ever (capped exponential backoff with jitter), and after **every** CONNACK, whatever
that says about the session, it

1. subscribes again (a durable shared subscription does not survive a broker's restart),
2. sends itself a nonce, if its session is durable: what arrives before it was queued meanwhile,
3. publishes again what its owner keeps retained, and runs its owner's hooks,
4. says ``online`` on its status topic, once its owner is ready.

Each subscription has one owner: the first filter that matches takes the message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

from patchbay.bus.answers import Answers
from patchbay.bus.connection import Connection, OnAck
from patchbay.bus.dialer import Dialer
from patchbay.bus.hooks import Hook, Hooks
from patchbay.bus.letters import DeadLetters, KeepLetter, reason_of, write_letter
from patchbay.bus.message import Message
from patchbay.bus.meter import Backlog, Meter
from patchbay.bus.presence import Presence
from patchbay.bus.properties import properties
from patchbay.bus.requests import Requests
from patchbay.bus.router import Router
from patchbay.bus.subscription import Subscription
from patchbay.errors import Unavailable
from patchbay.messages import new_id
from patchbay.progress import Progress
from patchbay.settings import BrokerSettings
from patchbay.tasks import Tasks
from patchbay.topics import Topics, matches

FORBIDDEN_LIMIT = 64
"""Topics of a connection for which a refusal of the broker is logged."""

Handler = Callable[[Message], Awaitable[None]]


class Bus:
    """One MQTT client. Register subscriptions and hooks, then `start` (or ``async with``).

    ``durable`` keeps the session at the broker for a day, so nothing that arrives while we are away
    is lost. ``announce`` publishes our status, with a Last Will that says ``offline``.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        client_id: str,
        topics: Topics,
        durable: bool = False,
        announce: bool = True,
        port: int | None = None,
        meter: Meter | None = None,
        tasks: Tasks | None = None,
    ) -> None:
        """``tasks``: those of the unit that it belongs to; None: it has its own."""
        self.tasks = tasks or Tasks(f"bus {client_id}", self._task_failed)
        self.settings = settings
        self.client_id = client_id
        self.topics = topics
        self.durable = durable
        self.port = settings.port if port is None else port
        self.log = structlog.get_logger("bus").bind(client=client_id)
        self.failed: asyncio.Future[str] | None = None
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._router = Router(self._set_aside_soon, meter)
        self._hooks = Hooks(settings, self.log)
        self._kept: dict[str, bytes] = {}
        self.progress = Progress()
        """What says whether the work of whoever has this client gets on."""
        self.progress.watch(
            "connection", lambda: not self.online, lambda: self._hooks.cause(self.connected)
        )
        self.backlogs: list[Backlog] = []
        """What waits to be sent here: each outbox puts itself in."""
        self.info_sources: dict[str, Callable[[], int]] = {}
        """Numbers for the unit's info, of whatever works on this client."""
        self.info_changed: Callable[[], None] = lambda: None
        """Publishes the unit's info at once, when something in it must be there in time."""
        self._meter = meter
        self.keep_letter: KeepLetter | None = None
        """Stores dead letters, in a unit that has a store."""
        self._asides = self._queued("", self._fail_again)
        self._letters = DeadLetters(client_id, settings, self.post, lambda: self.connected)
        self._requests: Requests | None = None
        self._connected = asyncio.Event()
        self._nonce = b""
        self._forbidden: set[str] = set()
        self._dialer: Dialer | None = None
        self._presence = Presence(self, announce)
        self.answers = Answers(self)
        """Publishes on topics that requesters have named."""
        if durable:
            self.listen(topics.fence(client_id), self._fence)

    # Life

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def start(self) -> None:
        """Start connecting, in the background and for ever."""
        self._fate()
        self._dialer = Dialer(
            self.settings,
            self._make_connection,
            self._open,
            self._ended,
            self.log,
            lambda: self._presence.twin,
        )
        self._task = self.tasks.spawn(self._dial(self._dialer), "connection")

    def fail(self, why: str) -> None:
        """The unit cannot go on: it stops with an error that says why."""
        failed = self._fate()
        if not failed.done():
            failed.set_result(why)

    def _fate(self) -> asyncio.Future[str]:
        """Done, with the reason, when the unit has to stop."""
        if self.failed is None:
            self.failed = asyncio.get_running_loop().create_future()
        return self.failed

    async def stop(self) -> None:
        """Say offline, disconnect, and end what was waiting."""
        self._presence.leave()
        self._letters.close()
        if self._task is None:
            return
        if self._connection is not None and self._connection.alive:
            await self._presence.say_offline()
            self._connection.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        for subscription in (*self._router.subscriptions, self._asides):
            await subscription.stop()

    @property
    def connected(self) -> bool:
        """Connected, and subscribed to all that was asked for."""
        return self._connected.is_set()

    @property
    def online(self) -> bool:
        """Connected, all hooks have run, and ``online`` is published."""
        return self._presence.online.is_set()

    @property
    def reconnects(self) -> int:
        """Connections that were established and have ended."""
        return 0 if self._dialer is None else self._dialer.reconnects

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until connected. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._connected.wait()

    async def wait_online(self, timeout_s: float | None = None) -> None:
        """Wait until online. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._presence.online.wait()

    def on_connect(self, hook: Hook) -> None:
        """Run ``hook`` after each CONNACK, when subscribed and before ``online`` is said."""
        self._hooks.add(hook)

    async def set_ready(self) -> None:
        """The owner is ready: ``online`` is said now, and after the hooks of each CONNACK."""
        await self._presence.set_ready()

    def repeat_online(self) -> None:
        """Say ``online`` again, for somebody who must hear it live. Nothing while we are not."""
        self._presence.repeat_online()

    # Receiving

    def listen(self, pattern: str, callback: Callable[[Message], None]) -> Subscription:
        """Hand messages to ``callback`` as they come; it calls ``message.ack()`` itself."""
        return self._add(Subscription.direct(pattern, callback))

    def subscribe(self, pattern: str, handler: Handler) -> None:
        """Hand messages to ``handler`` in order, one at a time, and acknowledge after it returns.

        While it raises Unavailable the message waits and is tried again; any other exception makes
        the message a dead letter, and the next one is handled.
        """
        self._add(self._queued(pattern, handler))

    def divert(self, topic: str, handler: Handler) -> None:
        """As `subscribe`, for what a wider filter of ours, subscribed to later, brings as well.

        ``handler`` gets it beside what waits there. The broker is not asked for it: it would send
        each message once for each of two filters.
        """
        self._router.add(self._queued(topic, handler, asked=False))

    def _queued(self, pattern: str, handler: Handler, *, asked: bool = True) -> Subscription:
        return Subscription.queued(
            pattern,
            handler,
            self._set_aside,
            self.comes_again,
            self.settings,
            self.tasks.spawn,
            asked=asked,
        )

    def comes_again(self, message: Message) -> bool:
        """Its connection has ended and the broker keeps our session: it will send it again."""
        return self.durable and message.connection is not self._connection

    def _add(self, subscription: Subscription) -> Subscription:
        self._router.add(subscription)
        if self.connected and self._connection is not None:
            adding = subscription.adding = asyncio.get_running_loop().create_future()
            self.tasks.spawn(self._subscribe(self._connection, subscription, adding), "subscribe")
        return subscription

    async def _subscribe(
        self, connection: Connection, subscription: Subscription, added: asyncio.Future[None]
    ) -> None:
        try:
            await connection.subscribe([subscription.pattern])
        except Unavailable as error:  # the next connect subscribes again, or is refused as well
            if not added.done():
                added.set_exception(error)
                added.exception()  # somebody may wait for it, or nobody
        else:
            if not added.done():
                added.set_result(None)

    async def _set_aside(self, message: Message, error: Exception) -> None:
        """A handler cannot handle this message. Raises Unavailable until its letter is stored."""
        self.log.error("message set aside", topic=message.topic, error=repr(error), exc_info=error)
        if matches(self.topics.dead("#"), message.topic):
            return  # a dead letter about a dead letter would have one, too
        address = self.topics.address(message.topic)
        service = address.service if address else self.client_id.partition("-")[0]
        await self.set_aside(
            service,
            reason_of(error),
            message.payload,
            topic=message.topic,
            content_type=message.content_type,
            id=message.digest,
        )

    def _set_aside_soon(self, message: Message, error: Exception) -> None:
        """As `_set_aside`, of a message that a callback cannot take; and acknowledge it then."""
        message.failure = error
        self._asides.deliver(message)

    async def _fail_again(self, message: Message) -> None:
        if message.failure is not None:
            raise message.failure

    # Sending

    def post(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        content_type: str = "",
        response_topic: str = "",
        correlation: bytes = b"",
        process: str = "",
        on_ack: OnAck | None = None,
    ) -> None:
        """Send without waiting; ``on_ack`` hears of the PUBACK. Raises Unavailable, TooLarge."""
        if self._connection is None:
            raise Unavailable("not connected to the broker")
        self._connection.publish(
            topic,
            payload,
            qos=qos,
            retain=retain,
            properties=properties(
                content_type=content_type,
                response_topic=response_topic,
                correlation=correlation,
                process=process,
            ),
            on_ack=on_ack,
        )

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        content_type: str = "",
        response_topic: str = "",
        correlation: bytes = b"",
        process: str = "",
    ) -> int:
        """Send, and wait for the PUBACK. Returns its reason code: 0, or 16 for no subscriber.

        Raises Unavailable when we are not connected or the connection ends before the PUBACK,
        TooLarge for a packet that the broker would refuse.
        """
        if self._connection is None:
            raise Unavailable("not connected to the broker")
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

        def settle(code: int | None) -> None:
            if not future.done():
                future.set_result(code)

        self._connection.publish(
            topic,
            payload,
            qos=qos,
            retain=retain,
            properties=properties(
                expiry_s=expiry_s,
                content_type=content_type,
                response_topic=response_topic,
                correlation=correlation,
                process=process,
            ),
            on_ack=settle,
        )
        code = await future
        if code is None:
            raise Unavailable("the connection ended before the acknowledgement")
        return code

    def _not_allowed(self, topic: str, why: str) -> None:
        """The broker has refused a message. Said once a topic, and a connection: who publishes
        what it must not does so again and again."""
        if topic not in self._forbidden and len(self._forbidden) < FORBIDDEN_LIMIT:
            self._forbidden.add(topic)
            self.log.warning("the broker refuses what we publish", topic=topic, why=why)

    def keep(self, topic: str, payload: bytes) -> None:
        """Publish a retained message now and after each CONNACK. ``b""`` clears and forgets it."""
        if payload:
            self._kept[topic] = payload
        else:
            self._kept.pop(topic, None)
        if self.connected:
            with contextlib.suppress(Unavailable):
                self.post(topic, payload, retain=True)

    async def request(
        self,
        topic: str,
        payload: bytes,
        *,
        timeout_s: float = 5.0,
        expiry_s: int | None = None,
        actuates: bool = False,
        id: str = "",
    ) -> bytes:
        """Send a request and return the answer's payload. See `Requests.request`."""
        if self._requests is None:
            self._requests = Requests(self)
        return await self._requests.request(
            topic, payload, timeout_s, expiry_s, actuates=actuates, id=id
        )

    def dead_letter(
        self,
        service: str,
        reason: str,
        original: bytes,
        *,
        topic: str = "",
        peer: str = "",
        accepted: bool = False,
    ) -> None:
        """Publish invalid input, and why it is refused, and log it, at a bounded rate: see
        `DeadLetters`. Never raises.

        ``accepted``: it was taken in before, and nobody else has it: it is published whatever the
        rate.
        """
        dead = self.topics.dead(service)
        if accepted:
            letter = write_letter(self.client_id, reason, original, topic=topic, peer=peer)
            self._letters.put(dead, letter)
        else:
            self._letters.refuse(dead, reason, original, topic=topic, peer=peer)

    async def set_aside(
        self,
        service: str,
        reason: str,
        original: bytes,
        *,
        topic: str = "",
        content_type: str = "",
        id: str = "",
    ) -> None:
        """As `dead_letter`, of what can be acknowledged once this returns: a unit with a store
        stores the letter first, with the whole original. Raises Unavailable.

        ``id``: of the letter. With the same one it is stored once, however often it is set aside.
        """
        letter = write_letter(self.client_id, reason, original, topic=topic, id=id)
        if self.keep_letter is not None:
            await self.keep_letter(letter, original, content_type)
        self._letters.notify(self.topics.dead(service), letter)

    @property
    def dead_letters(self) -> int:
        """Dead letters since the start."""
        return self._letters.written

    # The connection's life

    def _task_failed(self, error: Exception, name: str) -> None:
        self.log.error("task failed", task=name, exc_info=error)
        self.fail(f"{name} failed: {error!r}")

    async def _dial(self, dialer: Dialer) -> None:
        await dialer.dial()
        self.fail(f"another client uses our instance id {self.client_id}")

    def _make_connection(self) -> Connection:
        return Connection(
            self.settings,
            self.client_id,
            self._router.deliver,
            self._not_allowed,
            self._meter,
        )

    async def _open(self, connection: Connection) -> None:
        """Connect and do all that follows a CONNACK."""
        self._router.late = self.durable
        self._forbidden.clear()
        self._presence.twin = False
        self._connection = connection
        await connection.open(port=self.port, durable=self.durable, will=self._presence.will)
        subscribed = 0
        while subscribed < len(self._router.subscriptions):  # one may be added while we wait
            some = self._router.subscriptions[subscribed:]
            filters = [one.pattern for one in some if one.asked]
            if filters:
                await connection.subscribe(filters)
            subscribed += len(some)
        if self.durable:
            self._nonce = new_id().encode()
            connection.publish(self.topics.fence(self.client_id), self._nonce)
        self._connected.set()
        self._letters.send()
        for topic, payload in self._kept.items():
            connection.publish(topic, payload, retain=True)
        await self._hooks.run(connection)
        await self._presence.say_online()
        self.log.info("connected", host=self.settings.host, port=self.port)

    @property
    def connection(self) -> Connection | None:
        """The connection of now, or the last one."""
        return self._connection

    def _ended(self) -> None:
        self._connected.clear()
        self._presence.online.clear()

    def _fence(self, message: Message) -> None:
        """Our own nonce came back: what arrives from now on was not queued while we were away."""
        message.ack()
        if message.payload == self._nonce:
            self._router.late = False
