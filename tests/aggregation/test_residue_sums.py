"""Sums and dot products of residues, against big integers, at primes of every width and at the largest values."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import residue_sums
from fedjax_poisson.ckks.ntt import primes_below

MODULI = (*primes_below(1 << 31, 256, 1), *primes_below(1 << 30, 256, 1), *primes_below(1 << 20, 256, 1))
Q = np.asarray(MODULI, object)


def residues(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, q, shape) for q in MODULI]).astype(np.uint32)


def largest(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([np.full(shape, q - 1) for q in MODULI]).astype(np.uint32)


@pytest.mark.parametrize("drawn", [residues, largest])
def test_sums_and_dot_products(drawn):
    x, y = drawn((3, 500)), residues((1, 500), 1)
    found = np.asarray(residue_sums.total(jnp.asarray(x), MODULI))
    assert (found.astype(object) == x.astype(object).sum(-1) % Q[:, None]).all()
    found = np.asarray(residue_sums.dot(x, y, MODULI))
    assert (found.astype(object) == (x.astype(object) * y.astype(object)).sum(-1) % Q[:, None]).all()
    found = np.asarray(residue_sums.product(x, y, MODULI))
    assert (found.astype(object) == x.astype(object) * y.astype(object) % Q[:, None, None]).all()


def test_the_longest_sum_is_exact_and_a_longer_one_refused():
    x = largest((residue_sums.MOST_TERMS,))
    found = np.asarray(residue_sums.total(jnp.asarray(x), MODULI))
    assert (found.astype(object) == x.astype(object).sum(-1) % Q).all()
    with pytest.raises(ValueError, match="65537 residues"):
        residue_sums.total(jnp.asarray(largest((residue_sums.MOST_TERMS + 1,))), MODULI)


def test_powers():
    x = residues((4,))
    found = np.asarray(residue_sums.powers(jnp.asarray(x), 32, MODULI))
    assert found.shape == (3, 4, 32)
    for line, bases, q in zip(found, x, MODULI, strict=True):
        assert all(pow(int(b), i, q) == int(v) for own, b in zip(line, bases, strict=True) for i, v in enumerate(own))
