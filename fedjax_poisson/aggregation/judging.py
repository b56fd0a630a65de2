"""Which clients of D pass screening, by the scalars that members showed; in norm rounds also by their proofs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import proof, screening
from fedjax_poisson.aggregation.parameters import HINTS, RoundParameters

__all__ = ["NO_PROOF", "OTHER_ROWS", "REASONS", "Rows", "Shown", "reasons"]

REASONS = {
    1: "shares do not agree",
    2: "the secret is not small",
    3: "it gave no proof of its norm",
    4: "its proof does not hold",
    5: "its proof is not about its rows",
}
"""Why a client of D is not in U."""
NO_PROOF = bytes(32)
"""What stands for the name of a proof that was not given."""
OTHER_ROWS = 5
"""The reason that only who has the rows can see."""


class Rows(NamedTuple):
    """What who has the rows knows of them.

    Attributes:
      gram: float64 `[16, 16]`, of the functionals (`sketch.gram`).
      sums: places of clients in D to the functionals of their rows, uint64 `[places, 16, L]` (`row_sums`).
    """

    gram: np.ndarray
    sums: Callable[[tuple[int, ...]], np.ndarray]


class Shown(NamedTuple):
    """What one member showed.

    Attributes:
      scalars: uint32 `[clients, S, L]`, in the order of D; of a proof that was not given, zeros.
      proofs: the name (SHA-256) of each client's proof; none in light rounds.
    """

    scalars: np.ndarray
    proofs: tuple[bytes, ...] = ()


def reasons(
    params: RoundParameters,
    terms_hash: bytes,
    seed: bytes,
    shown: Mapping[int, Shown],
    noise: Sequence[bool],
    rows: Rows | None,
) -> np.ndarray:
    """For each client of D 0 if it passes, else the number of the reason.

    Args:
      params: of the round.
      terms_hash: of the round.
      seed: of the functionals.
      shown: member number to what it showed, of the members that decide.
      noise: for each client of D whether it is a noise sender, which proves no norm.
      rows: for who has them; None for who has not, and so cannot see reason 5.

    Returns:
      int64 `[clients]`.
    """
    numbers = sorted(shown)
    stacked = np.stack([shown[k].scalars for k in numbers])
    agree, values = screening.agreeing(params, terms_hash, numbers, stacked)
    small = screening.judge(params, screening.functionals(params, seed).signs, values)
    found = np.where(agree, np.where(small, 0, 2), 1)
    if params.proof is None:
        return found
    proved = []
    for place in map(int, np.flatnonzero((found == 0) & ~np.asarray(noise, bool))):
        names = {shown[k].proofs[place] for k in numbers}
        if len(names) != 1:  # members saw different proofs, or one lies about its name
            found[place] = 1
        elif NO_PROOF in names:
            found[place] = 3
        elif not proof.verdict(params, values[place, HINTS:]):
            found[place] = 4
        else:
            proved.append(place)
    if rows is not None and proved:
        for place, sums in zip(proved, rows.sums(tuple(proved)), strict=True):
            if not proof.of_rows(params, values[place, HINTS:], sums, rows.gram):
                found[place] = OTHER_ROWS
    return found
