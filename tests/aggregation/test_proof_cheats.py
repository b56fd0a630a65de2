"""Ways to cheat a norm proof, each with a twin in which the one check that stands against it is off, or is known beforehand, and the cheat works.

The proof is tried by itself, without the messages around it: `test_norm_attacks` has those.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest

from fedjax_poisson.aggregation import proof, prover, row_sums, screening, sharing, sketch
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.aggregation.refusals import Malformed, ResidueRange, RoundRefused
from fedjax_poisson.aggregation.root_values import roots_of_unity
from fedjax_poisson.aggregation.wire import prefixed, residue_bytes
from fedjax_poisson.randomness import fold_in, stream
from tests.aggregation.test_proof import CLIENT, DIGEST, NAME, ONE, SEED, SEVERAL, honest, parameters, projected

SQUARE, NORM, PRIMES, ROWS = (
    "A^2 = S at the points",
    "sum of squares",
    "one integer in all fields",
    "digits of the rows",
)
GUESSED = bytes([5]) * 32
"""The name of the proof that a cheat hopes its own will have."""


def passes(size: int, values: np.ndarray, *, off: tuple[str, ...] = (), name: bytes = NAME) -> bool:
    """Whether members and server accept these values under the challenge of a name; checks that are off see what they want to see."""
    params, _, drawn, _, made, _ = honest(size)
    shape = params.proof
    challenge = proof.challenge_of(params, SEED, CLIENT, name)
    shown = proof.member_scalars(params, challenge, values, projected(size)).astype(np.uint64)
    q = np.asarray(params.ring.moduli, np.uint64)
    r = shape.points
    if SQUARE in off:
        shown[r : 2 * r] = shown[:r] * shown[:r] % q
    if NORM in off:
        shown[2 * r] = 0
    if PRIMES in off:
        shown[2 * r + 1 : 2 * r + 1 + shape.tests] = 0
    if not proof.verdict(params, shown):
        return False
    if ROWS in off:
        return True
    sums = row_sums.row_sums(params, row_sums.row_weights(params, drawn), [made])[0]
    return proof.of_rows(params, shown, sums, sketch.gram(drawn))


def parts(size: int, digits: np.ndarray | None = None) -> tuple[RoundParameters, np.ndarray, np.ndarray]:
    """Parameters, and bits and blinds of an honest proof of these digits."""
    params, _, _, own, _, _ = honest(size)
    values = proof.proof_values(params, own if digits is None else digits, stream())
    bits, blinds, _, _ = np.split(values, params.proof.parts, axis=1)
    return params, bits, blinds


def bits_of(params: RoundParameters, digit: int) -> np.ndarray:
    width = params.proof.digit_bits
    return ((digit + (1 << (width - 1))) >> np.arange(width)) & 1


def longer(size: int) -> np.ndarray:
    """Digits whose squares exceed B^2."""
    params, _, _, digits, _, _ = honest(size)
    found = digits.copy()
    found.reshape(-1)[:] = np.sign(found.reshape(-1) + 0.5) * ((1 << (params.proof.digit_bits - 1)) - 1)
    assert int((found.astype(object) ** 2).sum()) > params.proof.squared_bound
    return found


def with_digits(params: RoundParameters, bits: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """Bits whose digits are these and whose slack is as it was."""
    out = bits.copy()
    own = np.concatenate([bits_of(params, int(d)) for d in digits.reshape(-1)])
    out[:, : own.size] = own
    return out


# 1. Bits that are none


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_a_bit_of_another_value_is_not_its_own_square(size):
    """2, -1 and 1/2, in one field or in all; S is that of A everywhere else. In one field alone a lie must still pass there."""
    params, bits, blinds = parts(size)
    for value in (2, -1, None):
        for limbs in ([0], list(range(params.ring.limbs))):
            bad = bits.copy()
            for limb in limbs:
                q = params.ring.moduli[limb]
                bad[limb, 4] = (pow(2, -1, q) if value is None else value) % q
            lie = proof.shared_values(params, bad, blinds)
            assert not passes(size, lie, off=(NORM, PRIMES, ROWS)), (value, limbs)
            assert passes(size, lie, off=(SQUARE, NORM, PRIMES, ROWS)), "the twin"


def test_a_large_digit_through_a_large_bit_makes_a_long_vector_short():
    """The top bit of the slack is set to what the sum of squares lacks: T is any number then. Twin: without 1 the sum holds."""
    params, bits, blinds = parts(ONE)
    (q,), shape = params.ring.moduli, params.proof
    digits = longer(ONE)
    bad = with_digits(params, bits, digits)
    bad[:, shape.digits * shape.digit_bits : shape.plain_bits] = 0
    missing = shape.squared_bound - sum(int(d) ** 2 for d in digits.reshape(-1))
    bad[0, shape.plain_bits - 1] = missing * pow(1 << (shape.slack_bits - 1), -1, q) % q
    lie = proof.shared_values(params, bad, blinds)
    assert not passes(ONE, lie, off=(ROWS,))
    assert passes(ONE, lie, off=(SQUARE, ROWS))


# 2. S that is fitted to the points


def vanishing(params: RoundParameters, challenge: proof.Challenge, bad: int) -> np.ndarray:
    """A polynomial of degree below 2P on the 2P-th roots that is 0 where members know S, but for one bit, at all digits and at a challenge's points."""
    shape = params.proof
    out = np.zeros((params.ring.limbs, 2 * shape.size), np.uint64)
    for limb, q in enumerate(params.ring.moduli):
        roots = roots_of_unity(params.ring.moduli, 2 * shape.size)[limb].astype(np.uint64)
        known = [
            k for k in range(shape.size) if k != bad and not shape.bits + shape.digits <= k < shape.size - shape.unused
        ]
        zeros = [roots[2 * k] for k in known] + [np.uint64(x) for x in challenge.points[limb]]
        assert len(zeros) < 2 * shape.size
        value = np.ones(2 * shape.size, np.uint64)
        for zero in zeros:
            value = value * ((roots + np.uint64(q) - zero) % np.uint64(q)) % np.uint64(q)
        out[limb] = value
    return out


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_squares_fitted_to_a_challenge_fail_every_other(size):
    """Whoever knows the points before the proof is fixed adds to S what is 0 at them. The challenge hashes the proof: twin, the guess comes true."""
    params, bits, blinds = parts(size)
    shape, bad = params.proof, 4
    wrong = bits.copy()
    wrong[:, bad] = 2
    values = proof.shared_values(params, wrong, blinds).astype(np.uint64)
    guessed = proof.challenge_of(params, SEED, CLIENT, GUESSED)
    error = vanishing(params, guessed, bad)
    for limb, q in enumerate(params.ring.moduli):
        scale = (2 - 4) * pow(int(error[limb, 2 * bad]), -1, q) % q  # S is 2 there, and A^2 is 4
        error[limb] = error[limb] * np.uint64(scale) % np.uint64(q)
        even, odd = error[limb, ::2], error[limb, 1::2]
        values[limb, shape.parts[1] : shape.parts[2]] += even[shape.bits : shape.bits + shape.squares]
        values[limb, shape.parts[2] :] += odd
        values[limb] %= np.uint64(q)
    lie = values.astype(np.uint32)
    off = (NORM, PRIMES, ROWS)
    assert passes(size, lie, off=off, name=GUESSED), "the twin"
    for other in (NAME, bytes([6]) * 32, bytes([7]) * 32):
        assert not passes(size, lie, off=off, name=other)


# 3. Values where A is zero


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_a_value_at_an_unused_place_is_no_part_of_a(size):
    """S between the roots is that of an A with a value more, which members do not know."""
    params, bits, blinds = parts(size)
    shape, moduli = params.proof, params.ring.moduli
    honest_values = proof.shared_values(params, bits, blinds)
    own = np.asarray(
        proof._on_roots(params, bits, np.concatenate([honest_digits(params, bits), blinds], axis=1))
    ).copy()
    assert shape.unused > 0
    own[:, -1] = 1
    odd = np.asarray(proof.between(own, moduli)).astype(np.uint64)
    lie = honest_values.copy()
    lie[:, shape.parts[2] :] = odd * odd % np.asarray(moduli, np.uint64)[:, None]
    assert not passes(size, lie, off=(ROWS,))
    assert passes(size, lie, off=(SQUARE, ROWS))


def honest_digits(params: RoundParameters, bits: np.ndarray) -> np.ndarray:
    return np.asarray(proof._digits(params, bits))


# 4. A false square


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_squares_of_digits_that_are_smaller_than_they_are(size):
    """The sum of squares sees what S says; that S is A^2 at the digits, only the points see."""
    params, bits, blinds = parts(size)
    shape = params.proof
    bad = with_digits(params, bits, longer(size))
    values = proof.shared_values(params, bad, blinds).astype(np.uint64)
    q = np.asarray(params.ring.moduli, np.uint64)
    surplus = sum(int(d) ** 2 for d in longer(size).reshape(-1)) + slack_of(params, bits) - shape.squared_bound
    for limb, p in enumerate(params.ring.moduli):
        values[limb, shape.parts[1]] = (int(values[limb, shape.parts[1]]) - surplus) % p
    lie = (values % q[:, None]).astype(np.uint32)
    assert not passes(size, lie, off=(ROWS,))
    assert passes(size, lie, off=(SQUARE, ROWS))
    assert not passes(size, lie, off=(SQUARE,)), "they are not the digits of the rows either"


def slack_of(params: RoundParameters, bits: np.ndarray) -> int:
    shape = params.proof
    return sum(int(b) << i for i, b in enumerate(bits[0, shape.digits * shape.digit_bits : shape.plain_bits]))


# 5. Overflow


def test_a_sum_of_squares_cannot_wrap_around_the_field(monkeypatch):
    """T + slack = B^2 + q would be 0 in 3. All that bits can say is below that. Twin: with two bits more a digit it can, and passes."""
    params = parameters(ONE)
    (q,), shape = params.ring.moduli, params.proof
    most = shape.digits * 4 ** (shape.digit_bits - 1) + (1 << shape.slack_bits) - 1
    assert most < shape.squared_bound + q
    wide = shape._replace(digit_bits=shape.digit_bits + 2)
    target, found = shape.squared_bound + q, []
    for _ in range(shape.digits):  # greedy: squares that add up to the target but for a slack
        largest = min((1 << (wide.digit_bits - 1)) - 1, int((target - sum(d * d for d in found)) ** 0.5))
        found.append(largest)
    slack = target - sum(d * d for d in found)
    assert 0 <= slack < 1 << shape.slack_bits and sum(d * d for d in found) > shape.squared_bound
    other = params._replace(proof=wide)
    own = np.concatenate(
        [((d + (1 << (wide.digit_bits - 1))) >> np.arange(wide.digit_bits)) & 1 for d in found]
        + [(slack >> np.arange(wide.slack_bits)) & 1]
    )
    assert own.size == wide.bits and wide.bits + wide.squares <= wide.size
    values = proof.shared_values(other, own[None], np.arange(5, 5 + wide.points)[None])
    challenge = proof.challenge_of(other, SEED, CLIENT, NAME)
    shown = proof.member_scalars(other, challenge, values, np.zeros((16, 1), np.uint32))
    assert proof.verdict(other, shown), "the twin"


# 6. Other digits, shifted places


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_digits_at_other_places_are_not_those_of_the_rows(size):
    """As short as they should be, but moved by a functional, or by one bit."""
    params, _, _, digits, _, _ = honest(size)
    flat = digits.reshape(-1)
    halved = np.trunc(digits / 2).astype(np.int64)
    assert (halved != digits).any()
    for other in (np.roll(flat, 1).reshape(digits.shape), digits[::-1].copy(), halved):
        assert (other != digits).any()
        lie = proof.proof_values(params, other, stream())
        assert not passes(size, lie) and passes(size, lie, off=(ROWS,))


# 7. Masks


def test_masks_that_are_fitted_to_a_challenge_fail_every_other():
    """Bits differ between primes, and masks, in each field its own, make the weighings one integer. Twin: the challenge is the guessed one."""
    params, bits, blinds = parts(SEVERAL)
    shape, moduli = params.proof, params.ring.moduli
    _, _, _, digits, _, _ = honest(SEVERAL)
    other = digits.copy()
    other.reshape(-1)[0] += 1 if other.reshape(-1)[0] < 0 else -1
    lie = bits.copy()
    lie[1] = parts(SEVERAL, other)[1][1]
    guessed = proof.challenge_of(params, SEED, CLIENT, GUESSED)
    weights = np.asarray(guessed.weighings).astype(object)
    middle = 1 << (shape.mask_width - 1)
    for limb, q in enumerate(moduli):
        own = weights @ lie[limb, : shape.plain_bits].astype(object)
        for test, weighed in enumerate(own):
            mask = (middle - int(weighed)) % q
            first = shape.plain_bits + test * shape.mask_width
            lie[limb, first : first + shape.mask_width] = (mask >> np.arange(shape.mask_width).astype(object)) & 1
    values = proof.shared_values(params, lie, blinds)
    assert passes(SEVERAL, values, off=(ROWS,), name=GUESSED), "the twin"
    for name in (NAME, bytes([6]) * 32, bytes([7]) * 32):
        assert not passes(SEVERAL, values, off=(ROWS,), name=name)
        assert passes(SEVERAL, values, off=(PRIMES, ROWS), name=name)


def test_two_proofs_of_one_client_share_no_mask_and_no_blind():
    """They are drawn for the seed; the same seed gives the same proof. Else the difference of two openings would be one of weighings without masks."""
    params, _, _, digits, _, _ = honest(SEVERAL)
    shape, own = params.proof, stream()

    def hidden(seed: bytes) -> tuple[np.ndarray, np.ndarray]:
        values = proof.proof_values(params, digits, fold_in(own, *prover.seed_words(seed)))
        return values[0, shape.plain_bits : shape.bits], values[:, shape.bits : shape.parts[1]]

    (first, blind), (again, same), (other, fresh) = hidden(SEED), hidden(SEED), hidden(GUESSED)
    assert (first == again).all() and (blind == same).all(), "the twin"
    assert 0.3 < (first != other).mean() < 0.7 and (blind != fresh).all()


# 8. Shares of no one polynomial, and members that lie


def shown_by(params: RoundParameters, values: np.ndarray, change: int | None = None) -> np.ndarray:
    """Scalars uint32 `[5, 1, opened, L]` of members 1..5 whose shares are those of values; member `change` gets a correction with one value changed."""
    kappas = [bytes([k]) * 32 for k in range(5)]
    corrections = prover.shared(params, DIGEST, values, kappas)
    challenge = proof.challenge_of(params, SEED, CLIENT, NAME)
    q = np.asarray(params.ring.moduli, np.uint64)[:, None]
    out = []
    for k in range(1, 6):
        share = prover.expanded_share(params, kappas[k - 1]).astype(np.uint64)
        if k >= params.threshold:
            share = (share + corrections[k - params.threshold]) % q
        if k == change:
            share[:, 7] = (share[:, 7] + np.uint64(1)) % q[:, 0]
        zeros = np.zeros((16, params.ring.limbs), np.uint32)
        out.append(proof.member_scalars(params, challenge, share.astype(np.uint32), zeros))
    return np.stack(out)[:, None]


def judged(params: RoundParameters, numbers: tuple[int, ...], shown: np.ndarray) -> bool:
    """What these members' scalars say of the proof without its rows."""
    agree, values = screening.agreeing(params, DIGEST, numbers, shown[[k - 1 for k in numbers]])
    return bool(agree[0]) and proof.verdict(params, values[0])


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_a_share_that_is_not_on_the_polynomial_is_seen_by_t_plus_f_members(size):
    params, bits, blinds = parts(size)
    good = proof.shared_values(params, bits, blinds)
    assert judged(params, (1, 2, 3, 4, 5), shown_by(params, good))
    bent = shown_by(params, good, change=5)
    assert not judged(params, (1, 2, 3, 4, 5), bent)
    assert judged(params, (1, 2, 3, 4), bent), "the twin: t members agree on anything"


@pytest.mark.parametrize("size", [ONE, SEVERAL])
def test_one_member_cannot_lie_a_false_proof_true_and_two_can(size):
    """f = 1 of five, t = 4: the liars answer so that three honest scalars and theirs lie on a polynomial with the value that a true proof would have at 0."""
    params, bits, blinds = parts(size)
    wrong = bits.copy()
    wrong[:, 4] = 2
    true, false = (shown_by(params, proof.shared_values(params, own, blinds)) for own in (bits, wrong))
    assert judged(params, (1, 2, 3, 4, 5), true) and not judged(params, (1, 2, 3, 4, 5), false)
    moduli = params.ring.moduli
    at = sharing.points(DIGEST, 5, moduli)
    wanted = screening.agreeing(params, DIGEST, (1, 2, 3, 4, 5), true)[1][0]
    known = [(0,) * len(moduli), at[0], at[1], at[2]]

    def fitted(k: int) -> np.ndarray:
        weights = sharing.lagrange(known, at[k - 1], moduli).astype(np.uint64)
        q = np.asarray(moduli, np.uint64)
        total = weights[0] * wanted % q
        for weight, shown in zip(weights[1:], false[:3, 0].astype(np.uint64), strict=True):
            total = (total + weight * shown % q) % q
        return total.astype(np.uint32)

    one, two = false.copy(), false.copy()
    one[4, 0] = fitted(5)
    two[3, 0], two[4, 0] = fitted(4), fitted(5)
    assert not judged(params, (1, 2, 3, 4, 5), one)
    assert judged(params, (1, 2, 3, 4, 5), two), "the twin: more than f liars"
    assert judged(params, (1, 2, 3, 5), one), "the twin: t members, a liar among them"


# 9. Malformed lengths


def test_corrections_of_another_length_are_refused():
    """A value short or long, the length that proofs had with all squares, a residue of q, bytes behind, other bytes than were signed."""
    params, bits, blinds = parts(ONE)
    (q,), shape = params.ring.moduli, params.proof
    values = proof.shared_values(params, bits, blinds)
    made = prover.shared(params, DIGEST, values, [bytes([k]) * 32 for k in range(5)])
    good = residue_bytes(made[0], params.ring.moduli)
    assert len(good) == params.proof_bytes and (prover.read_correction(params, good) == made[0]).all()
    whole = np.zeros((1, shape.bits + shape.points + 2 * shape.size), np.uint32)
    for other in (made[0][:, :-8], np.pad(made[0], [(0, 0), (0, 8)]), whole):
        with pytest.raises(RoundRefused):
            prover.read_correction(params, residue_bytes(other, params.ring.moduli))
    with pytest.raises(RoundRefused):
        prover.read_correction(params, good + b"\0")
    outside = made[0].copy()
    outside[0, 3] = q
    with pytest.raises(ResidueRange):
        prover.read_correction(params, residue_bytes(outside, params.ring.moduli))

    def message(parts_: list[bytes], signed: list[bytes]):
        body = SEED + b"".join(hashlib.sha256(part).digest() for part in signed)
        return prover.Message("proof", DIGEST, CLIENT, body, bytes(64), b"".join(prefixed(part) for part in parts_))

    listed = [residue_bytes(one, params.ring.moduli) for one in made]
    assert prover.read_proof(message(listed, listed), params).corrections == tuple(listed)
    short = [listed[0][:-1], *listed[1:]]
    for shown, signed in ((short, short), (listed[::-1], listed), ([*listed[:-1], listed[0]], listed)):
        with pytest.raises(Malformed):
            prover.read_proof(message(shown, signed), params)


# 10. Challenges


def test_a_challenge_hangs_on_every_byte_of_a_proof():
    """Else S could be fitted after its points are known. The name that is hashed is over the signed body, and that over every correction."""
    params, bits, blinds = parts(ONE)
    made = prover.shared(params, DIGEST, proof.shared_values(params, bits, blinds), [bytes([k]) * 32 for k in range(5)])
    names = set()
    for place in (None, (0, 0, 0), (1, 0, params.proof.length - 1)):
        own = made.copy()
        if place is not None:
            own[place] = (own[place] + 1) % params.ring.moduli[0]
        listed = [residue_bytes(one, params.ring.moduli) for one in own]
        body = SEED + b"".join(hashlib.sha256(part).digest() for part in listed)
        names.add(prover.proof_name(prover.Message("proof", DIGEST, CLIENT, body, bytes(64), b"")))
    assert len(names) == 3
    challenges = [proof.challenge_of(params, SEED, CLIENT, name).points for name in names]
    assert all((a != b).all() for a, b in itertools.pairwise(challenges))
