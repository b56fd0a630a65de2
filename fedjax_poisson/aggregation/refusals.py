"""Why a message or a round is refused: one class a reason, all under `RoundRefused`, so that a refusal has a name that code and people can act on."""

from __future__ import annotations

from fedjax_poisson.ckks.errors import RoundRefused

__all__ = [
    "AlreadyDone",
    "BadBox",
    "BadSignature",
    "BadTerms",
    "DuplicateClient",
    "LongVector",
    "Malformed",
    "MissingNoise",
    "NoQuorum",
    "NoRoom",
    "OpeningRefused",
    "OutOfOrder",
    "Oversize",
    "ResidueRange",
    "RoundRefused",
    "RoundUsed",
    "TinySet",
    "UnknownMessage",
    "UnknownSender",
    "WrongTerms",
]


class Oversize(RoundRefused):
    """More bytes than the terms allow for such a message; nothing was parsed."""


class Malformed(RoundRefused):
    """Truncated, with bytes left over, or a list that is not strictly increasing."""


class UnknownMessage(RoundRefused):
    """A label that is not expected here."""


class WrongTerms(RoundRefused):
    """A message of another round, or of other terms."""


class UnknownSender(RoundRefused):
    """Signed by a key that is neither an enrolled client nor a member."""


class BadSignature(RoundRefused):
    """The signature is not the sender's for these bytes."""


class ResidueRange(RoundRefused):
    """A residue that is not below its prime."""


class BadTerms(RoundRefused):
    """Terms that differ from what is pinned, contradict themselves, or are not safe."""


class RoundUsed(RoundRefused):
    """A round of this number, or a later one, was taken part in already."""


class TinySet(RoundRefused):
    """Fewer clients than the minimum."""


class DuplicateClient(RoundRefused):
    """A client twice."""


class NoQuorum(RoundRefused):
    """Fewer than t members signed the same bytes."""


class NoRoom(RoundRefused):
    """The server has no room for what a client sent; it may be sent again."""


class BadBox(RoundRefused):
    """A box or a correction that is not the one the client signed, or that does not open."""


class AlreadyDone(RoundRefused):
    """This step was taken once, for other bytes; nothing is done twice."""


class OutOfOrder(RoundRefused):
    """A message of a step whose earlier steps were not taken."""


class OpeningRefused(RoundRefused):
    """No t answers give one small secret, one small residue and plausible counts: nothing was opened."""


class LongVector(RoundRefused):
    """A client's own vector is longer than a norm round allows: it has no proof to give."""


class MissingNoise(RoundRefused):
    """A noise sender is not in a set of a norm round, whose sum would then carry less noise than is charged: the round dies."""
