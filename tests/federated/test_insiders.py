"""Corrupt clients: honest messages keep their bits, theirs are what the attack says, encryption changes neither; what cannot be simulated is refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import aggregation, federated, models
from fedjax_poisson.federated.client import Examples
from fedjax_poisson.federated.cohort import cohort_sum
from fedjax_poisson.federated.insiders import (
    LARGEST_COUNT,
    Attack,
    Insiders,
    Sight,
    counts_of,
    insider_numbers,
    signs,
)
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.mechanisms import gaussian, poisson_embedding, single_channel
from fedjax_poisson.mechanisms.types import functions_of
from fedjax_poisson.randomness import fold_in
from tests.federated.helpers import cohort as site_records
from tests.federated.helpers import light, seeded
from tests.helpers.stat import assert_moments

CLIENTS, RECORDS, FEATURES = 8, 6, 4
SIZE = FEATURES + 1
RNG = np.random.default_rng(5)
X = RNG.normal(size=(CLIENTS, RECORDS, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)
MECHANISM = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05)
LIGHT = light(MECHANISM)
ROOT, IDS = seeded(11), np.arange(CLIENTS)
FLIP = Attack("flip", poison=lambda examples, stream: examples._replace(y=jnp.float32(1) - examples.y))
SEVEN = Attack("seven", act=lambda sight: jnp.full_like(sight.counts, 7))
RANKS = Attack("ranks", act=lambda sight: jnp.full_like(sight.counts, 1) * (sight.rank + 1))
MEAN = Attack("mean", act=lambda sight: counts_of(sight, sight.knowledge, noise=False), learn=lambda u, w: u.mean(0))


@functools.cache
def _population(on_device: bool = True):
    return federated.make_population(X, Y, on_device=on_device)


def _algorithm(insiders=None, *, mechanism=LIGHT, **more):
    more.setdefault("encryption", "off")
    return federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.5, batch_size=3),
        population=more.pop("population", _population()),
        senders=more.pop("senders", CLIENTS),
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        insiders=insiders,
        **more,
    )


def _counts(attack=None, who=(2, 5), chunk=None):
    """Every client's message int32 [K, D] and the reports."""
    client = federated.local_sgd(0.5, batch_size=3)(models.logistic())
    cohort = federated.make_cohort(_population(), IDS)._replace(numbers=())
    params = models.logistic().init(jax.random.key(0), jnp.asarray(X[0, :1]))
    corrupt = None if attack is None else insider_numbers(Insiders(who=who, attack=attack), CLIENTS, Examples(X, Y))
    numbers = Numbers(None, functions_of(LIGHT, SIZE), insiders=corrupt)
    programs = cohort_sum(client, params, "counts", clients=CLIENTS)
    counts, _, report = jax.jit(programs.counts)(params, (), (), cohort, ROOT, numbers)
    return np.asarray(counts), np.asarray(report)


@pytest.mark.as_shipped
def test_honest_messages_keep_their_bits_and_corrupt_ones_are_what_the_attack_sends():
    honest, _ = _counts()
    for attack, wanted in ((SEVEN, [7, 7]), (RANKS, [1, 2])):
        seen, report = _counts(attack)
        others = np.delete(IDS, [2, 5])
        np.testing.assert_array_equal(seen[others], honest[others])
        np.testing.assert_array_equal(seen[[2, 5]], np.outer(wanted, np.ones(SIZE, int)))
        assert not report.any()
    seen, _ = _counts(RANKS, who=(5, 2))  # ranks go by the order in which insiders are named
    np.testing.assert_array_equal(seen[[2, 5], 0], [2, 1])


def test_records_are_changed_before_training_and_only_those_of_insiders():
    honest, _ = _counts()
    seen, _ = _counts(FLIP)
    np.testing.assert_array_equal(np.flatnonzero((seen != honest).any(axis=1)), [2, 5])


def test_insiders_learn_what_they_would_send_and_nothing_of_others():
    client = federated.local_sgd(0.5, batch_size=3)(models.logistic())
    from fedjax_poisson.federated.client import run_client

    start = models.logistic().init(jax.random.key(0), jnp.asarray(X[0, :1]))
    updates = [
        run_client(client, start, (), (), Examples(jnp.asarray(X[i]), jnp.asarray(Y[i])), ROOT)[0] for i in (2, 5)
    ]
    seen, _ = _counts(MEAN)
    value = MECHANISM.estimate(jnp.ones(SIZE, jnp.int32), 1)
    wanted = np.round(np.mean(np.asarray(updates), axis=0) / np.asarray(value))
    assert np.abs(seen[2] - wanted).max() <= 1 and np.abs(seen[5] - wanted).max() <= 1
    assert np.abs(wanted).max() > 3


@pytest.mark.as_shipped
def test_encryption_and_layout_change_no_bit_of_a_run_with_insiders():
    insiders = Insiders(who=[2, 5], attack=MEAN)
    found = []
    bound = MECHANISM.count_bound(CLIENTS, SIZE)
    agg = aggregation.aggregator("round", count_bound=bound, senders=CLIENTS, size=SIZE)
    for more in (
        {},
        {"encryption": "on", "aggregator": agg},
        {"layout": federated.Chunking(chunk=3)},
        {"population": _population(False)},
    ):
        algorithm = _algorithm(insiders, **more)
        state, info = algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
        found.append(np.concatenate([np.ravel(each) for each in jax.tree.leaves(algorithm.parameters(state))]))
        assert info.insiders == "INSIDERS SIMULATED: 2 corrupt, attack 'mean'." and algorithm.apply_rounds is None
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    honest = _algorithm()
    state, info = honest.apply(honest.init(jax.random.key(0)), IDS, ROOT)
    assert info.insiders == "" and honest.apply_rounds is not None
    assert not np.array_equal(found[0], np.concatenate([np.ravel(e) for e in jax.tree.leaves(state.server.params)]))


def test_a_history_says_that_insiders_were_simulated():
    result = federated.fit(_algorithm(Insiders(who=[1], attack=SEVEN)), _population(), rounds=1, stream=ROOT)
    assert "1 corrupt" in result.history[0]["insiders"]
    assert "insiders" not in federated.fit(_algorithm(), _population(), rounds=1, stream=ROOT).history[0]


def test_a_count_beyond_the_bound_stops_an_encrypted_round_and_one_at_it_does_not():
    def of(count):
        return Attack("one", act=lambda sight: jnp.zeros_like(sight.counts).at[0].set(count))

    bound = MECHANISM.count_bound(CLIENTS, SIZE)
    for count, stops in ((bound + 1, True), (bound // 2, False)):
        algorithm = _algorithm(Insiders(who=[1], attack=of(count)), encryption="on")
        state = algorithm.init(jax.random.key(0))
        if stops:
            with pytest.raises(aggregation.RoundRefused, match="count above count_bound"):
                algorithm.apply(state, IDS, ROOT)
            assert algorithm.ledger.epsilon() == 0.0
        else:
            algorithm.apply(state, IDS, ROOT)
            assert algorithm.ledger.epsilon() > 0.0


def _sight(mechanism, size, stream=ROOT):
    zero = jnp.zeros(size, jnp.float32)
    none = jnp.zeros(size, jnp.int32)
    return Sight(
        jnp.uint32(0), jnp.int32(0), zero, none, zero, (), functions_of(mechanism, size), stream, fold_in(stream, "c")
    )


@pytest.mark.statistical
@pytest.mark.parametrize("law", ["right", "wrong"])
def test_counts_of_a_vector_are_estimated_as_it_with_the_noise_of_an_honest_client(law):
    """Error of the test: 6 standard errors, 2e-9 a moment. The twin expects 5 % less variance."""
    size, length = 160_000, 25.0  # 25 clips in every coordinate: nothing is clipped
    counts = counts_of(_sight(MECHANISM, size), jnp.full(size, length, jnp.float32))
    found = np.asarray(MECHANISM.estimate(counts, 1))
    variance = MECHANISM.variance(1) * (1.0 if law == "right" else 0.95)
    if law == "right":
        assert_moments(found, length, variance)
    else:
        with pytest.raises(AssertionError, match="variance"):
            assert_moments(found, length, variance)


def test_counts_of_follows_an_estimate_with_an_offset_and_survives_what_is_not_finite():
    offset = single_channel(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.1)
    vector = jnp.asarray([0.0, 3.0, -4.0], jnp.float32)
    sight = _sight(offset, 3)
    bare = counts_of(sight, vector, noise=False)
    value = np.asarray(offset.estimate(bare, 1) - offset.estimate(jnp.zeros(3, jnp.int32), 1))
    np.testing.assert_allclose(value, vector, atol=0.2)
    wild = counts_of(sight, jnp.asarray([np.nan, np.inf, -np.inf], jnp.float32), noise=False)
    assert wild[0] == 0 and wild[1] == LARGEST_COUNT == -wild[2]


def test_signs_are_fair_and_common():
    found = np.asarray(signs(ROOT, 10_000))
    assert set(np.unique(found)) == {-1.0, 1.0} and abs(found.mean()) < 0.06


def _sites(insiders, **more):
    records = site_records((20, 20, 20, 20), 3)
    mechanism = poisson_embedding(
        clip_norm=1.0, coordinate_bound=0.5, dark_count=400.0, modulation=0.1, total_bound=10.0
    )
    mechanism = light(mechanism)
    algorithm = federated.fedsgd(
        models.logistic(), features=3, records=80, sampling_rate=1.0, senders=4, mechanism=mechanism,
        server_optimizer=optax.sgd(1.0), insiders=insiders, **more,
    )  # fmt: skip
    state, info = algorithm.apply(algorithm.init(jax.random.key(0)), records, ROOT)
    return np.concatenate([np.ravel(each) for each in jax.tree.leaves(state.params)]), info


def test_a_corrupt_site_changes_its_message_or_its_records():
    honest, info = _sites(None)
    assert info.insiders == ""
    for attack in (SEVEN, FLIP, MEAN):
        found, info = _sites(Insiders(who=[1], attack=attack))
        assert "1 corrupt" in info.insiders and not np.array_equal(found, honest)
    same = Attack("same", act=lambda sight: sight.counts)
    np.testing.assert_array_equal(_sites(Insiders(who=[1], attack=same))[0], honest)


def test_what_cannot_be_simulated_is_refused_and_the_nearest_that_can_is_not():
    insiders = Insiders(who=[1], attack=SEVEN)
    with pytest.raises(ValueError, match="here clients send none"):
        _algorithm(insiders, mechanism=None)
    with pytest.raises(ValueError, match="here clients send none"):
        _algorithm(insiders, mechanism=gaussian(clip_norm=1.0, coordinate_bound=1.0, noise_std=1.0))
    with pytest.raises(ValueError, match="leave mesh out"):
        _algorithm(insiders, mesh=federated.client_mesh())
    with pytest.raises(ValueError, match="fixed cohorts"):
        _algorithm(insiders, senders=4, cohorts=federated.fixed_cohorts(CLIENTS, 2))
    with pytest.raises(ValueError, match="no client 8"):
        _algorithm(Insiders(who=[8], attack=SEVEN))
    with pytest.raises(ValueError, match="nobody to harm"):
        _algorithm(Insiders(who=range(8), attack=SEVEN))
    _algorithm(Insiders(who=range(1, 8), attack=SEVEN))
    for who in ([], [1, 1], [-1]):
        with pytest.raises(ValueError, match="each once"):
            Insiders(who=who, attack=SEVEN)
    with pytest.raises(ValueError, match="neither records nor counts"):
        Insiders(who=[1], attack=Attack("nothing"))
