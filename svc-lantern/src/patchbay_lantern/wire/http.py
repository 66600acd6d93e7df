"""What the API is asked and answers, as JSON.

    POST /    {"method": "message", "params": {"command": "COLOR", "value": "ff0000"}}
    200       {"result": "ok", "command": "COLOR", "value": "ff0000", "lanterns": 3}
    400, ...  {"error": {"code": "bad_value", "message": "..."}}      it never acts
    504       {"error": {"code": "outcome_unknown", "message": "...", "id": "41b0..."}}

    GET /requests/41b0...
    200       {"id": "41b0...", "outcome": "accepted", "command": "COLOR", "value": "ff0000"}

Source: the seed's curl line. It sends the body as a form, so the content type says nothing. Keys
that are not named here are ignored. Which commands there are is not the wire's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from patchbay.validation import explain
from patchbay_lantern.wire.errors import WireError

MAX_BODY: Final = 65_536
"""Bytes of a body. A command has some 80."""

METHOD: Final = "message"


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked for: a command and its value, as given."""

    command: object
    value: object = None


def decode(body: bytes) -> Call:
    """The call of a body. Raises `WireError`: bad_json, bad_request, unknown_method, too_large."""
    if len(body) > MAX_BODY:
        raise WireError("too_large", f"a body has at most {MAX_BODY} bytes")
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("bad_json", f"not JSON: {explain(error)}") from error
    if not isinstance(found, dict):
        raise WireError("bad_request", 'an object with "method" and "params" is wanted')
    if found.get("method") != METHOD:
        raise WireError("unknown_method", f'"method" must be "{METHOD}"')
    params = found.get("params")
    if not isinstance(params, dict):
        raise WireError("bad_request", '"params" must be an object')
    if "command" not in params:
        raise WireError("bad_request", '"command" is missing in "params"')
    return Call(params["command"], params.get("value"))


def encode(call: Call) -> bytes:
    """The body of a call, as the page makes it."""
    params = {"command": call.command, "value": call.value}
    return msgspec.json.encode({"method": METHOD, "params": params})


def encode_done(command: str, value: str | None, lanterns: int) -> bytes:
    """The answer to a call that was obeyed."""
    done = {"result": "ok", "command": command, "value": value, "lanterns": lanterns}
    return msgspec.json.encode(done) + b"\n"


def encode_error(code: str, message: str, id: str = "") -> bytes:
    """The answer to a call that was not. ``id``: of a request whose outcome is unknown."""
    error = {"code": code, "message": message, **({"id": id} if id else {})}
    return msgspec.json.encode({"error": error}) + b"\n"


def encode_outcome(id: str, outcome: str, command: str | None, value: str | None) -> bytes:
    """The answer to who asks what became of a request."""
    shown: dict[str, Any] = {"id": id, "outcome": outcome}
    if command is not None:
        shown |= {"command": command, "value": value}
    return msgspec.json.encode(shown) + b"\n"
