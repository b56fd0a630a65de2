"""Adaptive clipping finds the quantile, is paid for, and estimates what was sent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson.mechanisms import adaptive_embedding

SENDERS, SIZE = 64, 6


@pytest.mark.parametrize("start", [0.2, 10.0])
def test_clip_norm_converges_to_the_quantile(start: float) -> None:
    clipper = adaptive_embedding(
        initial_clip_norm=start,
        coordinate_ratio=1.0,
        dark_count=200.0,
        modulation=0.1,
        bit_dark_count=200.0,
        quantile=0.7,
    )
    norms = np.linspace(0.5, 2.5, SENDERS)
    updates = np.random.default_rng(0).standard_normal((SENDERS, SIZE))
    updates = jnp.asarray(updates / np.linalg.norm(updates, axis=1, keepdims=True) * norms[:, None], jnp.float32)
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        root = fp.randomness.stream(3)

    @jax.jit
    def play(state, number):
        streams = jax.vmap(lambda i: fp.randomness.fold_in(root, number, i))(jnp.arange(SENDERS, dtype=jnp.uint32))
        counts = jax.vmap(lambda s, u: clipper.privatize(state, s, u))(streams, updates)
        return clipper.finish(state, jnp.sum(counts, axis=0, dtype=jnp.int32), SENDERS)

    state, path = clipper.init(), []
    for number in range(90):
        state, estimate, share = play(state, jnp.uint32(number))
        path.append(float(state.clip_norm))
    assert np.mean(path[-20:]) == pytest.approx(np.quantile(norms, 0.7), rel=0.15)
    clip = path[-2]
    clipped = np.asarray(updates) * np.minimum(1, clip / norms)[:, None]
    std = np.sqrt(clipper.unit_mechanism.variance(SENDERS)) * clip
    assert np.abs(np.asarray(estimate) - clipped.sum(0)).max() < 6 * std
    assert float(share) == pytest.approx(0.7, abs=0.5)


def test_the_bit_is_paid_for_and_the_bounds_hold() -> None:
    orders = np.arange(2.0, 33.0)
    usual = {"initial_clip_norm": 1.0, "coordinate_ratio": 0.5, "dark_count": 8.0, "modulation": 0.05}
    clipper = adaptive_embedding(**usual, bit_dark_count=3.0)
    without = clipper.unit_mechanism.rdp(orders, 9, 100)
    assert np.all(clipper.rdp(orders, 9, 100) > without)
    # K mu -> K mu + mu_b in the event budget: here K = 4 at mu = 8, and the bit adds 3.
    np.testing.assert_allclose(clipper.rdp(orders, 9, 100) / without, (4 * 8 + 3) / (4 * 8), rtol=1e-12)
    assert clipper.count_bound(10, 100) >= clipper.unit_mechanism.count_bound(10, 100)
    for wrong, words in [
        ({"quantile": 1.0}, "quantile"),
        ({"quantile": 0.0}, "quantile"),
        ({"coordinate_ratio": 1.5}, "coordinate_ratio"),
        ({"coordinate_ratio": 0.0}, "coordinate_ratio"),
        ({"largest_clip_norm": 0.1}, "outside"),
        ({"least_clip_norm": 1.1}, "outside"),
        ({"rate": 0.0}, "rate"),
    ]:
        with pytest.raises(ValueError, match=words):
            adaptive_embedding(**{**usual, **wrong}, bit_dark_count=3.0)
    adaptive_embedding(**usual, bit_dark_count=3.0, least_clip_norm=1.0, largest_clip_norm=1.0)


CLIPPER = adaptive_embedding(
    initial_clip_norm=2.0,
    coordinate_ratio=0.5,
    dark_count=200.0,
    modulation=0.1,
    bit_dark_count=50.0,
    quantile=0.7,
    rate=0.3,
    least_clip_norm=0.5,
    largest_clip_norm=4.0,
)


@pytest.mark.parametrize(
    "before, bit_total, after", [(2.0, 30, None), (2.0, -300, None), (0.51, 3000, 0.5), (3.9, -3000, 4.0)]
)
def test_the_clip_norm_moves_by_what_the_bits_say_and_stays_in_its_range(before, bit_total, after) -> None:
    """By hand: a bit counts 2 mu r = 10 events, a coordinate 2 mu r / c_inf = 80 in units of the clip norm."""
    senders, first = 10, CLIPPER.init()
    assert float(first.clip_norm) == 2.0
    state = first._replace(clip_norm=jnp.float32(before))
    total = jnp.asarray([160, -40, 0, bit_total], jnp.int32)
    for count in (senders, jnp.uint32(senders)):
        moved, estimate, share = jax.jit(CLIPPER.finish)(state, total, count)
        assert float(share) == pytest.approx((1 + bit_total / 10 / senders) / 2, rel=1e-6)
        np.testing.assert_allclose(estimate, [2.0 * before, -0.5 * before, 0.0], rtol=1e-6)
        wanted = before * np.exp(-0.3 * (float(share) - 0.7)) if after is None else after
        assert float(moved.clip_norm) == pytest.approx(wanted, rel=1e-6)


def test_each_count_gets_half_of_the_failures_and_the_curve_takes_both_relations() -> None:
    unit, bit = CLIPPER.unit_mechanism, CLIPPER.bit_mechanism
    assert CLIPPER.count_bound(10, 100, 1e-6) == max(unit.count_bound(10, 100, 5e-7), bit.count_bound(10, 1, 5e-7))
    assert CLIPPER.count_bound(10, 100) == CLIPPER.count_bound(10, 100, 2.0**-64)
    loud = adaptive_embedding(
        initial_clip_norm=1.0, coordinate_ratio=0.5, dark_count=1.0, modulation=0.1, bit_dark_count=50.0
    )
    assert loud.count_bound(10, 5, 1e-6) == loud.bit_mechanism.count_bound(10, 1, 5e-7)
    orders = np.arange(2.0, 9.0)
    for adjacency in ("zero_out", "replace_one"):
        parts = unit.rdp(orders, 9, 100, adjacency) + bit.rdp(orders, 9, 1, adjacency)
        np.testing.assert_array_equal(CLIPPER.rdp(orders, 9, 100, adjacency), parts)
