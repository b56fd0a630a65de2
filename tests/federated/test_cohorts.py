"""Who is in a round: a cohort's parts have to agree, and what pads a chunk is nobody."""

import functools

import jax
import numpy as np
import optax
import pytest

from fedjax_poisson import federated, models
from fedjax_poisson.federated.population import Cohort, named_twice
from fedjax_poisson.randomness import stream
from tests.federated.small_population import CLIENTS, IDS, MECHANISM, SENDERS, X, Y

ROOT = stream()
KINDS = {"plain": (None, None), "messages": (MECHANISM, "messages"), "release": (MECHANISM, "release")}


def _built(x, kind, chunk=None):
    mechanism, fidelity = KINDS[kind]
    return federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.5),
        population=federated.make_population(x, Y),
        senders=SENDERS,
        minimum_senders=2,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        fidelity=fidelity,
        encryption="off",
        layout=federated.Chunking(chunk=chunk),
    )


@functools.cache
def _algorithm(kind):
    return _built(X, kind)


@functools.cache
def _good():
    return federated.make_cohort(federated.make_population(X, Y), IDS)


def _named(**parts):
    return lambda: _good()._replace(**parts)


def _chosen(ids=IDS, present=None, numbers=IDS):
    here = np.ones(len(ids), bool) if present is None else present
    return lambda: Cohort(np.asarray(ids, np.uint32), None, here, numbers)


WRONG = {
    "a vector, twice": (lambda: np.r_[IDS[:11], IDS[0]], "twice"),
    "a vector, unknown": (lambda: np.r_[IDS[:11], CLIENTS], f"names client {CLIENTS}"),
    "a vector, negative": (lambda: np.r_[IDS[:11], -1], "names client -1"),
    "a vector, beyond 32 bits": (lambda: np.r_[IDS[:11], 2**32 + 8], "names client 4294967304"),
    "a vector, too long": (lambda: np.zeros(CLIENTS + 1, int), "the population 14"),
    "one client's records twelve times": (_chosen(np.zeros(SENDERS)), "ids are not its numbers"),
    "an unknown client's": (_chosen(np.full(SENDERS, 99)), "ids are not its numbers"),
    "fewer numbers than are there": (_named(numbers=IDS[:5]), "padding is present"),
    "more numbers than are there": (_chosen(IDS[:10]), "12 numbers"),
    "numbers that are equal in 32 bits": (_named(numbers=np.r_[IDS[:11], IDS[0] + 2**32]), "names client 4294967309"),
    "numbers of another population": (_named(numbers=IDS + 1000), "names client 1013"),
    "numbers that are none": (_named(numbers=IDS + 0.5), "float64"),
    "no numbers": (_named(numbers=()), "client numbers"),
    "a block, twice": (lambda: iter([_good(), _good()]), "stands twice"),
    "a block, of others": (lambda: iter([_named(numbers=np.roll(IDS, 1))()]), "ids are not its numbers"),
    "a block without records": (lambda: iter([_chosen()()]), "without records"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", WRONG)
def test_a_cohort_that_is_not_what_it_says_is_refused_before_it_is_charged(case, kind):
    made, message = WRONG[case]
    algorithm = _algorithm(kind)
    state = algorithm.init(jax.random.key(0))
    with pytest.raises(ValueError, match=message):
        algorithm.apply(state, made(), ROOT, lambda *_: pytest.fail("charged"))


@pytest.mark.parametrize("kind", KINDS)
def test_cohorts_that_are_what_they_say_are_taken(kind):
    """The twin: the same parts, right; a chosen one, one with records, one with padding, and blocks."""
    algorithm = _algorithm(kind)
    state = algorithm.init(jax.random.key(0))
    padded = federated.make_cohort(federated.make_population(X, Y), IDS[:10], multiple=4)
    for cohort, senders in ((_chosen()(), 12), (_good(), 12), (padded, 10), (iter([padded]), 10)):
        _, info = algorithm.apply(state, cohort, stream(), "unaccounted")
        assert info.senders == senders and not info.absent


def test_names_that_stand_twice():
    assert not named_twice(IDS) and not named_twice(IDS[:1])
    assert named_twice(np.r_[IDS, IDS[3]])


def test_what_pads_a_chunk_is_a_client_of_it():
    """Client 0 has broken records and is not in the cohort: the round stays one program, with or without a last chunk that is padded."""
    x = X.copy()
    x[0] = np.nan
    algorithm = _built(x, "plain", chunk=4)
    state = algorithm.init(jax.random.key(0))
    for ids in (IDS[IDS != 0], IDS[IDS != 0][:8]):
        _, info = algorithm.apply(state, ids, ROOT, "unaccounted")
        assert set(info.seconds) == {"train and seal"} and np.isfinite(info.update_norm)
    _, info = algorithm.apply(state, IDS, ROOT, "unaccounted")
    assert info.not_finite == (0,) and "open" in info.seconds
