"""Simulated sites for data that has none, or a new partition of data that has: Dirichlet label skew and quantity skew.

Whole groups (patients) are assigned to sites, never single records, so that the privacy unit stays within one site.
All draws come from a seeded NumPy generator: the assignment to simulated sites is a public choice of the experimenter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from .sites import Sites

_TRIES = 1000


def by_site(sites: Sites, values: Sequence[str] | np.ndarray, *, sites_per_patient: int = 1) -> Sites:
    """Cut the records anew along a given attribute, one value for each record.

    Args:
        sites: The data.
        values: n strings or numbers; each different one becomes a site, in sorted order.
        sites_per_patient: The most of the new sites that a patient may have records at.

    Returns:
        The same records and split, with new sites.

    Raises:
        ValueError: The length is wrong, or a patient has records at more sites.
    """
    if len(values) != len(sites.features):
        raise ValueError(f"{len(values)} values for {len(sites.features)} records; one value for each record is needed")
    names, codes = np.unique(np.asarray(values).astype(str), return_inverse=True)
    return _with_sites(
        sites,
        codes,
        tuple(str(name) for name in names),
        f"sites cut along {len(names)} given values",
        sites_per_patient,
    )


def dirichlet(sites: Sites, count: int, alpha: float, *, seed: int = 0, min_groups: int = 2) -> Sites:
    """Deal records to sites with label skew: each class is spread over the sites by a draw of a symmetric Dirichlet.

    Training and test records of a class use the same shares, so every site is tested on the mixture it trains on.
    The draw is repeated until every site has its minimum in training (Hsu, Qi and Brown, Measuring the Effects of
    Non-Identical Data Distribution for Federated Visual Classification, 2019, with the shares drawn over sites for
    each class as in Yurochkin et al., Bayesian Nonparametric Federated Learning of Neural Networks, ICML 2019).

    Args:
        sites: The data; its own sites are forgotten.
        count: Number of sites to make.
        alpha: Concentration: 0.1 is harsh skew, 100 nearly none.
        seed: Seed of the deal.
        min_groups: Least number of training groups at every site.

    Returns:
        The same records and split, with sites named "site 0", "site 1", ...

    Raises:
        ValueError: The arguments are out of range, or no draw gave every site its minimum.
    """
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; a Dirichlet concentration is positive")
    groups = _groups(sites, count, min_groups)
    generator = np.random.default_rng(seed)
    for _ in range(_TRIES):
        home = np.zeros(len(groups.stratum), np.int64)
        for stratum in np.unique(groups.stratum):
            share = generator.dirichlet(np.full(count, alpha))
            for side in (True, False):
                own = np.flatnonzero((groups.stratum == stratum) & (groups.train == side))
                home[own] = _deal(generator, len(own), share)
        if np.bincount(home[groups.train], minlength=count).min() >= min_groups:
            note = f"{count} sites dealt by Dirichlet({alpha:g}) over labels, seed {seed}"
            return _with_sites(sites, home[groups.member], _numbered(count), note)
    raise ValueError(
        f"no draw in {_TRIES} gave each of {count} sites {min_groups} training groups at alpha {alpha:g}; "
        "raise alpha, or make fewer sites"
    )


def quantity_skew(sites: Sites, count: int, alpha: float, *, seed: int = 0, min_groups: int = 2) -> Sites:
    """Deal records to sites of unequal size, without regard to labels: the sizes are one draw of Dirichlet(alpha, ...).

    Every site gets its minimum first; only the rest is assigned at random (test records by the same shares).

    Args:
        sites: The data; its own sites are forgotten.
        count: Number of sites to make.
        alpha: Concentration: 0.5 is a few large and many small sites, 100 nearly equal ones.
        seed: Seed of the deal.
        min_groups: Least number of training groups at every site.

    Returns:
        The same records and split, with sites named "site 0", "site 1", ...

    Raises:
        ValueError: The arguments are out of range.
    """
    if not alpha > 0:
        raise ValueError(f"alpha is {alpha}; a Dirichlet concentration is positive")
    groups = _groups(sites, count, min_groups)
    generator = np.random.default_rng(seed)
    share = generator.dirichlet(np.full(count, alpha))
    home = np.zeros(len(groups.stratum), np.int64)
    for side, least in ((True, min_groups), (False, 0)):
        own = generator.permutation(np.flatnonzero(groups.train == side))
        home[own[: count * least]] = np.repeat(np.arange(count), least)
        home[own[count * least :]] = _deal(generator, len(own) - count * least, share)
    note = f"{count} sites of unequal size dealt by Dirichlet({alpha:g}), seed {seed}"
    return _with_sites(sites, home[groups.member], _numbered(count), note)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Groups:
    """One entry for each group: its largest label (as a stratum), its side of the split, and each record's group."""

    stratum: np.ndarray
    train: np.ndarray
    member: np.ndarray


def _groups(sites: Sites, count: int, min_groups: int) -> _Groups:
    _, first, member = np.unique(sites.group, return_index=True, return_inverse=True)
    available = int(sites.train[first].sum())
    if not 1 <= count * max(min_groups, 1) <= available:
        raise ValueError(
            f"{count} sites of at least {max(min_groups, 1)} training groups were asked for, and there are {available}"
        )
    label = sites.labels.reshape(len(sites.labels), -1)
    if sites.label_bounds is not None:  # a number: tenths of its public range
        low, high = sites.label_bounds
        label = np.minimum((label - low) / (high - low) * 10, 9).astype(np.int64)
    # A multi-label record counts as its first finding, or as "none".
    flat = label[:, 0] if sites.labels.ndim == 1 else np.where(label.any(axis=1), label.argmax(axis=1) + 1, 0)
    stratum = np.zeros(len(first), np.int64)
    np.maximum.at(stratum, member, flat)
    return _Groups(stratum=stratum, train=sites.train[first], member=member)


def _deal(generator: np.random.Generator, n: int, share: np.ndarray) -> np.ndarray:
    """Sites of n shuffled items, counts as close to `n * share` as rounding of the cumulative shares allows."""
    ends = np.round(np.cumsum(share) * n).astype(np.int64)
    ends[-1] = n
    return generator.permutation(np.searchsorted(ends, np.arange(n), side="right"))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"site {s}" for s in range(count))


def _with_sites(sites: Sites, codes: np.ndarray, names: tuple[str, ...], note: str, sites_per_unit: int = 1) -> Sites:
    provenance = dataclasses.replace(sites.provenance, notes=(*sites.provenance.notes, note))
    return dataclasses.replace(
        sites, site=codes.astype(np.int32), site_names=names, provenance=provenance, sites_per_unit=sites_per_unit
    )
