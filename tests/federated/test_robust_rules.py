"""Robust rules: values computed by hand, what one wild client does to each, and that the mean, the twin, breaks."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.federated import robust_rules as rules

FIVE = jnp.asarray([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 2.0], [100.0, -50.0]], jnp.float32)


def test_values_by_hand():
    np.testing.assert_allclose(rules.mean(FIVE), [22.0, -9.6])
    np.testing.assert_allclose(rules.median(FIVE), [3.0, 0.0])
    np.testing.assert_allclose(rules.trimmed_mean(FIVE, 1), [3.0, 0.0])
    np.testing.assert_allclose(rules.norm_bound(jnp.asarray([[3.0, 4.0], [0.3, 0.4]]), 1.0), [0.45, 0.6], rtol=1e-6)


def test_krum_by_hand():
    """c = 1 of 5: two neighbours. (2, 0) has 1 + 1 = 2; (1, 0): 1 + 4; (3, 0): 1 + 4 (or 1 + 5); (4, 2): 5 + 8."""
    scores = np.asarray(rules.krum_scores(FIVE, 1))
    np.testing.assert_allclose(scores[:4], [5.0, 2.0, 5.0, 13.0], atol=1e-2)
    np.testing.assert_allclose(rules.multi_krum(FIVE, 1, 1), [2.0, 0.0])
    np.testing.assert_allclose(rules.multi_krum(FIVE, 1), [2.5, 0.5])


def test_centred_clipping_by_hand():
    """One step from zero at radius 1 is the mean of unit vectors; a large radius gives the mean at once."""
    two = jnp.asarray([[3.0, 4.0], [0.0, -10.0]])
    np.testing.assert_allclose(rules.centred_clipping(two, 1.0, steps=1), [0.3, -0.1], rtol=1e-6)
    np.testing.assert_allclose(rules.centred_clipping(two, 1e6, steps=1), rules.mean(two), rtol=1e-6)
    centre = jnp.asarray([1.5, -3.0])
    np.testing.assert_allclose(rules.centred_clipping(two, 1e6, steps=1, centre=centre), rules.mean(two), rtol=1e-6)


@pytest.mark.parametrize("name", list(rules.RULES))
def test_one_wild_client_of_eleven_moves_the_mean_and_no_robust_rule(name):
    honest = 1 + 0.1 * np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    wild = jnp.asarray(np.concatenate([honest, np.full((1, 6), -1e6, np.float32)]), jnp.float32)
    bound = float(np.linalg.norm(honest, axis=1).max())
    moved = np.linalg.norm(np.asarray(rules.RULES[name].apply(wild, 1, bound)) - honest.mean(axis=0))
    if name == "mean":
        assert moved > 1e5
    else:
        assert moved < 0.5 * bound
    agreed = jnp.asarray(np.repeat(honest[:1], 11, 0))
    np.testing.assert_allclose(rules.RULES[name].apply(agreed, 1, bound + 1), honest[0], atol=1e-5)


def test_every_rule_breaks_where_most_are_corrupt():
    six = jnp.asarray(np.concatenate([np.ones((5, 3)), np.full((8, 3), -9.0)]).astype(np.float32))
    for name in ("median", "trimmed_mean", "krum", "multi_krum"):
        found = np.asarray(rules.RULES[name].apply(six, 6 if name == "trimmed_mean" else 5, 2.0))
        assert found.mean() < -1, name


def test_counts_that_leave_nothing_are_refused_and_the_nearest_are_not():
    with pytest.raises(ValueError, match="fewer than half"):
        rules.trimmed_mean(FIVE[:4], 2)
    rules.trimmed_mean(FIVE, 2)
    with pytest.raises(ValueError, match=r"corrupt \+ 3"):
        rules.krum_scores(FIVE, 3)
    rules.krum_scores(FIVE, 2)
    for kept in (0, 6):
        with pytest.raises(ValueError, match="1 to all"):
            rules.multi_krum(FIVE, 1, kept)


def test_the_label_says_what_they_need():
    assert "in the clear" in rules.IN_THE_CLEAR and "not private" in rules.IN_THE_CLEAR
