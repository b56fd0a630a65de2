"""The transform on the host: the numbers of `ntt`, and products of polynomials against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.ckks import host_ring, ntt

RINGS = {
    "smallest": (2, (97,)),
    "one prime": (1024, (33550337,)),
    "two primes of 31 bits": (2048, ntt.primes_below(1 << 31, 2048, 2)),
    "large": (8192, ntt.primes_below(1 << 30, 8192, 3)),
}


def _random(name: str, *lead: int) -> tuple[np.ndarray, tuple[int, ...]]:
    degree, moduli = RINGS[name]
    rng = np.random.default_rng(degree)
    return np.stack([rng.integers(0, q, (*lead, degree)) for q in moduli], axis=-2).astype(np.uint32), moduli


@pytest.mark.parametrize("name", RINGS)
def test_both_directions_give_the_numbers_of_the_programs(name):
    x, moduli = _random(name, 2, 3)
    form = host_ring.forward(x, moduli)
    np.testing.assert_array_equal(form, np.asarray(ntt.forward(x, moduli)))
    np.testing.assert_array_equal(host_ring.inverse(x, moduli), np.asarray(ntt.inverse(x, moduli)))
    np.testing.assert_array_equal(host_ring.inverse(form, moduli), x)
    assert form.dtype == np.uint32 and (form != x).any()


def test_the_largest_residues_do_not_overflow():
    degree, moduli = RINGS["two primes of 31 bits"]
    x = np.broadcast_to(host_ring.primes(moduli) - np.uint64(1), (2, degree)).astype(np.uint32)
    np.testing.assert_array_equal(host_ring.forward(x, moduli), np.asarray(ntt.forward(x, moduli)))
    np.testing.assert_array_equal(host_ring.inverse(x, moduli), np.asarray(ntt.inverse(x, moduli)))


def test_products_of_forms_are_negacyclic_products():
    degree, q = 16, 97
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-5, 6, degree) for _ in range(2))
    forms = [host_ring.forward(host_ring.residues(one, (q,)), (q,)).astype(np.uint64) for one in (a, b)]
    found = host_ring.inverse((forms[0] * forms[1] % q).astype(np.uint32), (q,))[0]
    full = np.convolve(a, b)
    for sign in (-1, 1):  # the twin: X^N = +1
        wanted = full[:degree].copy()
        wanted[: degree - 1] += sign * full[degree:]
        assert (np.mod(wanted, q) == found).all() == (sign == -1)
