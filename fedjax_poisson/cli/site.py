"""`site ...`: what a hospital does on its own machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from fedjax_poisson.deployment.roster import Roster
    from fedjax_poisson.deployment.transport.tls import Credentials

__all__ = ["COMMANDS", "STATE", "passphrase_of"]

STATE = Path("state")
"""The site's folder unless another is given: key, ledger, log, what was said in rounds; mode 0700."""
_LOG, _SOCKET = "site.log", "worker.socket"
_BEAT_SECONDS = 30.0
"""How often a worker writes its status when nothing happens."""


def passphrase_of(file: Path | None) -> bytes | None:
    """The passphrase in a file: its first line; None without a file.

    Raises:
      IdentityRefused: others may read the file.
      OSError: it cannot be read.
    """
    from fedjax_poisson.deployment.identity import check_private

    if file is None:
        return None
    check_private(file)
    return file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")


def init(*, state: Path = STATE, passphrase_file: Path | None = None) -> int:
    """Make this site's key, once.

    Args:
      state: folder of the site's key, ledger and log; made with mode 0700.
      passphrase_file: file (mode 0600) whose first line encrypts the key.
    """
    from fedjax_poisson.deployment import identity

    made = identity.create(state, passphrase_of(passphrase_file))
    print(f"public key: {made.public.hex()}")
    print(
        f"Send it, or {state / identity.PUBLIC_FILE}, to who makes the roster, and read it out by telephone: it is who this site is. "
        f"{state / identity.KEY_FILE} never leaves this machine but for an encrypted backup."
    )
    return 0


def log(*, state: Path = STATE, json: bool = False, last: int = 0) -> int:
    """Check this site's log and print it; nothing is written.

    Args:
      state: folder of the site.
      json: print the lines as they are, for programs.
      last: only so many of the newest entries; 0 for all.
    """
    from fedjax_poisson.deployment.identity import PUBLIC_FILE
    from fedjax_poisson.deployment.log_entries import check_chain, line_of
    from fedjax_poisson.deployment.site_log import read_log

    entries = read_log(state / _LOG)
    check_chain(entries, bytes.fromhex((state / PUBLIC_FILE).read_text(encoding="ascii").strip()))
    for entry in entries[-last:]:
        if json:
            print(line_of(entry).decode(), end="")
        else:
            facts = ", ".join(f"{name} {_brief(value)}" for name, value in entry.facts.items())
            print(f"{entry.number:6d}  {entry.time}  {entry.kind:12s}  {facts}")
    if not json:
        print(f"verified: {len(entries)} entries follow from each other and are signed by this site's key")
    return 0


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_brief(each) for each in value)}]"
    return value[:12] if isinstance(value, str) and len(value) >= 32 else str(value)


def approve(
    terms: Annotated[str | None, tyro.conf.Positional] = None, *, state: Path = STATE, yes: bool = False
) -> int:
    """Show a run that waits for this site's approval, and approve it with --yes; without TERMS list what waits.

    Args:
      terms: file of the terms, or the start of their hash (8 digits at least).
      state: folder of the site.
      yes: approve: the worker signs the terms when it is asked again.
    """
    from datetime import UTC, datetime

    from fedjax_poisson.deployment import approvals
    from fedjax_poisson.deployment.run_terms import in_words, run_terms_hash, summary_line
    from fedjax_poisson.reports.formatting import plural

    now = datetime.now(UTC)
    if terms is None:
        found = approvals.waiting(state, now)
        for one in found:
            print(f"{run_terms_hash(one).hex()[:16]}  {summary_line(one)}")
        print(f"{plural(len(found), 'run')} wait{'s' if len(found) == 1 else ''} for approval in {state}", end="")
        print("; show one with: fedjax-poisson site approve HASH" if found else "")
        return 0
    one = approvals.find_terms(state, terms, now)
    print(in_words(one))
    if approvals.is_approved(state, one):
        print("\nThese terms are approved already.")
    elif yes:
        approvals.approve(state, one)
        print("\nApproved. The site's policy still applies.")
    else:
        print("\nNothing was changed. To approve: the same command with --yes")
    return 0


def status(*, state: Path = STATE, json: bool = False, prometheus: bool = False, stale_after: float = 0) -> int:
    """Show how this site's worker is doing; exit code 1 if its status is older than --stale-after.

    Args:
      state: folder of the site.
      json: for programs.
      prometheus: for Prometheus, as text.
      stale_after: seconds; 0 never complains.
    """
    from json import dumps

    from fedjax_poisson.deployment.status import age, prometheus_text, read_status

    found = read_status(state)
    old = age(found)
    if prometheus:
        print(prometheus_text(found), end="")
    elif json:
        print(dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:20s} {_moment(value) if name == 'updated' else value}")
        print(f"{'age':20s} {old:.0f} s")
    return 1 if stale_after and old > stale_after else 0


def _moment(seconds: Any) -> str:
    """A time for people, UTC."""
    from datetime import UTC, datetime

    known = isinstance(seconds, int | float) and 0 <= seconds < 1 << 36
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if known else str(seconds)


def serve(
    policy: Annotated[Path, tyro.conf.Positional],
    *,
    state: Path = STATE,
    connect: str | None = None,
    credentials: Path | None = None,
    socket: Path | None = None,
    passphrase_file: Path | None = None,
    seed: int | None = None,
) -> int:
    """Start this site's worker: it answers the coordinator until it is stopped (Ctrl-C or SIGTERM), and takes up the run that was under way.

    Args:
      policy: POLICY.toml, what this site allows.
      state: folder of the site.
      connect: HOST:PORT of the coordinator, dialled from here over TLS; without it requests come to the socket only (Flower, or one machine).
      credentials: folder with ca.crt, NAME.crt and NAME.key for that connection; default: the folder of the policy.
      socket: Unix socket that another transport calls; default: worker.socket in the folder of the site.
      passphrase_file: file (mode 0600) whose first line opens the key.
      seed: for rehearsals with made-up records only: all noise follows from it, so nothing is private, and every output says so.
    """
    from fedjax_poisson.deployment import identity
    from fedjax_poisson.deployment.policy_file import read_policy
    from fedjax_poisson.deployment.site import Worker
    from fedjax_poisson.deployment.site_log import open_log

    state = state.absolute()
    rules = read_policy(policy)
    for key, named in (("csv", rules.data.csv), ("images", rules.data.images)):
        if named and not Path(named).exists():
            raise FileNotFoundError(f"{policy}: data.{key} = {named}: there is no such file; correct the path.")
    roster = _roster(Path(rules.consortium.roster))
    who = identity.load(state, passphrase_of(passphrase_file))
    if seed is not None:
        _say(f"seed {seed}: a rehearsal, NOT private.")
    with contextlib.closing(open_log(state / _LOG, who)) as book:
        worker = Worker(state, rules, roster, who, book, seed=seed, say=_say)
        dialled = (
            None
            if connect is None
            else _address(connect, credentials or policy.absolute().parent, rules.consortium.name)
        )
        _answer(
            worker.handle,
            worker.close,
            worker.beat,
            state / _SOCKET if socket is None else socket,
            rules.consortium.name,
            dialled,
        )
    _say("stopped; a run that was under way goes on when the worker is started again")
    return 0


def serve_member(
    roster: Annotated[Path, tyro.conf.Positional],
    *,
    state: Path = STATE,
    connect: str | None = None,
    credentials: Path | None = None,
    socket: Path | None = None,
    passphrase_file: Path | None = None,
) -> int:
    """Start the worker of a member of the committee that has no records.

    Args:
      roster: file of the roster, signed by all.
      state: folder of the member: its key, its log, what it said in rounds.
      connect: as in `site serve`.
      credentials: as in `site serve`; default: the folder of the roster.
      socket: Unix socket that the transport calls; default: worker.socket in the folder.
      passphrase_file: file (mode 0600) whose first line opens the key.
    """
    from fedjax_poisson.deployment import identity
    from fedjax_poisson.deployment.operator import Operator
    from fedjax_poisson.deployment.roster import named
    from fedjax_poisson.deployment.site_log import open_log

    state = state.absolute()
    signed = _roster(roster)
    who = identity.load(state, passphrase_of(passphrase_file))
    with contextlib.closing(open_log(state / _LOG, who)) as book:
        worker, name = Operator(state, signed, who, book, say=_say), named(signed, who.public)
        dialled = None if connect is None else _address(connect, credentials or roster.absolute().parent, name)
        _answer(worker.handle, worker.close, worker.beat, state / _SOCKET if socket is None else socket, name, dialled)
    return 0


def _say(words: str) -> None:
    print(words, flush=True)


def _roster(path: Path) -> Roster:
    """A roster that all parties signed."""
    from fedjax_poisson.deployment.roster import check_signatures
    from fedjax_poisson.deployment.roster_file import read_roster

    signed = read_roster(path)
    check_signatures(signed.roster, signed.signatures)
    return signed.roster


def _address(connect: str, folder: Path, name: str) -> tuple[tuple[str, int], Credentials]:
    """Host and port of the coordinator, and the files that show who dials.

    Raises:
      ValueError: it is not HOST:PORT, or a file is missing.
      IdentityRefused: others may read the key.
    """
    from fedjax_poisson.deployment.identity import check_private
    from fedjax_poisson.deployment.transport.tls import Credentials

    host, _, port = connect.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--connect {connect}: give the coordinator's HOST:PORT, such as consortium.example:8443.")
    own = Credentials(folder / "ca.crt", folder / f"{name}.crt", folder / f"{name}.key")
    for file in own:
        if not file.is_file():
            raise ValueError(f"{file} is missing: the organiser hands it out (fedjax-poisson consortium certificates).")
    check_private(own.key)
    return (host, int(port)), own


def _answer(
    handle: Callable[[bytes], bytes],
    close: Callable[[], None],
    beat: Callable[[], None],
    path: Path,
    name: str,
    dialled: tuple[tuple[str, int], Credentials] | None = None,
) -> None:
    """Answer requests at a socket, and over connections that are dialled, until Ctrl-C or SIGTERM."""
    import threading
    import time

    from fedjax_poisson.deployment.transport.dial import dial
    from fedjax_poisson.deployment.transport.parts_handler import parts_handler
    from fedjax_poisson.deployment.transport.sockets import serve as serve_socket
    from fedjax_poisson.federated.stopping import stop_requested

    done = threading.Event()
    with stop_requested(_say) as stop:

        def watch() -> None:
            beaten = time.monotonic()
            while not stop() and not done.wait(0.2):
                if time.monotonic() - beaten > _BEAT_SECONDS:
                    beat()
                    beaten = time.monotonic()
            done.set()

        threading.Thread(target=watch, daemon=True).start()
        whole = parts_handler(handle)
        if dialled is not None:
            threading.Thread(target=dial, args=(*dialled, whole, done), kwargs={"say": _say}, daemon=True).start()
            _say(f"{name} dials {dialled[0][0]}:{dialled[0][1]}")
        try:
            serve_socket(path.absolute(), whole, done, ready=lambda: _say(f"{name} waits at {path}"))
        finally:
            done.set()
            close()


COMMANDS: dict[str, Callable[..., int]] = {
    "init": init,
    "serve": serve,
    "serve-member": serve_member,
    "approve": approve,
    "log": log,
    "status": status,
}
"""`fedjax-poisson site ...` by name."""
