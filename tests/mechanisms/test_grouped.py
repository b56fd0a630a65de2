"""Groups: the facts of all, each block with its own noise, and sizes that must add up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson.mechanisms import experimental, grouped

ORDERS = np.arange(2.0, 33.0)
SMALL = fp.poisson_embedding(clip_norm=0.7, coordinate_bound=0.4, dark_count=8.0, modulation=0.1)
LARGE = fp.poisson_embedding(clip_norm=0.7, coordinate_bound=0.3, dark_count=6e7, modulation=0.05)
BASELINE = fp.gaussian(clip_norm=1.0, noise_std=1.0)


def test_the_curves_of_the_blocks_add_each_at_its_own_size() -> None:
    both = grouped([(3, SMALL), (50, LARGE)])
    for adjacency in ("zero_out", "replace_one"):
        parts = SMALL.rdp(ORDERS, 4, 3, adjacency) + LARGE.rdp(ORDERS, 4, 50, adjacency)
        np.testing.assert_allclose(both.rdp(ORDERS, 4, 53, adjacency), parts, rtol=1e-15)
    assert np.all(SMALL.rdp(ORDERS, 4, 50) > SMALL.rdp(ORDERS, 4, 3)), "the sizes matter"
    for wrong in (52, 54):
        with pytest.raises(ValueError, match="cover 53 coordinates"):
            both.rdp(ORDERS, 4, wrong)


def test_the_facts_are_those_of_the_worst_block() -> None:
    both = grouped([(3, SMALL), (50, LARGE)])
    assert both.facts.sampler_distance == LARGE.facts.sampler_distance > SMALL.facts.sampler_distance
    assert both.variance(5) == max(SMALL.variance(5), LARGE.variance(5)) > min(SMALL.variance(5), LARGE.variance(5))
    assert both.count_bound(5, 53, 1e-6) == LARGE.count_bound(5, 50, 5e-7) > SMALL.count_bound(5, 3, 5e-7)
    assert both.facts.status == "proved" and both.facts.integer and both.facts.data_dependent_noise
    assert both.facts.parameters[0] == ("group_0_clip_norm", 0.7) and len(both.facts.parameters) == 10
    noisy = experimental.centred_poisson(clip_norm=1.0, scale=40.0, dark_count=30.0)
    for pair in ([(3, SMALL), (4, noisy)], [(4, noisy), (3, SMALL)]):
        mixed = grouped(pair)
        assert mixed.facts.status == "experimental" and mixed.facts.data_dependent_noise
    alone = grouped([(2, BASELINE)])
    assert alone.facts.status == "baseline" and not (alone.facts.integer or alone.facts.data_dependent_noise)


def test_blocks_do_not_share_their_noise() -> None:
    """Two equal blocks that show the words of their stream: with one stream for both every word would be there twice."""
    shown = SMALL._replace(embed=lambda stream, grid: fp.randomness.bits(stream, grid.shape).astype(jnp.int32))
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        stream = fp.randomness.stream(11)
    words = np.asarray(grouped([(8, shown), (8, shown)]).embed(stream, jnp.zeros(16, jnp.int32)))
    assert len(set(words.tolist())) == 16
    assert not set(words.tolist()) & set(np.asarray(shown.embed(stream, jnp.zeros(16, jnp.int32))).tolist())


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        grouped([])
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"size {size}"):
            grouped([(4, SMALL), (size, SMALL)])
    with pytest.raises(ValueError, match="cannot share one sum"):
        grouped([(4, SMALL), (4, BASELINE)])
    both = grouped([(1, SMALL), (2, SMALL)])
    assert jax.eval_shape(both.clip, jnp.zeros(3)).shape == (3,)
    for size in (2, 4):
        with pytest.raises(ValueError, match=f"has {size} coordinates, the groups 3"):
            jax.eval_shape(both.clip, jnp.zeros(size))
