"""``broker``: users, certificates and configuration of a broker with passwords."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from patchbay.cli.options import ConfigOption

if TYPE_CHECKING:
    from patchbay.access.directory import Directory

app = typer.Typer(help="Make what a broker with passwords needs.", no_args_is_help=True)

Secrets: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="DIR", help="Where secrets are kept: secrets in the state directory."),
]
Owners: TypeAlias = Annotated[
    list[str],
    typer.Option(
        "--owner",
        metavar="WHO=UID",
        help="Who may read a file: locker-edge-pi1=10001, store/locker=10002, mosquitto=1883.",
    ),
]


@app.command()
def users(
    secrets: Secrets = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In the units' instance ids: this host's name."),
    ] = None,
    only: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Units of these services; none: of no one.")
    ] = "",
    instance: Annotated[
        list[str], typer.Option(metavar="ID", help="One more unit: locker-edge-pi1.")
    ] = [],  # noqa: B006  typer makes a new one
    operator: Annotated[
        list[str], typer.Option(metavar="NAME", help="One more who reads and commands.")
    ] = [],  # noqa: B006
    viewer: Annotated[
        list[str], typer.Option(metavar="NAME", help="One more who reads what is no secret.")
    ] = [],  # noqa: B006
    remove: Annotated[
        list[str], typer.Option(metavar="NAME", help="This user is not to be any more.")
    ] = [],  # noqa: B006
    owner: Owners = [],  # noqa: B006
    config: ConfigOption = None,
) -> None:
    """Make passwords for all units, an operator and a viewer; mosquitto's files of users and
    rights; and a script that makes the store's users. What is there stays. Tell a running
    mosquitto by SIGHUP."""
    from patchbay.access.users import Wanted, make_users
    from patchbay.cli.environment import environment, settings
    from patchbay.health import instance_id
    from patchbay.services import units

    read = settings(environment(None, config))
    chosen = [] if only == "none" else [one.strip() for one in only.split(",") if one.strip()]
    names = chosen or ([] if only == "none" else list(read.services))
    wanted = Wanted(
        instances=(
            *(instance_id(f"{s.name}.{role}", host) for s, role in units(read.services, names)),
            *instance,
        ),
        operators=("operator", *operator),
        viewers=("viewer", *viewer),
        removed=tuple(remove),
    )
    directory = _directory(secrets, config, owner)
    new = make_users(
        directory,
        read.services,
        wanted,
        root=read.runtime.root_topic,
        database=read.store.database,
    )
    _say(directory, new)


@app.command()
def certs(
    secrets: Secrets = None,
    name: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="What clients call the broker: host name or address."),
    ] = [],  # noqa: B006
    owner: Owners = [],  # noqa: B006
    config: ConfigOption = None,
) -> None:
    """Make an authority, and the broker's certificate. Without --name: for this host's name,
    localhost and 127.0.0.1. Renewed when it ends within 30 days, or for other names."""
    import socket

    from patchbay.errors import Unavailable

    try:
        from patchbay.access.certificates import make_certificates
    except ImportError as error:
        raise Unavailable("cryptography is not installed (patchbay[certificates])") from error
    names = name or [socket.gethostname(), "localhost", "127.0.0.1"]
    directory = _directory(secrets, config, owner)
    _say(directory, make_certificates(directory, names))


@app.command()
def conf(
    secrets: Secrets = None,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where mosquitto keeps its database.")
    ] = Path("/var/lib/mosquitto"),
    tls_port: Annotated[int, typer.Option(help="For everybody.")] = 8883,
    plain_port: Annotated[int, typer.Option(help="On loopback, without TLS.")] = 1883,
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Who mosquitto becomes if root starts it.")
    ] = "mosquitto",
    at: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where mosquitto finds DIR/mosquitto, if elsewhere."),
    ] = None,
    queued_bytes: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="What may wait for one client.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Bytes of memory for all clients.")
    ] = None,
    owner: Owners = [],  # noqa: B006
    config: ConfigOption = None,
) -> None:
    """Write mosquitto's configuration: TLS for everybody, plain on loopback, no one anonymous."""
    from patchbay.access.conf import write_configuration
    from patchbay.broker import MEMORY, QUEUED_BYTES

    directory = _directory(secrets, config, owner)
    path = write_configuration(
        directory,
        data,
        tls_port=tls_port,
        plain_port=plain_port,
        user=user,
        at=at,
        queued_bytes=queued_bytes or QUEUED_BYTES,
        memory=memory or MEMORY,
    )
    print(path)


@app.command()
def bridge(
    instance: Annotated[str, typer.Argument(metavar="ID", help="The unit: locker-edge-pi1.")],
    secrets: Secrets = None,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="The broker, as its certificate calls it.")
    ] = "localhost",
    port: Annotated[int, typer.Option(help="Its port with TLS.")] = 8883,
    ca_file: Annotated[Path, typer.Option(metavar="FILE", help="Where the Pi has ca.crt.")] = Path(
        "/etc/patchbay/ca.crt"
    ),
    config: ConfigOption = None,
) -> None:
    """Print what a mosquitto beside a unit needs to hand on what it says. It has the password."""
    from patchbay.access import bridge as bridges
    from patchbay.access.directory import UNITS
    from patchbay.cli.environment import environment, settings

    read = settings(environment(None, config))
    directory = _directory(secrets, config, [])
    text = bridges.bridge(
        instance,
        directory.names(UNITS),
        read.services,
        root=read.runtime.root_topic,
        host=host,
        port=port,
        ca_file=ca_file,
        password=directory.password(UNITS, instance),
    )
    print(text, end="")


def _directory(secrets: Path | None, config: Path | None, owners: list[str]) -> Directory:
    from patchbay.access.directory import UNITS, Directory, Owner
    from patchbay.access.rights import is_unit
    from patchbay.cli.environment import environment, settings, state_dir
    from patchbay.errors import SettingsError

    read = settings(environment(None, config))
    found = {}
    for one in owners:
        who, equals, uid = one.partition("=")
        if not equals:
            raise SettingsError(f"--owner {one}: it is said as WHO=UID")
        found[f"{UNITS}/{who}" if is_unit(who, read.services) else who] = Owner.parse(uid)
    return Directory(secrets or state_dir(read) / "secrets", found)


def _say(directory: Directory, files: list[str]) -> None:
    for file in files:
        print(directory.path / file)
    if not files:
        print(f"all is there already: {directory.path}")
