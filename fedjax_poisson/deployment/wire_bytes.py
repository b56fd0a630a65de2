"""Bytes that a sum between sites takes on the wire, from its terms alone: every message of the round, what they travel in, and the transcript.

Counted for a round in which everybody speaks and nothing is sent twice: one look of the coordinator ("next"), the members' steps, the contribution, the
transcript. Each further look is a request of 0.1 kB and a reply of the terms' size; a message that is lost is sent again. TLS adds some 22 bytes a record of
at most 16 KiB. Held against what was sent in `tests/deployment/test_wire_bytes.py` and `experiments/consortium_rounds.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from fedjax_poisson.aggregation import messages
from fedjax_poisson.aggregation.keys import BOX_BYTES
from fedjax_poisson.aggregation.messages import Message, Notice
from fedjax_poisson.aggregation.round_setting import message_bytes
from fedjax_poisson.aggregation.terms import Terms, encode_terms, parameters_of
from fedjax_poisson.aggregation.wire import residues_size
from fedjax_poisson.deployment.requests import Spoken, encode
from fedjax_poisson.deployment.transport import part_messages
from fedjax_poisson.deployment.transport.parts import PART_BYTES

__all__ = ["Traffic", "sum_traffic"]

_QUESTION, _ANSWER = (
    part_messages.QUESTION_BYTES + 4,
    part_messages.ANSWER_BYTES + 5,
)  # with their lengths on a stream (`transport.frames`)
_FACTS = 110
"""Bytes of the JSON that a site says of itself: its state, the release, epsilon so far."""
_TRANSCRIPT_HEAD = 5


class Traffic(NamedTuple):
    """What a party sends and gets in one sum.

    Attributes:
      up: bytes that leave it.
      down: bytes that it gets.
    """

    up: int
    down: int


def sum_traffic(
    terms: Terms, clients: int, *, sends: bool = True, sits: bool = True, part_bytes: int = PART_BYTES
) -> Traffic:
    """The mean over parties of one kind.

    Args:
      terms: of the round; round keys may be missing.
      clients: sites in the sum.
      sends: whether the party is a site.
      sits: whether it is a member of the committee.
      part_bytes: of a request or reply in one message.

    Raises:
      ValueError: a norm round, which sites do not hold.
    """
    if terms.norm is not None:
        raise ValueError("sums between sites are light rounds; these terms are of a norm round.")
    up = down = 0.0
    for there, back, of in _exchanges(terms, clients):
        if (of == "site" and not sends) or (of == "member" and not sits):
            continue
        pieces = -(-int(there) // part_bytes) + max(-(-int(back) // part_bytes), 1) - 1
        down += there + pieces * _QUESTION
        up += back + pieces * _ANSWER
    return Traffic(round(up), round(down))


def _exchanges(terms: Terms, clients: int) -> Iterator[tuple[float, float, str]]:
    """Every request and its reply: bytes of both, and to whom it goes."""
    params, members = parameters_of(terms), len(terms.members)
    key = bytes(_message("round-key", messages.ROUND_KEY_BYTES))
    whole = len(encode_terms(dataclasses.replace(terms, round_keys=(key,) * members)))
    draft = len(encode_terms(dataclasses.replace(terms, round_keys=(b"",) * members)))
    commit = 4 + messages.ENTRY_BYTES * clients
    include = commit + 1 + members + 4
    scalars = 64 + residues_size(clients * params.scalars, params.ring.moduli)
    answer = 32 + params.polynomial_bytes
    manifest = _message("contribution", 64 + 32 * members + 32 * params.corrections)
    correction = params.polynomial_bytes * params.corrections / members  # those below t get none
    shares = 4 + clients * (12 + manifest + BOX_BYTES + correction)

    def quorum(body: int) -> int:
        return 4 + body + 4 + 96 * members

    def all_said(label: str, body: int) -> int:
        return 4 + members * (4 + _message(label, body))

    steps: tuple[tuple[str, float, str, int], ...] = (
        ("begin", 24, "round-key", messages.ROUND_KEY_BYTES),
        ("terms", whole, "certify", 32),
        ("shares", shares, "held", 4),
        ("propose", commit, "commit", commit),
        ("committed", quorum(commit), "beacon-open", 64),
        ("beacons", all_said("beacon-open", 64), "seed", 32),
        ("seeded", 4 + quorum(32), "projections", scalars),
        ("judged", 4 + include + all_said("projections", scalars), "include", include),
        ("included", quorum(include), "answer", answer),
    )
    for notice, asked, label, said in steps:
        head = len(messages.encode_notice(Notice(notice, b"")))
        yield _spoken("notice", head + asked), _spoken("said", _message(label, said)), "member"
    yield _spoken("invite", whole, quorum(32)), _spoken("sent", message_bytes(params)), "site"
    signed = [all_said(label, body) for _, _, label, body in steps if label not in ("round-key", "certify", "held")]
    parts = [whole, quorum(32), *signed, params.rows_bytes, 32]
    transcript = _TRANSCRIPT_HEAD + sum(4 + part for part in parts)
    yield _spoken("opened", 8, transcript), _spoken("kept", 8), "site"
    yield _spoken("next"), _spoken("at", 8, _FACTS, draft), "site"


def _message(label: str, body: int) -> int:
    return len(messages.encode(Message(label, bytes(32), bytes(32), bytes(body), bytes(64))))


def _spoken(word: str, *parts: float) -> float:
    return len(encode(Spoken(word, (b"",) * len(parts)))) + sum(parts)
