"""Clean counts and noise senders: the law of the noise, what is charged, the published variances, and what is refused by name."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson import accounting
from fedjax_poisson.aggregation.norm_bound import HONEST_FAILURE
from fedjax_poisson.mechanisms import MECHANISMS, committee_noise, grouped
from fedjax_poisson.mechanisms.committee_noise import steps_for
from fedjax_poisson.mechanisms.dark_counts import Shape, Terms
from fedjax_poisson.mechanisms.noise_source import noise_source, release_distance
from tests.helpers.stat import assert_moments

ORDERS = np.arange(2.0, 65.0)
SENDERS, HONEST, SIZE = 6, 3, 500
EACH = 40.0


@functools.cache
def _made(each: float = EACH, senders: int = SENDERS):
    return committee_noise(
        clip_norm=1.0,
        scale=50.0,
        noise_variance=each,
        noise_senders=senders,
        honest_noise=HONEST,
        coordinate_bound=0.4,
    )


@pytest.fixture(scope="module")
def stream() -> fp.randomness.Stream:
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        return fp.randomness.stream(17)


def _participation(senders: int, honest: int) -> accounting.Participation:
    return accounting.Participation(senders=senders, minimum_senders=senders, honest_senders=honest)


def _summed_noise(made, stream, senders: int, sums: int) -> np.ndarray:
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, i))(jnp.arange(sums * senders, dtype=jnp.uint32))
    drawn = jax.jit(jax.vmap(lambda s: made.noise(s, SIZE)))(streams)
    assert drawn.shape == (sums * senders, SIZE) and drawn.dtype == jnp.int32
    return np.asarray(drawn).reshape(sums, senders, SIZE).sum(axis=1)


@pytest.mark.statistical
def test_the_sum_of_all_noise_has_the_variance_that_is_paid_and_one_sender_less_is_seen(stream) -> None:
    """400 sums of 500 coordinates, six standard errors: the variance of a Skellam number V has excess kurtosis 1 / V."""
    total = SENDERS * EACH
    assert_moments(_summed_noise(_made(), stream, SENDERS, 400), 0.0, total, kurtosis=1 / total)
    with pytest.raises(AssertionError, match="variance"):  # the twin
        assert_moments(_summed_noise(_made(), stream, SENDERS - 1, 400), 0.0, total, kurtosis=1 / total)


@pytest.mark.statistical
def test_large_noise_is_the_sum_of_several_draws_with_the_same_law(stream) -> None:
    each = 2.0e8  # a rate of 1e8, above what one table takes
    made = _made(each, 1 + HONEST)
    assert made.facts.sampler_distance == 2 * 2.0**-60 and _made().facts.sampler_distance == 2.0**-60
    assert_moments(_summed_noise(made, stream, 1, 200), 0.0, each, kurtosis=0.0)
    with pytest.raises(ValueError, match="change scale"):
        _made(1e10)
    with pytest.raises(ValueError, match="change scale"):
        _made(0.019)


def test_clients_send_clean_counts_within_both_bounds(stream) -> None:
    made, update = _made(), np.zeros(SIZE, np.float32)
    update[:4] = [0.4, 0.39, -0.4, 0.3]
    counts = np.asarray(jax.jit(made.privatize)(stream, jnp.asarray(update)))
    assert np.abs(counts - 50 * update).max() < 1 and (counts[4:] == 0).all(), "no noise"
    squared = made.noise_senders.squared_norm(SIZE)
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, i))(jnp.arange(50, dtype=jnp.uint32))
    wild = np.random.default_rng(0).normal(size=(50, SIZE)).astype(np.float32) * np.logspace(-3, 3, 50)[:, None]
    sent = np.asarray(jax.jit(jax.vmap(made.privatize))(streams, wild.astype(np.float32))).astype(np.int64)
    lengths = (sent**2).sum(axis=1)
    assert lengths.max() <= squared and lengths.max() > 0.8 * squared
    assert np.abs(sent).max() <= 20  # kappa Delta: 0.4 at 50 steps
    assert made.count_bound(7, SIZE) - made.count_bound(6, SIZE) == 20
    unbounded = committee_noise(clip_norm=1.0, scale=50.0, noise_variance=EACH, noise_senders=6, honest_noise=3)
    assert unbounded.count_bound(7, SIZE) - unbounded.count_bound(6, SIZE) == 50


def test_the_price_is_that_of_the_honest_noise_and_knows_no_clients() -> None:
    made = _made()
    moved = accounting.rounded_sensitivity(scaled_norm=50.0, dimension=SIZE)
    wanted = accounting.skellam_rdp(ORDERS, variance=HONEST * EACH, l1=moved.l1, l2=moved.l2)
    np.testing.assert_allclose(made.rdp(ORDERS, HONEST, SIZE), wanted, rtol=1e-6)
    for clients in (2, 50, 10_000):
        assert noise_source(made, _participation(clients, clients - 1)) == (SENDERS, HONEST, accounting.SCREENING)
    own = fp.skellam(clip_norm=1.0, scale=50.0, noise_variance=EACH)
    assert noise_source(own, _participation(50, 49)) == (50, 49, 0.0), "where senders bring their own noise they count"


def test_counting_clients_as_noise_is_refused_by_name() -> None:
    for honest in (HONEST + 1, 49):
        with pytest.raises(
            ValueError, match=rf"honest_senders={honest}, but only 3 of 6 noise senders.*clients.*bring no"
        ):
            _made().rdp(ORDERS, honest, SIZE)
    assert (_made().rdp(ORDERS, 1, SIZE) > _made().rdp(ORDERS, HONEST, SIZE)).all()


def test_what_screening_adds_to_delta_is_that_of_the_bound() -> None:
    assert accounting.SCREENING == HONEST_FAILURE + 2.0**-35
    found = release_distance(_made(), _participation(50, 49), SIZE, 0.25, 2.0**-60)
    assert found == pytest.approx(SENDERS * SIZE * 2.0**-60 + 0.25 + 1e-12 + 2.0**-35, rel=1e-12)
    own = fp.skellam(clip_norm=1.0, scale=50.0, noise_variance=EACH)
    assert release_distance(own, _participation(50, 49), SIZE, 0.0, 2.0**-60) == 50 * SIZE * 2.0**-60


def _terms(noise: tuple[int, int] | None, clients: int = 50) -> Terms:
    return Terms(3.0, 1e-5, _participation(clients, clients), 1, 1, None, accounting.integer_orders(256), None, noise)


@pytest.mark.parametrize(("noise", "wanted"), [((6, 3), 2.13), ((6, 5), 1.28), ((20, 7), 3.04), ((20, 14), 1.52)])
def test_variance_paid_over_a_gaussian_at_equal_epsilon(noise: tuple[int, int], wanted: float) -> None:
    """The published table, at the workload of 50 clients and 421,642 parameters: l / h, and 6.4 % for rounding at 2 sqrt(D)."""
    shape = Shape(1.0, 0.05, 0.05, 421_642)
    gauss = MECHANISMS["gaussian"].calibrate(_terms(None), shape, rounds=30).mechanism
    made = MECHANISMS["committee_noise"].calibrate(_terms(noise), shape, rounds=30).mechanism
    ratio = made.variance(50) / gauss.variance(50)
    assert ratio == pytest.approx(wanted, abs=0.01)
    assert ratio / (noise[0] / noise[1]) == pytest.approx(1.064, abs=0.003)
    more = MECHANISMS["committee_noise"].calibrate(_terms(noise, 5000), shape, rounds=30).mechanism
    assert dict(more.facts.parameters) == dict(made.facts.parameters), "Sybils or not, the noise is the same"


@pytest.mark.parametrize(("factor", "cost"), [(2.0, 0.064), (4.0, 0.016)])
def test_the_cost_of_rounding_at_two_and_four_roots_of_the_dimension(factor: float, cost: float) -> None:
    size = 421_642
    moved = accounting.rounded_sensitivity(scaled_norm=factor * math.sqrt(size), dimension=size)
    assert moved.l2**2 / (factor**2 * size) - 1 == pytest.approx(cost, abs=0.001)


def test_short_vectors_take_a_finer_scale() -> None:
    assert steps_for(421_642) == 2 * math.sqrt(421_642)
    for size in (1, 14, 1000):
        steps = steps_for(size)
        ratio = accounting.rounded_sensitivity(scaled_norm=steps, dimension=size).l2 ** 2 / steps**2
        half = accounting.rounded_sensitivity(scaled_norm=steps / 2, dimension=size).l2 ** 2 / (steps / 2) ** 2
        assert ratio <= 1.07 < half, "and no finer one than is needed"
    assert steps_for(2**34) == 2.0**16, "the grid's end"


@pytest.mark.statistical
@pytest.mark.parametrize("size", [5, 500])
def test_honest_sums_keep_to_their_root_mean_square_and_half_of_it_would_not_do(size: int) -> None:
    made, senders = _made(0.5), 4
    bound = made.noise_senders.count_rms(senders, size)
    rng = np.random.default_rng(3)
    noise = rng.poisson(SENDERS * 0.25, (20_000, size)) - rng.poisson(SENDERS * 0.25, (20_000, size))
    full = math.sqrt(made.noise_senders.squared_norm(size))
    clean = np.full(size, senders * full / math.sqrt(size))  # all clients at the bound, in one direction
    found = np.sqrt(((noise + clean) ** 2).mean(axis=1))
    assert found.max() <= bound
    assert found.mean() > bound / 2


def test_where_nobody_would_add_the_noise_clean_counts_are_refused(stream) -> None:
    made, grids = _made(), jnp.zeros((2, SIZE), jnp.int32)
    plain = fp.aggregator("plain", count_bound=10_000, senders=2)
    with pytest.raises(ValueError, match=r"a private sum opens.*clean counts"):
        fp.federated.private_sum(made, plain, grids, stream)
    with pytest.raises(ValueError, match="by groups opens"):
        grouped([(3, made)])
    with pytest.raises(ValueError, match="a view opens"):
        fp.attacks.four_views(made, jnp.zeros((2, SIZE)), stream)
    with pytest.raises(ValueError, match="an audit opens"):
        fp.attacks.audit_mechanism(
            fp.attacks.AuditedSystem(made, 2), fp.attacks.PrivacyClaim(made, 1, 2, 1, 1e-3), stream
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"honest_noise": 7}, "honest_noise=7 of noise_senders=6"),
        ({"honest_noise": 0}, "honest_noise=0"),
        ({"noise_senders": 6.5}, "whole numbers"),
        ({"coordinate_bound": 1.5}, "exceeds clip_norm"),
        ({"coordinate_bound": -0.5}, "coordinate_bound=-0.5"),
        ({"noise_variance": math.nan}, "noise_variance=nan"),
        ({"scale": 2.0**17}, r"exceeds 2\*\*16"),
    ],
)
def test_wrong_parameters_are_refused(changes: dict[str, float], words: str) -> None:
    usual = {"clip_norm": 1.0, "scale": 50.0, "noise_variance": EACH, "noise_senders": 6, "honest_noise": 3}
    with pytest.raises(ValueError, match=words):
        committee_noise(**{**usual, **changes})


def test_a_plan_without_noise_senders_or_with_too_large_counts_is_refused() -> None:
    calibrate = MECHANISMS["committee_noise"].calibrate
    with pytest.raises(ValueError) as found:
        calibrate(_terms(None), Shape(1.0, 1.0, 1.0, 100), rounds=1)
    assert "name none" in str(found.value.__cause__)
    with pytest.raises(ValueError) as found:
        calibrate(_terms((5, 2), 10**6), Shape(1.0, 1.0, 1.0, 10**6), rounds=1)
    assert "lower coordinate_bound" in str(found.value.__cause__)
