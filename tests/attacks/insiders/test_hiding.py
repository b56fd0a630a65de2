"""Attacks made against robust rules: their numbers by hand, what they learn from, and that they beat the rules they were made for."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.attacks.insiders import hiding
from fedjax_poisson.federated import robust_rules
from tests.attacks.insiders.helpers import NOISE, SIZE, sent, updates

CLOSE = 8 * NOISE * SIZE**0.5


def test_a_little_is_mean_less_z_standard_deviations():
    """n = 50, c = 12: s = 26 - 12 = 14, z the quantile of 24/38 (the example of Baruch et al., section 3, has 24/38 of its 50 too)."""
    own = np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32)
    found = hiding.little_is_enough(50, 12).learn(jnp.asarray(own), jnp.zeros(30))
    np.testing.assert_allclose(found, own.mean(0) - stats.norm.ppf(24 / 38) * own.std(0), rtol=1e-4, atol=1e-5)


def test_all_insiders_send_the_same_and_it_is_what_their_records_say():
    who = (0, 3, 6)
    found = sent(hiding.inner_product(2.0), who)
    wanted = -2 * updates()[list(who)].mean(axis=0)
    for each in who:
        assert np.linalg.norm(found[each] - wanted) < CLOSE


def test_a_small_inner_product_passes_the_median_and_turns_it():
    """Honest updates scatter around (1, ..., 1); nine of twenty send a little against it: the median moves, and less is needed than the mean's move."""
    rng = np.random.default_rng(1)
    honest = (1 + 2 * rng.normal(size=(11, 40))).astype(np.float32)
    bad = np.repeat(np.asarray(hiding.inner_product(0.5).learn(jnp.asarray(honest[:9]), jnp.zeros(40)))[None], 9, 0)
    moved = robust_rules.median(jnp.asarray(np.concatenate([honest, bad])))
    assert float(moved.mean()) < 0.4 < 0.8 < float(robust_rules.median(jnp.asarray(honest)).mean())


def test_numbers_for_which_it_means_nothing_are_refused_and_the_nearest_are_not():
    for senders, corrupt in ((50, 1), (50, 26)):
        with pytest.raises(ValueError, match="2 to 25 insiders of 50"):
            hiding.little_is_enough(senders, corrupt)
    hiding.little_is_enough(50, 2)
    hiding.little_is_enough(50, 25)
