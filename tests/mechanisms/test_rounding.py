"""Conditional rounding: the norm bound holds whatever is drawn, and what is accepted is unbiased."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson.mechanisms.clipping import limit_limbs
from fedjax_poisson.mechanisms.rounding import conditional_rounding, rounding

PLACES = 4
VALUES = np.repeat([0.75, -2.25], 20)  # rounded at random: 20 of {0, 1} and 20 of {-3, -2}
TOWARD_ZERO = np.repeat([0, -2], 20)


@pytest.fixture(scope="module")
def streams() -> fp.randomness.Stream:
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        root = fp.randomness.stream(12)
    return jax.vmap(lambda i: fp.randomness.fold_in(root, i))(jnp.arange(400, dtype=jnp.uint32))


def _rounded(streams: fp.randomness.Stream, limit: int) -> np.ndarray:
    grid = jnp.asarray(VALUES * 2**PLACES, jnp.int32)
    draw = functools.partial(conditional_rounding, grid=grid, fraction_bits=PLACES, squared_limit=limit_limbs(limit))
    return np.asarray(jax.jit(jax.vmap(draw))(streams))


def test_the_norm_never_passes_its_limit_and_the_last_resort_rounds_toward_zero(streams) -> None:
    """Of 65 draws, each fits with probability about 0.7 %: some are accepted late, and some never."""
    limit = 96  # 120 +- 10 is usual, 80 toward zero
    rounded = _rounded(streams, limit)
    assert (rounded**2).sum(axis=1).max() <= limit
    assert np.abs(rounded - VALUES).max() < 1
    last = (rounded == TOWARD_ZERO).all(axis=1)
    assert 0.3 < last.mean() < 0.95, "both ways out are taken"
    assert (rounded[~last] ** 2).sum(axis=1).min() > 80


@pytest.mark.statistical
def test_what_is_accepted_at_once_is_unbiased(streams) -> None:
    rounded = _rounded(streams, 20 * (1 + 9))  # the largest norm there is
    found, standard_error = rounded.reshape(-1, 2, 20).mean(axis=(0, 2)), np.sqrt(0.1875 / (400 * 20))
    np.testing.assert_allclose(found, [0.75, -2.25], atol=6 * standard_error)
    assert np.abs(TOWARD_ZERO.reshape(2, 20).mean(axis=1) - [0.75, -2.25]).min() > 6 * standard_error, "the twin"
    assert set(rounded[:, :20].ravel()) == {0, 1} and set(rounded[:, 20:].ravel()) == {-3, -2}


def test_a_rounded_vector_keeps_to_the_bound_of_its_coordinates() -> None:
    for coordinate, largest in ((0.3, 18), (0.305, 19), (None, 60)):  # 60 steps a unit: 18, 18.3 and 60
        made = rounding(clip_norm=1.0, scale=60.0, beta=0.5, coordinate_bound=coordinate)
        assert made.largest == largest
        grid = np.asarray(made.clip(jnp.full(4, 9.0)))
        ceiling = -(-grid.astype(np.int64) // 2**made.places)
        assert ceiling.max() <= largest and ceiling.max() >= min(largest, 29), (
            "half of the norm in each of four coordinates"
        )
    with pytest.raises(ValueError, match="beta=1"):
        rounding(clip_norm=1.0, scale=60.0, beta=1.0)
