"""The pair of neighbours that an audit tells apart, and the curve that is claimed for it."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson.accounting.gaussian import gaussian_delta
from fedjax_poisson.attacks import claimed_delta, worst_pair
from fedjax_poisson.attacks.worst_pair import draw_statistics
from tests.attacks.test_audit import DELTA, DIMENSION, RIGHT, SENDERS, _same_stream
from tests.federated.helpers import seeded
from tests.helpers.stat import assert_moments


def test_reused_noise_cancels_between_rounds_of_opposite_sign():
    pair = worst_pair(RIGHT, DIMENSION)
    draw = functools.partial(draw_statistics, RIGHT, pair, seeded(0), 5000, present=False, senders=SENDERS)
    assert not draw(rounds=2, round_stream=_same_stream).any()
    events = (
        2 * SENDERS * dict(RIGHT.facts.parameters)["dark_count"]
    )  # variance of a sum of counts, without the target's move
    fresh = draw(rounds=2)
    assert_moments(fresh, 0.0, 2 * events)
    with pytest.raises(AssertionError):
        assert_moments(fresh, 0.0, 2 * events * 0.8)


def test_the_worst_pair_moves_the_target_by_its_whole_clip():
    spread = fp.poisson_embedding(
        clip_norm=1.0, coordinate_bound=0.6, dark_count=100.0, modulation=0.1, total_bound=6.0
    )
    pair = worst_pair(spread, 10)
    step = 6.0 / 2**20
    np.testing.assert_allclose(pair.move * step, [-0.6, -0.6, -math.sqrt(1 - 2 * 0.36)], atol=3 * step)
    assert (pair.others == -(2**20)).all() and (pair.without + pair.move == pair.others).all()
    assert len(worst_pair(spread, 2).move) == 2
    single = worst_pair(fp.gaussian(clip_norm=2.0, noise_std=1.0), 10)
    assert len(single.move) == 1 and single.others[0] == 0 and single.without[0] == 0
    with pytest.raises(ValueError, match="audit its parts"):
        worst_pair(fp.mechanisms.grouped([(8, spread), (8, spread)]), 16)


def test_the_claimed_curve_is_the_better_of_both_accountants():
    z = math.sqrt(RIGHT.variance(SENDERS) / 2)
    tight = claimed_delta(RIGHT, 0.0, honest_senders=SENDERS, dimension=DIMENSION, rounds=2)
    assert gaussian_delta(0.0, z) <= tight <= 1.02 * gaussian_delta(0.0, z)
    assert claimed_delta(RIGHT, 3.0, honest_senders=SENDERS, dimension=DIMENSION, rounds=2) <= DELTA * (1 + 1e-9)
    gauss = fp.gaussian(clip_norm=1.0, noise_std=0.5)
    assert claimed_delta(gauss, 1.0, honest_senders=4, dimension=1) == pytest.approx(gaussian_delta(1.0, 1.0))
    skellam = fp.skellam(clip_norm=1.0, scale=20.0, noise_variance=400.0)
    assert 0 < claimed_delta(skellam, 1.0, honest_senders=4, dimension=4) < 1
