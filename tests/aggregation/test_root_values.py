"""Polynomials by their values on roots of unity, against evaluation of their coefficients."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from fedjax_poisson.aggregation import root_values
from fedjax_poisson.ckks.ntt import primes_below

MODULI = (*primes_below(1 << 31, 256, 1), *primes_below(1 << 30, 256, 1), *primes_below(1 << 20, 256, 1))


def value(coefficients: list[int], x: int, q: int) -> int:
    total = 0
    for c in reversed(coefficients):
        total = (total * x + c) % q
    return total


def on(coefficients: list[list[int]], points: np.ndarray) -> np.ndarray:
    return np.asarray(
        [[value(c, int(x), q) for x in line] for c, line, q in zip(coefficients, points, MODULI, strict=True)],
        np.uint32,
    )


@pytest.mark.parametrize("size", [2, 16, 128])
def test_values_on_twice_as_many_roots_and_anywhere(size):
    rng = np.random.default_rng(size)
    short, long = ([[int(v) for v in rng.integers(0, q, n)] for q in MODULI] for n in (size, 2 * size))
    double = root_values.roots_of_unity(MODULI, 2 * size)
    for line, q in zip(double, MODULI, strict=True):
        assert len(set(line.tolist())) == 2 * size and pow(int(line[1]), size, q) == q - 1
    values, twice = on(short, double[:, ::2]), on(long, double)
    coefficients, between = (
        jax.jit(each, static_argnums=1) for each in (root_values.coefficients, root_values.between)
    )
    assert (np.asarray(coefficients(values, MODULI)) == np.asarray(short)).all()
    assert (np.asarray(between(values, MODULI)) == on(short, double[:, 1::2])).all()
    points = np.stack([rng.integers(0, q, 5).astype(np.uint32) for q in MODULI])
    points[:, 0], points[:, 1] = 0, double[:, 1]  # zero, and a root itself
    at_points = jax.jit(root_values.at_points, static_argnums=4)
    found = at_points(values, twice[:, ::2], twice[:, 1::2], points, MODULI)
    assert (np.asarray(found[0]) == on(short, points)).all()
    assert (np.asarray(found[1]) == on(long, points)).all()
