"""Training and test split by patient, within each site, stratified by label, and the number of sites at which a patient may have records."""

from __future__ import annotations

import dataclasses

import numpy as np

from fedjax_poisson.data.tables.remedies import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRules:
    """How records become sites and sides of the split.

    Attributes:
        sites_per_patient: The most sites that a patient may have records at.
        min_site_records: Sites with fewer records are merged into "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.
    """

    sites_per_patient: int = 1
    min_site_records: int = 20
    test_fraction: float = 0.2
    split_seed: int = 0


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


def check_sites_per_patient(group: np.ndarray, site: np.ndarray, allowed: int, name: str = "the data") -> None:
    """Refuse patients who have records at more sites than were allowed for.

    What a patient at k sites costs (proved). Site s clips the patient's contribution to a vector v_s with |v_s|_2 <= C and
    |v_s,j| <= c. Leaving the patient out moves the sum over the sites by d = v_1 + ... + v_k, so by the triangle inequality
    |d|_2 <= k C and |d_j| <= k c in every coordinate; equal v_s attain both, so no smaller bound holds. A site's sum that is
    clamped afterwards moves by no more in any coordinate, since a clamp is 1-Lipschitz there. The embedding draws each
    coordinate from the law of the sum alone, and its Renyi curve is the supremum over all shifts within a norm and a
    step: a patient at k sites is covered by the curve with both multiplied by k (`norm_ratio` stays, `step_ratio` is
    k times as large); where the curve is quadratic, k^2 times the cost. The same k serves a release in blocks, one for
    each site, whose shift is at most sqrt(k) C.

    Sampling by the sites (proved): k independent coins of rate q put the patient into a round with probability
    q' = 1 - (1 - q)^k, at one to k sites. Given that, the released law is a mixture of laws whose shifts are within k steps;
    exp((a - 1) D_a) is convex in either argument, so the mixture costs no more than its worst part: charge the sampled
    curve at rate q' with both bounds multiplied by k. At rate q it would be too cheap.

    Args:
        group: int64 `[n]`, whose record it is.
        site: int32 `[n]`.
        allowed: The most sites a patient may have records at.
        name: Of the data, for the message.

    Raises:
        ValueError: A patient has records at more; with the count of such patients and the remedy.
    """
    # Codes below the product of two counts of at most n: no overflow of int64 for any n that fits memory.
    pairs = np.unique(np.unique(group, return_inverse=True)[1].astype(np.int64) * (int(site.max()) + 1) + site)
    spread = np.unique(pairs // (int(site.max()) + 1), return_counts=True)[1]
    beyond, most = int((spread > allowed).sum()), int(spread.max())
    if beyond:
        raise ValueError(
            f"{name}: {beyond} patient{'s have' if beyond > 1 else ' has'} records at more than {allowed} site{'s' if allowed > 1 else ''} "
            f"(up to {most}), and would move the sums of all of them. Keep each patient's records of one site, or merge those "
            f"sites, or pay for it, {most} times the step in the privacy account: {option('sites_per_patient', most)}"
        )
