"""A budget becomes noise and a ledger: the planned rounds fit, one more does not, and less noise would not have done."""

from __future__ import annotations

import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models
from tests.federated import helpers

LOGISTIC = models.logistic()
SIZE = 5


def _fedavg(budgeted, clients=8):
    rng = np.random.default_rng(0)
    population = federated.make_population(
        rng.normal(size=(clients, 6, 4)).astype(np.float32), rng.integers(0, 2, (clients, 6)).astype(np.float32)
    )
    algorithm = federated.fedavg(
        LOGISTIC,
        client=federated.local_sgd(0.5),
        population=population,
        senders=clients,
        server_optimizer=optax.sgd(1.0),
        mechanism=budgeted.mechanism,
        ledger=budgeted.ledger,
    )
    return algorithm, population


def test_the_planned_rounds_fit_and_one_more_does_not(tmp_path):
    asked = {"epsilon": 2.0, "delta": 1e-5, "rounds": 3, "senders": 8, "dimension": SIZE, "unit": "client"}
    budgeted = federated.calibrate(**asked, clip_norm=1.0, coordinate_bound=0.5, ledger=tmp_path / "ledger.sqlite")
    algorithm, population = _fedavg(budgeted)
    fitted = federated.fit(algorithm, population, rounds=5)
    assert (fitted.rounds, fitted.ended) == (3, "budget")
    assert 1.999 < fitted.epsilon <= 2.0
    budgeted.ledger.close()


def test_noise_just_below_the_calibrated_would_not_do():
    # The twin: a dark count one per cent smaller spends more than the budget in the planned rounds.
    asked = {"epsilon": 2.0, "delta": 1e-5, "rounds": 3, "senders": 8, "dimension": SIZE, "unit": "client"}
    budgeted = federated.calibrate(**asked, clip_norm=1.0)
    assert isinstance(budgeted.ledger.law, accounting.TightLaw)
    cost = budgeted.mechanism.cost(7, SIZE)
    more = cost._replace(events=1.01 * cost.events)
    assert budgeted.ledger.fits([cost] * 3) and not budgeted.ledger.fits([more] * 3)


def test_the_law_with_less_noise_is_taken_and_kept():
    """With one honest sender and wide steps a Renyi curve needs less noise; a sampled round knows no other law."""
    asked = {"epsilon": 1.0, "delta": 1e-4, "rounds": 2, "senders": 2, "dimension": SIZE, "unit": "client"}
    wide = federated.calibrate(**asked, clip_norm=1.0, modulation=0.1)
    assert isinstance(wide.ledger.law, accounting.RenyiLaw) and wide.ledger.law.planned
    narrow = federated.calibrate(**asked | {"unit": "record"}, clip_norm=1.0, modulation=0.1, largest_site=64)
    assert isinstance(narrow.ledger.law, accounting.TightLaw)


def test_a_schedule_is_charged_round_by_round():
    asked = {"epsilon": 2.0, "delta": 1e-5, "rounds": 6, "senders": 3, "dimension": SIZE, "unit": "record"}
    budgeted = federated.calibrate(**asked, clip_norm=1.0, largest_site=32, average_from=2)
    portions = federated.tail_average_portions(6, 2)
    algorithm = federated.fedsgd(
        LOGISTIC,
        features=4,
        records=90,
        sampling_rate=1.0,
        mechanism=budgeted.mechanism,
        controller=federated.controllers.schedule(portions),
        aggregator=helpers.plain_aggregator(budgeted.mechanism, 3, SIZE),
        server_optimizer=optax.sgd(0.5),
        senders=3,
        average_from=2,
        ledger=budgeted.ledger,
    )
    fitted = federated.fit(algorithm, helpers.cohort((30, 30, 30), 4), rounds=6)
    assert (fitted.rounds, fitted.ended) == (6, "rounds") and 1.99 < fitted.epsilon <= 2.0
    events = [row.charge.events for row in budgeted.ledger.rows()]
    assert [round(8 * each / max(events)) for each in events] == list(portions)
    with pytest.raises(ValueError, match="ended the training after round 6"):
        algorithm.apply(fitted.state, helpers.cohort((30, 30, 30), 4), helpers.seeded(1))
    with pytest.raises(ValueError, match="sampling_rate=1"):
        federated.calibrate(**asked, clip_norm=1.0, largest_site=32, average_from=2, sampling_rate=0.5)


def test_records_of_sites_under_sampling():
    asked = {"epsilon": 4.0, "delta": 1e-5, "rounds": 2, "senders": 3, "dimension": SIZE, "unit": "record"}
    budgeted = federated.calibrate(**asked, clip_norm=1.0, coordinate_bound=0.5, largest_site=32, sampling_rate=0.5)
    algorithm = federated.fedsgd(
        LOGISTIC,
        features=4,
        records=90,
        sampling_rate=0.5,
        mechanism=budgeted.mechanism,
        aggregator=helpers.plain_aggregator(budgeted.mechanism, 3, SIZE),
        server_optimizer=optax.sgd(0.5),
        senders=3,
        ledger=budgeted.ledger,
    )
    fitted = federated.fit(algorithm, helpers.cohort((30, 30, 30), 4), rounds=4)
    assert (fitted.rounds, fitted.ended) == (2, "budget") and 3.99 < fitted.epsilon <= 4.0


def test_what_does_not_fit_is_named():
    asked = {"epsilon": 2.0, "delta": 1e-5, "rounds": 3, "senders": 8, "dimension": SIZE, "clip_norm": 1.0}
    with pytest.raises(ValueError, match="unit='record' and largest_site=None"):
        federated.calibrate(**asked, unit="record")
    with pytest.raises(ValueError, match="unit='client' and largest_site=10"):
        federated.calibrate(**asked, unit="client", largest_site=10)
    with pytest.raises(ValueError, match="honest_senders=9 exceeds senders=8"):
        federated.calibrate(**asked, unit="client", honest_senders=9)
    with pytest.raises(ValueError, match="too large for delta"):
        federated.calibrate(**asked | {"epsilon": 60.0, "delta": 1e-9}, unit="client")
