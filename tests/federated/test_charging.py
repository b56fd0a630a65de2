"""Every round is paid for: by the algorithm's own ledger, by the caller's gate, or by nobody and then said aloud."""

from __future__ import annotations

import math
import warnings

import jax
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.aggregation import RoundRefused
from fedjax_poisson.federated.charging import UnaccountedWarning
from fedjax_poisson.mechanisms import experimental, poisson_embedding
from tests.federated import helpers

CLIENTS, FEATURES = 6, 4
ROOT, IDS = helpers.seeded(31), np.arange(6)
MECHANISM = helpers.mechanism(total_bound=None, dark_count=60.0)
X = np.random.default_rng(3).normal(size=(CLIENTS, 3, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)


def _fedavg(mechanism=MECHANISM, **more):
    return federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.5),
        population=federated.make_population(X, Y),
        senders=CLIENTS,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        **more,
    )


def _fedsgd(rate: float = 1.0, **more):
    mechanism = helpers.light(helpers.mechanism())
    return federated.fedsgd(
        models.logistic(),
        features=FEATURES,
        records=10.0,
        sampling_rate=rate,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(mechanism, 3, FEATURES + 1),
        server_optimizer=optax.sgd(1.0),
        senders=3,
        **more,
    )


COHORT = helpers.cohort((5, 2, 4), FEATURES)


def test_without_a_gate_the_own_ledger_is_charged_before_the_sum_is_opened():
    algorithm = _fedavg(minimum_senders=4)
    state = algorithm.init(jax.random.key(0))
    lost = federated.make_cohort(federated.make_population(X, Y), IDS, present=IDS != 2)
    for number in range(1, 4):
        state, info = algorithm.apply(state, lost, ROOT)
        row = algorithm.ledger.rows()[-1]
        assert (row.purpose, row.label, row.mechanism) == ("train", f"train {number}", "poisson_embedding")
        assert row.parameters == dict(MECHANISM.facts.parameters) | {"fidelity": "release"}
        assert (row.senders, row.honest_senders, row.unit, row.adjacency) == (5, 3, "client", "zero_out")
        orders = np.asarray(algorithm.ledger.orders)
        np.testing.assert_array_equal(row.charge, MECHANISM.rdp(orders, 3, FEATURES + 1))
        bare = accounting.epsilon(orders, number * row.charge, 1e-5)
        assert bare <= info.epsilon <= bare * (1 + 1e-6) and row.distance > 0  # what samplers may add is in it
    assert algorithm.ledger.verify() == 3 and algorithm.ledger.budget_epsilon == math.inf


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_fedsgd_charges_its_own_curve(rate):
    algorithm = _fedsgd(rate, delta=1e-6)
    _, info = algorithm.apply(algorithm.init(jax.random.key(0)), COHORT, ROOT)
    (row,), orders = algorithm.ledger.rows(), np.asarray(algorithm.ledger.orders)
    np.testing.assert_array_equal(row.charge, algorithm.rdp(orders))
    assert (row.unit, row.senders, row.honest_senders) == ("record", 3, 2)
    bare = accounting.epsilon(orders, row.charge, 1e-6)
    assert 0 < bare <= info.epsilon <= bare * (1 + 1e-6)


def test_a_budget_stops_the_rounds_before_the_sum_is_opened():
    one = _fedavg()
    state, info = one.apply(one.init(jax.random.key(0)), IDS, ROOT)
    budget = accounting.memory_ledger(epsilon=2.5 * info.epsilon, delta=1e-5, unit="client", adjacency="zero_out")
    algorithm = _fedavg(ledger=budget)
    assert algorithm.ledger is budget
    state = algorithm.init(jax.random.key(0))
    with pytest.raises(accounting.BudgetExhausted, match="nothing was written"):
        for _ in range(40):
            state, info = algorithm.apply(state, IDS, ROOT)
    assert len(budget.rows()) == int(state.server.round) > 0 and info.epsilon <= budget.budget_epsilon


def test_a_gate_replaces_the_ledger_and_nothing_is_charged_twice():
    algorithm, asked = _fedavg(), []
    _, info = algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT, lambda: asked.append("asked"))
    assert asked == ["asked"] and algorithm.ledger.rows() == [] and info.epsilon is None


def test_only_the_word_does_without_and_it_is_said_once_and_remembered():
    algorithm = _fedavg()
    state = algorithm.init(jax.random.key(0))
    with pytest.warns(UnaccountedWarning, match="no ledger records") as caught:
        state, info = algorithm.apply(state, IDS, ROOT, "unaccounted")
        state, _ = algorithm.apply(state, IDS, ROOT, gate="unaccounted")
    assert len(caught) == 1 and info.epsilon == math.inf and algorithm.ledger.rows() == []
    _, info = algorithm.apply(state, IDS, ROOT)  # this one is charged, the others stay uncounted
    assert info.epsilon == math.inf and len(algorithm.ledger.rows()) == 1
    with pytest.raises(ValueError, match="unaccounted"):
        algorithm.apply(state, IDS, ROOT, "unacounted")
    with pytest.raises(TypeError, match="function without arguments"):
        algorithm.apply(state, IDS, ROOT, 3)


def test_without_a_mechanism_nothing_is_charged_and_epsilon_is_infinite():
    algorithm = _fedavg(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnaccountedWarning)
        state, info = algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
    assert info.epsilon == math.inf and algorithm.ledger is None
    _, info = algorithm.apply_rounds(state, IDS[None], ROOT)
    assert info.epsilon == math.inf


def test_fused_rounds_are_charged_beforehand_one_by_one():
    algorithm = _fedavg()
    state, table = algorithm.init(jax.random.key(0)), np.stack([IDS, IDS, IDS])
    state, info = algorithm.apply_rounds(state, table, ROOT)
    assert [row.label for row in algorithm.ledger.rows()] == ["train 1", "train 2", "train 3"]
    assert info.epsilon == algorithm.ledger.epsilon()
    state, _ = algorithm.apply(state, IDS, ROOT)
    assert algorithm.ledger.rows()[-1].label == "train 4"
    cost = float(algorithm.rdp(np.asarray(algorithm.ledger.orders)).max())
    assert cost > 0
    tight = accounting.memory_ledger(epsilon=info.epsilon / 2, delta=1e-5, unit="client", adjacency="zero_out")
    small = _fedavg(ledger=tight)
    first = small.init(jax.random.key(0))
    with pytest.raises(accounting.BudgetExhausted):
        small.apply_rounds(first, np.stack([IDS] * 40), ROOT)
    with pytest.warns(UnaccountedWarning):
        _, info = small.apply_rounds(first, table, ROOT, "unaccounted")
    assert info.epsilon == math.inf


def test_a_mechanism_without_a_finite_curve_is_refused_with_the_remedy():
    endless = experimental.centred_poisson(clip_norm=1.0, scale=40.0, dark_count=30.0)
    algorithm = _fedavg(endless)
    state = algorithm.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"centred_poisson has no finite Renyi divergence.*unaccounted"):
        algorithm.apply(state, IDS, ROOT)
    with pytest.warns(UnaccountedWarning):
        algorithm.apply(state, IDS, ROOT, "unaccounted")
    ledger = accounting.memory_ledger(delta=1e-5, unit="client", adjacency="zero_out")
    with pytest.raises(ValueError, match="is infinite at the ledger's order"):
        _fedavg(endless, ledger=ledger)


@pytest.mark.parametrize(
    ("facts", "more", "words"),
    [
        ({"unit": "record"}, {}, "unit 'record'.*protects a 'client'"),
        ({"adjacency": "replace_one"}, {}, "replace_one.*zero_out"),
        ({}, {"delta": 1e-6}, "leave delta out"),
        ({}, {"mechanism": None}, "no mechanism"),
    ],
)
def test_a_ledger_of_another_promise_is_refused(facts, more, words):
    ledger = accounting.memory_ledger(**{"delta": 1e-5, "unit": "client", "adjacency": "zero_out", **facts})
    with pytest.raises(ValueError, match=words):
        _fedavg(ledger=ledger, **more)


def test_with_sampling_everybody_must_be_present_and_nothing_is_charged_otherwise():
    """3 of 6 senders were once opened at the amplified price of six."""
    backend = helpers.plain_aggregator(MECHANISM, CLIENTS, FEATURES + 1, minimum=3)
    algorithm = _fedavg(aggregator=backend, sampling_rate=0.5)
    state = algorithm.init(jax.random.key(0))
    np.testing.assert_array_equal(  # five honest of six, not two of three
        algorithm.rdp(accounting.integer_orders(16)),
        accounting.subsampled_rdp(
            accounting.integer_orders(16), MECHANISM.rdp(accounting.integer_orders(16), 5, FEATURES + 1), 0.5
        ),
    )
    half = federated.make_cohort(federated.make_population(X, Y), IDS, present=IDS < 3)
    for gate in (None, lambda: pytest.fail("asked")):
        with pytest.raises(RoundRefused, match=r"3 of 6 clients sent\. With secret sampling all of them must"):
            algorithm.apply(state, half, ROOT, gate)
    with pytest.raises(ValueError, match="every client must send"):
        algorithm.apply(state, IDS[:3], ROOT)
    assert algorithm.ledger.rows() == []
    algorithm.apply(state, IDS, ROOT)
    with pytest.raises(ValueError, match="all 6 must send"):
        _fedavg(sampling_rate=0.5, minimum_senders=3)
    without = _fedavg(aggregator=backend, minimum_senders=3)
    _, info = without.apply(without.init(jax.random.key(0)), half, ROOT)
    assert info.senders == 3  # without sampling lost clients cost their share only


def test_with_sampling_every_site_of_fedsgd_must_be_there():
    algorithm = _fedsgd(0.5)
    fewer = COHORT._replace(**{name: getattr(COHORT, name)[:2] for name in COHORT._fields})
    with pytest.raises(ValueError, match="every site must send"):
        algorithm.apply(algorithm.init(jax.random.key(0)), fewer, ROOT)
    assert algorithm.ledger.rows() == []
    nobody_at_one = helpers.cohort((5, 0, 4), FEATURES, room=5)
    _, info = algorithm.apply(algorithm.init(jax.random.key(0)), nobody_at_one, ROOT)
    assert info.sum.senders == 3, "a site without records sends its noise"


def test_the_meter_is_a_ledger_of_infinite_budget_and_only_in_memory(tmp_path):
    ledger = accounting.memory_ledger(delta=1e-5, unit="record", adjacency="zero_out")
    curve = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05).rdp(
        np.asarray(ledger.orders), 4, 10
    )
    for _ in range(5):
        ledger.spend("train", "x", "poisson_embedding", {}, curve, 4, 5)
    assert ledger.epsilon() == pytest.approx(accounting.epsilon(ledger.orders, 5 * curve, 1e-5))
    assert ledger.remaining().share == 1 and ledger.verify(ledger.head()) == 5
    with pytest.raises(ValueError, match="epsilon must be finite"):
        accounting.open_ledger(tmp_path / "x.sqlite", epsilon=math.inf, delta=1e-5, unit="record", adjacency="zero_out")
    other = accounting.memory_ledger(delta=1e-5, unit="record", adjacency="zero_out", epsilon=1.0)
    assert other.rows() == [] and other.budget_epsilon == 1.0  # every one is its own database
