"""Skellam noise by value: the published bound, sensitivities after rounding, and the terms of the exact divergence."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import pytest

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting.skellam import _log_generator


def test_the_published_bound_by_value():
    """Both terms of the minimum, with l1, l2 and the variance all different."""
    much = acc.skellam_rdp([2, 9], variance=40.0, l1=7.0, l2=3.0)
    assert much == pytest.approx([2 * 9 / 80 + (3 * 9 + 42) / 6400, 9 * 9 / 80 + (17 * 9 + 42) / 6400], rel=1e-14)
    little = acc.skellam_rdp([2, 9], variance=0.5, l1=7.0, l2=3.0)
    assert little == pytest.approx([2 * 9 + 21, 9 * 9 + 21], rel=1e-14)


def test_sensitivities_after_rounding_by_value():
    """Each term of both minima."""
    l2 = math.sqrt(100 + 4 + math.sqrt(2 * math.log(4)) * 12)
    assert acc.rounded_sensitivity(scaled_norm=10.0, dimension=16, beta=0.25) == pytest.approx((4 * l2, l2), rel=1e-14)
    assert acc.rounded_sensitivity(scaled_norm=1.0, dimension=1, beta=1e-9) == pytest.approx((2.0, 2.0), rel=1e-14)
    squared = 0.01 + 25 + 5.1  # beta = exp(-1/2)
    wanted = (squared, math.sqrt(squared))
    assert acc.rounded_sensitivity(scaled_norm=0.1, dimension=100) == pytest.approx(wanted, rel=1e-14)
    doubled = acc.rounded_sensitivity(scaled_norm=0.1, dimension=100, adjacency="replace_one")
    assert doubled == pytest.approx((2 * wanted[0], 2 * wanted[1]), rel=1e-14)


@pytest.mark.parametrize("order", [1.25, 2.0, 64.0])
def test_a_term_of_the_exact_divergence(order):
    """log(e^{aL} - 1 - a (e^L - 1)) by mpmath, on both sides of the places where the formula changes, |aL| = 1e-4 and 1."""
    sizes = [1e-9, 1e-5, 0.99e-4, 1.01e-4, 0.03, 0.99, 1.01, 20.0, 900.0]
    loss = np.array([sign * size / order for size in sizes for sign in (1, -1)])
    with mp.workdps(60):
        a = mp.mpf(order)
        wanted = [float(mp.log(mp.exp(a * x) - 1 - a * (mp.exp(x) - 1))) for x in map(mp.mpf, loss)]
    np.testing.assert_allclose(_log_generator(order, loss), wanted, rtol=0, atol=2e-11)
    assert _log_generator(order, np.zeros(1))[0] == -math.inf


def test_the_shift_is_one_unless_given():
    orders = [2.0, 5.0]
    np.testing.assert_array_equal(
        acc.skellam_exact_rdp(orders, variance=30.0), acc.skellam_exact_rdp(orders, variance=30.0, shift=1)
    )
