"""The norm test of a simulation: exactly T, honest clients never refused, dishonest ones as often as is proved, and rounds that leave them out."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.aggregation.norm_bound import dense_passes, spike_passes, squared_bound
from fedjax_poisson.federated.norm_check import NormCheck, bound_of, draw_functionals, norm_check, passes
from fedjax_poisson.mechanisms import committee_noise
from fedjax_poisson.mechanisms.clipping import limit_limbs
from fedjax_poisson.randomness import bits, fold_in
from tests.federated.helpers import seeded

ROOT = seeded(23)


@functools.cache
def _programs(check: NormCheck):
    """The two functions of a check, compiled once."""
    return tuple(jax.jit(functools.partial(each, check)) for each in (draw_functionals, passes))


def _draw(check: NormCheck, number: int) -> np.ndarray:
    return np.asarray(_programs(check)[0](fold_in(ROOT, number)))


def _exact(check: NormCheck, functionals: np.ndarray, counts: np.ndarray) -> list[int]:
    """T of each client by Python integers."""
    weights = functionals.reshape(-1, 16)[: check.parts * check.width].astype(np.int64)
    found = []
    for row in counts.astype(object):
        padded = np.concatenate([row, np.zeros(check.blocks * check.length - len(row), object)])
        total = 0
        for block in padded.reshape(check.blocks, check.length):
            whole = np.concatenate([block, np.zeros(check.parts * check.width - check.length, object)])
            total += sum(int(d) ** 2 for d in whole @ weights)
        found.append(total)
    return found


@pytest.mark.parametrize("check", [NormCheck(5, 1, 50, 1), NormCheck(5, 3, 20, 1), NormCheck(5, 2, 33, 4)])
def test_t_is_compared_exactly(check: NormCheck) -> None:
    """Each client passes at its own T and fails one below it, with counts that reach to the last exact one."""
    rng, size = np.random.default_rng(1), 50
    counts = rng.integers(-9000, 9000, (6, size)).astype(np.int32)
    counts[1] = 0
    counts[2] *= 0
    counts[2, 7] = 2**19 - 1  # its digits are itself
    functionals = _draw(check, 1)
    run = _programs(check)[1]
    for i, exact in enumerate(_exact(check, functionals, counts)):
        for bound, wanted in ((exact, True), (exact - 1, False), (exact + 1, True)):
            if bound >= 0:
                assert bool(run(functionals, limit_limbs(bound), jnp.asarray(counts))[i]) == wanted, (i, bound)


def test_counts_beyond_what_is_exact_are_refused_and_the_nearest_below_are_not() -> None:
    check, wide = NormCheck(5, 1, 40, 1), limit_limbs(2**41)
    functionals = np.zeros((1, 40, 16), np.float32)  # nobody is seen: only the reach decides
    counts = np.zeros((7, 40), np.int32)
    counts[0, :2] = [2**23, 2**23 - 1]
    counts[1, :2] = [2**23, -(2**23)]
    counts[2, 0] = 2**24 - 1
    counts[3, 0] = 2**24
    counts[4, 0] = -(2**31)
    counts[5] = 2**31 - 1
    counts[6] = [2**24 - 40] + [1] * 39
    found = np.asarray(passes(check, functionals, wide, jnp.asarray(counts)))
    assert found.tolist() == [True, False, True, False, False, False, True]


@pytest.mark.statistical
def test_weights_are_two_zeros_one_plus_and_one_minus() -> None:
    found = _draw(NormCheck(5, 1, 20_000, 1), 3)
    shares = np.asarray([(found == value).mean(axis=(0, 1)) for value in (0, 1, -1)])
    assert (found == np.rint(found)).all() and np.abs(found).max() == 1
    np.testing.assert_allclose(shares.T, np.tile([0.5, 0.25, 0.25], (16, 1)), atol=6 * 0.5 / math.sqrt(20_000))
    assert np.abs(np.corrcoef(found.reshape(-1, 16).T) - np.eye(16)).max() < 6 / math.sqrt(20_000)
    assert (_draw(NormCheck(5, 1, 20_000, 1), 4) != found).any(), "another round, another Z"


ROUND = {"clip_norm": 1.0, "noise_variance": 1e4, "noise_senders": 5, "honest_noise": 2}


def _mechanism(size: int):
    return committee_noise(scale=2 * math.sqrt(size), **ROUND)


@pytest.mark.statistical
@pytest.mark.parametrize(("clients", "size"), [(100, 600), (40, 5000)])
@pytest.mark.parametrize("shift", [2.0, 2.5, 3.0, 5.0, 10.0, 30.0])
@pytest.mark.parametrize("kind", ["dense", "block", "spike"])
def test_long_vectors_pass_as_often_as_is_said(clients: int, size: int, shift: float, kind: str) -> None:
    """50 drawings of Z for every client's own vector. A binomial test at 1e-6; clients of a drawing share Z, their own vectors make T nearly independent.

    The twin: with 4 functionals for 16, at the same bound in units of its mean, the chance is another one where it can be measured: away from one half, where
    both pass as often.
    """
    mechanism = _mechanism(size)
    squared = mechanism.noise_senders.squared_norm(size)
    check, bound = norm_check(mechanism, size, None), bound_of(mechanism, size, None)
    ratio, rng = bound / squared, np.random.default_rng(6)
    vectors = rng.normal(size=(clients, size)) if kind == "dense" else np.zeros((clients, size))
    if kind == "block":
        vectors[:, size // 4 : size // 4 + size // 8] = rng.normal(size=(clients, size // 8))
    if kind == "spike":
        vectors[np.arange(clients), rng.choice(size, clients, replace=False)] = 1.0
    counts = np.rint(shift * math.sqrt(squared) * vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.int32)
    run, trials = _programs(check)[1], 50
    hits = blind = 0
    for number in range(trials):
        functionals = _draw(check, number)
        hits += int(np.asarray(run(functionals, limit_limbs(bound), counts)).sum())
        few = functionals * (np.arange(16) < 4) * 2  # four functionals of twice the weight: the same mean of T
        blind += int(np.asarray(run(few, limit_limbs(bound), counts)).sum())
    chance = spike_passes(shift, ratio) if kind == "spike" else dense_passes(shift, ratio)
    assert stats.binomtest(hits, trials * clients, chance).pvalue > 1e-6, (
        f"{hits} of {trials * clients} at {chance:.3g}"
    )
    if kind != "spike" and 3 <= shift <= 5:
        assert stats.binomtest(blind, trials * clients, chance).pvalue < 1e-6, "the twin"


def _refused(clients: int, size: int, chunk: int, factor: float) -> int:
    """Honest clients of full norm, dense, that are refused; each with a Z of its own, so that they are independent."""
    mechanism = _mechanism(size)
    check, bound = norm_check(mechanism, size, None), limit_limbs(bound_of(mechanism, size, None))
    squared = mechanism.noise_senders.squared_norm(size)
    base = np.full(size, math.isqrt(squared // size))
    base[: (squared - int((base**2).sum())) // int(2 * base[0] + 1)] += 1  # as near to the full norm as integers come
    assert 0.98 * squared < (base**2).sum() <= squared

    @jax.jit
    def some(stream):
        def one(number):
            own = fold_in(stream, number)
            signs = (bits(fold_in(own, "signs"), (1, size)) & jnp.uint32(1)).astype(jnp.int32)
            counts = jnp.rint(factor * base).astype(jnp.int32)[None] * (2 * signs - 1)
            return passes(check, draw_functionals(check, own), bound, counts)[0]

        return jnp.sum(~jax.vmap(one)(jnp.arange(chunk, dtype=jnp.uint32)))

    return sum(int(some(fold_in(ROOT, "honest", i))) for i in range(-(-clients // chunk)))


@pytest.mark.statistical
def test_of_1e5_honest_clients_at_full_norm_none_is_refused_and_of_longer_ones_many_are() -> None:
    assert _refused(100_000, 64, 5000, 1.0) == 0
    assert _refused(5000, 64, 5000, 2.5) > 2000, "the twin: a check that refuses nobody"


@pytest.mark.long
@pytest.mark.statistical
def test_of_1e6_honest_clients_at_full_norm_none_is_refused() -> None:
    assert _refused(1_000_000, 64, 5000, 1.0) == 0


def test_the_bound_of_a_round_without_a_committee_is_that_of_one_member() -> None:
    mechanism = _mechanism(600)
    squared = mechanism.noise_senders.squared_norm(600)
    assert bound_of(mechanism, 600, None) == squared_bound(squared, 1, 1, 0)
    assert norm_check(mechanism, 600, None) == NormCheck(5, 1, 600, 1)


def test_long_blocks_are_added_up_in_parts_that_are_exact() -> None:
    mechanism = committee_noise(scale=2.0**15, **ROUND)
    found = norm_check(mechanism, 3_000_000, None)
    squared = mechanism.noise_senders.squared_norm(3_000_000)
    assert found.parts == 16 and math.sqrt(found.width * squared) < 2**24 <= math.sqrt(2 * found.width * squared)
