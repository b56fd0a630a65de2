"""Polynomials by their values on roots of unity, against evaluation of their coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.aggregation import root_values
from fedjax_poisson.ckks.ntt import primes_below

MODULI = (*primes_below(1 << 30, 256, 2), *primes_below(1 << 20, 256, 1))


def value(coefficients: list[int], x: int, q: int) -> int:
    total = 0
    for c in reversed(coefficients):
        total = (total * x + c) % q
    return total


@pytest.mark.parametrize("size", [2, 16, 128])
def test_values_on_twice_as_many_roots_and_anywhere(size):
    rng = np.random.default_rng(size)
    coefficients = [[int(v) for v in rng.integers(0, q, size)] for q in MODULI]
    double = root_values.roots_of_unity(MODULI, 2 * size)
    roots = double[:, ::2]
    for line, q in zip(double, MODULI, strict=True):
        assert len(set(line.tolist())) == 2 * size and pow(int(line[1]), size, q) == q - 1

    def on(points):
        return np.asarray(
            [[value(c, int(x), q) for x in line] for c, line, q in zip(coefficients, points, MODULI, strict=True)],
            np.uint64,
        )

    values = on(roots)
    twice = root_values.doubled(values, MODULI)
    assert (twice == on(double)).all()
    points = np.stack([rng.integers(2, q, 5).astype(np.uint64) for q in MODULI])
    at_roots, at_double = root_values.value_weights(points, size, MODULI)
    q = np.asarray(MODULI, np.uint64)[:, None]
    for weights, known in ((at_roots, values), (at_double, twice)):
        found = (weights * known[:, None] % q[..., None]).sum(-1, dtype=np.uint64) % q
        assert (found == on(points)).all()


def test_inverses():
    rng = np.random.default_rng(0)
    values = np.stack([rng.integers(1, q, (3, 64)).astype(np.uint64) for q in MODULI])
    found = root_values.inverses(values, MODULI)
    assert (found * values % np.asarray(MODULI, np.uint64)[:, None, None] == 1).all()
