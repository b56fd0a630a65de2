"""How far a liar moves a sum: by hand, and that real messages at the bound open while one step beyond is refused."""

from __future__ import annotations

import math

import jax
import numpy as np
import optax
import pytest
from scipy import special

from fedjax_poisson import aggregation, federated, models
from fedjax_poisson.aggregation import norm_bound
from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
from fedjax_poisson.attacks.insiders import overflowing
from fedjax_poisson.federated import liar_bound
from fedjax_poisson.federated.insiders import Insiders
from fedjax_poisson.mechanisms import poisson_embedding
from tests.federated.helpers import seeded

MECHANISM = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05)
RECORDS = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05, total_bound=20.0)


def test_a_light_round_leaves_the_room_up_to_its_bound():
    """One count is .5 / (2 * 50 * .05) = .1: 40 counts in each of 25 coordinates have length 5 * 4 = 20."""
    found = liar_bound.light_round(MECHANISM, 10, 25, count_bound=40)
    assert found.clips == pytest.approx(20.0) and found.share == pytest.approx(2.0)
    assert found.coordinate == pytest.approx(4.0)
    checked = liar_bound.light_round(MECHANISM, 10, 25, count_bound=40, count_rms=10.0)
    assert checked.clips == pytest.approx(5.0) and "mean square" in checked.enforced
    usual = liar_bound.light_round(MECHANISM, 10, 25)
    assert usual.coordinate == pytest.approx(0.1 * MECHANISM.count_bound(10, 25))


def test_an_opened_round_is_within_the_bound_and_a_message_beyond_it_is_refused():
    x = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    bound = MECHANISM.count_bound(6, 4)
    allowed = liar_bound.light_round(MECHANISM, 6, 4)

    def moved(count):
        algorithm = federated.fedavg(
            models.logistic(), client=federated.local_sgd(0.1), senders=6, server_optimizer=optax.sgd(1.0),
            population=federated.make_population(x, (x[..., 0] > 0).astype(np.float32)), mechanism=MECHANISM,
            insiders=Insiders(who=[0], attack=overflowing.constant_count(count, "edge")),
        )  # fmt: skip
        return algorithm.apply(algorithm.init(jax.random.key(0)), np.arange(6), seeded(1))[1].update_norm * 6

    inside = moved(bound - 3 * math.isqrt(100 * 6))
    assert 0.5 * allowed.clips < inside <= allowed.clips
    with pytest.raises(aggregation.RoundRefused):
        moved(bound + 1)


@pytest.mark.parametrize(("members", "clips"), [(1, 2.56), (5, liar_bound.NORM_CLIPS), (20, 2.8)])
def test_what_passes_a_norm_round_half_the_time_follows_from_its_bound(members, clips):
    """The length at which a dense vector passes with 1/2, to two digits: half of the median of chi^2 with 16 degrees is 7.67."""
    faulty = default_malicious(members)
    ratio = norm_bound.squared_bound(10**8, members, least_threshold(members, faulty), faulty) / 10**8
    assert norm_bound.dense_passes(clips, ratio) == pytest.approx(0.5, abs=0.01)
    assert clips == pytest.approx(math.sqrt(ratio / (special.chdtri(16, 0.5) / 2)), abs=0.006)
    assert abs(norm_bound.dense_passes(2.4, ratio) - 0.5) > 0.05, "the twin: another length"


def test_norm_rounds_add_up_over_colluders():
    assert liar_bound.norm_round(100)[:3] == (2.6, pytest.approx(0.026), math.inf)
    assert liar_bound.norm_round(100, colluders=3, clips=2.0).clips == 6.0


def test_a_site_weighs_its_declared_size_and_without_one_the_largest():
    sizes = (100, 300, 600)
    assert liar_bound.site_of_records(RECORDS, sizes, 0)[:3] == (100.0, 0.1, 50.0)
    assert liar_bound.site_of_records(RECORDS, sizes, 0, pinned=False)[:2] == (600.0, 0.6)
    assert "declared" in liar_bound.site_of_records(RECORDS, sizes, 0).enforced


def test_the_line_says_who_how_far_and_what_enforces_it():
    said = liar_bound.in_words(liar_bound.norm_round(100), "one client of 100")
    assert said.startswith("one client of 100 can move the sum by up to 2.6 clips, 2.6 %") and "norm round" in said


@pytest.mark.parametrize(
    "call",
    [
        lambda: liar_bound.light_round(MECHANISM, 1, 25),
        lambda: liar_bound.norm_round(3, colluders=3),
        lambda: liar_bound.site_of_records(RECORDS, (5, 5), 2),
        lambda: liar_bound.site_of_records(RECORDS, (5, 0), 1),
    ],
)
def test_numbers_that_mean_nothing_are_refused(call):
    with pytest.raises(ValueError):
        call()
    liar_bound.light_round(MECHANISM, 2, 25), liar_bound.norm_round(3, colluders=2)
    liar_bound.site_of_records(RECORDS, (5, 1), 1)
