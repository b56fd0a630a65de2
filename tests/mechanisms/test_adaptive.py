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
        ({"coordinate_ratio": 1.5}, "coordinate_ratio"),
        ({"largest_clip_norm": 0.1}, "outside"),
    ]:
        with pytest.raises(ValueError, match=words):
            adaptive_embedding(**{**usual, **wrong}, bit_dark_count=3.0)
