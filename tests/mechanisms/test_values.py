"""What each mechanism states of itself, against formulas written out again: curves, variances, count bounds, scales, facts."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_poisson as fp
from fedjax_poisson import accounting
from fedjax_poisson.accounting import experimental as guarantees
from fedjax_poisson.mechanisms import experimental, single_channel
from fedjax_poisson.mechanisms.estimates import bernstein_deviation
from fedjax_poisson.mechanisms.types import check_honest, check_positive, one_grid_step

ORDERS = accounting.integer_orders(32)
ADJACENCIES = ("zero_out", "replace_one")
EMBEDDING = fp.poisson_embedding(clip_norm=1.2, coordinate_bound=0.4, dark_count=8.0, modulation=0.1, total_bound=6.0)
SINGLE = single_channel(clip_norm=1.2, coordinate_bound=0.4, dark_count=20.0, modulation=0.2)
SKELLAM = fp.skellam(clip_norm=2.0, scale=60.0, noise_variance=400.0, beta=0.3)
GAUSSIAN = fp.gaussian(clip_norm=2.0, noise_std=0.7)
CENTRED = experimental.centred_poisson(clip_norm=2.0, scale=40.0, dark_count=30.0)
COMPOUND = experimental.compound_poisson(clip_norm=2.0, events=30.0, jump_std=0.1)
DATA = experimental.data_embedding(gain=20.0, offset=0.25)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_curves_are_the_accountants_for_the_parameters(adjacency: str) -> None:
    facts = {"honest_senders": 3, "dimension": 50, "adjacency": adjacency}
    wanted = {
        EMBEDDING: accounting.poisson_embedding_rdp(
            ORDERS, dark_count=8.0, modulation=0.1, norm_ratio=3.0, step_ratio=0.4 / 6.0, **facts
        ),
        SINGLE: accounting.single_channel_rdp(ORDERS, dark_count=20.0, modulation=0.2, norm_ratio=3.0, **facts),
        GAUSSIAN: accounting.gaussian_rdp(ORDERS, noise_multiplier=0.35 * math.sqrt(3), adjacency=adjacency),
        DATA: guarantees.data_embedding_rdp(ORDERS, gain=20.0, offset=0.25, pixels=50),
    }
    moved = accounting.rounded_sensitivity(scaled_norm=120.0, dimension=50, beta=0.3, adjacency=adjacency)
    wanted[SKELLAM] = accounting.skellam_rdp(ORDERS, variance=1200.0, l1=moved.l1, l2=moved.l2)
    for mechanism, curve in wanted.items():
        np.testing.assert_allclose(mechanism.rdp(ORDERS, 3, 50, adjacency), curve, rtol=1e-9)


def test_variances_are_of_the_estimated_sum() -> None:
    assert EMBEDDING.variance(5) == pytest.approx(5 * 6.0**2 / (2 * 8.0 * 0.1**2))
    assert SINGLE.variance(5) == pytest.approx(5 * 0.4**2 * 1.2 / (20.0 * 0.2**2))  # at the upper end of the range
    assert SKELLAM.variance(5) == pytest.approx(5 * (400.0 + 0.25) / 60.0**2)  # a rounding adds a quarter at most
    assert GAUSSIAN.variance(5) == pytest.approx(5 * 0.7**2)
    assert CENTRED.variance(5) == pytest.approx(5 * 30.0 / 40.0**2)
    assert COMPOUND.variance(5) == pytest.approx(5 * 30.0 * 0.1**2)
    assert DATA.variance(5) == pytest.approx(5 * 1.25 / 20.0)


def test_count_bounds_are_the_largest_mean_and_bernsteins_deviation() -> None:
    at = (50, 1e-6)
    assert EMBEDDING.count_bound(5, *at) == math.ceil(5 * 2 * 8.0 * 0.1 + bernstein_deviation(80.0, *at))
    assert SINGLE.count_bound(5, *at) == math.ceil(5 * 24.0 + bernstein_deviation(120.0, *at))
    l2 = accounting.rounded_sensitivity(scaled_norm=120.0, dimension=50, beta=0.3).l2
    assert SKELLAM.count_bound(5, *at) == math.ceil(5 * l2 + bernstein_deviation(2000.0, *at))
    assert CENTRED.count_bound(5, *at) == math.ceil(5 * (80.5 + 30.0) + bernstein_deviation(150.0, *at))
    assert DATA.count_bound(5, *at) == math.ceil(125.0 + bernstein_deviation(125.0, *at))


@pytest.mark.parametrize("variance", [0.5, 30.0, 4000.0])
@pytest.mark.parametrize("dimension, failure", [(1, 1e-3), (1000, 1e-9), (7, 2.0**-64)])
def test_bernsteins_deviation_solves_its_inequality_and_bounds_the_exact_tail(variance, dimension, failure) -> None:
    t = bernstein_deviation(variance, dimension, failure)
    assert 2 * dimension * math.exp(-(t**2) / (2 * (variance + t / 3))) == pytest.approx(failure, rel=1e-9)
    exact = 2 * dimension * stats.skellam.sf(math.ceil(t) - 1, variance / 2, variance / 2)
    upper = dimension * stats.poisson.sf(math.ceil(variance + t) - 1, variance)
    assert max(exact, upper) <= failure


@pytest.mark.parametrize(
    "mechanism, total, senders, estimate",
    [
        (EMBEDDING, 16, 3, 60.0),  # 16 A / (2 mu r)
        (SINGLE, 62, 3, 0.2),  # (62 - 3 mu) c_inf / (mu r)
        (SKELLAM, 90, 3, 1.5),
        (GAUSSIAN, 90, 3, 90.0),
        (CENTRED, 110, 3, 0.5),  # (110 - 3 mu) / s
        (COMPOUND, 90, 3, 90.0),
        (DATA, 35, 3, 1.0),  # (35 - 3 gain offset) / gain
    ],
)
def test_estimates_are_in_the_updates_unit(mechanism, total: int, senders: int, estimate: float) -> None:
    found = mechanism.estimate(jnp.asarray([total], jnp.int32), senders)
    assert found.dtype == jnp.float32
    assert float(found[0]) == pytest.approx(estimate, rel=1e-6)


def test_bounds_and_facts() -> None:
    assert EMBEDDING.bounds == (1.2, 0.4, 6.0, 6.0 / 2**20)
    assert SINGLE.bounds == (1.2, 0.4, 0.4, 0.4 / 2**20)
    assert SKELLAM.bounds[:3] == CENTRED.bounds[:3] == (2.0, 2.0, None)
    assert GAUSSIAN.bounds == COMPOUND.bounds == (2.0, 2.0, None, 2.0 / 2**20)
    assert DATA.bounds == (None, None, None, 2.0**-20)
    mechanisms = (EMBEDDING, SINGLE, SKELLAM, GAUSSIAN, CENTRED, COMPOUND, DATA)
    assert [m.facts.data_dependent_noise for m in mechanisms] == [True, True, False, False, False, False, True]
    assert [m.facts.integer for m in mechanisms] == [True, True, True, False, True, False, True]
    for mechanism in mechanisms:
        assert (mechanism.facts.sampler_distance == 1.0) == (not mechanism.facts.integer)
        assert mechanism.facts.integer is False or 0 < mechanism.facts.sampler_distance <= 2.0**-60
    assert one_grid_step(EMBEDDING) == 6.0 / 2**20
    with pytest.raises(ValueError, match="no one grid step"):
        one_grid_step(fp.mechanisms.grouped([(1, EMBEDDING)]))


def test_tighter_deltas_are_those_of_all_rounds_together() -> None:
    assert GAUSSIAN.tight_delta(1.0, 9, 4, 50) == pytest.approx(accounting.gaussian_delta(1.0, 0.35 * 2 / 3))
    facts = {"modulation": 0.1, "norm_ratio": 3.0, "step_ratio": 0.4 / 6.0, "honest_senders": 4, "dimension": 50}
    each = [accounting.tight_delta(1.0, tau=tau, total_dark_count=9 * 8.0, **facts) for tau in (1e-4, 1e-7, 1e-10)]
    assert EMBEDDING.tight_delta(1.0, 9, 4, 50) == pytest.approx(min(each), rel=1e-9) and min(each) < max(each)
    assert SKELLAM.tight_delta is None and SINGLE.tight_delta is None


def test_wrong_parameters_are_refused_from_both_sides() -> None:
    for make in (
        lambda r: single_channel(clip_norm=1.0, coordinate_bound=1.0, dark_count=1.0, modulation=r),
        lambda r: fp.poisson_embedding(clip_norm=1.0, coordinate_bound=1.0, dark_count=1.0, modulation=r),
    ):
        make(0.999)
        with pytest.raises(ValueError, match="below 1"):
            make(1.0)
    for beta in (0.0, 1.0):
        with pytest.raises(ValueError, match="beta"):
            fp.skellam(clip_norm=1.0, scale=1.0, noise_variance=1.0, beta=beta)
    with pytest.raises(ValueError, match="exceeds clip_norm"):
        single_channel(clip_norm=1.0, coordinate_bound=1.001, dark_count=1.0, modulation=0.1)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="scale"):
            check_positive(scale=wrong, other=1.0)
    check_positive(scale=5e-324)
    for honest in (0, 1.5, -1):
        with pytest.raises(ValueError, match="whole number"):
            check_honest(honest)
    check_honest(1, 1)
    with pytest.raises(ValueError, match="exceeds senders"):
        check_honest(2, 1)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: fp.gaussian(clip_norm=1.0, noise_std=-1.0), "noise_std"),
        (lambda: fp.skellam(clip_norm=1.0, scale=100.0, noise_variance=-4.0), "noise_variance"),
        (lambda: fp.skellam(clip_norm=-1.0, scale=100.0, noise_variance=4.0), "clip_norm"),
    ],
)
def test_noise_and_bounds_below_zero_are_refused_by_name(make, name) -> None:
    with pytest.raises(ValueError, match=name):
        make()
