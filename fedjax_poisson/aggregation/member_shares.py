"""How a member comes to its share of each client's secret: the box that the client sealed for it, opened and checked against what the client signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fedjax_poisson.aggregation import bodies, host_shares, keys, messages
from fedjax_poisson.aggregation.contribution import box_info, read_manifest
from fedjax_poisson.aggregation.keys import Hidden
from fedjax_poisson.aggregation.member_state import Held, Member, State, under_way
from fedjax_poisson.aggregation.messages import Message
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import BadBox, DuplicateClient, OutOfOrder, RoundRefused
from fedjax_poisson.aggregation.wire import read_residues

__all__ = ["one_share", "opened_boxes"]


def opened_boxes(member: Member, state: State, body: bytes) -> tuple[dict[bytes, Held], list[bytes]]:
    """The shares of the clients of a list that are not held yet.

    Args:
      member: whose boxes they are.
      state: of its round, with terms.
      body: of a `shares` notice.

    Returns:
      Client key to what is held, and the clients whose box or correction is not as they signed it.

    Raises:
      RoundRefused: the list is not one of contributions to this round, or contradicts what is held.
    """
    terms, params = under_way(state)
    secrets = member.store.get(member.run, state.round, "secrets")
    if not secrets:
        raise OutOfOrder("The keys of this round are gone; nothing of it can be opened.")
    opener = keys.box_opener(Hidden(secrets[: keys.BOX_SEED_BYTES]))
    held: dict[bytes, Held] = {}
    senders = {"contribution": member.roster, "noise": frozenset(terms.noise)}
    refused: list[bytes] = []
    for handed in bodies.read_handed(body, terms):
        message = messages.decode(handed.signed, terms, state.digest, lambda label: senders[label], tuple(senders))
        if message.sender in held:
            raise DuplicateClient("A client stands twice in a list.")
        digest = messages.manifest_hash(message)
        known = state.shares.get(message.sender)
        if known is not None:
            if known.digest != digest:
                raise DuplicateClient("A client's second contribution: the first one counts.")
            continue
        try:
            share, kappa = one_share(member, state, params, message, handed, opener)
        except RoundRefused:
            refused.append(message.sender)
            continue
        certificate = read_manifest(message.body, params).certificate
        held[message.sender] = Held(digest, certificate, Hidden(share), kappa)
    return held, refused


def one_share(
    member: Member,
    state: State,
    params: RoundParameters,
    message: Message,
    handed: bodies.Handed,
    opener: Callable[[bytes, bytes], Hidden],
) -> tuple[Any, Hidden]:
    """A member's share of one client's secret, uint32 `[L, N]`, from its box and (from member t on) its correction; and the 32 bytes in the box.

    Raises:
      RoundRefused: one of them is not what the client signed, or cannot be read.
    """
    manifest = read_manifest(message.body, params)
    place = member.number - params.threshold
    if hashlib.sha256(handed.box).digest() != manifest.boxes[member.number - 1]:
        raise BadBox("The box is not the one that the client signed.")
    correction = np.zeros((params.ring.limbs, params.ring.degree), np.uint32)
    if place >= 0:
        if hashlib.sha256(handed.correction).digest() != manifest.corrections[place]:
            raise BadBox("The correction is not the one that the client signed.")
        correction = read_residues(handed.correction, (), params.ring.degree, params.ring.moduli)
    elif handed.correction:
        raise BadBox("A member below t has no correction.")
    kappa = opener(handed.box, box_info(state.digest, message.sender, member.number))
    words = np.frombuffer(kappa.value, "<u4").astype(np.uint32)
    return host_shares.share_of(params, words, correction), kappa
