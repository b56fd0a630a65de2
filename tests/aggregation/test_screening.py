"""Screening by its law: honest secrets pass, their statistic is chi-square with twelve degrees, and large secrets pass as rarely as is said."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.aggregation import rows, screening
from fedjax_poisson.aggregation.parameters import RoundParameters, choose
from fedjax_poisson.randomness import fold_in, stream
from tests.helpers.entropy import drawn_once

pytestmark = pytest.mark.statistical
HONEST = 2000

LIMIT = 12 + 2 * math.sqrt(12 * 12 * math.log(10)) + 2 * 12 * math.log(10)
RINGS = {"one prime": (40, 200), "two primes": (40_000, 5000)}


def params_of(ring: str) -> RoundParameters:
    size, bound = RINGS[ring]
    return choose(size, bound, 10, 5, 4)


@functools.cache
def signs_of(ring: str, seed: int) -> np.ndarray:
    return screening.functionals(params_of(ring), seed.to_bytes(8, "little")).signs


def values_of(params: RoundParameters, opened: np.ndarray) -> np.ndarray:
    """uint64 [clients, 15, L]: integer values of the functionals as the residues that members' scalars interpolate to."""
    residues = np.stack([np.mod(opened, q) for q in params.ring.moduli], axis=-1).astype(np.uint64)
    return np.pad(residues, [(0, 0), (0, screening.UNIFORM), (0, 0)])


def statistic(signs: np.ndarray, opened: np.ndarray, variance: float = 21.0) -> np.ndarray:
    """Squared length of the part of each secret that lies in the span of the functionals, over the variance: by an orthonormal basis."""
    r = np.linalg.qr(signs.T.astype(np.float64), mode="r")
    return (np.linalg.solve(r.T, opened.T.astype(np.float64)) ** 2).sum(axis=0) / variance


def numpy_secrets(degree: int, pairs: int = 42, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.binomial(2 * pairs, 0.5, (HONEST, degree)) - pairs


@drawn_once
def drawn_secrets(ring: str) -> np.ndarray:
    """Secrets as clients draw them."""
    params, root = params_of(ring), stream()
    many = jax.jit(lambda root, i: jax.lax.map(lambda k: rows.draw(params, fold_in(root, k)).secret, i, batch_size=50))
    return np.asarray(many(root, jnp.arange(HONEST, dtype=jnp.uint32))).astype(np.int64)


@pytest.mark.parametrize("ring", list(RINGS))
def test_two_thousand_honest_clients_pass(ring):
    params, signs = params_of(ring), signs_of(ring, 1)
    for secrets in (drawn_secrets(ring), numpy_secrets(params.ring.degree)):
        opened = secrets @ signs.T
        assert screening.judge(params, signs, values_of(params, opened)).all()
        assert statistic(signs, opened).max() < 0.6 * LIMIT, "1e-12 of honest clients may fail: none comes near"


@pytest.mark.parametrize("ring", list(RINGS))
def test_the_statistic_of_honest_clients_is_chi_square_with_twelve_degrees(ring):
    signs = signs_of(ring, 2)
    opened = drawn_secrets(ring) @ signs.T
    found = statistic(signs, opened)
    assert stats.kstest(found, stats.chi2(12).cdf).pvalue > 1e-6
    for wrong in (10.5, 42.0, 21.0 * 44 / 42 * 1.05):
        assert stats.kstest(statistic(signs, opened, wrong), stats.chi2(12).cdf).pvalue < 1e-6
    assert stats.kstest(found, stats.chi2(11).cdf).pvalue < 1e-6, "not eleven degrees"
    narrow = numpy_secrets(signs.shape[1], pairs=21) @ signs.T
    assert stats.kstest(statistic(signs, narrow), stats.chi2(12).cdf).pvalue < 1e-100, "secrets of 21 pairs are seen"
    for level in (0.5, 0.1, 0.01):
        beyond = int((found > stats.chi2(12).isf(level)).sum())
        assert stats.binom.ppf(1e-7, HONEST, level) <= beyond <= stats.binom.isf(1e-7, HONEST, level)


@pytest.mark.parametrize("ring", list(RINGS))
def test_the_verdict_is_that_of_the_statistic(ring):
    """Secrets three times too large: about half of them are beyond the limit, and each verdict is that of a computation by another basis."""
    params, signs = params_of(ring), signs_of(ring, 3)
    opened = 3 * drawn_secrets(ring) @ signs.T
    found = statistic(signs, opened)
    within = (np.abs(opened) <= 8.3 * math.sqrt(21 * params.ring.degree / 2)).all(axis=1)
    expected = within & (found <= LIMIT)
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(screening.judge(params, signs, values_of(params, opened)), expected)
    assert (expected != (within & (found <= 0.97 * LIMIT))).any()


def test_one_large_functional_is_enough_to_fail():
    params, signs = params_of("one prime"), signs_of("one prime", 4)
    edge = math.floor(8.3 * math.sqrt(21 * params.ring.degree / 2))
    for value, good in ((edge, True), (edge + 1, False), (-edge, True), (-edge - 1, False)):
        opened = np.zeros((1, 12), np.int64)
        opened[0, 5] = value
        assert screening.judge(params, signs, values_of(params, opened))[0] == good


def test_a_value_must_be_the_same_in_all_fields():
    params, signs = params_of("two primes"), signs_of("two primes", 5)
    values = values_of(params, drawn_secrets("two primes") @ signs.T)
    assert screening.judge(params, signs, values).all()
    values[7, 3, 1] = (values[7, 3, 1] + 1) % params.ring.moduli[1]
    verdict = screening.judge(params, signs, values)
    assert not verdict[7] and verdict.sum() == HONEST - 1


# Two huge coefficients, at a rate that can be counted: four functionals instead of twelve


def passing(monkeypatch, huge: str, functionals: int, seeds: int) -> tuple[int, int]:
    """(passed, tried): honest secrets with two coefficients too large by `huge`; every coefficient and functional is used once."""
    params, ring = params_of("two primes"), "two primes"
    monkeypatch.setattr(screening, "FUNCTIONALS", functionals)
    q = params.ring.modulus
    shift = q // 2 if huge == "half" else 1_000_003 * 64
    passed = tried = 0
    for seed in range(seeds):
        monkeypatch.setattr(screening, "FUNCTIONALS", 12)
        all_signs = signs_of(ring, 100 + seed)
        monkeypatch.setattr(screening, "FUNCTIONALS", functionals)
        for first in range(0, 12, functionals):
            signs = all_signs[first : first + functionals]
            pairs = signs.reshape(functionals, -1, 2).sum(axis=2).T  # [N / 2, functionals]
            clients = drawn_secrets(ring)[: len(pairs)] @ signs.T
            opened = clients.astype(object) + pairs.astype(object) * shift
            residues = np.stack([(opened % p).astype(np.uint64) for p in params.ring.moduli], axis=-1)
            good = screening.judge(params, signs, residues)
            passed, tried = passed + int(good.sum()), tried + len(good)
    return passed, tried


@pytest.mark.parametrize(("huge", "chance"), [("large", 3 / 8), ("half", 1 / 2)])
def test_two_huge_coefficients_cancel_in_a_functional_as_often_as_is_said(monkeypatch, huge, chance):
    """Weights 0, 0, 1, -1 of two coefficients add up to 0 in 6 of 16 cases, to 0, 2 or -2 in 8: 2^-17 and 2^-12 in all twelve."""
    for functionals, seeds in ((1, 1), (4, 2)):
        passed, tried = passing(monkeypatch, huge, functionals, seeds)
        low, high = stats.binom.ppf([5e-7, 1 - 5e-7], tried, chance**functionals)
        assert low <= passed <= high
        other = 7 / 8 - chance
        assert (
            not stats.binom.ppf(5e-7, tried, other**functionals)
            <= passed
            <= stats.binom.isf(5e-7, tried, other**functionals)
        )
    assert chance**12 <= 2.0**-12


def test_weights_of_the_functionals():
    """Half of them 0, a quarter 1, a quarter -1, and no two functionals alike."""
    signs = np.concatenate([signs_of("two primes", seed) for seed in range(20)])
    for value, chance in ((0, 0.5), (1, 0.25), (-1, 0.25)):
        seen = int((signs == value).sum())
        assert stats.binom.ppf(1e-7, signs.size, chance) <= seen <= stats.binom.isf(1e-7, signs.size, chance)
    correlation = np.corrcoef(signs.astype(np.float64)) - np.eye(len(signs))
    assert np.abs(correlation).max() < 6.5 / math.sqrt(signs.shape[1])


def test_members_scalars_of_a_secret_are_its_functionals():
    """`project` on the secret itself, in NTT form, against integers."""
    params, ring = params_of("two primes"), "two primes"
    drawn = screening.functionals(params, b"seed")
    secrets = drawn_secrets(ring)[:3]
    forms = rows.small_form(params, jnp.asarray(secrets, jnp.int32))
    found = np.asarray(jax.vmap(lambda f: screening.project(params, jnp.asarray(drawn.signs), drawn.uniform, f))(forms))
    for limb, q in enumerate(params.ring.moduli):
        np.testing.assert_array_equal(found[:, :12, limb], np.mod(secrets @ drawn.signs.T, q))
        uniform = drawn.uniform[:, limb].astype(object) @ secrets.T.astype(object) % q
        np.testing.assert_array_equal(found[:, 12:, limb], uniform.T.astype(np.int64))
