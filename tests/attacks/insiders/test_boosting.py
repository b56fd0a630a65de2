"""Multiples of an update pass a light round at their full length; with the clip of honest software they would not."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.attacks.insiders import boosting, poisoning
from tests.attacks.insiders.helpers import NOISE, SIZE, sent, updates

CLOSE = 8 * NOISE * SIZE**0.5


@pytest.mark.parametrize("factor", [-1.0, -10.0, 50.0])
def test_a_multiple_arrives_at_its_full_length(factor):
    found = sent(boosting.scaled(factor, "scaled"))
    assert np.linalg.norm(found[0] - factor * updates()[0]) < CLOSE
    assert np.linalg.norm(sent(None)[0]) < 0.3 + CLOSE  # the twin: honest software clips
    assert np.linalg.norm(updates()[0]) > 0.3 + 2 * CLOSE


def test_a_replaced_model_is_the_attackers_whatever_the_others_send():
    backdoor = poisoning.backdoor_rare_value(2, 4.0, 1, 1.0)
    found = sent(boosting.model_replacement(10, 1, backdoor))
    alone = sent(boosting.model_replacement(2, 1, backdoor))
    assert np.linalg.norm(found[0] - 5 * alone[0]) < 6 * CLOSE
    assert np.linalg.norm(found.mean(axis=0) - alone[0] / 2) < 0.3 + CLOSE  # of ten, nine clipped honest ones


def test_a_spike_moves_one_coordinate():
    found = sent(boosting.spike(3.0))[0]
    assert abs(found[0] - 3.0) < CLOSE and np.abs(found[1:]).max() < CLOSE
