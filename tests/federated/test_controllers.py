"""Controllers: they see releases only, each round is charged what was decided for it, a stop leaves the rest, a resume decides alike."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.accounting import TightLaw
from fedjax_poisson.federated import control, controllers
from fedjax_poisson.federated.control import Controller, Decision, Released, Start, decision
from fedjax_poisson.federated.server import final_parameters, init_state, is_averaged, server_step
from tests.federated import helpers

SIZE, ROUNDS = 5, 12
COHORT = helpers.cohort((30, 30, 30), 4)
LOGISTIC = models.logistic()
ASKED = {"epsilon": 2.0, "delta": 1e-5, "rounds": ROUNDS, "senders": 3, "dimension": SIZE, "unit": "record"}
CALIBRATED = federated.calibrate(**ASKED, clip_norm=1.0, largest_site=32, average_from=6)
MECHANISM = CALIBRATED.mechanism
AGGREGATOR = helpers.plain_aggregator(MECHANISM, 3, SIZE)


def _ledger(path=accounting.MEMORY, epsilon: float = 2.0) -> accounting.Ledger:
    return accounting.open_ledger(path, epsilon=epsilon, delta=1e-5, unit="record", adjacency="zero_out", law="tight")


def _algorithm(controller, ledger=None, mechanism=MECHANISM):
    return federated.fedsgd(
        LOGISTIC,
        features=4,
        records=90,
        sampling_rate=1.0,
        mechanism=mechanism,
        controller=controller,
        aggregator=AGGREGATOR,
        server_optimizer=optax.sgd(0.5),
        senders=3,
        average_from="growing",
        ledger=ledger,
    )


def by_norm(stop_at: int = 10**6, halve: bool = True) -> Controller:
    """Fewer portions after a long gradient, and a stop: a rule that depends on releases in every round."""

    def step(memory: jax.Array, released: Released) -> tuple[jax.Array, Decision]:
        longer = jnp.linalg.norm(released.gradient) > memory
        used = jnp.where(longer, 3, 6) if halve else jnp.where(longer, 6, 3)
        return jnp.linalg.norm(released.gradient), decision(used, released.number >= stop_at)

    return Controller("by norm", lambda start: (jnp.float32(0), decision(start.whole)), step, stopped="far enough")


def test_each_round_is_charged_what_was_decided_for_it():
    ledger = _ledger()
    algorithm, stream = _algorithm(by_norm(), ledger), helpers.seeded(3)
    state, used = algorithm.init(jax.random.key(0)), []
    for _ in range(5):
        used.append(int(algorithm.decision(state).portions))
        state, _ = algorithm.apply(state, COHORT, stream)
    assert used[0] == 8 and set(used[1:]) == {3, 6}
    charged = [row.charge for row in ledger.rows()]
    assert charged == [control.mechanism_at(MECHANISM, each).cost(2, SIZE) for each in used]
    # What is left is what the filter says for these charges and no others: one decision read wrongly would show.
    assert isinstance(ledger.law, TightLaw)
    budget = ledger.law.budget
    left = accounting.spend_all(budget, budget.total, charged)
    assert ledger.remaining().share == pytest.approx(left / budget.total, rel=1e-12)
    wrong = [charged[0], *charged[:-1]]
    assert accounting.spend_all(budget, budget.total, wrong) != pytest.approx(left, rel=1e-6)


def test_the_noise_is_that_of_the_charge():
    """Senders without records: what is released is noise alone, of the variance that was decided."""
    nobody = COHORT._replace(mask=jnp.zeros_like(COHORT.mask), unit=jnp.full_like(COHORT.unit, -1))
    seen: list[tuple[int, float]] = []
    for portions in (1, 8):
        algorithm = _algorithm(controllers.schedule((portions,) * 60), _ledger(epsilon=30.0))
        state, norms = algorithm.init(jax.random.key(0)), []
        for _ in range(60):
            state, info = algorithm.apply(state, nobody, helpers.seeded(5))
            norms.append(info.update_norm**2)
        own = control.mechanism_at(MECHANISM, portions)
        expected = SIZE * own.variance(3) / 90**2
        assert np.mean(norms) == pytest.approx(expected, rel=4 * math.sqrt(2 / (SIZE * 60)))
        seen.append((portions, float(np.mean(norms))))
    assert seen[0][1] > 4 * seen[1][1]  # the twin: the noise of eight portions would be far outside


def test_a_stop_keeps_the_rest_on_the_ledger_and_fit_says_so(tmp_path):
    ledger = _ledger(tmp_path / "ledger.sqlite")
    fitted = federated.fit(
        _algorithm(by_norm(stop_at=4), ledger), COHORT, rounds=ROUNDS, evaluate=lambda p: {"x": 1.0}, evaluate_every=5
    )
    assert (fitted.ended, fitted.rounds, ledger.pin().rows) == ("controller", 4, 4)
    assert "x" in fitted.history[-1]  # the last round is scored wherever it is
    left = ledger.remaining()
    assert 0.3 < left.share < 1 and fitted.epsilon < 2.0
    # The next question is charged to what is left, until that ends too.
    again = federated.fit(_algorithm(None, ledger), COHORT, rounds=50)
    assert again.ended == "budget" and 1 <= again.rounds < ROUNDS and ledger.remaining().share < left.share
    with pytest.raises(ValueError, match="ended the training after round 4 \\(far enough\\)"):
        _algorithm(by_norm(stop_at=4), ledger).apply(fitted.state, COHORT, helpers.seeded(1))


def test_a_resumed_training_decides_as_one_that_was_never_stopped(tmp_path):
    stream = helpers.seeded(9)
    once = federated.fit(_algorithm(by_norm(), _ledger()), COHORT, rounds=6, stream=stream)
    with _ledger(tmp_path / "ledger.sqlite") as ledger:
        federated.fit(_algorithm(by_norm(), ledger), COHORT, rounds=3, stream=stream, resume=tmp_path)
    with accounting.read_ledger(tmp_path / "ledger.sqlite", writable=True) as ledger:
        # Another process: nothing but the folder is left.
        twice = federated.fit(_algorithm(by_norm(), ledger), COHORT, rounds=6, stream=stream, resume=tmp_path)
        charged = [row.charge for row in ledger.rows()]
    for got, want in zip(jax.tree.leaves(twice.state), jax.tree.leaves(once.state), strict=True):
        np.testing.assert_array_equal(got, want)
    # The twin: a memory that was lost decides otherwise, so the equality above is no accident.
    lost = _algorithm(by_norm(halve=False), _ledger())
    other = federated.fit(lost, COHORT, rounds=6, stream=stream)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(other.state), jax.tree.leaves(once.state), strict=True))
    assert len(charged) == 6


def test_a_budget_holds_whatever_is_decided():
    """A controller that always takes all of it ends at the budget, not above."""
    ledger = _ledger()
    greedy = _algorithm(Controller("greedy", lambda s: ((), decision(s.whole)), lambda m, r: (m, decision(8))), ledger)
    fitted = federated.fit(greedy, COHORT, rounds=100)
    assert fitted.ended == "budget" and fitted.epsilon <= 2.0 and ledger.remaining().share < 0.2
    too_much = Controller("more", lambda s: ((), decision(9)), lambda m, r: (m, decision(9)))
    with pytest.raises(ValueError, match="9 portions of 8"):
        federated.fit(_algorithm(too_much, _ledger()), COHORT, rounds=1)


PEEKING = {
    "records": lambda memory, released: (memory, decision(1, jnp.mean(COHORT.features) > 0)),
    "labels in the memory's place": lambda memory, released: (memory, decision(jnp.sum(COHORT.labels[0]).astype(int))),
    "a callback": lambda memory, released: (
        memory,
        decision(jax.pure_callback(lambda x: np.int32(1), jax.ShapeDtypeStruct((), jnp.int32), released.number)),
    ),
    "a callback inside a branch": lambda memory, released: (
        memory,
        decision(jax.lax.cond(released.number > 1, lambda: jax.pure_callback(lambda: np.int32(1), jax.ShapeDtypeStruct((), jnp.int32)), lambda: jnp.int32(1))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", PEEKING)
def test_a_controller_that_peeks_is_refused(how):
    peeking = Controller(how, lambda start: ((), decision(start.whole)), PEEKING[how])
    with pytest.raises(ValueError, match=r"carries an array of its own|calls back into Python"):
        _algorithm(peeking, _ledger())


def test_what_is_not_released_cannot_be_named():
    assert Released._fields == ("number", "gradient", "params", "average", "portions", "noise")
    peeking = Controller("loss", lambda s: ((), decision(1)), lambda m, r: (m, decision(1, r.loss > 0)))
    with pytest.raises(AttributeError, match="loss"):
        _algorithm(peeking, _ledger())


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda m, r: (m, r.number), "must return"),
        (lambda m, r: (r.params, decision(1)), "keep their structure"),
        (lambda m, r: (m, Decision(jnp.float32(1), jnp.array(False))), "keep their structure"),
    ],
)
def test_a_malformed_controller_is_refused(step, words):
    with pytest.raises(ValueError, match=words):
        _algorithm(Controller("odd", lambda s: (jnp.float32(0), decision(1)), step), _ledger())


def test_what_adapts_is_found_out_and_needs_a_budget():
    found = {
        name: control.checked(each, SIZE, MECHANISM).adapts
        for name, each in {
            "constant": controllers.constant(),
            "schedule": controllers.schedule((8, 4, 1)),
            "settle": controllers.settle(10, 90),
            "risk": controllers.risk(),
            "through the memory": Controller("m", lambda s: (s.params, decision(1)), lambda m, r: (r.params, decision(1))),
            "the number alone": Controller("n", lambda s: ((), decision(1)), lambda m, r: (m, decision(1 + r.number % 2))),
        }.items()
    }  # fmt: skip
    assert found == {"constant": False, "schedule": False, "settle": True, "risk": True, "through the memory": True, "the number alone": False}  # fmt: skip
    adaptive = _algorithm(by_norm())  # its own ledger is a meter
    state = adaptive.init(jax.random.key(0))
    with pytest.raises(ValueError, match="has no budget"):
        adaptive.apply(state, COHORT, helpers.seeded(1))
    paid: list[int] = []
    adaptive.apply(state, COHORT, helpers.seeded(1), lambda: paid.append(1))  # a gate's budget is its caller's
    assert paid == [1]
    fixed = _algorithm(controllers.schedule((8, 4)))
    fixed.apply(fixed.init(jax.random.key(0)), COHORT, helpers.seeded(1))


def test_a_schedule_uses_its_portions_and_ends():
    algorithm = _algorithm(controllers.schedule((8, 4, 1)), _ledger())
    fitted = federated.fit(algorithm, COHORT, rounds=9)
    assert (fitted.ended, fitted.rounds) == ("controller", 3)
    events = [row.charge.events for row in algorithm.ledger.rows()]
    assert [8 * each / events[0] for each in events] == [8, 4, 1]
    for wrong in ((), (0, 1), (1.5,), (9,)):
        with pytest.raises(ValueError, match="portions"):
            _algorithm(controllers.schedule(wrong), _ledger())


def _walk(controller: Controller, gradients, noise: float, rate: float = 0.5, whole: int = 8) -> list[tuple[int, bool]]:
    """Decisions on given gradients at parameters that follow them: `(portions, stop)` of round 1, 2, ..."""
    params = jnp.zeros(len(gradients[0]), jnp.float32)
    memory, chosen = controller.init(Start(params, whole))
    found = [(int(chosen.portions), bool(chosen.stop))]
    for number, gradient in enumerate(gradients, 1):
        gradient = jnp.asarray(gradient, jnp.float32)
        params = params - rate * gradient
        own = noise * math.sqrt(whole / int(chosen.portions))
        released = Released(jnp.int32(number), gradient, params, params, chosen.portions, jnp.float32(own))
        memory, chosen = controller.step(memory, released)
        found.append((int(chosen.portions), bool(chosen.stop)))
        if found[-1][1]:
            break
    return found


def test_risk_follows_the_ratio_of_signal_and_noise():
    signal, nothing = np.full(40, 0.3), np.full(40, 0.1)  # ratios 9 and 1 where the noise is .1
    block = controllers.risk
    found = _walk(block(), [signal] * 15, 0.1)
    assert {each for each, _ in found} == {8} and not any(stop for _, stop in found)
    # The gradient's noise grows as the portions fall; its length is what noise alone would have.
    gradients = [nothing * math.sqrt(8 / used) for used in np.repeat([8, 4, 2, 1], 5)]
    found = _walk(block(), gradients, 0.1)
    assert [each for each, _ in found][::5] == [8, 4, 2, 1, 1] and found[-1][1] and len(found) == 21
    back = [*gradients[:10], *[signal * 3] * 10]
    assert [each for each, _ in _walk(block(), back, 0.1)][::5] == [8, 4, 2, 4, 8]


def _gains(gradients: np.ndarray, noise: float, rate: float = 0.5) -> list[float]:
    """G of settle after each round, from its definition."""
    count, size = gradients.shape
    places = np.vstack([np.zeros(size), -rate * np.cumsum(gradients, axis=0)])
    known, found = max(size - 1.645 * math.sqrt(2 * size), 0), [math.inf, math.inf]
    for t in range(2, count + 1):
        mean = gradients[t // 2 : t].mean(axis=0)
        energy = max(mean @ mean - known * noise**2 / (t - t // 2), 0)
        found.append(math.sqrt(energy) * float(np.linalg.norm(places[t] - places[t // 2])))
    return found


@pytest.mark.parametrize(("rounds", "apart"), [(60, 1), (150, 3)])
def test_settle_stops_where_its_rule_says(rounds, apart):
    """Gradient descent on a quadratic loss with curvatures from .02 to 1, and released noise."""
    rng, size, records, noise = np.random.default_rng(2), 20, 200.0, 0.02
    curvature, place, gradients = np.geomspace(0.02, 1, size), np.ones(size), []
    for _ in range(rounds):
        gradients.append(curvature * place + noise * rng.normal(size=size))
        place = place - 0.5 * gradients[-1]
    gains, limit = _gains(np.array(gradients), noise), size / (2 * records)
    marks = {t: gains[t] for t in range(0, rounds + 1, apart)}
    due = [t for t in marks if t >= 8 and gains[t] <= limit]
    found = _walk(controllers.settle(rounds, records), gradients, noise)
    assert found[-1][1] and 8 <= len(found) - 1 < rounds and {each for each, _ in found} == {8}
    if apart == 1:  # halves are whole marks
        expected = next(t for t in due if gains[t] < gains[t // 2])
        assert len(found) - 1 == expected
    # Fewer units make fitting noise gain more: it stops earlier. Many more: it goes on.
    assert len(_walk(controllers.settle(rounds, 50.0), gradients, noise)) < len(found)
    assert not _walk(controllers.settle(rounds, 1e9), gradients, noise)[-1][1]


def test_settle_takes_off_the_noise_that_is_known_and_no_more():
    """Noise alone around a point where nothing is to be gained: with the true noise it settles, with a tenth of it the noise is taken for gain."""
    rng, size, noise = np.random.default_rng(3), 50, 0.1
    place, gradients = np.full(size, 2.0), []
    for _ in range(60):
        gradients.append(0.3 * place + noise * rng.normal(size=size))
        place = place - 0.5 * gradients[-1]
    records = size / (2 * 0.02)
    stops = _walk(controllers.settle(60, records), gradients, noise)
    assert stops[-1][1] and len(stops) < 45
    wrong = _walk(controllers.settle(60, records), gradients, noise / 10)
    assert not wrong[-1][1]


def test_settle_does_not_take_the_beginning_for_the_end():
    """A training that momentum only just gets under way: its gain is small, and larger than half-way."""
    gradients = [np.full(10, 1e-3 * number**2) for number in range(1, 41)]
    assert not _walk(controllers.settle(40, 1.0), gradients, 1e-6)[-1][1]
    for wrong in ((0, 10), (5, 0.0), (5, -1)):
        with pytest.raises(ValueError, match="at least one round"):
            controllers.settle(*wrong)


@pytest.mark.parametrize("average_from", ["growing"])
def test_the_growing_average_is_near_that_of_the_last_half(average_from):
    rng = np.random.default_rng(0)
    params = {"w": jnp.zeros(3)}
    state = init_state(params, optax.sgd(1.0))
    assert final_parameters(state, average_from) is state.params and not is_averaged(0, average_from)
    iterates = []
    for _ in range(40):
        state = server_step(state, jnp.asarray(rng.normal(size=3), jnp.float32), optax.sgd(1.0), average_from)
        iterates.append(np.asarray(state.params["w"], float))
    weights = np.arange(1, 41) * np.arange(2, 42.0)
    np.testing.assert_allclose(
        final_parameters(state, average_from)["w"], weights @ np.array(iterates) / weights.sum(), rtol=1e-5
    )
    length = weights.sum() ** 2 / (weights**2).sum()
    assert length == pytest.approx(5 / 9 * 40, rel=0.05)
    assert weights @ np.arange(1, 41) / weights.sum() == pytest.approx(30, rel=0.03)


def test_the_names_of_run_are_known():
    assert set(controllers.CONTROLLERS) == {"schedule", "constant", "settle", "risk"}
    with pytest.raises(ValueError, match="no controller is called 'stop'; there are: schedule"):
        controllers.registered("stop")
