"""The norm proof by itself, on one prime and on several: what holds, what does not, and that what is opened says nothing about the counts."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.aggregation import proof, prover, row_sums, rows, sharing, sketch
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.parameters import RoundParameters, choose
from fedjax_poisson.aggregation.refusals import LongVector
from fedjax_poisson.randomness import fold_in, stream
from tests.helpers.entropy import drawn_once

DIGEST, SEED, CLIENT, NAME = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32, bytes([4]) * 32
ONE, SEVERAL, WIDE = 3_000, 100_000, 30_000
"""D of rounds with one prime, with three below 2^30, and with three above, where four would be shorter."""


@functools.cache
def parameters(size: int) -> RoundParameters:
    delta = 2 * math.sqrt(size)
    return choose(
        size,
        512_000 if size == WIDE else 16_000,
        100,
        5,
        4,
        corrupt=1,
        count_rms=2_500.0,
        malicious=1,
        norm=NormScreening(int(delta**2), 5, 2),
    )


@drawn_once
def honest(size: int, length: float = 0.9):
    """Parameters, counts of this part of the bound, the sketch, the digits, rows and the secret of one client."""
    params = parameters(size)
    x = np.random.default_rng(size).normal(size=size)
    x = np.rint(x / np.linalg.norm(x) * 2 * math.sqrt(size) * length).astype(np.int32)
    drawn = sketch.sketch_of(params, SEED)
    secrets = rows.draw(params, stream())
    made = rows.encrypt(params, rows.common_of(params, DIGEST), jnp.asarray(x), secrets)
    return params, x, drawn, sketch.digits_of(params, drawn, x), np.asarray(made), np.asarray(secrets.secret)


@drawn_once
def projected(size: int) -> np.ndarray:
    params, _, drawn, _, _, secret = honest(size)
    weights = np.asarray(sketch.secret_weights(params, drawn, DIGEST)).astype(object)
    q = np.asarray(params.ring.moduli, object)
    return ((weights * secret.astype(object)).sum(axis=-1) % q).astype(np.uint32)


def opened(size: int, values: np.ndarray) -> np.ndarray:
    """What is opened of these values: the functions are linear, so the values stand for shares of degree 0."""
    params = parameters(size)
    challenge = proof.challenge_of(params, SEED, CLIENT, NAME)
    return proof.member_scalars(params, challenge, values, projected(size))


def verdict(size: int, values: np.ndarray, with_rows: bool = True) -> bool:
    params, _, drawn, _, made, _ = honest(size)
    shown = opened(size, values)
    if not with_rows:
        return proof.verdict(params, shown)
    sums = row_sums.row_sums(params, row_sums.row_weights(params, drawn), [made])[0]
    return proof.verdict(params, shown) and proof.of_rows(params, shown, sums, sketch.gram(drawn))


@pytest.mark.parametrize("size", [ONE, SEVERAL, WIDE])
def test_an_honest_proof_holds_whatever_its_randomness(size):
    params, _, _, digits, _, _ = honest(size)
    assert params.ring.limbs == (1 if size == ONE else 3) and (max(params.ring.moduli) > 1 << 30) is (size == WIDE)
    for _ in range(3):
        values = proof.proof_values(params, digits, stream())
        assert values.shape == (params.ring.limbs, params.proof.length)
        assert verdict(size, values)


@pytest.mark.parametrize("size", [ONE, SEVERAL, WIDE])
def test_values_that_are_changed_anywhere_do_not_hold(size):
    params, _, _, digits, _, _ = honest(size)
    shape, q = params.proof, np.asarray(params.ring.moduli, np.uint64)
    good = proof.proof_values(params, digits, stream())
    places = [0, shape.digits * shape.digit_bits, shape.plain_bits - 1, shape.bits]  # a digit, the slack, a blind
    places += [
        shape.parts[1],
        shape.parts[2] - 1,
        shape.parts[2],
        shape.length - 1,
    ]  # squares of a digit and a blind, S between the roots
    for place in places:
        for limb in range(params.ring.limbs):
            bad = good.copy()
            bad[limb, place] = (bad[limb, place] + np.uint64(1)) % q[limb]
            assert not verdict(size, bad, with_rows=False), (place, limb)


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_consistent_lies_are_found_by_the_check_that_is_there_for_them(size):
    """A bit of two, S made as for any A: 1. A longer vector with the slack of a shorter one: 2. Other digits: 4."""
    params, _, _, digits, _, _ = honest(size)
    shape = params.proof
    good = proof.proof_values(params, digits, stream())
    bits, blinds = good[:, : shape.bits].copy(), good[:, shape.bits : shape.bits + shape.points]
    two = bits.copy()
    two[:, 2] = 2
    assert not verdict(size, proof.shared_values(params, two, blinds), with_rows=False)
    longer = bits.copy()
    top = shape.digit_bits - 2  # one large digit more
    longer[:, top] = 1 - longer[:, top]
    assert not verdict(size, proof.shared_values(params, longer, blinds), with_rows=False)
    other = digits.copy()
    other.reshape(-1)[0] += 1 if other.reshape(-1)[0] < 0 else -1
    values = proof.proof_values(params, other, stream())
    assert verdict(size, values, with_rows=False) and not verdict(size, values)


def test_bits_that_differ_between_primes_are_found_by_the_weighings(monkeypatch):
    """In each field alone such a proof is right: slack is made to fit there. Twin: without check 3 it passes all but the rows."""
    params, _, _, digits, _, _ = honest(SEVERAL)
    shape = params.proof
    good = proof.proof_values(params, digits, stream())
    bits, blinds = good[:, : shape.bits].copy(), good[:, shape.bits : shape.bits + shape.points]
    other = digits.copy()
    other.reshape(-1)[0] += 1 if other.reshape(-1)[0] < 0 else -1
    another = proof.proof_values(params, other, stream())
    bits[1, : shape.plain_bits] = another[1, : shape.plain_bits]
    lie = proof.shared_values(params, bits, blinds)
    assert not verdict(SEVERAL, lie, with_rows=False)
    monkeypatch.setattr(type(shape), "window", property(lambda self: (-(10**60), 10**60)))
    assert verdict(SEVERAL, lie, with_rows=False)


def test_a_vector_that_is_too_long_has_no_proof():
    params, _, _, digits, _, _ = honest(ONE)
    reach = math.sqrt(params.proof.squared_bound / float((digits.astype(float) ** 2).sum()))
    proof.proof_values(params, np.trunc(digits * (0.999 * reach)).astype(np.int64), stream())
    with pytest.raises(LongVector):
        proof.proof_values(params, np.ceil(digits * (1.01 * reach)).astype(np.int64), stream())


@pytest.mark.parametrize("size", [ONE, SEVERAL, WIDE])
def test_shares_of_members_open_to_the_same(size):
    """Any t members' scalars lie on a polynomial whose value at 0 is what the values give."""
    params, _, _, digits, _, secret = honest(size)
    own = stream()
    values = proof.proof_values(params, digits, own)
    kappas = [bytes([k]) * 32 for k in range(5)]
    corrections = prover.shared(params, DIGEST, values, kappas)
    at_once = prover.proof_corrections(params, DIGEST, digits, own, kappas)
    assert (at_once == corrections).all()
    challenge = proof.challenge_of(params, SEED, CLIENT, NAME)
    moduli = params.ring.moduli
    q = np.asarray(moduli, np.uint64)
    drawn = honest(size)[2]
    weights = np.asarray(sketch.secret_weights(params, drawn, DIGEST)).astype(object)
    at = sharing.points(DIGEST, 5, moduli)
    rng = np.random.default_rng(0)
    tail = rng.integers(0, min(moduli), (3, params.ring.limbs, params.ring.degree)).astype(object)
    scalars = []
    for k in range(1, 6):
        share = prover.expanded_share(params, kappas[k - 1])
        if k >= 4:
            share = (share + corrections[k - 4]) % q[:, None]
        of_secret = secret.astype(object)[None] + sum(
            tail[i] * np.asarray([pow(at[k - 1][limb], i + 1, p) for limb, p in enumerate(moduli)], object)[:, None]
            for i in range(3)
        )
        shown = ((weights * of_secret[None]).sum(axis=-1) % q.astype(object)).astype(np.uint32)
        scalars.append(proof.member_scalars(params, challenge, share, shown))
    for chosen in ((1, 2, 3, 4), (2, 3, 4, 5)):
        lagrange = sharing.lagrange([at[k - 1] for k in chosen], (0,) * len(moduli), moduli).astype(object)
        total = sum(lagrange[i] * scalars[k - 1].astype(object) for i, k in enumerate(chosen)) % q.astype(object)
        assert (total.astype(np.uint32) == opened(size, values)).all()


def uniformity(samples: list[np.ndarray], moduli: tuple[int, ...]) -> float:
    """Kolmogorov's p-value of residues of the first field against the uniform law."""
    flat = np.concatenate([one[:, 0].astype(float) for one in samples]) / moduli[0]
    return float(stats.kstest(flat, "uniform").pvalue)


@pytest.mark.statistical
def test_what_is_opened_at_points_is_uniform_and_hides_the_counts():
    """p below 1e-6 by chance once in a million runs. Twin: without blinds the values depend on the bits alone and are the same every time."""
    params, _, _, digits, _, _ = honest(ONE)
    shape = params.proof
    first = [opened(ONE, proof.proof_values(params, digits, fold_in(stream(), i)))[: shape.points] for i in range(60)]
    assert uniformity(first, params.ring.moduli) > 1e-6
    good = proof.proof_values(params, digits, stream())
    bare = proof.shared_values(params, good[:, : shape.bits], np.zeros_like(good[:, : shape.points]))
    same = [opened(ONE, bare)[: shape.points] for _ in range(60)]
    assert uniformity(same, params.ring.moduli) < 1e-6


@pytest.mark.statistical
def test_weighings_are_hidden_by_their_masks():
    """The weighed integers lie uniformly in their window, whatever the bits. Twin: without masks they are a hundred thousand times smaller."""
    params, _, _, digits, _, _ = honest(SEVERAL)
    shape = params.proof
    end = 2 * shape.points + 1

    def weighed(values):
        part = opened(SEVERAL, values)[end : end + shape.tests].astype(np.uint64).T
        return [value / (1 << shape.mask_width) for value in proof.lifted(params, part)]

    found = [x for i in range(25) for x in weighed(proof.proof_values(params, digits, fold_in(stream(), i)))]
    assert stats.kstest(found, "uniform").pvalue > 1e-6
    good = proof.proof_values(params, digits, stream())
    bits = good[:, : shape.bits].copy()
    bits[:, shape.plain_bits :] = 0
    without = weighed(proof.shared_values(params, bits, good[:, shape.bits : shape.bits + shape.points]))
    assert max(abs(x) for x in without) < 1e-5


def test_challenges_follow_from_all_that_they_should():
    params = parameters(SEVERAL)
    shape = params.proof
    first = proof.challenge_of(params, SEED, CLIENT, NAME)
    again = proof.challenge_of(params, SEED, CLIENT, NAME)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    for change in ((NAME, CLIENT, NAME), (SEED, NAME, NAME), (SEED, CLIENT, SEED)):
        other = proof.challenge_of(params, *change)
        assert all((a != b).mean() > 0.9 for a, b in zip(first, other, strict=True))
    for limb, q in enumerate(params.ring.moduli):
        assert all(pow(int(x), 2 * shape.size, q) != 1 for x in first.points[limb])
    half = 1 << (shape.weight_bits - 1)
    assert first.weighings.min() >= -half and first.weighings.max() < half
    assert abs(first.weighings.mean()) < 6 * half / math.sqrt(3 * first.weighings.size)
