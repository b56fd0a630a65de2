"""Which site an update came from, inferred from what each adversary sees.

If individual updates are visible (views 1 and 3, `views`), the adversary is shown one update without its sender and must name the site. If only sums
are visible (views 2 and 4), the adversary is shown the sum of a round in which one site's data were left out (but not its noise)
and must name that site (`leave_one_out`). The adversary has seen earlier rounds with the answer: a linear classifier is fitted to them and
guesses later rounds. Property inference in this form: Melis, Song, De Cristofaro and Shmatikov 2019, section 6.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from fedjax_poisson.attacks.results import Rate, binomial_rate

NEEDS = "the view's vectors of earlier rounds with the site that each came from, and of later rounds without"
TRY_NEXT = "features invariant to the round (updates relative to their mean); more rounds; a classifier trained on simulated sites"


class SiteAttribution(NamedTuple):
    """How often the site was named rightly.

    Attributes:
      accuracy: over the guessed rounds, with a Clopper-Pearson interval that treats the guesses as independent.
      chance: 1 / S.
      by_site: float `[S]`, accuracy for each site.
      guesses: how many.
      needs: what the adversary must have.
      try_next: what a stronger adversary would do.
    """

    accuracy: Rate
    chance: float
    by_site: np.ndarray
    guesses: int
    needs: str
    try_next: str


def leave_one_out(updates: np.ndarray) -> np.ndarray:
    """Sums without each site: `[R, S, D]` to `[R, S, D]`, entry s the sum over all sites but s. For integers or floats."""
    updates = np.asarray(updates)
    return updates.sum(axis=1, keepdims=True) - updates


def attribute_sites(
    observed: np.ndarray,
    *,
    known_rounds: int | None = None,
    method: Literal["ridge", "nearest_mean"] = "ridge",
    ridge: float = 1.0,
    needs: str = NEEDS,
) -> SiteAttribution:
    """Name the site behind each vector of the later rounds.

    Args:
      observed: float `[R, S, D]`: in round r the vector that belongs to site s, as the adversary sees it (its noise included).
      known_rounds: rounds whose sites he knows; None for half of them.
      method: "ridge", one linear score a site by regularised least squares, or "nearest_mean".
      ridge: weight of the penalty, relative to the mean squared length of the vectors.
      needs: what the adversary must have.

    Raises:
      ValueError: too few rounds or sites, or a vector is not finite.
    """
    observed = np.asarray(observed, np.float64)
    if observed.ndim != 3 or not np.isfinite(observed).all():
        raise ValueError(f"observed has the shape {observed.shape}; expected finite [rounds, sites, D].")
    rounds, sites, size = observed.shape
    known = rounds // 2 if known_rounds is None else known_rounds
    if sites < 2 or not 1 <= known < rounds:
        raise ValueError(
            f"{rounds} rounds ({known} known) of {sites} sites: at least 2 sites, a known and an unknown round are needed."
        )
    seen, later = observed[:known].reshape(-1, size), observed[known:].reshape(-1, size)
    centre = seen.mean(axis=0)
    scale = np.sqrt(((seen - centre) ** 2).sum(axis=1).mean()) or 1.0
    seen, later = (seen - centre) / scale, (later - centre) / scale
    truth, answers = np.tile(np.arange(sites), rounds - known), np.tile(np.arange(sites), known)
    if method == "ridge":
        # In the dual: as many unknowns as vectors, however large D is.
        wanted = np.eye(sites)[answers] - 1 / sites
        scores = later @ seen.T @ np.linalg.solve(seen @ seen.T + ridge * np.eye(len(seen)), wanted)
    elif method == "nearest_mean":
        means = np.stack([seen[answers == s].mean(axis=0) for s in range(sites)])
        scores = later @ means.T - (means**2).sum(axis=1) / 2
    else:
        raise ValueError(f"method={method!r}; there are 'ridge' and 'nearest_mean'.")
    right = scores.argmax(axis=1) == truth
    by_site = np.array([right[truth == s].mean() for s in range(sites)])
    return SiteAttribution(
        binomial_rate(int(right.sum()), right.size), 1 / sites, by_site, int(right.size), needs, TRY_NEXT
    )
