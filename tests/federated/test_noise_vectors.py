"""Norm rounds of a simulation: the opened sum is that of clean counts and all noise, bit for bit; who is too long is left out, named and not divided by."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import accounting, federated, models, trees
from fedjax_poisson.aggregation import RoundRefused, aggregator
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.federated.client import Examples, run_client
from fedjax_poisson.federated.reuse import round_stream
from fedjax_poisson.mechanisms import committee_noise, poisson_embedding
from fedjax_poisson.randomness import fold_in
from tests.federated.helpers import hashed, seeded
from tests.helpers.entropy import drawn_once

CLIENTS, RECORDS, FEATURES, SENDERS, NOISE = 14, 6, 4, 12, 5
SIZE = FEATURES + 1

RNG = np.random.default_rng(5)
X = RNG.normal(size=(CLIENTS, RECORDS, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)
IDS = np.asarray([13, 0, 5, 2, 7, 1, 11, 3, 4, 12, 6, 9])
MECHANISM = committee_noise(
    clip_norm=1.0, scale=60.0, noise_variance=1e5, noise_senders=NOISE, honest_noise=2, coordinate_bound=0.8
)
# Its clients round as they do; of noise senders every bit of the stream shows, without the sampler, which is most of what such a round compiles.
LIGHT = MECHANISM._replace(
    noise=lambda own, size: (
        (hashed(own, jnp.zeros(size, jnp.uint32)) >> jnp.uint32(22)).astype(jnp.int32) - jnp.int32(512)
    )
)
LIARS = (7, 4)
ROOT = seeded(31)


@functools.cache
def _lying():
    """The mechanism with two clients whose counts are a hundred times too long: those whose update is beyond anything that training gives here."""
    clip = MECHANISM.clip

    def marked(update):
        grid = clip(update)
        return jnp.where(jnp.max(jnp.abs(update)) > 1e3, jnp.full_like(grid, 2**19), grid)

    def embed(stream, grid):
        return jnp.where(jnp.all(grid == 2**19), jnp.int32(6000), MECHANISM.embed(stream, grid))

    return LIGHT._replace(
        clip=marked, embed=embed, privatize=lambda stream, update: embed(stream, marked(update)),
        count_bound=lambda senders, dimension, failure=0.0: 2**17,
    )  # fmt: skip


@functools.cache
def _population(lying: bool = False):
    x = X.copy()
    if lying:
        x[list(LIARS)] *= 1e6
    return federated.make_population(x, Y, np.ones((CLIENTS, RECORDS), bool), on_device=True)


@functools.cache
def _norm_aggregator(minimum: int = 10, mechanism=LIGHT):
    """Norm rounds without messages."""
    by = mechanism.noise_senders
    return aggregator(
        "round",
        count_bound=mechanism.count_bound(SENDERS, SIZE),
        senders=SENDERS,
        minimum_senders=minimum,
        size=SIZE,
        count_rms=by.count_rms(SENDERS, SIZE) + 6000,
        norm=NormScreening(by.squared_norm(SIZE), by.senders, by.honest),
        noise=mechanism.noise,
        authenticate=False,
    )


def _algorithm(mechanism=LIGHT, *, lying=False, **more):
    if more.get("aggregator") is None:
        more.setdefault("encryption", "off")
    return federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.5, batch_size=3),
        population=_population(lying),
        senders=SENDERS,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        minimum_senders=more.pop("minimum_senders", 10),
        **more,
    )


def _after(algorithm, ids=IDS, **more):
    state, info = algorithm.apply(algorithm.init(jax.random.key(0)), ids, ROOT, **more)
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, algorithm.parameters(state)))
    return np.concatenate([np.ravel(leaf) for leaf in leaves]), info


@drawn_once
def _reference():
    return _after(_algorithm())


@drawn_once
def _sampled_reference():
    return _after(_algorithm(MECHANISM))


def _by_hand(ids, mechanism=LIGHT, lying=False) -> np.ndarray:
    """The sum of these clients' clean counts and of all noise, client by client."""
    client, own = federated.local_sgd(0.5, batch_size=3)(models.logistic()), round_stream(ROOT, 0)
    start = models.logistic().init(jax.random.key(0), jnp.asarray(X[0, :1]))
    total, x = np.zeros(SIZE, np.int64), _population(lying).host.x
    privatize, work = jax.jit(mechanism.privatize), jax.jit(lambda e, s: run_client(client, start, (), (), e, s)[0])
    for i in ids:
        of_client = fold_in(own, int(i))
        update = work(Examples(jnp.asarray(x[i]), jnp.asarray(Y[i])), of_client)
        flat = update if isinstance(update, jax.Array) else trees.flatten(update)
        total += np.asarray(privatize(fold_in(of_client, "embed"), flat))
    for sender in range(NOISE):
        total += np.asarray(mechanism.noise(fold_in(own, "noise sender", sender, "noise"), SIZE))
    return total


@pytest.mark.as_shipped
@pytest.mark.parametrize("mechanism", [LIGHT, MECHANISM], ids=["light", "sampled"])
def test_the_sum_is_that_of_clean_counts_and_all_noise_bit_for_bit(mechanism) -> None:
    model, info = _reference() if mechanism is LIGHT else _sampled_reference()
    wanted = _by_hand(IDS, mechanism)
    mean = np.asarray(MECHANISM.estimate(jnp.asarray(wanted, jnp.int32), SENDERS)) / np.float32(SENDERS)
    start = np.zeros(SIZE, np.float32)
    np.testing.assert_allclose(model - start, mean, rtol=1e-6, atol=1e-7)
    assert info.refused == () and info.senders == SENDERS and "NORMS TESTED BY THE SIMULATION" in info.screening
    steps = np.rint((model - start) * SENDERS * 60.0)  # back to whole counts
    np.testing.assert_array_equal(steps, wanted)


@pytest.mark.as_shipped
@pytest.mark.parametrize(
    "mechanism", [LIGHT, pytest.param(MECHANISM, marks=pytest.mark.long)], ids=["light", "sampled"]
)
def test_encryption_of_n_clients_and_l_noise_senders_changes_no_bit(mechanism) -> None:
    model, info = _after(_algorithm(mechanism, aggregator=_norm_aggregator(mechanism=mechanism), encryption="on"))
    clear = _reference() if mechanism is LIGHT else _sampled_reference()
    np.testing.assert_array_equal(model, clear[0])
    assert info.exact and info.senders == SENDERS


@pytest.mark.as_shipped
def test_rows_of_each_sender_open_to_the_same_bits() -> None:
    layout = federated.Chunking(chunk=5, transforms="each")
    model, _ = _after(_algorithm(aggregator=_norm_aggregator(), layout=layout))
    np.testing.assert_array_equal(model, _reference()[0])


@pytest.mark.as_shipped
def test_chunks_fused_rounds_and_devices_give_the_same_bits() -> None:
    model, _ = _after(_algorithm(layout=federated.Chunking(chunk=5)))
    np.testing.assert_array_equal(model, _reference()[0])
    algorithm = _algorithm()
    state, info = algorithm.apply_rounds(algorithm.init(jax.random.key(0)), IDS[None], ROOT, "unaccounted")
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, algorithm.parameters(state)))
    np.testing.assert_array_equal(np.concatenate([np.ravel(leaf) for leaf in leaves]), _reference()[0])
    assert info.refused.tolist() == [0]
    if len(jax.devices()) > 1:
        model, _ = _after(_algorithm(mesh=federated.client_mesh(2)))
        np.testing.assert_array_equal(model, _reference()[0])


def test_who_is_too_long_is_left_out_named_and_not_divided_by() -> None:
    honest = [i for i in IDS if i not in LIARS]
    wanted = _by_hand(honest, _lying(), lying=True)
    model, info = _after(_algorithm(_lying(), lying=True, aggregator=_norm_aggregator(10, _lying())))
    assert sorted(info.refused) == sorted(LIARS) and info.senders == SENDERS - 2
    np.testing.assert_array_equal(np.rint(model * (SENDERS - 2) * 60.0), wanted)
    algorithm = _algorithm(_lying(), lying=True)
    _, fused = algorithm.apply_rounds(algorithm.init(jax.random.key(0)), IDS[None], ROOT, "unaccounted")
    assert fused.refused.tolist() == [2]


def test_below_the_minimum_nothing_is_opened_or_charged() -> None:
    algorithm = _algorithm(_lying(), lying=True, minimum_senders=11)
    with pytest.raises(RoundRefused, match="10 of 12"):
        _after(algorithm)
    assert algorithm.ledger.epsilon() == 0
    with pytest.raises(RoundRefused, match="10 were left"):
        algorithm.apply_rounds(algorithm.init(jax.random.key(0)), IDS[None], ROOT, "unaccounted")


def test_a_round_is_charged_for_the_honest_noise_and_not_for_clients() -> None:
    algorithm = _algorithm(honest_senders=1)
    orders = np.arange(2.0, 20.0)
    wanted = MECHANISM.rdp(orders, 2, SIZE)
    np.testing.assert_array_equal(algorithm.rdp(orders), wanted)
    np.testing.assert_array_equal(_algorithm(honest_senders=9).rdp(orders), wanted)
    assert algorithm.price.honest_senders == 2 and algorithm.price.senders == SENDERS
    assert algorithm.price.distance == pytest.approx(NOISE * SIZE * 2.0**-60 + accounting.SCREENING, rel=1e-9)
    _after(algorithm)
    row = algorithm.ledger.rows()[-1]
    assert (row.mechanism, row.honest_senders, row.senders) == ("committee_noise", 2, SENDERS)
    orders = accounting.DEFAULT_ORDERS
    least = accounting.epsilon(orders, MECHANISM.rdp(orders, 2, SIZE), 1e-5)
    assert least <= algorithm.ledger.epsilon() < 1.01 * least, "and a little for what screening adds to delta"


EMBEDDING = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05)
OTHER = functools.partial(aggregator, count_bound=2**20, senders=SENDERS, minimum_senders=10, size=SIZE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: _algorithm(screening="light"), "nobody adds the noise"),
        (lambda: _algorithm(EMBEDDING, screening="norm"), "sends none"),
        (lambda: _algorithm(screening="strict"), "there are"),
        (lambda: _algorithm(sampling_rate=0.5), "senders must be 14"),
        (lambda: _algorithm(aggregator=OTHER("plain"), encryption="on"), "no noise senders"),
        (lambda: _algorithm(aggregator=OTHER("round", authenticate=False)), "light rounds"),
    ],
)
def test_what_would_open_clean_counts_or_does_not_fit_is_refused(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        algorithm = make()
        algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
    assert _algorithm(screening="norm").price is not None, "and what fits is not"


def test_a_client_in_two_blocks_moves_no_sum_twice():
    algorithm = _algorithm(minimum_senders=6)
    block = federated.make_cohort(_population(), IDS[:6])
    with pytest.raises(ValueError, match="stands twice"):
        algorithm.apply(algorithm.init(jax.random.key(0)), iter([block, block]), ROOT)
    assert not algorithm.ledger.rows()


def test_screening_is_charged_and_a_budget_without_a_reserve_refuses_it():
    """3e-11 a round, times 1 + e^epsilon, comes on top of no delta. Twin: with a reserve the row has it."""
    from fedjax_poisson import accounting

    facts = {"delta": 1e-5, "unit": "client", "adjacency": "zero_out", "epsilon": 100.0}
    bare = accounting.memory_ledger(**facts)
    algorithm = _algorithm(ledger=bare)
    with pytest.raises((ValueError, accounting.BudgetExhausted)):
        algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
    assert not bare.rows()
    with pytest.raises((ValueError, accounting.BudgetExhausted)):
        bare.gate(algorithm, "train 1")()
    reserved = accounting.memory_ledger(**{**facts, "epsilon": 3.0, "reserve": 1e-6})
    cheap = committee_noise(
        clip_norm=1.0, scale=30.0, noise_variance=1e6, noise_senders=NOISE, honest_noise=2, coordinate_bound=0.8
    )
    algorithm = _algorithm(cheap, ledger=reserved)
    algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
    (row,) = reserved.rows()
    assert row.honest_senders == 2 and row.distance > accounting.SCREENING


def test_more_noise_senders_may_be_honest_than_there_are_clients():
    """The row's h counts noise senders. Twin: without saying how many there are it is held against the clients."""
    many = committee_noise(
        clip_norm=1.0, scale=60.0, noise_variance=1e5, noise_senders=40, honest_noise=30, coordinate_bound=0.8
    )
    algorithm = _algorithm(many)
    algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
    (row,) = algorithm.ledger.rows()
    assert (row.honest_senders, row.senders) == (30, SENDERS)
    with pytest.raises(ValueError, match=r"honest_senders 30 of 12 senders"):
        algorithm.ledger.spend("train", "again", row.mechanism, {}, row.charge, 30, SENDERS)


def test_a_round_that_ends_after_proofs_were_judged_is_charged_for_what_they_showed():
    """No noise was spent, and who passed is known: distance without a curve. Twin: in light rounds absence shows nothing of the data."""
    algorithm = _algorithm(_lying(), lying=True, minimum_senders=11)
    with pytest.raises(RoundRefused, match="no release was charged"):
        algorithm.apply(algorithm.init(jax.random.key(0)), IDS, ROOT)
    (row,) = algorithm.ledger.rows()
    assert (row.purpose, row.honest_senders) == ("screening", 2)
    assert row.distance == pytest.approx(accounting.SCREENING) and row.distance >= accounting.SCREENING
    assert not np.asarray(row.charge).any() and algorithm.ledger.verify() == 1
    light = federated.fedavg(
        models.logistic(), client=federated.local_sgd(0.5), population=_population(), senders=SENDERS, minimum_senders=11,
        server_optimizer=optax.sgd(1.0), mechanism=poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05),
    )  # fmt: skip
    with pytest.raises(RoundRefused, match="no release was charged"):
        light.apply(light.init(jax.random.key(0)), IDS[:10], ROOT)
    assert not light.ledger.rows()
