"""The API edge: people and programs command the lanterns by HTTP.

    200             accepted: it is stored, and the edges are being told
    400, 503, ...   an error: it has not acted, and it never will
    504             the outcome is unknown; ``GET /requests/<id>`` tells it

The domain acts only while the call is open here and confirms it (`patchbay.bus.requests`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import structlog
from aiohttp import web

from patchbay.bus import Bus, Message
from patchbay.errors import OutcomeUnknown, Rejected, Unavailable
from patchbay.hosts import hosts_of
from patchbay.messages import Failure, decode, encode, new_id
from patchbay.runtime import Unit
from patchbay_lantern.census import Census
from patchbay_lantern.commands import COMMANDS, Registry
from patchbay_lantern.edge.http_server import Connection, HttpServer, Response
from patchbay_lantern.messages import ALL, OUTCOME, SERVICE, SET, Outcome, Set, State
from patchbay_lantern.settings import LanternSettings
from patchbay_lantern.wire import http
from patchbay_lantern.wire.errors import WireError

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
NOT_NOW: Final = frozenset({"too_late", "unavailable", "unconfirmed", "cancelled"})
"""Codes of the domain that say nothing against the call itself: the same one may succeed later."""

METHODS: Final = "GET, HEAD, OPTIONS, POST"
PREFLIGHT_S: Final = 600
"""How long a browser may remember that it may ask."""

Answered = TypeVar("Answered", bound=msgspec.Struct)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Failed(msgspec.Struct):
    """An answer of the domain, as far as it says whether there was an error."""

    error: Failure | None = None


class _Done(msgspec.Struct):
    """What the domain answers to a command that it has stored."""

    command: str
    value: str | None = None
    lanterns: int = 0


class _Outcome(msgspec.Struct):
    """What the domain answers to who asks for an outcome."""

    outcome: str
    command: str | None = None
    value: str | None = None


class Refusal(Exception):
    """A request that is answered with an error. ``id``: of one whose outcome is unknown."""

    def __init__(self, status: HTTPStatus, code: str, message: str, id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.id = id


async def run(unit: Unit) -> None:
    """The unit ``lantern.api``."""
    settings = unit.settings(LanternSettings)
    api = Api(unit.bus, settings, unit.config.port(settings.page_port))
    port = unit.config.port(settings.api_port)
    async with HttpServer(api, unit.listen_host, port) as server:
        unit.log.info("listening", host=unit.listen_host, port=server.port)
        unit.info_sources["calls"] = lambda: api.calls
        unit.info_sources["refused"] = lambda: api.refused
        unit.info_sources["connections"] = lambda: server.connections
        await unit.serving()


class Api:
    """Answers requests. ``page_port``: where our own page is, which may call from a browser."""

    def __init__(
        self,
        bus: Bus,
        settings: LanternSettings,
        page_port: int,
        registry: Registry = COMMANDS,
    ) -> None:
        self.calls = 0
        """Commands that were obeyed."""
        self.refused = 0
        """Requests that were answered with an error."""
        self.settings = settings
        self._bus = bus
        self._page_port = page_port
        self._hosts = hosts_of(settings.hosts, [*settings.origins, settings.api_url or ""])
        self._registry = registry
        self._state: State | None = None
        self._census = Census(bus, state=self._stated)
        self._log = structlog.get_logger("api").bind(instance=bus.client_id)

    def application(self) -> web.Application:
        """The application that aiohttp serves."""
        application = web.Application(client_max_size=http.MAX_BODY, middlewares=[self._around])
        application.router.add_get("/", self._show)
        application.router.add_get("/requests/{id}", self._tell_outcome)
        application.router.add_post("/", self._call)
        application.router.add_route("OPTIONS", "/", self._preflight)
        return application

    # Requests

    async def _show(self, request: web.Request) -> web.Response:
        state = self._state
        if state is None or not self._bus.connected:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "cut off from the bus")
        shown = {key: getattr(state, key) for key in ("on", "color", "since", "by")}
        return _json(HTTPStatus.OK, encode({**shown, "lanterns": self._census.lanterns}) + b"\n")

    async def _call(self, request: web.Request) -> web.Response:
        origin = request.headers.get("Origin")
        if origin is not None and not self._may_call(request, origin):
            why = "pages of this origin may not call"
            raise Refusal(HTTPStatus.FORBIDDEN, "forbidden_origin", why)
        try:
            call = http.decode(await self._body(request))
            order = self._registry.order(call.command, call.value)
        except WireError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, error.code, str(error)) from error
        except Rejected as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, error.code, error.message) from error
        body = Set(command=order.command, value=order.value, by=f"api {request.remote}"[:64])
        done = await self._ask(body)
        self.calls += 1
        return _json(HTTPStatus.OK, http.encode_done(done.command, done.value, done.lanterns))

    async def _body(self, request: web.Request) -> bytes:
        """The whole body. Raises `Refusal` when it does not come, or not as it was announced."""
        within_s = self.settings.request_s
        try:
            async with asyncio.timeout(within_s):
                body = await request.read()
        except TimeoutError as error:
            why = f"the body has not come within {within_s:g} s"
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "too_slow", why) from error
        except (web.RequestPayloadError, ConnectionError) as error:
            why = "the body is broken, or was not sent whole"
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad_request", why) from error
        _is_whole(request)
        return body

    async def _preflight(self, request: web.Request) -> web.Response:
        return Response(status=HTTPStatus.NO_CONTENT, headers={"Allow": METHODS})

    async def _tell_outcome(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        payload = await self._request(OUTCOME, Outcome(id=id[:256]))
        found = _decoded(payload, _Outcome)
        return _json(
            HTTPStatus.OK, http.encode_outcome(id, found.outcome, found.command, found.value)
        )

    async def _ask(self, body: Set) -> _Done:
        """Have the domain store a command. Raises `Refusal`."""
        id = new_id()
        try:
            return _decoded(await self._request(SET, body, id=id), _Done)
        except (OutcomeUnknown, msgspec.DecodeError) as error:
            self._log.warning("outcome unknown", request=id, why=str(error))
            why = f"it may have been accepted, or not: GET /requests/{id} tells"
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "outcome_unknown", why, id) from error

    async def _request(self, name: str, body: Set | Outcome, id: str = "") -> bytes:
        """Ask the domain. With an ``id``: a command, and OutcomeUnknown may be raised. Raises
        `Refusal`."""
        within_s = self.settings.answer_s
        try:
            payload = await self._bus.request(
                self._bus.topics.command(SERVICE, ALL, name),
                encode(body),
                timeout_s=within_s,
                expiry_s=math.ceil(within_s),
                actuates=bool(id),
                id=id,
            )
        except (TimeoutError, Unavailable) as error:
            why = f"the lantern domain has not answered within {within_s:g} s"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", why) from error
        except Rejected as error:  # the broker does not let us publish it
            status = HTTPStatus.SERVICE_UNAVAILABLE
            raise Refusal(status, error.code, error.message) from error
        failure = _decoded(payload, _Failed).error
        if failure is None:
            return payload
        status = HTTPStatus.BAD_REQUEST
        if failure.code in NOT_NOW:
            status = HTTPStatus.SERVICE_UNAVAILABLE
        elif failure.code == "internal_error":
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        raise Refusal(status, failure.code, failure.message)

    def _stated(self, message: Message) -> None:
        """``all/state`` has come."""
        try:
            self._state = decode(msgspec.json.Decoder(State), message.payload)
        except msgspec.DecodeError as error:
            self._log.error("no state", topic=message.topic, error=str(error))

    # Around every request

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error is JSON, and browsers hear whether their page may read the answer."""
        ours = self._hosts.know(request.headers.getall("Host", ()))
        try:
            if not ours:
                why = "the server is not known by this name; its setting hosts can say that it is"
                raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "unknown_host", why)
            if not request.can_read_body:
                _is_whole(request)
            response = await handler(request)
        except Refusal as refusal:
            response = self.refuse(refusal.status, refusal.code, str(refusal), refusal.id)
            if refusal.status is HTTPStatus.REQUEST_TIMEOUT:
                response.force_close()  # what still comes is no request
        except web.HTTPRequestEntityTooLarge:
            why = f"a body has at most {http.MAX_BODY} bytes"
            response = self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", why)
        except web.HTTPMethodNotAllowed:
            why = f"there are {METHODS}"
            response = self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", why)
            response.headers["Allow"] = METHODS
        except web.HTTPNotFound:
            why = "there are / and /requests/<id>"
            response = self.refuse(HTTPStatus.NOT_FOUND, "not_found", why)
        except web.HTTPException as error:
            response = self.refuse(HTTPStatus(error.status), "bad_request", error.reason)
        except Exception as error:  # the outermost frame of a request
            self._log.error("request failed", exc_info=error)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            response = self.refuse(status, "internal_error", "this is our mistake")
        if ours:
            self._allow(request, response)
        return response

    def refuse(self, status: HTTPStatus, code: str, message: str, id: str = "") -> web.Response:
        """An error as its answer."""
        self.refused += 1
        return _json(status, http.encode_error(code, message, id))

    def _allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say, as CORS wants it, that the page which asks may read this."""
        response.headers["Vary"] = "Origin"
        origin = request.headers.get("Origin")
        if origin is None or not self._may_call(request, origin):
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = METHODS
            response.headers["Access-Control-Allow-Headers"] = "Content-Type"
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_S)

    def _may_call(self, request: web.Request, origin: str) -> bool:
        """Our own page may, on the host that it was asked from, and those of ``origins``.

        A browser calls for any page that somebody has open: without this each could command.
        """
        if origin in self.settings.origins:
            return True
        if not origin.isascii():  # no browser says so, and no header of ours may
            return False
        try:
            page, ours = urlsplit(origin), urlsplit(f"//{request.headers.get('Host', '')}")
            port = page.port or DEFAULT_PORTS.get(page.scheme)  # a browser leaves these out
            return page.hostname == ours.hostname and port == self._page_port
        except ValueError:
            return False


def _decoded(payload: bytes, kind: type[Answered]) -> Answered:
    """An answer of the domain. Raises msgspec.DecodeError."""
    return decode(msgspec.json.Decoder(kind), payload)


def _json(status: HTTPStatus, body: bytes) -> web.Response:
    return Response(
        status=status,
        body=body,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )


def _is_whole(request: web.Request) -> None:
    if isinstance(connection := request.protocol, Connection):
        connection.whole()
