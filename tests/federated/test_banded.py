"""`fedavg` over fixed cohorts: the sums by hand, the noise as predicted, the price of a participation, who is charged when, and what is refused."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.aggregation import RoundRefused, aggregator
from fedjax_poisson.federated.banding import banding, decoded_weights
from fedjax_poisson.federated.client import Examples, run_client
from fedjax_poisson.federated.cohort_plan import parameter_weights
from fedjax_poisson.federated.reuse import round_stream
from fedjax_poisson.federated.turns import fixed_cohorts
from fedjax_poisson.mechanisms import gaussian, poisson_embedding, skellam
from fedjax_poisson.randomness import fold_in
from tests.federated.helpers import light, noise_free, seeded, step_of

CLIENTS, RECORDS, FEATURES = 14, 6, 4
SIZE = FEATURES + 1
RNG = np.random.default_rng(5)
X = RNG.normal(size=(CLIENTS, RECORDS, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)
FIXED = fixed_cohorts(CLIENTS, 4, seed=3)
MECHANISM = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05)
LIGHT = light(MECHANISM)
LOCAL = federated.local_sgd(0.5, batch_size=3)
ROOT = seeded(11)


@functools.cache
def _population(on_device: bool = True):
    return federated.make_population(X, Y, np.ones((CLIENTS, RECORDS), bool), on_device=on_device)


def _algorithm(band=3, **more):
    fixed = more.pop("cohorts", FIXED)
    width = band if isinstance(band, int) else band.band
    given = {
        "client": LOCAL,
        "population": _population(),
        "senders": fixed.senders(width)[1],
        "server_optimizer": optax.sgd(1.0),
        "mechanism": LIGHT,
    }
    if "aggregator" not in more:
        given["encryption"] = "off"
    return federated.fedavg(models.logistic(), cohorts=fixed, band=band, **(given | more))


@functools.cache
def _shared(band=3):
    return _algorithm(band)


def _vector(tree):
    return np.concatenate([np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree)])


def _run(algorithm, rounds, stream=ROOT, state=None, **more):
    state = algorithm.init(jax.random.key(0)) if state is None else state
    infos = []
    for _ in range(rounds):
        state, info = algorithm.apply(state, None, stream, **more)
        infos.append(info)
    return state, infos


@jax.jit
def _clipped(params, records, own):
    return MECHANISM.clip(run_client(LOCAL(models.logistic()), params, (), (), records, own)[0])


def _grid(params, client, number):
    """A client's clipped update of a round on the grid, by the functions of `client` and the mechanism alone."""
    own = fold_in(round_stream(ROOT, number), jnp.uint32(client))
    records = Examples(jnp.asarray(X[client]), jnp.asarray(Y[client]), jnp.ones(RECORDS, bool))
    return np.asarray(_clipped(params, records, own), np.int64)


# --- the sums ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("band", [1, 3, 4])
def test_rounds_equal_sums_by_hand(band):
    """What is released, decoded and stepped with, from each client's own update; the noise left out."""
    quiet, encoding = noise_free(MECHANISM), banding(band)
    algorithm, step = _algorithm(band, mechanism=quiet), step_of(MECHANISM)
    state = algorithm.init(jax.random.key(0))
    kept, decoded = {}, []
    for number in range(9):
        before = state.server.params
        cohort = FIXED.members[number % 4]
        kept |= {int(i): _grid(before, int(i), number) for i in cohort}
        released = np.zeros(SIZE)
        for ago in range(band):
            for i in FIXED.members[(number - ago) % 4]:
                message = kept.get(int(i), np.zeros(SIZE, np.int64)).astype(object) * encoding.numerators[ago]
                released += np.array([int(math.copysign(abs(m) >> 30, m)) for m in message], float) * step
        earlier = [decoded[-ago] if ago <= len(decoded) else np.zeros(SIZE) for ago in range(1, band)]
        decoded.append(released - sum((c * row for c, row in zip(encoding.factors[1:], earlier, strict=True)), 0.0))
        state, info = algorithm.apply(state, None, ROOT)
        moved = _vector(state.server.params) - _vector(before)
        np.testing.assert_allclose(moved, decoded[-1] / cohort.size, atol=2e-6)
        # And decoding has undone the encoding, up to a grid step of each sender.
        sums = sum(kept[int(i)] for i in cohort) * step
        np.testing.assert_allclose(decoded[-1], sums, atol=40 * step)
        assert info.senders == FIXED.turn(number, band).sends.size
    assert np.abs(_vector(state.server.params)).max() > 0.1


@pytest.mark.as_shipped
def test_a_participation_cap_is_fedavg_with_the_cohorts_passed_by_hand():
    fixed, _ = _run(_shared(1), 6)
    by_hand = federated.fedavg(
        models.logistic(), client=LOCAL, population=_population(), senders=4, minimum_senders=3, mechanism=LIGHT,
        server_optimizer=optax.sgd(1.0), fidelity="messages",
    )  # fmt: skip
    state = by_hand.init(jax.random.key(0))
    for number in range(6):
        members = FIXED.members[number % 4]
        ids = np.append(members, np.setdiff1d(np.arange(CLIENTS), members))[:4]  # of one shape: compiled once
        cohort = federated.make_cohort(_population(), ids, present=np.arange(4) < members.size)
        state, info = by_hand.apply(state, cohort, ROOT)
        assert info.senders == members.size
    np.testing.assert_array_equal(_vector(fixed.server.params), _vector(state.server.params))


@pytest.mark.as_shipped
@pytest.mark.parametrize(
    ("backend", "level", "transforms", "mechanism"),
    [
        ("round", "on", "summed", LIGHT),
        ("round", "on", "each", LIGHT),
        ("plain", "on", "summed", LIGHT),
        pytest.param("round", "on", "summed", MECHANISM, marks=pytest.mark.long),
        pytest.param("round", "on", "each", MECHANISM, marks=pytest.mark.long),
        ("plain", "on", "summed", MECHANISM),
    ],
    ids=lambda value: value if isinstance(value, str) else "light" if value is LIGHT else "sampled",
)
def test_encryption_changes_no_bit_of_the_model(backend, level, transforms, mechanism):
    fewest, most = FIXED.senders(3)
    bound = MECHANISM.count_bound(most, SIZE)
    agg = aggregator(backend, count_bound=bound, senders=most, minimum_senders=fewest, size=SIZE)
    layout = federated.Chunking(transforms=transforms)
    state, infos = _run(_algorithm(aggregator=agg, encryption=level, layout=layout, mechanism=mechanism), 5)
    clear = _shared() if mechanism is LIGHT else _algorithm(mechanism=mechanism)
    np.testing.assert_array_equal(_vector(state.server.params), _vector(_run(clear, 5)[0].server.params))
    assert infos[-1].exact and infos[-1].bytes_up_per_sender >= agg.message_bytes(SIZE)


@pytest.mark.as_shipped
def test_chunks_and_populations_on_the_host_give_the_same_bits():
    state, _ = _run(_algorithm(layout=federated.Chunking(chunk=2), population=_population(False)), 5)
    np.testing.assert_array_equal(_vector(state.server.params), _vector(_run(_shared(), 5)[0].server.params))


def test_one_compilation_serves_all_rounds():
    traces, model = [], models.logistic()

    def loss(params, x, y):
        traces.append(1)
        return model.loss(params, x, y)

    given = {"client": LOCAL, "population": _population(), "server_optimizer": optax.sgd(1.0), "mechanism": LIGHT}
    algorithm = federated.fedavg(model._replace(loss=loss), senders=FIXED.senders(3)[1], cohorts=FIXED, band=3, **given)
    state, counts = algorithm.init(jax.random.key(0)), []
    for _ in range(6):
        state, _ = algorithm.apply(state, None, ROOT)
        counts.append(len(traces))
    assert counts[0] == counts[-1] > 0


def test_scaffold_keeps_its_identity():
    """The server's variate stays the mean of the clients' own, also where clients are lost: the noise left out."""
    quiet = poisson_embedding(clip_norm=50.0, coordinate_bound=50.0, dark_count=50.0, modulation=0.05)
    algorithm = _algorithm(
        client=federated.scaffold(0.05, batch_size=3), mechanism=noise_free(quiet), minimum_senders=8
    )
    state = algorithm.init(jax.random.key(0))
    state, _ = algorithm.apply(state, FIXED.turn(0, 3).sends[1:], ROOT)  # one is lost in its turn
    state, _ = _run(algorithm, 6, state=state)
    own = np.asarray(state.client_state["weight"])
    assert np.abs(own).max() > 0.1
    np.testing.assert_allclose(np.asarray(state.shared[0]["weight"]), own.sum(axis=0) / CLIENTS, atol=1e-3)


# --- the noise --------------------------------------------------------------------------------------------------------

WIDE = 150


@functools.cache
def _pure_noise(band, power):
    """Tail-averaged parameters of runs in which no client has a record: noise alone, float64 `[runs * D]`, and D."""
    nobody = federated.make_population(
        np.zeros((CLIENTS, 1, WIDE), np.float32), np.zeros((CLIENTS, 1), np.float32), np.zeros((CLIENTS, 1), bool)
    )
    algorithm = _algorithm(
        banding(band, power), population=nobody, server_optimizer=optax.sgd(1.0, momentum=0.5), average_from=6,
        mechanism=MECHANISM,
    )  # fmt: skip
    found = []
    for run in range(6):
        state = algorithm.init(jax.random.key(0))
        start = _vector(state.server.params)
        for _ in range(12):
            state, _ = algorithm.apply(state, None, seeded(100 + run), gate="unaccounted")
        found.append(_vector(algorithm.parameters(state)) - start)
    return np.concatenate(found)


def _predicted(encoding, band):
    """Variance of a coordinate: the weights of released noise, each with the senders and the cohort of its own round."""
    weights, variance = decoded_weights(encoding, _scaled_weights()), 0.0
    for number, weight in enumerate(weights):
        variance += weight**2 * MECHANISM.variance(FIXED.turn(number, band).sends.size)
    return variance


def _scaled_weights():
    sizes = np.array([FIXED.members[number % 4].size for number in range(12)])
    return parameter_weights(12, 0.5, 6) / sizes


def _p_value(values, variance):
    statistic = float((values**2).sum() / variance)
    return 2 * min(stats.chi2.cdf(statistic, values.size), stats.chi2.sf(statistic, values.size))


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::fedjax_poisson.federated.charging.UnaccountedWarning")
def test_noise_of_the_averaged_parameters_has_the_predicted_variance():
    values = _pure_noise(4, 0.75)
    assert _p_value(values, _predicted(banding(4, 0.75), 4)) > 1e-3
    # Twins with slightly wrong laws: other coefficients, noise that nobody cancels, a sender of thirteen too few.
    assert _p_value(values, _predicted(banding(4), 4)) < 1e-6
    assert _p_value(values, _predicted(banding(1), 4)) < 1e-6
    assert _p_value(values, _predicted(banding(4, 0.75), 4) * 0.75) < 1e-6


# --- the price --------------------------------------------------------------------------------------------------------


def test_the_price_is_the_sum_over_the_messages_of_a_participation():
    orders = np.asarray([2.0, 3.0, 8.0, 64.0])
    honest = FIXED.senders(3)[0] - 1
    facts = {"dark_count": 50.0, "modulation": 0.05, "honest_senders": honest, "norm_ratio": 2.0, "dimension": SIZE}
    direct = sum(accounting.poisson_embedding_rdp(orders, step_ratio=c, **facts) for c in banding(3).factors)
    got = _shared().rdp(orders)
    np.testing.assert_allclose(got, direct, rtol=1e-12)
    np.testing.assert_array_equal(_shared().price.rdp(orders), got)
    whole = accounting.poisson_embedding_rdp(orders, **facts)
    assert (got <= banding(3).energy * whole * (1 + 1e-12)).all() and (got > whole).all()
    assert got[0] == pytest.approx(banding(3).energy * whole[0], rel=1e-9)  # at order 2 the cost is quadratic exactly
    fewer = facts | {"honest_senders": honest - 1}
    assert (
        got < sum(accounting.poisson_embedding_rdp(orders, step_ratio=c, **fewer) for c in banding(3).factors)
    ).all()


def test_no_update_costs_more_than_the_price_by_exact_divergences():
    """A client of one coordinate against three others at every end of the range: divergence of the released differences, summed over its messages."""
    dark, modulation, honest, order = 3.0, 0.4, 4, 3.0
    mechanism = poisson_embedding(clip_norm=1.0, coordinate_bound=1.0, dark_count=dark, modulation=modulation)
    encoding, support = banding(3), np.arange(-120, 121)

    def law(positions):
        up, down = (dark * sum(1 + sign * modulation * v for v in positions) for sign in (1, -1))
        return stats.skellam.pmf(support, up, down)

    def divergence(p, q):
        use = (p > 1e-280) & (q > 1e-280)
        return math.log(np.sum(p[use] ** order * q[use] ** (1 - order))) / (order - 1)

    worst = 0.0
    for others in (-1.0, 0.0, 1.0):
        for v in (-1.0, 0.3, 1.0):
            pairs = [(law([c * v, *[others] * 3]), law([0.0, *[others] * 3])) for c in encoding.factors]
            worst = max(worst, sum(divergence(p, q) for p, q in pairs), sum(divergence(q, p) for p, q in pairs))
    price = sum(mechanism.scaled_rdp(c, np.asarray([order]), honest, 1)[0] for c in encoding.factors)
    first = mechanism.rdp(np.asarray([order]), honest, 1)[0]
    assert first < worst <= price  # the price of the first message alone would not be enough


def test_gaussian_noise_has_the_price_of_its_energy():
    mechanism = gaussian(clip_norm=1.0, noise_std=0.4)
    algorithm, orders = _algorithm(mechanism=mechanism), np.asarray([2.0, 9.0])
    np.testing.assert_allclose(
        algorithm.rdp(orders), banding(3).energy * mechanism.rdp(orders, FIXED.senders(3)[0] - 1, SIZE), rtol=1e-12
    )
    state, infos = _run(algorithm, 2)
    assert np.isfinite(infos[-1].epsilon) and np.abs(_vector(state.server.params)).max() > 0


# --- charges ----------------------------------------------------------------------------------------------------------


def test_a_participation_is_charged_once_in_an_epoch():
    algorithm = _algorithm()
    _, infos = _run(algorithm, 9)
    rows = algorithm.ledger.rows()
    assert [row.label for row in rows] == ["train 1 to 4", "train 5 to 8", "train 9 to 12"]
    orders = np.asarray(algorithm.ledger.orders)
    np.testing.assert_allclose(algorithm.ledger.rdp(), 3 * algorithm.rdp(orders))
    assert rows[0].parameters["factors"] == list(banding(3).factors)
    assert infos[0].epsilon == infos[3].epsilon < infos[4].epsilon == infos[7].epsilon < infos[8].epsilon
    distance = accounting.release_distance(
        senders=FIXED.senders(3)[1], dimension=SIZE, draw=MECHANISM.facts.sampler_distance
    )
    assert algorithm.price.distance == 3 * distance


def test_the_budget_ends_after_the_planned_participations():
    honest, orders = FIXED.senders(3)[0] - 1, np.asarray(accounting.DEFAULT_ORDERS)
    curve = 2.5 * _shared().rdp(orders)
    ledger = accounting.open_ledger(
        accounting.MEMORY, epsilon=accounting.epsilon(orders, curve, 1e-5), delta=1e-5, unit="client",
        adjacency="zero_out", planned_rdp=curve,
    )  # fmt: skip
    fitted = federated.fit(_algorithm(ledger=ledger), FIXED, rounds=20, stream=ROOT, progress=False)
    assert (fitted.rounds, fitted.ended) == (8, "budget") and len(ledger.rows()) == 2
    assert ledger.rows()[0].honest_senders == honest


def _tight_ledger(epsilon=8.0):
    return accounting.open_ledger(
        accounting.MEMORY, epsilon=epsilon, delta=1e-5, unit="client", adjacency="zero_out", law="tight"
    )


def test_a_tight_ledger_is_charged_with_the_squares_of_the_coefficients():
    ledger = _tight_ledger()
    algorithm = _algorithm(ledger=ledger)
    _run(algorithm, 5)
    assert [row.label for row in ledger.rows()] == ["train 1 to 4", "train 5 to 8"]
    whole = MECHANISM.cost(FIXED.senders(3)[0] - 1, SIZE)
    want = whole._replace(events=whole.events * (1 + 1 / 4 + 9 / 64))
    for charge in (ledger.rows()[0].charge, algorithm.price.cost):
        assert charge == want._replace(events=pytest.approx(want.events, rel=1e-8))


def test_what_else_is_charged_to_a_tight_ledger_ends_a_cover_and_to_a_renyi_ledger_does_not():
    for ledger, expected in ((_tight_ledger(), 2), (None, 1)):
        algorithm = _algorithm(ledger=ledger)
        state, _ = _run(algorithm, 2)
        book, one = algorithm.ledger, algorithm.price
        book.spend("evaluate", "other", one.mechanism, {}, one.charge(book.law), 2, 3)
        state, _ = _run(algorithm, 2, state=state)
        assert sum(row.purpose == "train" for row in book.rows()) == expected


def test_a_round_that_is_opened_again_is_paid_again():
    algorithm = _algorithm()
    before, _ = _run(algorithm, 2)
    state, _ = _run(algorithm, 1, state=before)
    assert len(algorithm.ledger.rows()) == 1
    algorithm.apply(before, None, fold_in(ROOT, "other"))  # round 3 for the second time
    assert len(algorithm.ledger.rows()) == 2
    state, _ = _run(algorithm, 1, state=state)  # round 4 was covered twice and is opened once
    again, _ = _run(algorithm, 1, state=before, stream=fold_in(ROOT, "third"))
    assert len(algorithm.ledger.rows()) == 3
    _run(algorithm, 1, state=again, stream=fold_in(ROOT, "third"))
    assert len(algorithm.ledger.rows()) == 3
    # Another algorithm, such as one after a restart, knows of no charge.
    resumed = _algorithm()
    _run(resumed, 2, state=before)
    assert [row.label for row in resumed.ledger.rows()] == ["train 3 to 4"]


def test_openings_never_outnumber_the_charges_that_cover_them():
    """Any order of rounds and payers: the invariant of the proof."""
    from fedjax_poisson.federated.banded import coverage

    rng = np.random.default_rng(0)
    for _ in range(30):
        covers, charges, opened = coverage(4), [], []
        for _ in range(60):
            number, paying = int(rng.integers(0, 9)), [None, print, "unaccounted"][rng.integers(0, 3)]
            if covers.due(paying, number):
                charges.append((callable(paying), paying == "unaccounted", number))
                covers.charged(paying, number)
            covers.opened(paying, number)
            opened.append((callable(paying), paying == "unaccounted", number))
            for kind in (False, True):
                for number in range(9):
                    seen = sum(gate == kind and n == number for gate, free, n in opened)
                    covering = sum(
                        gate == kind and (n == number if free else n <= number < (n // 4 + 1) * 4)
                        for gate, free, n in charges
                    )
                    assert seen <= covering


def test_a_gate_is_asked_where_a_charge_is_due_and_only_there():
    algorithm, asked = _algorithm(), []
    state, infos = _run(algorithm, 5, gate=lambda: asked.append(1))
    assert len(asked) == 2 and infos[-1].epsilon is None and algorithm.ledger.rows() == []
    _run(algorithm, 1, state=state)  # what a gate paid for, the ledger has not
    assert len(algorithm.ledger.rows()) == 1

    def refuse():
        raise PermissionError("no")

    other = _algorithm()
    with pytest.raises(PermissionError):
        _run(other, 1, gate=refuse)
    _run(other, 1)
    assert len(other.ledger.rows()) == 1


@pytest.mark.filterwarnings("ignore::fedjax_poisson.federated.charging.UnaccountedWarning")
def test_what_is_released_unaccounted_covers_nothing():
    algorithm = _algorithm()
    state, _ = _run(algorithm, 1, gate="unaccounted")
    _, infos = _run(algorithm, 1, state=state)
    assert len(algorithm.ledger.rows()) == 1 and infos[-1].epsilon == math.inf


# --- lost, broken and empty clients -----------------------------------------------------------------------------------


def test_a_client_that_is_lost_in_its_turn_sends_nothing_of_it_later():
    quiet = noise_free(MECHANISM)
    algorithm = _algorithm(mechanism=quiet, minimum_senders=8)
    state = algorithm.init(jax.random.key(0))
    turn = FIXED.turn(0, 3)
    lost = int(turn.trains[1])
    before = state.server.params
    state, info = algorithm.apply(state, turn.sends[turn.sends != lost], ROOT)
    assert info.absent == (lost,) and info.senders == turn.sends.size - 1
    step, others = step_of(MECHANISM), [int(i) for i in turn.trains if int(i) != lost]
    want = sum(_grid(before, i, 0) for i in others) * step
    np.testing.assert_allclose(np.asarray(state.history[0]), want, atol=1e-6)
    # The cohort was announced with all of its clients, and the noise is that of all senders: the mean is over these.
    np.testing.assert_allclose(_vector(state.server.params) - _vector(before), want / turn.trains.size, atol=1e-6)
    assert not np.asarray(state.kept[0, 1]).any() and np.asarray(state.kept[0, 0]).any()
    middle = state.server.params
    state, info = algorithm.apply(state, None, ROOT)
    second = sum(_grid(middle, int(i), 1) for i in FIXED.members[1]) * step
    np.testing.assert_allclose(np.asarray(state.history[0]), second, atol=20 * step)
    assert info.absent == ()


def test_a_message_that_is_lost_later_leaves_its_share_out():
    quiet, encoding = noise_free(MECHANISM), banding(3)
    algorithm = _algorithm(mechanism=quiet, minimum_senders=8)
    state, _ = _run(algorithm, 1)
    whole, _ = algorithm.apply(state, None, fold_in(ROOT, "lost"))
    turn = FIXED.turn(1, 3)
    lost = int(FIXED.members[0][0])
    less, info = algorithm.apply(state, turn.sends[turn.sends != lost], fold_in(ROOT, "less"))
    assert info.absent == (lost,)
    missing = np.asarray(whole.history[0]) - np.asarray(less.history[0])
    kept = np.asarray(state.kept[0, 0]) * step_of(MECHANISM)
    np.testing.assert_allclose(missing, encoding.factors[1] * kept, atol=2 * step_of(MECHANISM))


def test_below_the_minimum_nothing_is_opened_or_charged_and_the_round_can_be_repeated():
    algorithm = _algorithm(minimum_senders=10)
    state = algorithm.init(jax.random.key(0))
    with pytest.raises(RoundRefused, match=r"9 of 10 clients sent"):
        algorithm.apply(state, FIXED.turn(0, 3).sends[:9], ROOT)
    assert algorithm.ledger.rows() == []
    _run(algorithm, 1, state=state)
    assert len(algorithm.ledger.rows()) == 1


def test_broken_and_empty_clients_are_named_and_send_noise():
    x, mask = X.copy(), np.ones((CLIENTS, RECORDS), bool)
    broken, empty = (int(i) for i in FIXED.members[0][:2])
    x[broken, 2, 1] = np.nan
    mask[empty] = False
    algorithm = _algorithm(population=federated.make_population(x, Y, mask), mechanism=noise_free(MECHANISM))
    state, infos = _run(algorithm, 1)
    assert infos[0].not_finite == (broken,) and infos[0].empty == (empty,)
    assert infos[0].senders == FIXED.turn(0, 3).sends.size
    assert not np.asarray(state.kept[0, :2]).any() and np.asarray(state.kept[0, 2]).any()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_client_out_of_turn_is_refused():
    state = _shared().init(jax.random.key(0))
    outside = sorted(set(range(CLIENTS)) - set(FIXED.turn(0, 3).sends.tolist()))
    with pytest.raises(ValueError, match=rf"client {outside[0]} is out of turn in round 1"):
        _shared().apply(state, [*FIXED.turn(0, 3).sends, outside[0]], ROOT)
    with pytest.raises(ValueError, match="out of turn"):
        federated.fit(_algorithm(), _population(), rounds=1, stream=ROOT, progress=False)
    for wrong in (federated.make_cohort(_population(), [0, 1]), iter(())):
        with pytest.raises(TypeError, match="give None"):
            _shared().apply(state, wrong, ROOT)
    with pytest.raises(ValueError, match="vector of client numbers"):
        _shared().apply(state, [], ROOT)


def test_a_state_of_other_cohorts_coefficients_bounds_or_rounds_is_refused():
    state, _ = _run(_shared(), 2)
    others = (
        _algorithm(cohorts=fixed_cohorts(CLIENTS, 4, seed=4)),
        _algorithm(banding(3, 0.75)),
        _algorithm(mechanism=poisson_embedding(clip_norm=1.0, coordinate_bound=0.25, dark_count=50.0, modulation=0.05)),
    )
    for other in others:
        with pytest.raises(ValueError, match="state is of an algorithm with other"):
            other.apply(state, None, ROOT)
    turned = state._replace(server=state.server._replace(round=jnp.int32(1)))
    with pytest.raises(ValueError, match="its round was changed"):
        _shared().apply(turned, None, ROOT)
    louder = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=25.0, modulation=0.05)
    _algorithm(mechanism=light(louder)).apply(state, None, ROOT)  # the noise may change: it is drawn for each message


def test_one_noise_opens_one_sum():
    algorithm = _algorithm(minimum_senders=8)
    state = algorithm.init(jax.random.key(0))
    algorithm.apply(state, None, ROOT)
    with pytest.raises(RoundRefused, match="Another sum was already released"):
        algorithm.apply(state, FIXED.turn(0, 3).sends[1:], ROOT)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"band": 5}, "two participations of a client into one message"),
        ({"mechanism": None}, "there is no mechanism"),
        ({"mechanism": skellam(clip_norm=1.0, scale=40.0, noise_variance=9.0)}, "states no price"),
        ({"sampling_rate": 0.5}, "sampling_rate"),
        ({"mesh": "one"}, "leave mesh out"),
        ({"senders": 10}, "give senders=11"),
        ({"minimum_senders": 11}, "in some rounds only 10"),
        ({"cohorts": fixed_cohorts(13, 4)}, "the cohorts are of 13 clients"),
    ],
)
def test_what_no_proof_covers_is_refused(more, match):
    if more.get("mesh"):
        more = {"mesh": federated.client_mesh(1)}
    if more.get("cohorts"):
        more = more | {"senders": 11, "minimum_senders": 9}
    with pytest.raises(ValueError, match=match):
        _algorithm(**({"band": 3, "senders": 11} | more))


def test_a_band_needs_cohorts():
    with pytest.raises(ValueError, match="needs fixed cohorts"):
        federated.fedavg(
            models.logistic(), client=LOCAL, population=_population(), senders=12, server_optimizer=optax.sgd(1.0),
            mechanism=MECHANISM, band=2,
        )  # fmt: skip


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.as_shipped
def test_a_checkpoint_goes_on_with_the_same_bits_and_pays_for_its_epoch_again(tmp_path):
    def begun(rounds):
        ledger = accounting.open_ledger(
            tmp_path / "ledger.sqlite", epsilon=50.0, delta=1e-5, unit="client", adjacency="zero_out"
        )
        with ledger:
            fitted = federated.fit(
                _algorithm(ledger=ledger), FIXED, rounds=rounds, stream=ROOT, resume=tmp_path, progress=False
            )
            return fitted, [row.label for row in ledger.rows()]

    begun(6)
    fitted, labels = begun(9)
    np.testing.assert_array_equal(_vector(fitted.params), _vector(_run(_shared(), 9)[0].server.params))
    assert labels == ["train 1 to 4", "train 5 to 8", "train 7 to 8", "train 9 to 12"]
