"""What a site wants of the next round: the terms that it works out by itself, and the comparison of those that it is shown with them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.aggregation.refusals import BadTerms
from fedjax_poisson.aggregation.round_setting import RoundSetting, draft_of
from fedjax_poisson.aggregation.terms import Terms
from fedjax_poisson.deployment.party import Party
from fedjax_poisson.randomness import Stream

__all__ = ["Offer", "Wanted", "check_expected", "expected_terms"]


@dataclasses.dataclass(frozen=True)
class Offer:
    """Counts that wait for their round.

    Attributes:
      label: the release.
      draft: the terms that its round must have, apart from the round's number and keys.
      counts: int32 `[D]`, private.
      stream: for the encryption.
    """

    label: str
    draft: Terms
    counts: np.ndarray = dataclasses.field(repr=False)
    stream: Stream = dataclasses.field(repr=False)


class Wanted(NamedTuple):
    """What a site waits for.

    Attributes:
      position: sums opened, as far as it knows.
      label: the release that comes next; None before the run came so far.
      draft: encoded terms that its round must have; None while the counts are not there.
      asking: whether it asks what became of a round that its counts were sent in.
    """

    position: int
    label: str | None
    draft: bytes | None
    asking: bool


def expected_terms(party: Party, setting: RoundSetting, label: str, size: int, model: bytes) -> Terms:
    """The terms of a release's round, without its number and its members' keys.

    Args:
      party: the site.
      setting: what the release's rounds have in common.
      label: the release.
      size: D.
      model: its name (`opened_rounds.release_name`).
    """
    pinned = party.sender.pinned
    draft = draft_of(setting, 0, size, pinned.members, pinned.roster)
    charge = f"{label}, charged by every site to its own ledger before it sends"
    return dataclasses.replace(draft, run=party.sender.run, model=model, charge=charge)


def check_expected(terms: Terms, draft: Terms) -> None:
    """Refuse terms that differ from the expected ones in anything but the round's number and keys."""
    bare = dataclasses.replace(terms, round=0, round_keys=draft.round_keys)
    if bare == draft:
        return
    names = [
        field.name for field in dataclasses.fields(Terms) if getattr(bare, field.name) != getattr(draft, field.name)
    ]
    seen = "; ".join(
        f"{name} is {_short(getattr(bare, name))}, expected {_short(getattr(draft, name))}" for name in names
    )
    raise BadTerms(f"A round with other terms than this site expects: {seen}.")


def _short(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 80 else text[:80] + "..."
