"""One draw for a sum: its law against that of messages and the closed one, who is counted, what is refused, what is said, and what compiles once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.aggregation import RoundRefused, aggregator, rows
from fedjax_poisson.federated.fidelity import release_numbers
from fedjax_poisson.federated.insiders import Attack, Insiders
from fedjax_poisson.mechanisms import (
    committee_noise,
    gaussian,
    poisson_embedding,
    single_channel,
    skellam,
    summed_skellam,
)
from fedjax_poisson.mechanisms.types import Mechanism, functions_of
from fedjax_poisson.randomness import fold_in
from fedjax_poisson.randomness.grid_sum import GridSum, add_rows, empty_sum
from fedjax_poisson.randomness.sum_tables import draw_sum
from tests.federated.helpers import seeded
from tests.federated.small_population import CLIENTS, EVERYBODY, IDS, MECHANISM, SENDERS, SIZE, X, Y
from tests.randomness.reference import difference_pmf
from tests.randomness.test_sum_tables import LEAST_P, TWIN_P, fit

DIVISIBLE = {
    "poisson_embedding": MECHANISM,
    "in portions": poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=48.0, modulation=0.05, portions=8),
    "single_channel": single_channel(clip_norm=1.0, coordinate_bound=0.5, dark_count=40.0, modulation=0.2),
    "skellam": skellam(clip_norm=1.0, scale=40.0, noise_variance=60.0),
    "summed_skellam": summed_skellam(
        clip_norm=1.0, coordinate_bound=0.5, total_bound=0.5, grid_step=2.0**-6, noise_variance=60.0
    ),
}
ROOT = seeded(11)
STILL = Attack("still", act=lambda sight: jnp.zeros(SIZE, jnp.int32))


@functools.cache
def _population(on_device: bool = True):
    return federated.make_population(X, Y, EVERYBODY, on_device=on_device)


@functools.cache
def _aggregator(backend: str, minimum: int = SENDERS):
    bound = MECHANISM.count_bound(SENDERS, SIZE)
    return aggregator(backend, count_bound=bound, senders=SENDERS, minimum_senders=minimum, size=SIZE)


CLIENT, SERVER, MODEL = federated.local_sgd(0.5, batch_size=3), optax.sgd(1.0), models.logistic()


def _algorithm(mechanism: Mechanism | None = MECHANISM, **more):
    more.setdefault("encryption", "off")
    given = {
        "client": CLIENT,
        "population": _population(),
        "senders": SENDERS,
        "server_optimizer": SERVER,
        "model": MODEL,
    }
    given = given | more
    return federated.fedavg(given.pop("model"), mechanism=mechanism, **given)


@functools.cache
def _encrypted():
    return _algorithm(aggregator=_aggregator("round", 10), encryption="on")


def _vector(algorithm, state):
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, algorithm.parameters(state)))
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _after(algorithm, cohorts=(IDS,), stream=ROOT, **more):
    state, info = algorithm.init(jax.random.key(0)), None
    for cohort in cohorts:
        state, info = algorithm.apply(state, cohort, stream, **more)
    return _vector(algorithm, state), info


def _grids(mechanism: Mechanism, senders: int, size: int, seed: int = 3) -> np.ndarray:
    """int32 `[n, D]`: clipped updates of very different lengths."""
    rng = np.random.default_rng(seed)
    updates = rng.normal(size=(senders, size)) * np.geomspace(1e-3, 0.2, senders)[:, None]
    return np.asarray(jax.jit(jax.vmap(mechanism.clip))(jnp.asarray(updates, jnp.float32)))


@functools.partial(jax.jit, static_argnums=3)
def _many_sums(functions, grids, stream, repeats, tables=None):
    """`[repeats, D]` sums of the same grids: every sender's counts, or drawn at once."""

    def once(number):
        own = fold_in(stream, number)
        streams = jax.vmap(lambda i: fold_in(own, i))(jnp.arange(grids.shape[0], dtype=jnp.uint32))
        if tables is None:
            return jnp.sum(jax.vmap(functions.embed)(streams, grids), axis=0, dtype=jnp.int32)
        sent = grids if functions.contribute is None else jax.vmap(functions.contribute)(streams, grids)
        return draw_sum(fold_in(own, "sum"), add_rows(empty_sum(grids.shape[1]), sent), tables)

    return jax.lax.map(once, jnp.arange(repeats, dtype=jnp.uint32))


@pytest.mark.statistical
@pytest.mark.parametrize("name", DIVISIBLE)
def test_sums_have_the_law_of_every_senders_counts(name) -> None:
    """Two samples of the sum of the same updates. The twin has one noise share fewer."""
    mechanism, size, repeats, senders = DIVISIBLE[name], 64, 400, 8
    grids = jnp.asarray(_grids(mechanism, senders, size))
    functions = functions_of(mechanism, size)
    messages = np.asarray(_many_sums(functions, grids, ROOT, repeats)).astype(np.float64)
    law = mechanism.sum_law
    release = np.asarray(_many_sums(functions, grids, fold_in(ROOT, 1), repeats, law.tables(senders, senders)))
    fewer = np.asarray(_many_sums(functions, grids, fold_in(ROOT, 2), repeats, law.tables(senders - 1, senders)))
    expected = messages.mean(axis=0)  # of each coordinate; both samples are compared around the same numbers
    spread = messages.std()

    def scores(sample: np.ndarray) -> np.ndarray:
        return ((sample - expected) / spread).ravel()

    assert stats.ks_2samp(scores(messages), scores(release)).pvalue > 1e-4
    ratio = np.var(release - release.mean(axis=0)) / np.var(messages - expected)
    error = np.sqrt(4.0 / (size * repeats))  # of a ratio of two nearly normal samples' variances
    assert abs(ratio - 1) < 5 * error
    assert np.var(fewer - fewer.mean(axis=0)) / np.var(messages - expected) < 1 - 5 * error
    moved = (release.mean(axis=0) - expected) / np.sqrt(2 * np.var(messages, axis=0) / repeats)
    assert np.abs(moved).max() < 5


def _opened(algorithm, cohort, stream, mechanism=MECHANISM) -> np.ndarray:
    """The counts of one round, read back from the server's step (mean = estimate / present, SGD of rate 1)."""
    start = algorithm.init(jax.random.key(0))
    state, info = algorithm.apply(start, cohort, stream, "unaccounted")
    moved = (_vector(algorithm, state) - _vector(algorithm, start)).astype(np.float64) * info.senders
    facts = dict(mechanism.facts.parameters)
    return np.rint(moved * 2 * facts["dark_count"] * facts["modulation"] / facts["coordinate_bound"]).astype(int)


@pytest.mark.statistical
@pytest.mark.filterwarnings("ignore::fedjax_poisson.federated.charging.UnaccountedWarning")
def test_a_whole_round_has_the_closed_law_for_those_who_are_there() -> None:
    """Clients without records send zero, so every coordinate is Skellam(n mu); with lost clients n is who is there, and all others are counted."""
    still = federated.make_population(X, Y, ~EVERYBODY)
    wide = models.Model(
        init=lambda key, x: {"w": jnp.zeros(4000)},
        apply=lambda params, x: jnp.sum(params["w"]) + x[..., 0],
        loss=lambda params, x, y: jnp.sum(params["w"]) * x[..., 0] + 0.0 * y,
    )
    algorithm = _algorithm(population=still, model=wide, minimum_senders=8)
    for present in (12, 9):
        lost = federated.make_cohort(still, IDS, present=np.arange(SENDERS) < present)
        samples = np.concatenate([_opened(algorithm, lost, fold_in(ROOT, present, i)) for i in range(5)])
        assert fit(samples, difference_pmf(50.0 * present, 50.0 * present)) > LEAST_P
        for wrong in (present - 1, 12 if present < 12 else 14):
            assert fit(samples, difference_pmf(50.0 * wrong, 50.0 * wrong)) < 1e-3


@pytest.mark.as_shipped
def test_encryption_chunks_blocks_devices_and_fused_rounds_change_no_bit() -> None:
    reference, info = _after(_algorithm())
    assert info.fidelity == "ONE DRAW: the sum has the law of 12 private messages; no message was made"
    got, info = _after(_algorithm(aggregator=_aggregator("round"), encryption="on"))
    np.testing.assert_array_equal(got, reference)
    assert info.exact and "12 private, encrypted messages" in info.fidelity and "law of the sum" in info.encryption
    assert info.bytes_up_per_sender == _aggregator("round").message_bytes(SIZE)
    host = _population(on_device=False)
    got, _ = _after(
        _algorithm(layout=federated.Chunking(chunk=2), population=host), [federated.cohort_blocks(host, IDS, 5)]
    )
    np.testing.assert_array_equal(got, reference)
    mesh = federated.client_mesh()
    on_all = _algorithm(aggregator=_aggregator("round"), encryption="on", population=host, mesh=mesh)
    got, info = _after(on_all, [federated.cohort_blocks(host, IDS, 8, multiple=8, mesh=mesh)])
    np.testing.assert_array_equal(got, reference)
    assert info.senders == SENDERS and info.fidelity.startswith("ONE DRAW")
    algorithm = _algorithm(aggregator=_aggregator("round"), encryption="on")
    state, fused = algorithm.apply_rounds(algorithm.init(jax.random.key(0)), IDS[None], ROOT)
    np.testing.assert_allclose(_vector(algorithm, state), reference, atol=1e-6)
    assert fused.fidelity.startswith("ONE DRAW") and fused.exact
    assert np.abs(_after(_algorithm(fidelity="messages"))[0] - reference).max() > 0, "the twin draws other numbers"


def test_who_does_not_train_is_counted_and_who_is_lost_is_not() -> None:
    algorithm, own = _encrypted(), fold_in(ROOT, "who")
    x, mask = X.copy(), EVERYBODY.copy()
    x[7, 2, 1], mask[11] = np.nan, False
    got, info = _after(algorithm, [federated.make_cohort(federated.make_population(x, Y, mask), IDS)], own)
    assert info.not_finite == (7,) and info.empty == (11,) and info.senders == SENDERS and np.isfinite(got).all()
    x[7], mask[7] = 0, False
    same, _ = _after(algorithm, [federated.make_cohort(federated.make_population(x, Y, mask), IDS)], own)
    np.testing.assert_array_equal(got, same)
    lost = federated.make_cohort(_population(), IDS, present=~np.isin(IDS, [0, 5]))
    own = fold_in(own, "lost")
    got, info = _after(algorithm, [lost], own)
    assert info.senders == 10 and sorted(info.absent) == [0, 5] and "law of 10 private" in info.fidelity
    kept, _ = _after(algorithm, [IDS[~np.isin(IDS, [0, 5])]], own)
    np.testing.assert_array_equal(got, kept)
    few = federated.make_cohort(_population(), IDS, present=np.arange(SENDERS) < 3)
    with pytest.raises(RoundRefused, match=r"3 of 12 clients sent, at least 10.*no release was charged"):
        _after(algorithm, [few], own)


def test_secret_sampling_counts_everybody() -> None:
    rarely = _algorithm(senders=CLIENTS, sampling_rate=2.0**-32)
    nobody, info = _after(rarely, [np.arange(CLIENTS)])
    assert info.senders == CLIENTS
    empty = federated.make_population(X, Y, ~EVERYBODY)
    noise, _ = _after(_algorithm(senders=CLIENTS), [federated.make_cohort(empty, np.arange(CLIENTS))])
    np.testing.assert_array_equal(nobody * 2.0**-32, noise)


@pytest.mark.statistical
def test_the_secret_of_a_sum_has_its_law_and_the_sum_opens() -> None:
    """Against the sum of n clients' own secrets; the twin is one client's, with which the sum opens as well: only its law betrays it."""
    device = _aggregator("round").device
    who = accounting.Participation(
        senders=SENDERS, minimum_senders=SENDERS, honest_senders=SENDERS - 1, sampling_rate=1.0, adjacency="zero_out"
    )
    numbers = release_numbers(MECHANISM, who, SENDERS, encrypts=True)
    draw = jax.jit(device.draw_sum)
    drawn = [draw(fold_in(ROOT, "secret", i), numbers.secrets) for i in range(8)]
    values = np.concatenate([np.ravel(leaf) for one in drawn for leaf in one])
    outcomes = np.arange(-504, 505)
    law = (-504, stats.binom.pmf(outcomes + 504, 1008, 0.5))
    assert fit(values, law) > LEAST_P
    one = np.concatenate([np.ravel(leaf) for i in range(8) for leaf in jax.jit(device.draw)(fold_in(ROOT, i))])
    assert fit(one, law) < TWIN_P
    counts = jnp.asarray(np.random.default_rng(6).integers(-300, 300, SIZE), jnp.int32)
    sealed = jax.jit(device.close)(device.key, counts, drawn[0], jnp.uint32(SENDERS), ROOT)
    opened, ok = jax.jit(device.open)(device.key, sealed)
    np.testing.assert_array_equal(opened, counts)
    assert bool(ok)
    # Secrets of far more senders than are in the sum fail the opening's check of their size.
    many = draw(ROOT, rows.sum_secret_tables(60 * SENDERS))
    assert not bool(
        jax.jit(device.open)(device.key, jax.jit(device.close)(device.key, counts, many, jnp.uint32(2), ROOT))[1]
    )


def test_a_sweep_and_changing_attendance_trace_once() -> None:
    traces = []

    def loss(params, x, y):
        traces.append(1)
        return models.logistic().loss(params, x, y)

    model = models.logistic()._replace(loss=loss)
    counts = []
    for dark in (50.0, 61.0, 75.0):
        algorithm = _algorithm(
            poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=dark, modulation=0.05), model=model, minimum_senders=9
        )  # fmt: skip
        state = algorithm.init(jax.random.key(0))
        for present in (12, 11, 9):
            lost = federated.make_cohort(_population(), IDS, present=np.arange(SENDERS) < present)
            state, _ = algorithm.apply(state, lost, ROOT)
            counts.append(len(traces))
    assert counts[0] > 0 and counts == [counts[0]] * 9


def test_what_is_charged_is_that_of_messages_and_the_row_says_what_was_made() -> None:
    found = {}
    for fidelity in ("release", "messages"):
        algorithm = _algorithm(fidelity=fidelity)
        _, info = _after(algorithm)
        (row,) = algorithm.ledger.rows()
        assert row.parameters["fidelity"] == fidelity
        found[fidelity] = (
            info.epsilon,
            row.honest_senders,
            row.senders,
            row.distance,
            algorithm.price.parameters["dark_count"],
        )
    assert found["release"] == found["messages"] and found["release"][0] > 0
    assert MECHANISM.sum_law.tables(SENDERS, SENDERS).distance * SIZE < found["release"][3]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mechanism": None}, "there is no mechanism"),
        ({"mechanism": gaussian(clip_norm=1.0, noise_std=1.0)}, "gaussian cannot: it states no law of a sum"),
        ({"mechanism": poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.5)}, "modulation of 0.5 is 1/2 or more"),
        ({"mechanism": MECHANISM._replace(embed=lambda stream, grid: grid)}, "was given another embed"),
        ({"mechanism": MECHANISM._replace(clip=lambda update: jnp.full(SIZE, 1 << 21, jnp.int32))}, "was given another clip"),
        ({"insiders": Insiders(who=[1], attack=STILL)}, "corrupt clients send messages of their own"),
        ({"aggregator": _aggregator("plain"), "encryption": "on"}, "encrypts every client's counts outside the program"),
        ({"aggregator": _aggregator("round"), "encryption": "on", "layout": federated.Chunking(transforms="each")}, "makes every client's rows"),
        ({"mechanism": committee_noise(clip_norm=1.0, scale=60.0, noise_variance=400.0, noise_senders=25, honest_noise=20)}, "a norm round tests"),
    ],
)  # fmt: skip
def test_where_messages_are_needed_they_are_made_and_one_draw_is_refused(more, message) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        _algorithm(**more, fidelity="release")
    assert "fidelity='messages'" in str(refused.value)
    _algorithm(**more)


def test_fixed_cohorts_make_messages() -> None:
    fixed = federated.fixed_cohorts(CLIENTS, 2)
    with pytest.raises(ValueError, match="more than once"):
        _algorithm(cohorts=fixed, senders=fixed.senders(1)[1], fidelity="release")
    algorithm = _algorithm(cohorts=fixed, senders=fixed.senders(1)[1])
    _, info = algorithm.apply(algorithm.init(jax.random.key(0)), None, ROOT)
    assert info.fidelity.startswith("MESSAGES")


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="there are release, messages"):
        _algorithm(fidelity="fast")


def test_a_sum_of_grids_is_wide() -> None:
    """Grids of 5,000 clients at their bound pass 32 bits: the draw's mean is that of the sum and not of its remainder."""
    law = MECHANISM.sum_law.tables(5000, 5000)
    total = GridSum(jnp.full(2000, 5000, jnp.int32), jnp.zeros(2000, jnp.int32))
    mean = 2 * 5000 * 50.0 * 0.05
    assert abs(float(np.mean(draw_sum(ROOT, total, law))) - mean) < 6 * np.sqrt(2 * 5000 * 50.0 / 2000)


def test_a_cohort_that_was_not_announced_is_refused_in_the_same_words() -> None:
    """More clients than the guarantee was stated for, in one cohort or in blocks: the round's own check speaks, not the tables of a law."""
    for fidelity in ("release", "messages"):
        for cohort in (np.arange(SENDERS + 2), federated.cohort_blocks(_population(), np.arange(SENDERS + 2), 7)):
            algorithm = _algorithm(fidelity=fidelity)
            with pytest.raises(ValueError, match="the cohort has 14 clients, the guarantee was stated for senders=12"):
                algorithm.apply(algorithm.init(jax.random.key(0)), cohort, ROOT)
            assert not algorithm.ledger.rows()


HEAVY = {
    "skellam": skellam(clip_norm=1.0, scale=100.0, noise_variance=1.9e8),
    "summed_skellam": summed_skellam(
        clip_norm=1.0, coordinate_bound=1.0, total_bound=1.0, grid_step=2.0**-6, noise_variance=1.9e8
    ),
    "poisson_embedding": poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=9e7, modulation=0.05),
}


EVERY = DIVISIBLE | {f"heavy {name}": mechanism for name, mechanism in HEAVY.items()}
SLOWEST = "heavy poisson_embedding"  # half of its time is the tables of fifty


@pytest.mark.parametrize(
    ("name", "sums"),
    [
        *((name, (1, 2, 10) if name == SLOWEST else (1, 2, 10, 50)) for name in EVERY),
        pytest.param(SLOWEST, (50,), marks=pytest.mark.long),
    ],
)
def test_one_draw_is_nearer_to_its_law_than_what_is_charged_for(name, sums) -> None:
    mechanism = EVERY[name]
    for senders in sums:
        assert mechanism.sum_law.tables(senders, senders).distance <= senders * mechanism.facts.sampler_distance


def test_a_draw_that_is_farther_than_what_is_charged_for_is_refused() -> None:
    """The twin: the same law with a smaller distance in the facts, which the price is made of."""
    facts = dataclasses.replace(MECHANISM.facts, sampler_distance=2.0**-70)
    for mechanism, charged in ((MECHANISM, True), (MECHANISM._replace(facts=facts), False)):
        participation = accounting.Participation(senders=SENDERS, minimum_senders=SENDERS, honest_senders=SENDERS - 1)
        if charged:
            release_numbers(mechanism, participation, SENDERS, encrypts=False)
        else:
            with pytest.raises(ValueError, match="fidelity='messages'"):
                release_numbers(mechanism, participation, SENDERS, encrypts=False)


def test_numbers_of_numpy_have_a_law_too() -> None:
    given = {"dark_count": 50.0, "modulation": 0.0625}
    laws = [
        make(clip_norm=1.0, coordinate_bound=0.5, **{name: kind(value) for name, value in given.items()}).sum_law
        for make in (poisson_embedding, single_channel)
        for kind in (float, np.float32)
    ]
    for exact, rounded in (laws[:2], laws[2:]):
        assert rounded.tables(3, 4).digits is exact.tables(3, 4).digits  # 50 and 1/16 are exact in both
    assert skellam(clip_norm=1.0, scale=4.0, noise_variance=np.float32(8.0)).sum_law.tables(2, 2).distance > 0
