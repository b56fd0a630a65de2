"""The loop: the same rounds as by hand, an end at the budget, callbacks, and a checkpoint that no forgetful ledger can use."""

from __future__ import annotations

import os
import signal

import jax
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.accounting import LedgerCorrupt
from fedjax_poisson.federated import checkpoints
from tests.federated import helpers

COHORT = helpers.cohort((30, 30, 30), 4)
SIZE = 5
MECHANISM = helpers.light(helpers.mechanism())
AGGREGATOR = helpers.plain_aggregator(MECHANISM, 3, SIZE)
LOGISTIC = models.logistic()


def _algorithm(ledger=None):
    return federated.fedsgd(
        LOGISTIC,
        features=4,
        records=90,
        sampling_rate=1.0,
        mechanism=MECHANISM,
        aggregator=AGGREGATOR,
        server_optimizer=optax.sgd(0.5),
        senders=3,
        ledger=ledger,
    )


def _ledger(path, rounds):
    """A ledger with a budget for so many rounds, and not one more."""
    orders = np.asarray(accounting.DEFAULT_ORDERS)
    budget = accounting.epsilon(orders, (rounds + 0.5) * MECHANISM.rdp(orders, 2, SIZE), 1e-5)
    return accounting.open_ledger(path, epsilon=budget, delta=1e-5, unit="record", adjacency="zero_out")


@pytest.mark.as_shipped
def test_rounds_are_those_made_by_hand():
    algorithm, stream = _algorithm(), helpers.seeded(3)
    state = algorithm.init(jax.random.key(0))
    for _ in range(3):
        state, info = algorithm.apply(state, COHORT, stream)
    fitted = federated.fit(_algorithm(), COHORT, rounds=3, stream=stream)
    for got, want in zip(jax.tree.leaves(fitted.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(got, want)
    assert (fitted.rounds, fitted.ended, fitted.epsilon) == (3, "rounds", info.epsilon)
    assert [row["round"] for row in fitted.history] == [1, 2, 3]
    # Without a stream the noise is the operating system's: no two trainings are alike.
    other = federated.fit(_algorithm(), COHORT, rounds=1)
    again = federated.fit(_algorithm(), COHORT, rounds=1)
    assert np.any(np.asarray(other.params["weight"]) != np.asarray(again.params["weight"]))


def test_scores_are_taken_when_due_and_reach_callbacks_and_history():
    seen = []
    score = federated.evaluator(LOGISTIC, COHORT)
    fitted = federated.fit(
        _algorithm(), COHORT, rounds=5, evaluate=score, evaluate_every=2, callbacks=[seen.append, lambda step: None]
    )
    assert ["auc" in row for row in fitted.history] == [False, True, False, True, True]
    assert [step.row() for step in seen] == fitted.history
    mask = np.asarray(COHORT.mask)
    logits = np.asarray(LOGISTIC.apply(fitted.params, np.asarray(COHORT.features)[mask]))
    assert fitted.history[-1]["accuracy"] == np.mean((logits > 0) == np.asarray(COHORT.labels)[mask])


def test_a_metric_of_ones_own_and_records_without_structure():
    x, y = np.asarray(COHORT.features[0]), np.asarray(COHORT.labels[0])
    score = federated.evaluator(
        LOGISTIC, (x, y), lambda outputs, labels: {"sum": float(outputs.sum()), "n": len(labels)}
    )
    params = LOGISTIC.init(jax.random.key(0), x)
    assert score(params) == {"sum": 0.0, "n": 30}
    with pytest.raises(ValueError, match="30 records and 2 labels"):
        federated.evaluator(LOGISTIC, (x, y[:2]))


def test_a_callback_ends_the_training_after_all_have_seen_the_round():
    seen = []
    callbacks = [lambda step: step.number == 2, lambda step: seen.append(step.number)]
    fitted = federated.fit(_algorithm(), COHORT, rounds=5, callbacks=callbacks)
    assert (fitted.rounds, fitted.ended, seen) == (2, "callback", [1, 2])


def test_the_training_ends_at_the_budget(tmp_path):
    with _ledger(tmp_path / "ledger.sqlite", 2) as ledger:
        fitted = federated.fit(_algorithm(ledger), COHORT, rounds=5)
        assert (fitted.rounds, fitted.ended) == (2, "budget")
        assert len(ledger.rows()) == 2 and fitted.epsilon == ledger.epsilon()


def test_ctrl_c_finishes_the_round():
    def interrupt(step):
        if step.number == 2:
            os.kill(os.getpid(), signal.SIGINT)

    fitted = federated.fit(_algorithm(), COHORT, rounds=5, callbacks=[interrupt])
    assert (fitted.rounds, fitted.ended) == (2, "interrupted")


def test_who_pays_is_asked_for_every_round():
    paid = []
    fitted = federated.fit(_algorithm(), COHORT, rounds=2, gate=lambda number: lambda: paid.append(number))
    assert paid == [1, 2] and fitted.epsilon is None
    with pytest.warns(UserWarning, match="unaccounted"):
        assert federated.fit(_algorithm(), COHORT, rounds=1, gate="unaccounted").epsilon == np.inf


@pytest.mark.as_shipped
def test_resume_goes_on_with_the_same_bits(tmp_path):
    stream = helpers.seeded(4)
    with _ledger(tmp_path / "ledger.sqlite", 9) as ledger:
        federated.fit(_algorithm(ledger), COHORT, rounds=2, stream=stream, resume=tmp_path / "run")
    with _ledger(tmp_path / "ledger.sqlite", 9) as ledger:
        went_on = federated.fit(_algorithm(ledger), COHORT, rounds=4, stream=stream, resume=tmp_path / "run")
        assert went_on.rounds == 4 and len(ledger.rows()) == 4 and len(went_on.history) == 4
        done = federated.fit(_algorithm(ledger), COHORT, rounds=4, stream=stream, resume=tmp_path / "run")
        assert done.rounds == 4 and len(ledger.rows()) == 4
    straight = federated.fit(_algorithm(), COHORT, rounds=4, stream=stream)
    for got, want in zip(jax.tree.leaves(went_on.state), jax.tree.leaves(straight.state), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_failing_evaluation_loses_no_round(tmp_path):
    def fails(params):
        raise RuntimeError("no such metric")

    with _ledger(tmp_path / "ledger.sqlite", 9) as ledger:
        with pytest.raises(RuntimeError, match="no such metric"):
            federated.fit(_algorithm(ledger), COHORT, rounds=2, evaluate=fails, resume=tmp_path / "run")
        fitted = federated.fit(_algorithm(ledger), COHORT, rounds=2, resume=tmp_path / "run")
        assert fitted.rounds == 2 and len(ledger.rows()) == 2


def test_a_ledger_that_forgot_is_refused(tmp_path):
    with pytest.raises(ValueError, match="in-memory ledger would forget"):
        federated.fit(_algorithm(), COHORT, rounds=1, resume=tmp_path / "run")
    with _ledger(tmp_path / "ledger.sqlite", 9) as ledger:
        federated.fit(_algorithm(ledger), COHORT, rounds=2, resume=tmp_path / "run")
    with (
        _ledger(tmp_path / "another.sqlite", 9) as ledger,
        pytest.raises(LedgerCorrupt, match=r"holds 0 releases, but 2 had been charged"),
    ):
        federated.fit(_algorithm(ledger), COHORT, rounds=3, resume=tmp_path / "run")


def test_impossible_numbers():
    with pytest.raises(ValueError, match="rounds=0"):
        federated.fit(_algorithm(), COHORT, rounds=0)
    population = federated.make_population(np.zeros((4, 2, 3), np.float32), np.zeros((4, 2), np.float32))
    with pytest.raises(ValueError, match="clients=5: choose 1 to 4"):
        federated.sampled_cohorts(population, 5)


def test_cohorts_of_a_population_and_all_of_it():
    rng = np.random.default_rng(0)
    population = federated.make_population(
        rng.normal(size=(6, 8, 4)).astype(np.float32), rng.integers(0, 2, (6, 8)).astype(np.float32)
    )
    choose = federated.sampled_cohorts(population, 3, seed=5)
    assert all(len(set(choose(n).tolist())) == 3 for n in range(1, 20)) and not np.array_equal(choose(1), choose(2))
    np.testing.assert_array_equal(choose(7), federated.sampled_cohorts(population, 3, seed=5)(7))
    for data, senders in ((population, 6), (choose, 3)):
        algorithm = federated.fedavg(
            LOGISTIC,
            client=federated.local_sgd(0.5),
            population=population,
            senders=senders,
            server_optimizer=optax.sgd(1.0),
            mechanism=MECHANISM,
        )
        fitted = federated.fit(algorithm, data, rounds=2)
        assert fitted.rounds == 2 and fitted.epsilon > 0


def test_a_gate_of_the_callers_keeps_its_own_books(tmp_path):
    with _ledger(tmp_path / "ledger.sqlite", 9) as ledger:
        algorithm = _algorithm()

        def gate(number):
            return ledger.gate(algorithm, f"train {number}")

        for rounds in (1, 3):
            fitted = federated.fit(algorithm, COHORT, rounds=rounds, gate=gate, resume=tmp_path / "run")
        assert fitted.rounds == 3 and [row.label for row in ledger.rows()] == ["train 1", "train 2", "train 3"]
        cost = MECHANISM.rdp(np.array([ledger.law.order]), 2, SIZE)[0]
        assert [row.meter for row in ledger.rows()] == pytest.approx([cost, 2 * cost, 3 * cost])
        with pytest.raises(ValueError, match="no mechanism"):
            ledger.gate(algorithm._replace(price=None), "train 4")
    with (
        _ledger(tmp_path / "other.sqlite", 9) as ledger,
        pytest.raises(ValueError, match="did not charge the algorithm"),
    ):
        federated.fit(_algorithm(ledger), COHORT, rounds=4, resume=tmp_path / "run")


def test_a_damaged_checkpoint_says_what_to_do(tmp_path):
    with _ledger(tmp_path / "ledger.sqlite", 3) as ledger:
        federated.fit(_algorithm(ledger), COHORT, rounds=1, resume=tmp_path / "run")
        (tmp_path / "run" / "fit.npz").write_bytes(b"PK")
        with pytest.raises(checkpoints.CheckpointDamaged, match=r"stays charged\. Restore the file"):
            federated.fit(_algorithm(ledger), COHORT, rounds=2, resume=tmp_path / "run")
