"""Shares of a secret as the parties of a round make and read them: `sharing`'s arithmetic in NumPy, without a program to compile.

Real parties handle single polynomials. For a short vector NumPy takes about as long as a compiled program would, for a long one up to a few times as long,
which is little beside its rows; and a site's first round does not begin with a compiler. Programs that simulate many clients keep `sharing`'s own
functions; tests compare the two bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedjax_poisson.aggregation import sharing
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.ckks import host_residues, host_ring

__all__ = ["combine", "dealt", "expand", "share_of", "weighted_sum"]

_PRODUCTS = 3
"""That are added up before they are reduced."""


def weighted_sum(weights: np.ndarray, polynomials: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """sum_i weights[i] polynomials[i] modulo each prime: uint32 `[t, L]` and `[t, L, N]` to uint32 `[L, N]`.

    Exact (*proved*): a product is at most (2^31 - 2)^2, so that three of them and a residue stay below 2^64.
    """
    q = host_ring.primes(moduli)
    total = np.zeros(np.shape(polynomials)[1:], np.uint64)
    for place, (weight, polynomial) in enumerate(zip(np.asarray(weights, np.uint64), polynomials, strict=True), 1):
        total += weight[:, None] * np.asarray(polynomial)
        if place % _PRODUCTS == 0:
            total %= q
    return (total % q).astype(np.uint32)


def expand(params: RoundParameters, kappa: np.ndarray) -> np.ndarray:
    """uint32 `[L, N]`: what 32 bytes (uint32 `[8]`) are expanded to, as `sharing.expand_share`."""
    return host_residues.uniform_residues(kappa, (params.ring.degree,), params.ring.moduli)


def share_of(params: RoundParameters, kappa: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """A member's share uint32 `[L, N]` from its 32 bytes and its correction (zero for members below t)."""
    total = expand(params, kappa).astype(np.uint64) + correction
    return (total % host_ring.primes(params.ring.moduli)).astype(np.uint32)


def dealt(params: RoundParameters, digest: bytes, secret: np.ndarray, kappas: np.ndarray) -> np.ndarray:
    """What members t..m must add to what they expand.

    Args:
      params: of the round.
      digest: hash of the terms.
      secret: uint32 `[L, N]`, s in NTT form.
      kappas: uint32 `[m, 8]`, the members' 32 bytes each.

    Returns:
      uint32 `[m - t + 1, L, N]`.
    """
    moduli, t = params.ring.moduli, params.threshold
    q = host_ring.primes(moduli)
    expanded = np.stack([expand(params, one) for one in np.asarray(kappas)])
    known = np.concatenate([np.asarray(secret)[None], expanded[: t - 1]])
    weights = sharing.dealing_weights(digest, params.members, t, moduli)
    later = np.stack([weighted_sum(each, known, moduli) for each in weights])
    return ((later + (q - expanded[t - 1 :])) % q).astype(np.uint32)


def combine(
    params: RoundParameters, terms_hash: bytes, numbers: Sequence[int], shares: np.ndarray, *, at: int = 0
) -> np.ndarray:
    """The polynomial's value at 0, or at another member's point, from t shares.

    Args:
      params: of the round.
      terms_hash: of the round.
      numbers: t member numbers.
      shares: uint32 `[t, L, N]` in the same order.
      at: 0, or a member's number.

    Returns:
      uint32 `[L, N]`.
    """
    moduli = params.ring.moduli
    known = sharing.points(terms_hash, params.members, moduli)
    place = (0,) * len(moduli) if at == 0 else known[at - 1]
    weights = sharing.lagrange([known[k - 1] for k in numbers], place, moduli)
    return weighted_sum(weights, shares, moduli)
