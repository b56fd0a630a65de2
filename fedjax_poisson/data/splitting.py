"""Training and test split by patient, within each site, stratified by label."""

from __future__ import annotations

import numpy as np


def split_by_group(
    group: np.ndarray, site: np.ndarray, labels: np.ndarray, *, test_fraction: float = 0.34, seed: int = 0
) -> np.ndarray:
    """Put whole patients into training or test.

    Within each site the patients are ordered by stratum (a patient's largest label), in a seeded random order inside a
    stratum, and every patient at whose place `floor(test_fraction * place)` steps up goes to the test set. So a site of
    P patients has `floor(test_fraction * P)` test patients exactly, and every stratum its share of them within one.

    A patient seen at several sites is split once, at the site of their first record.

    Args:
        group: int64 `[n]`, whose record it is.
        site: int32 `[n]`.
        labels: int32 `[n]` or `[n, classes]`.
        test_fraction: Fraction of each site's patients to hold out, in [0, 1).
        seed: Seed of the permutation; the same seed and the same records give the same split.

    Returns:
        bool `[n]`, True for training.

    Raises:
        ValueError: The fraction is outside [0, 1).

    >>> train = split_by_group(np.array([7, 7, 8, 9]), np.zeros(4, int), np.array([0, 1, 0, 0]), test_fraction=0.4)
    >>> int(train.sum()), bool(train[0] == train[1])
    (2, True)
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; expected 0 <= test_fraction < 1")
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    stratum = np.full(len(first), np.iinfo(np.int64).min)
    np.maximum.at(stratum, member, labels.reshape(len(labels), -1).max(axis=1).astype(np.int64))
    home = site[first]
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(first), bool)
    for s in np.unique(home):
        own = np.flatnonzero(home == s)
        own = own[np.lexsort((generator.permutation(len(own)), stratum[own]))]
        place = np.arange(len(own) + 1)
        # 1e-9: a fraction such as 0.3 is not exact in binary, and 0.3 * 10 must count as 3.
        steps = np.diff(np.floor(test_fraction * place + 1e-9))
        held_out[own] = steps > 0
    return ~held_out[member]


def shared_group_warning(group: np.ndarray, site: np.ndarray) -> list[str]:
    """What to say where patients have records at more than one site; nothing if none has.

    Args:
        group: int64 `[n]`.
        site: int32 `[n]`.

    Returns:
        No sentence or one.
    """
    pairs = np.unique(np.stack([group, site]), axis=1)[0]
    shared = int((np.unique(pairs, return_counts=True)[1] > 1).sum())
    if not shared:
        return []
    return [
        f"{shared} patients have records at more than one site: a patient-level guarantee then holds at each site for "
        "itself, not for a person's records at all sites"
    ]
