"""One contract for every mechanism: shapes and dtypes under jit, vmap and scan, bounds, unbiasedness, variance, refusals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fedjax_poisson as fp
from fedjax_poisson.mechanisms import committee_noise, experimental, grouped, single_channel, summed_skellam
from fedjax_poisson.mechanisms.estimates import mean_count, subtract_mean
from fedjax_poisson.mechanisms.gaussian import normal_quantiles
from tests.helpers.stat import assert_moments

ORDERS = np.arange(2.0, 65.0)
SIZE = 240

MECHANISMS = {
    "push_pull": lambda: fp.poisson_embedding(clip_norm=1.0, coordinate_bound=0.4, dark_count=8.0, modulation=0.1),
    "push_pull_records": lambda: fp.poisson_embedding(
        clip_norm=1.0, coordinate_bound=0.4, dark_count=500.0, modulation=0.05, total_bound=6.0
    ),
    "single_channel": lambda: single_channel(clip_norm=1.0, coordinate_bound=0.4, dark_count=20.0, modulation=0.2),
    "skellam": lambda: fp.skellam(clip_norm=1.0, scale=60.0, noise_variance=400.0),
    "summed_skellam": lambda: summed_skellam(
        clip_norm=1.0, coordinate_bound=0.4, total_bound=0.4, grid_step=2.0**-12, noise_variance=1e6
    ),
    "committee_noise": lambda: committee_noise(
        clip_norm=1.0, scale=60.0, noise_variance=400.0, noise_senders=25, honest_noise=20
    ),
    "centred_poisson": lambda: experimental.centred_poisson(clip_norm=1.0, scale=40.0, dark_count=30.0),
    "compound_poisson": lambda: experimental.compound_poisson(clip_norm=1.0, events=30.0, jump_std=0.1),
    "data_embedding": lambda: experimental.data_embedding(gain=20.0, offset=0.5),
    "gaussian": lambda: fp.gaussian(clip_norm=1.0, noise_std=0.7),
    "grouped": lambda: grouped(
        [
            (100, fp.poisson_embedding(clip_norm=0.7, coordinate_bound=0.4, dark_count=8.0, modulation=0.1)),
            (140, fp.poisson_embedding(clip_norm=0.7, coordinate_bound=0.3, dark_count=16.0, modulation=0.05)),
        ]
    ),
}


@pytest.fixture(params=list(MECHANISMS), scope="module")
def mechanism(request: pytest.FixtureRequest) -> fp.mechanisms.Mechanism:
    return MECHANISMS[request.param]()


@pytest.fixture(scope="module")
def stream() -> fp.randomness.Stream:
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        return fp.randomness.stream(7)


@pytest.fixture(scope="module")
def privatize(mechanism):
    """The jitted draw: outside jit every operation would be compiled by itself."""
    return jax.jit(mechanism.privatize)


def _updates(count: int = 6) -> np.ndarray:
    return (np.random.default_rng(5).standard_normal((count, SIZE)) * 0.1).astype(np.float32)


def test_shape_dtype_and_bits_are_the_same_under_jit_vmap_and_scan(mechanism, privatize, stream) -> None:
    updates = jnp.asarray(_updates())
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, i))(jnp.arange(6, dtype=jnp.uint32))
    rows = [np.asarray(privatize(jax.tree.map(lambda a, i=i: a[i], streams), updates[i])) for i in range(6)]
    expected = jnp.int32 if mechanism.facts.integer else jnp.float32
    assert rows[0].shape == (SIZE,) and rows[0].dtype == expected
    together = np.asarray(jax.jit(jax.vmap(mechanism.privatize))(streams, updates))
    scanned = np.asarray(jax.lax.scan(lambda c, x: (c, mechanism.privatize(*x)), 0, (streams, updates))[1])
    if mechanism.facts.integer:
        np.testing.assert_array_equal(together, rows)
        np.testing.assert_array_equal(scanned, rows)
    else:
        np.testing.assert_allclose(together, rows, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scanned, rows, rtol=1e-5, atol=1e-5)


def test_same_stream_same_bits_and_other_stream_other_bits(privatize, stream) -> None:
    update = jnp.asarray(_updates()[0])
    a, b = (np.asarray(privatize(stream, update)) for _ in range(2))
    c = np.asarray(privatize(fp.randomness.fold_in(stream, 1), update))
    np.testing.assert_array_equal(a, b)
    assert np.any(a != c)


def _with_noise(mechanism, totals, stream):
    """Sums of counts [draws, D] with the vectors of all noise senders, where counts come without noise."""
    if mechanism.noise is None:
        return totals
    by = mechanism.noise_senders.senders
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, "noise senders", i))(
        jnp.arange(len(totals) * by, dtype=jnp.uint32)
    )
    noise = jax.jit(jax.vmap(lambda s: mechanism.noise(s, SIZE)))(streams)
    return totals + noise.reshape(len(totals), by, SIZE).sum(axis=1, dtype=jnp.int32)


def _typical(mechanism) -> np.ndarray:
    """An update that no clip touches; zero where the mechanism rounds toward zero and so is unbiased only on its own steps."""
    rng = np.random.default_rng(1)
    if mechanism.facts.name == "data_embedding":
        return rng.uniform(0.2, 0.8, SIZE).astype(np.float32)
    signs = rng.choice([-1.0, 1.0], SIZE) * (mechanism.facts.name != "centred_poisson")
    return (signs * rng.uniform(0.045, 0.065, SIZE)).astype(np.float32)


@pytest.mark.statistical
@pytest.mark.parametrize("bias, passes", [(0.0, True), (0.05, False)])
def test_estimate_is_unbiased_with_the_stated_variance(mechanism, stream, bias: float, passes: bool) -> None:
    draws, senders = 600, 2
    small = _typical(mechanism)
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, "moments", i))(
        jnp.arange(draws * senders, dtype=jnp.uint32)
    )
    counts = jax.jit(jax.vmap(lambda s: mechanism.privatize(s, small)))(streams)
    totals = _with_noise(mechanism, counts.reshape(draws, senders, SIZE).sum(axis=1, dtype=counts.dtype), stream)
    sums = np.asarray(jax.vmap(lambda t: mechanism.estimate(t, senders))(totals), np.float64)
    variance = mechanism.variance(senders)
    errors = (sums - senders * small.astype(np.float64)) / np.sqrt(variance) + bias
    if mechanism.facts.name == "grouped":  # the stated variance is the largest group's
        assert max(errors[:, :100].var(), errors[:, 100:].var()) == pytest.approx(1.0, abs=0.03)
        errors = errors / errors.std(axis=0)
    # Signs of an update cancel in a mean: an estimate that knows nothing of the update shows only where errors are turned to its signs (4 standard errors).
    turned, most = errors * np.sign(small - small.mean()), 4 * errors.std() / np.sqrt(errors.size)
    ignored = turned - np.abs(senders * small) / np.sqrt(variance)
    assert abs(turned.mean()) < most and (not small.any() or ignored.mean() < -most)
    exact = mechanism.facts.name in ("poisson_embedding", "gaussian", "grouped", "summed_skellam")
    if exact:
        if passes:
            assert_moments(errors, 0.0, 1.0)
        else:
            with pytest.raises(AssertionError):
                assert_moments(errors, 0.0, 1.0)
    else:  # an upper bound on the variance
        standard_error = errors.std() / np.sqrt(errors.size)
        assert (abs(errors.mean()) < 6 * standard_error) == passes
        assert not passes or 0.5 < errors.var() < 1.02


@pytest.mark.statistical
def test_the_estimate_is_of_those_present_not_of_those_planned(mechanism, stream) -> None:
    """Three of five planned senders sent. Where a channel has a mean to subtract, subtracting that of five is far off."""
    draws, present = 100, 3
    small = _typical(mechanism)
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, "present", i))(
        jnp.arange(draws * present, dtype=jnp.uint32)
    )
    counts = jax.jit(jax.vmap(lambda s: mechanism.privatize(s, small)))(streams)
    totals = _with_noise(mechanism, counts.reshape(draws, present, SIZE).sum(axis=1, dtype=counts.dtype), stream)
    estimate = jax.jit(jax.vmap(mechanism.estimate, in_axes=(0, None)))
    near = {}
    for counted in (present, 5):
        sums = np.asarray(estimate(totals, jnp.uint32(counted)), np.float64)
        traced_or_not = np.asarray(mechanism.estimate(totals[0], counted))
        np.testing.assert_allclose(sums[0], traced_or_not, rtol=1e-6, atol=1e-6)
        error = sums.mean() - present * small.astype(np.float64).mean()
        near[counted] = abs(error) < 6 * np.sqrt(mechanism.variance(present) / sums.size)
    has_a_mean = mechanism.facts.name in ("single_channel", "centred_poisson", "data_embedding")
    assert near == {present: True, 5: not has_a_mean}


@pytest.mark.parametrize("mean", [0.0, 0.75, 17.3, 20.0, 1234567.8901, 2.0**-33])
@pytest.mark.parametrize("senders", [1, 7, 1000])
def test_the_mean_of_counts_is_subtracted_exactly(mean: float, senders: int) -> None:
    total = jnp.asarray([0, 1, 2**30 + 7, 2**31 - 1], jnp.int32)
    for count in (senders, jnp.int32(senders), jnp.uint32(senders)):
        found = np.asarray(jax.jit(subtract_mean)(total, mean_count(mean), count), np.float64)
        wanted = np.asarray(total, np.float64) - senders * mean
        np.testing.assert_allclose(found, wanted, rtol=2.0**-23, atol=2.0**-23)


def test_zeros_and_what_is_not_finite_become_zeros(mechanism) -> None:
    """So that a client which does not contribute may be taken out of what was clipped (`sent.one_grid`), where grids are summed at all."""
    if (
        mechanism.facts.name == "data_embedding"
    ):  # its noise is that of the data's own counts: no sum of grids has its law
        assert isinstance(mechanism.sum_law, str)
        return
    assert not np.asarray(mechanism.clip(jnp.zeros(SIZE, jnp.float32))).any()
    for bad in (np.nan, np.inf, -np.inf):
        assert not np.asarray(mechanism.clip(jnp.full(SIZE, bad, jnp.float32))).any()


def test_wild_updates_stay_inside_the_bounds(mechanism) -> None:
    for value in (np.nan, np.inf, -np.inf, 3e38):
        grid = np.asarray(mechanism.clip(jnp.full(SIZE, value, jnp.float32)))
        assert grid.dtype == np.int32 and np.abs(grid.astype(np.int64)).max() <= 2**20


def test_rdp_is_a_curve_that_falls_with_honest_senders(mechanism) -> None:
    one, many = mechanism.rdp(ORDERS, 2, SIZE), mechanism.rdp(ORDERS, 20, SIZE)
    if mechanism.facts.name in ("centred_poisson", "compound_poisson"):
        assert np.all(np.isinf(one)) and np.all(np.isinf(many))
        return
    if mechanism.facts.name == "data_embedding":  # local: others do not help
        np.testing.assert_array_equal(one, many)
        assert fp.accounting.epsilon(ORDERS, one, 1e-5) > 100
        return
    assert one.shape == ORDERS.shape and np.all(np.diff(one) > 0) and np.all(many < one)
    assert np.all(mechanism.rdp(ORDERS, 2, SIZE, "replace_one") >= 1.9 * one)


def test_unsound_requests_are_refused_with_the_remedy(mechanism) -> None:
    with pytest.raises(ValueError, match="zero_out"):
        mechanism.rdp(ORDERS, 2, SIZE, "add_remove")
    with pytest.raises(ValueError, match="honest_senders"):
        mechanism.rdp(ORDERS, 0, SIZE)


def test_counts_stay_below_the_count_bound(mechanism, stream) -> None:
    senders = 3
    if not mechanism.facts.integer:
        with pytest.raises(ValueError, match="no count"):
            mechanism.count_bound(senders, SIZE)
        return
    bound = mechanism.count_bound(senders, SIZE)
    assert bound == mechanism.count_bound(senders, SIZE, 2.0**-64)
    assert bound < mechanism.count_bound(senders, SIZE, 2.0**-128) < 2**31
    streams = jax.vmap(lambda i: fp.randomness.fold_in(stream, "bound", i))(jnp.arange(300, dtype=jnp.uint32))
    counts = jax.jit(jax.vmap(lambda s: mechanism.privatize(s, jnp.full(SIZE, 3e38, jnp.float32))))(streams)
    totals = np.asarray(_with_noise(mechanism, counts.reshape(100, senders, SIZE).sum(axis=1), stream))
    assert np.abs(totals).max() <= bound
    assert np.abs(totals).max() > bound / 6  # and the bound means something


def test_repr_names_the_parameters(mechanism) -> None:
    assert repr(mechanism).startswith(mechanism.facts.name)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"modulation": 1.0}, "below 1"),
        ({"coordinate_bound": 2.0}, "exceeds clip_norm"),
        ({"dark_count": -1.0}, "dark_count=-1.0"),
        ({"dark_count": float("nan")}, "dark_count=nan"),
        ({"total_bound": 0.1}, "below coordinate_bound"),
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, float], words: str) -> None:
    usual = {"clip_norm": 1.0, "coordinate_bound": 0.5, "dark_count": 8.0, "modulation": 0.05}
    with pytest.raises(ValueError, match=words):
        fp.poisson_embedding(**{**usual, **arguments})


def test_real_valued_mechanisms_are_never_summed_under_encryption(mechanism, stream) -> None:
    if mechanism.facts.integer:
        return
    grids = jnp.zeros((2, SIZE), jnp.int32)
    sealed = fp.aggregator("round", count_bound=1000, senders=2, size=SIZE, authenticate=False)
    with pytest.raises(ValueError, match="does not send integers"):
        fp.federated.private_sum(mechanism, sealed, grids, stream)
    clear, refused = fp.aggregator("plain", count_bound=1, senders=2), []
    estimate, info = fp.federated.private_sum(mechanism, clear, grids, stream, gate=lambda: refused.append(1))
    assert info.senders == 2 and not info.exact and refused == [1]
    assert 0.5 < float(jnp.var(estimate)) / mechanism.variance(2) < 2
    with pytest.raises(fp.aggregation.RoundRefused, match="at least 2"):
        fp.federated.private_sum(mechanism, clear, grids, stream, senders=[0])


def test_no_word_gives_an_infinite_normal() -> None:
    words = jnp.concatenate(
        [at + jnp.arange(1024, dtype=jnp.uint32) for at in jnp.uint32([0, 2**31 - 512, 2**32 - 1024])]
    )
    drawn = np.asarray(normal_quantiles(words), np.float64)
    assert np.isfinite(drawn).all() and (drawn[:1024] < -4.7).all() and (drawn[-1024:] > 4.7).all()
    np.testing.assert_allclose(drawn, stats.norm.ppf((np.asarray(words) // 512 + 0.5) / 2**23), rtol=1e-5, atol=1e-6)
    halves = (words >> jnp.uint32(8)).astype(jnp.float32) * jnp.float32(2**-24) + jnp.float32(2**-25)  # the twin
    assert not jnp.isfinite(jax.scipy.special.ndtri(halves)).all()
