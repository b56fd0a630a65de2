"""Shares: t of them give the secret and every other share, sums of them the sum, and fewer something else."""

from __future__ import annotations

import functools
import itertools

import jax
import numpy as np

from fedjax_poisson.aggregation import host_shares, sharing
from fedjax_poisson.aggregation.parameters import choose

PARAMS = choose(40, 200, 6, 6, 4, corrupt=1)
MODULI, DIGEST = PARAMS.ring.moduli, bytes(range(32))
SHAPE = (PARAMS.ring.limbs, PARAMS.ring.degree)
Q = np.asarray(MODULI, np.uint64)[:, None]


def random_secret(rng: np.random.Generator) -> np.ndarray:
    return (rng.integers(0, 1 << 62, SHAPE) % Q.astype(np.int64)).astype(np.uint32)


def dealt(rng: np.random.Generator, secret: np.ndarray) -> np.ndarray:
    """The six members' shares uint32 [6, L, N] as they come to them: expanded, and corrected from member t on."""
    kappas = rng.integers(0, 1 << 32, (6, 8), np.uint32)
    sent = [np.zeros(SHAPE, np.uint32)] * 3 + list(host_shares.dealt(PARAMS, DIGEST, secret, kappas))
    return np.stack([host_shares.share_of(PARAMS, kappa, one) for kappa, one in zip(kappas, sent, strict=True)])


def combined(shares: np.ndarray, numbers: tuple[int, ...], at: int = 0) -> np.ndarray:
    return host_shares.combine(PARAMS, DIGEST, numbers, shares[[k - 1 for k in numbers]], at=at)


def test_any_t_shares_give_the_secret_and_every_other_share():
    rng = np.random.default_rng(0)
    secret = random_secret(rng)
    shares = dealt(rng, secret)
    for numbers in itertools.combinations(range(1, 7), 4):
        np.testing.assert_array_equal(combined(shares, numbers), secret)
        for other in {1, 6} - set(numbers):
            np.testing.assert_array_equal(combined(shares, numbers, at=other), shares[other - 1])
    np.testing.assert_array_equal(combined(shares, (6, 2, 5, 1)), secret)  # in any order


def test_fewer_shares_or_a_wrong_one_give_something_else():
    rng = np.random.default_rng(1)
    secret = random_secret(rng)
    shares = dealt(rng, secret)
    assert (combined(shares, (1, 2, 3)) != secret).mean() > 0.99
    wrong = shares.copy()
    wrong[3, 0, 5] ^= 1
    off = combined(wrong, (1, 2, 3, 4)) != secret
    assert off.sum() == 1 and off[0, 5]


def test_sums_of_shares_are_shares_of_the_sum():
    rng = np.random.default_rng(2)
    secrets = [random_secret(rng) for _ in range(3)]
    total = sum(dealt(rng, one).astype(np.uint64) for one in secrets) % Q
    expected = sum(one.astype(np.uint64) for one in secrets) % Q
    np.testing.assert_array_equal(combined(total.astype(np.uint32), (1, 3, 4, 6)), expected)


def test_weights_interpolate_polynomials_of_lower_degree_and_not_of_their_own():
    rng, moduli, xs = np.random.default_rng(3), (97, 193), ((3, 5), (40, 6), (96, 192), (1, 100))

    def value(coefficients: np.ndarray, x: int, q: int) -> int:
        return sum(int(c) * x**i for i, c in enumerate(coefficients)) % q

    for degree, right in ((3, True), (4, False)):
        coefficients = rng.integers(1, 90, degree + 1)
        weights = sharing.lagrange(xs, (7, 8), moduli)
        for limb, q in enumerate(moduli):
            found = sum(int(w[limb]) * value(coefficients, x[limb], q) for w, x in zip(weights, xs, strict=True)) % q
            assert (found == value(coefficients, (7, 8)[limb], q)) == right


def test_points_are_distinct_and_of_the_round():
    found = sharing.points(DIGEST, 20, (97, *MODULI))
    for limb in range(len(found[0])):
        places = [row[limb] for row in found]
        assert len(set(places)) == 20 and min(places) >= 1
    assert max(row[0] for row in found) < 97
    assert sharing.points(bytes(32), 20, (97, *MODULI)) != found


def test_parties_deal_what_programs_deal():
    """Shares of the host, which real parties make, and of programs that simulate clients: the same residues, in a ring of two primes too."""
    for params in (PARAMS, choose(3000, 1 << 30, 6, 6, 4, corrupt=1)):
        moduli, rng = params.ring.moduli, np.random.default_rng(4)
        secret = np.stack([rng.integers(0, q, params.ring.degree) for q in moduli]).astype(np.uint32)
        kappas = rng.integers(0, 1 << 32, (6, 8), np.uint32)
        expanded = jax.vmap(functools.partial(sharing.expand_share, params))(kappas)
        weights = sharing.dealing_weights(DIGEST, 6, 4, moduli)
        wanted = np.asarray(sharing.corrections(params, weights, secret, expanded))
        np.testing.assert_array_equal(host_shares.dealt(params, DIGEST, secret, kappas), wanted)
        np.testing.assert_array_equal(host_shares.expand(params, kappas[2]), np.asarray(expanded)[2])
        assert (
            host_shares.expand(params, kappas[3]) != np.asarray(expanded)[2]
        ).mean() > 0.99  # the twin: another's bytes
    assert params.ring.limbs == 2
