"""supervisord: its configuration, its process, and what it says over XML-RPC.

Three groups. supervisord starts them by rising priority and stops them one after the other by
falling priority, each group's processes at once: demos first, then units, then broker and store.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shlex
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from supervisor.xmlrpc import SupervisorTransport

from patchbay.errors import Unavailable
from patchbay.parent import PARENT
from patchbay.up.plan import Plan, Program

STOP_WAIT_S: Final = 8
"""From SIGTERM to SIGKILL: a unit takes 5 s at most, the store writes its checkpoint."""

LOG_BYTES: Final = 5_000_000
LOG_FILES: Final = 3
"""A process's log: the file that is written to, and those before it. The hour before an hour of
hostile input is still there (`patchbay.log` bounds what an hour takes)."""

_SOCKET_BYTES: Final = 90
"""A Unix socket's path has 107 bytes at most, and supervisord binds it with its pid appended."""

_HEADER: Final = """\
[unix_http_server]
file = {socket}
chmod = 0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisord]
nodaemon = true
silent = true
logfile = {log}/supervisord.log
logfile_maxbytes = 5MB
logfile_backups = 1
pidfile = {state}/supervisord.pid
childlogdir = {log}
"""

_GROUP: Final = """
[group:{name}]
programs = {programs}
priority = {priority}
"""

# Nothing ever gives up: what dies is started again, after a second, then two, then three ...
_PROGRAM: Final = """
[program:{name}]
command = {command}
autostart = true
autorestart = true
startsecs = 1
startretries = 1000000
stopsignal = TERM
stopwaitsecs = {stop_wait}
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}/{name}.log
stdout_logfile_maxbytes = {log_bytes}
stdout_logfile_backups = {log_backups}
"""


class Process(Struct, frozen=True):
    """What supervisord says of one process. ``stopped_at``: when it last ended, 0 for never."""

    name: str
    state: str
    pid: int
    stopped_at: int


def render(plan: Plan, state: Path, socket: Path) -> str:
    """supervisord's configuration for this plan. Paths are absolute."""
    log = _escaped(str(log_dir(state)))
    text = _HEADER.format(socket=_escaped(str(socket)), log=log, state=_escaped(str(state)))
    groups = (("infrastructure", plan.infrastructure), ("units", plan.units), ("demos", plan.demos))
    for priority, (name, programs) in enumerate(groups, start=1):
        if programs:
            names = ",".join(program.name for program in programs)
            text += _GROUP.format(name=name, programs=names, priority=priority)
            text += "".join(_program(program, _escaped(log)) for program in programs)
    return text


def socket_path(state: Path) -> Path:
    """Where supervisord listens: in the state directory, or, if that path is too long, in a
    directory of ours among the temporary files.

    Raises Unavailable if somebody else has that directory.
    """
    path = state / "supervisor.sock"
    if len(os.fsencode(path)) <= _SOCKET_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"patchbay-{os.geteuid()}"
    if len(os.fsencode(directory / name)) > _SOCKET_BYTES:
        directory = Path("/tmp") / directory.name  # noqa: S108  owner and mode are checked
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise Unavailable(f"{directory} is not ours alone: remove it, or give a shorter --state")
    return directory / name


def log_dir(state: Path) -> Path:
    """Where the processes' output is kept, a file each."""
    return state / "log"


def launch(configuration: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start supervisord, which hands ``environ`` on to everything it runs.

    It has a session of its own, so that Ctrl-C reaches `up` alone. Call it from the main thread:
    the kernel ends it when the thread that started it ends.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "patchbay.up.daemon", "-n", "-c", str(configuration)],
        env={**environ, PARENT: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def processes(socket: Path) -> dict[str, Process]:
    """What supervisord says of each of its processes. Raises Unavailable if it does not answer."""
    infos = _call(socket, "getAllProcessInfo")
    return {
        info["name"]: Process(info["name"], info["statename"], info["pid"], info["stop"])
        for info in infos
    }


def restart(socket: Path, name: str) -> None:
    """Stop one process, with SIGKILL if it does not stop, and start it. Raises Unavailable."""
    group = next(
        info["group"] for info in _call(socket, "getAllProcessInfo") if info["name"] == name
    )
    for method in ("stopProcess", "startProcess"):
        try:
            _call(socket, method, f"{group}:{name}")
        except Unavailable:
            if method == "startProcess":
                raise  # of one that did not run, the first is refused


def shut_down(socket: Path) -> None:
    """Ask supervisord to stop everything and itself. Raises Unavailable if it does not answer."""
    _call(socket, "shutdown")


def _call(socket: Path, method: str, *arguments: str) -> Any:
    transport = SupervisorTransport(None, None, f"unix://{socket}")
    try:
        # The address is only there for form's sake, the transport knows the socket.
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as server:
            return getattr(server.supervisor, method)(*arguments)
    except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
        raise Unavailable(f"supervisord does not answer: {error}") from error


def _program(program: Program, log: str) -> str:
    """``log`` is escaped twice: supervisord expands a program's log file twice."""
    return _PROGRAM.format(
        name=program.name,
        command=_escaped(shlex.join(program.command)),
        log=log,
        stop_wait=STOP_WAIT_S,
        log_bytes=LOG_BYTES,
        log_backups=LOG_FILES - 1,
    )


def _escaped(text: str) -> str:
    """supervisord expands %(...)s everywhere."""
    return text.replace("%", "%%")
