"""The coordinator's file: which consortium, how its parties are reached, and the settings of the run.

    [consortium]
    roster = "roster.toml"              # signed by all parties

    [transport]
    kind = "tls"                        # or "socket", "flower"
    port = 8443                         # of "tls": the one port that sites dial
    credentials = "keys"                # of "tls": folder with ca.crt, server.crt, server.key (`fedjax-poisson consortium certificates`)
    [transport.sockets]                 # of "socket", on one machine: each party's worker
    north = "north/worker.socket"

    [run]                               # settings of `fedjax-poisson run` that are not a site's own
    label = "ill"
    epsilon = 3.0

Paths are relative to the file's folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fedjax_poisson.deployment.common_settings import common_config, read_settings
from fedjax_poisson.deployment.roster import Roster, check_signatures, parties_of
from fedjax_poisson.deployment.roster_file import read_roster
from fedjax_poisson.deployment.transport.link import Link

__all__ = ["ConsortiumFile", "link_of", "read_consortium"]

_PORT = 8443
_KEYS: Mapping[str, tuple[str, ...]] = {
    "consortium": ("roster", "deadline_seconds", "patience_seconds", "approval_seconds", "begin_days", "most_rounds"),
    "transport": ("kind", "sockets", "socket", "host", "port", "credentials"),
}


class ConsortiumFile(NamedTuple):
    """What the file says.

    Attributes:
      roster: checked, and signed by all.
      config: the common settings, completed for the roster.
      kind: of the transport.
      sockets: party to the socket of its worker ("socket").
      socket: where the relay of a Flower run calls ("flower").
      address: host ("" for all addresses of the machine) and port that sites dial ("tls").
      credentials: folder of the coordinator's certificates ("tls").
      options: further arguments of `coordinator.coordinate`.
    """

    roster: Roster
    config: str
    kind: Literal["tls", "socket", "flower"]
    sockets: dict[str, Path]
    socket: Path
    address: tuple[str, int]
    credentials: Path
    options: dict[str, Any]


def read_consortium(path: str | Path) -> ConsortiumFile:
    """The coordinator's settings from their file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not TOML, a table or key is unknown or missing, the roster lacks signatures, or settings contradict each other.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    if strange := [name for name in values if name not in (*_KEYS, "run")]:
        raise ValueError(f"{path} has [{strange[0]}]; its tables are [consortium], [transport] and [run].")
    for table, known in _KEYS.items():
        if strange := [name for name in values.get(table, {}) if name not in known]:
            raise ValueError(f"{path}: [{table}] has no {strange[0]!r}; it has {', '.join(known)}.")
    folder = path.absolute().parent
    about, transport = values.get("consortium", {}), values.get("transport", {})
    if "roster" not in about or "run" not in values:
        raise ValueError(f'{path} needs [consortium] with roster = "FILE", and [run] with the settings of the run.')
    signed = read_roster(folder / str(about["roster"]))
    check_signatures(signed.roster, signed.signatures)
    roster = signed.roster
    kind = transport.get("kind")
    if kind not in ("tls", "socket", "flower"):
        raise ValueError(f'{path}: [transport] kind = {kind!r}; it is "tls", "socket" or "flower".')
    port = transport.get("port", _PORT)
    if not isinstance(port, int) or not 1 <= port < 1 << 16:
        raise ValueError(f"{path}: [transport] port = {port!r}; give a number from 1 to 65535.")
    sockets = {str(name): folder / str(place) for name, place in transport.get("sockets", {}).items()}
    names = [party.name for party in parties_of(roster)]
    if kind == "socket" and sorted(sockets) != sorted(names):
        raise ValueError(
            f"{path}: [transport.sockets] names {', '.join(sockets) or 'nobody'}; the roster has {', '.join(names)}."
        )
    options = {name: value for name, value in about.items() if name != "roster"}
    return ConsortiumFile(
        roster=roster,
        config=common_config(read_settings(values["run"], str(path), roster)),
        kind=kind,
        sockets=sockets,
        socket=folder / str(transport.get("socket", "coordinator.socket")),
        address=(str(transport.get("host", "")), port),
        credentials=folder / str(transport.get("credentials", "keys")),
        options=options,
    )


def link_of(file: ConsortiumFile) -> Link:
    """The way to all parties that the file names; large messages go in parts."""
    from fedjax_poisson.deployment.transport.parts import in_parts

    if file.kind == "socket":
        from fedjax_poisson.deployment.transport.sockets import socket_link

        return in_parts(socket_link(file.sockets))
    names = tuple(party.name for party in parties_of(file.roster))
    if file.kind == "tls":
        from fedjax_poisson.deployment.transport.tls import Credentials, tls_link

        folder = file.credentials
        own = Credentials(folder / "ca.crt", folder / "server.crt", folder / "server.key")
        return in_parts(tls_link(file.address, own, names))
    from fedjax_poisson.deployment.transport.flower import PART_BYTES, PATIENCE, flower_link

    return in_parts(flower_link(file.socket, names), part_bytes=PART_BYTES, patience=PATIENCE)
