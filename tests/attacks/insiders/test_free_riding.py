"""Free riders send nothing, noise, or an old update: all of it looks like an honest message in length."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from fedjax_poisson.attacks.insiders import free_riding
from tests.attacks.insiders.helpers import NOISE, SIZE, sent, updates

CLOSE = 8 * NOISE * SIZE**0.5


def test_zero_is_noise_alone_and_the_mean_loses_one_share():
    found, honest = sent(free_riding.zero()), sent(None)
    assert np.linalg.norm(found[0]) < CLOSE
    assert np.linalg.norm(found.sum(axis=0) - honest[1:].sum(axis=0)) < CLOSE
    assert np.linalg.norm(honest[0]) > 2 * CLOSE  # the twin: an honest client is seen


def test_noise_has_the_stated_length():
    found = sent(free_riding.noise(5.0))[0]
    assert abs(np.linalg.norm(found) - 5.0) < CLOSE


def test_an_old_update_is_sent_again():
    found = sent(free_riding.stale(jnp.asarray(updates()[4])))[0]
    assert np.linalg.norm(found - updates()[4]) < CLOSE
