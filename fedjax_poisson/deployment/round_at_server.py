"""One round of the protocol at the coordinator: it asks the members and the sites, takes in what comes, and ends each phase when all spoke or time is up.

`aggregation.server` decides everything; here is only who is asked what, and when. Bad replies are refused by their names and noted; the round goes on without
them as long as enough is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fedjax_poisson.aggregation import messages, server
from fedjax_poisson.aggregation.refusals import NoRoom, RoundRefused
from fedjax_poisson.aggregation.spool import Spool
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.aggregation.transcript import write_transcript
from fedjax_poisson.aggregation.wire import Reader
from fedjax_poisson.deployment.replies import reply_of
from fedjax_poisson.deployment.requests import Spoken, encode
from fedjax_poisson.deployment.transport.link import Link

__all__ = ["Heard", "RoundOver", "hold_round"]

_MOST_INVITE = 1 << 24


class Heard(NamedTuple):
    """Something that went wrong, and did not stop the round.

    Attributes:
      phase: of the round.
      site: who.
      what: in words.
    """

    phase: str
    site: str
    what: str


class RoundOver(RuntimeError):
    """The round ended without a sum; the message says where and why, and `heard` what the sites did."""

    def __init__(self, message: str, heard: list[Heard]) -> None:
        """The words, and what was heard."""
        super().__init__(message)
        self.heard = heard


def hold_round(
    link: Link,
    draft: Terms,
    *,
    members: Mapping[int, str],
    sites: Mapping[str, bytes],
    seconds: float,
    spool: Spool | None = None,
    away: frozenset[str] = frozenset(),
    clock: Callable[[], float] = time.monotonic,
) -> tuple[bytes, list[Heard]]:
    """Hold one round among some sites.

    Args:
      link: to the sites.
      draft: the terms, with the round's number and without round keys.
      members: number in the committee -> name of the party that sits there.
      sites: name -> public key, of those that are asked to send.
      seconds: how long a phase may take.
      spool: where uploads wait; None for memory.
      away: parties that did not answer just now; as members they are not asked, as long as enough others are left.
      clock: seconds.

    Returns:
      The transcript of the opened round, and what was heard.

    Raises:
      RoundOver: too little came in, or what came does not open.
    """
    heard: list[Heard] = []
    roster = frozenset(sites.values())
    if sum(name not in away for name in members.values()) < draft.threshold:
        away = frozenset()  # without one of them there is no round
    try:
        state, outgoing = server.start(draft, roster, spool)
        while state.phase != "opened":
            requests: dict[str, bytes] = {}
            for one in outgoing:
                if one.to and members[one.to] in away:
                    continue
                if one.to:
                    requests[members[one.to]] = encode(Spoken("notice", (one.blob,)))
                else:
                    invite = Reader(messages.decode_notice(one.blob, _MOST_INVITE, ["invite"]).body)
                    asked = encode(Spoken("invite", (invite.prefixed(), invite.prefixed())))
                    requests = dict.fromkeys(sites, asked)
            state = _taken(link, state, requests, seconds, heard, clock)
            state, outgoing = server.advance(state)
        return write_transcript(state), heard
    except RoundRefused as error:
        said = "".join(f"\n  {one.phase}: {one.site}: {one.what}" for one in heard)
        raise RoundOver(f"round {draft.round}: {type(error).__name__}: {error}{said}", heard) from error


def _taken(
    link: Link,
    state: server.State,
    requests: dict[str, bytes],
    seconds: float,
    heard: list[Heard],
    clock: Callable[[], float],
) -> server.State:
    """The state with the replies; a site that has no counts yet, and says "ask again", is asked again while there is time."""
    phase, until, wait = state.phase, clock() + seconds, 0.05
    while requests and (left := until - clock()) > 0:
        again: dict[str, bytes] = {}
        for site, blob in link.ask(requests, left):
            reply = reply_of(blob)
            if isinstance(reply, str):
                if (
                    isinstance(blob, bytes) and phase == "contribution" and "ask again" in reply.lower()
                ):  # members have nothing to wait for
                    again[site] = requests[site]
                else:
                    heard.append(Heard(phase, site, reply))
                continue
            try:
                state = server.receive(state, reply.parts[0] if reply.parts else b"")
            except NoRoom:
                raise
            except RoundRefused as error:
                heard.append(Heard(phase, site, f"{type(error).__name__}: {error}"))
        requests = again
        if requests:
            time.sleep(min(wait, max(until - clock(), 0)))
            wait = min(2 * wait, 1.0)
    for site in requests:
        heard.append(Heard(phase, site, f"was not ready within {seconds:g} s"))
    return state
