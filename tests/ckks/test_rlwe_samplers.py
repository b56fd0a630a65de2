from __future__ import annotations

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.ckks import modular, ntt, rlwe_samplers
from fedjax_poisson.randomness import chacha
from tests.ckks.core import combine_crt, seeded_stream
from tests.helpers.stat import assert_moments, chi_square_pvalue

SIZE = 1 << 19


def draw(sampler, *labels, shape=(SIZE,)):
    return np.asarray(jax.jit(lambda s: sampler(s, shape))(rlwe_samplers.fold_in(seeded_stream(), *labels)))


def binomial_law(pairs: int) -> np.ndarray:
    return np.asarray([math.comb(2 * pairs, k) / 4**pairs for k in range(2 * pairs + 1)])


@pytest.mark.statistical
def test_ternary_is_uniform():
    samples = draw(rlwe_samplers.ternary, "ternary")
    assert samples.dtype == np.int32 and set(np.unique(samples)) == {-1, 0, 1}
    counts = np.bincount(samples + 1, minlength=3)
    assert chi_square_pvalue(counts, np.full(3, 1 / 3)) > 1e-6
    assert chi_square_pvalue(counts, np.asarray([0.328, 0.336, 0.336])) < 1e-6  # the twin: 1.6 % less of one value


@pytest.mark.statistical
def test_neighbouring_ternary_digits_are_independent():
    """The sixteen digits of one integer: every pair of positions, jointly uniform on nine cells."""
    digits = draw(rlwe_samplers.ternary, "pairs").reshape(rlwe_samplers.TRITS, -1) + 1
    for i in range(rlwe_samplers.TRITS):
        for j in range(i):
            counts = np.bincount(3 * digits[i] + digits[j], minlength=9)
            assert chi_square_pvalue(counts, np.full(9, 1 / 9)) > 1e-7, (i, j)
    copied = np.bincount(3 * digits[0] + digits[0], minlength=9)  # the twin: a digit used twice
    assert chi_square_pvalue(copied, np.full(9, 1 / 9)) < 1e-12


def test_ternary_digits_are_those_of_the_random_integer():
    """Against Python integers: the digits of the 128-bit words modulo 3^16, lowest first."""
    stream = rlwe_samplers.fold_in(seeded_stream(), "digits")
    blocks = 50
    words = np.asarray(rlwe_samplers.random_words(stream, (4, blocks))).astype(object)
    found = np.asarray(rlwe_samplers.ternary(stream, (16 * blocks,))).reshape(16, blocks)
    for block in range(blocks):
        x = sum(int(words[i, block]) << 32 * i for i in range(4)) % 3**16
        assert [x // 3**j % 3 - 1 for j in range(16)] == list(found[:, block])


def test_the_largest_integers_have_the_right_digits():
    """Division by powers of three through one product is exact over the whole range, not only where samples fall."""
    candidates = [k * 3**j + d for j in range(17) for k in (1, 2, 5, 3**16 // 3**j) for d in (-1, 0, 1)]
    values = np.asarray([v for v in candidates if 0 <= v < 3**16])
    digits = np.asarray(rlwe_samplers.base_three_digits(jnp.asarray(values, jnp.uint32)))
    for j in range(16):
        assert np.array_equal(digits[j], values // 3**j % 3)


@pytest.mark.statistical
def test_errors_are_centred_binomial():
    samples = draw(rlwe_samplers.centred_binomial, "error", shape=(2, SIZE // 2))
    assert samples.dtype == np.int32 and np.abs(samples).max() <= 21
    assert_moments(samples, 0.0, 10.5, kurtosis=-2 / 42)
    counts = np.bincount(samples.ravel() + 21, minlength=43)
    assert chi_square_pvalue(counts, binomial_law(21)) > 1e-6
    wider = np.zeros(43)
    wider[:] = binomial_law(22)[1:-1]
    assert chi_square_pvalue(counts, wider / wider.sum()) < 1e-6  # the twin: 22 pairs
    with pytest.raises(AssertionError):
        assert_moments(samples, 0.0, 10.5 * 1.02)
    correlation = np.corrcoef(samples[0], samples[1])[0, 1]  # the two errors of a pair share a word
    assert abs(correlation) < 6 / math.sqrt(SIZE / 2)


def test_an_error_pair_uses_every_bit_once():
    """Set one bit of the three words at a time: exactly one of the two errors moves by one, 84 bits do, 12 do nothing."""
    words = np.zeros((3, 96), np.uint32)
    for bit in range(96):
        words[bit // 32, bit] = np.uint32(1) << np.uint32(bit % 32)
    first, second = (np.asarray(e) for e in rlwe_samplers.error_pair(jnp.asarray(words)))
    assert sorted(first) == [-1] * 21 + [0] * 54 + [1] * 21
    assert sorted(second) == [-1] * 21 + [0] * 54 + [1] * 21
    assert not np.any((first != 0) & (second != 0))


@pytest.mark.statistical
def test_wide_errors_are_centred_binomial_of_twice_the_pairs():
    samples = draw(rlwe_samplers.wide_binomial, "wide", shape=(2, SIZE // 2))
    assert samples.dtype == np.int32 and samples.shape == (2, SIZE // 2) and np.abs(samples).max() <= 42
    assert_moments(samples, 0.0, 21.0, kurtosis=-2 / 84)
    counts = np.bincount(samples.ravel() + 42, minlength=85)
    assert chi_square_pvalue(counts, binomial_law(42)) > 1e-6
    # The twins: 43 pairs; and a pair of errors of which one has 21 pairs and the other a bit too few, so a mean of half a bit.
    wider = binomial_law(43)[1:-1]
    assert chi_square_pvalue(counts, wider / wider.sum()) < 1e-6
    lopsided = np.asarray([math.comb(83, k) / 2**83 for k in range(84)])
    assert chi_square_pvalue(counts[:84], lopsided) < 1e-6
    sums = sum(np.asarray(e) for e in rlwe_samplers.error_pair(rlwe_samplers.random_words(seeded_stream(5), (3, SIZE))))
    assert chi_square_pvalue(np.bincount(sums + 42, minlength=85), binomial_law(42)) > 1e-6  # the law it stands for
    with pytest.raises(AssertionError):
        assert_moments(samples, 0.0, 21.0 * 1.02)
    correlation = np.corrcoef(samples[0], samples[1])[0, 1]
    assert abs(correlation) < 6 / math.sqrt(SIZE / 2)


def test_thresholds_of_wide_errors_are_their_law():
    """|x| = k has 2^95 times the chance that 84 fair bits less 42 have, exactly; one pair of bits fewer is another law."""
    thresholds = [0, *rlwe_samplers.wide_thresholds(), 1 << 95]
    assert len(thresholds) == 44
    for k in range(43):
        ways = math.comb(84, 42 + k) * (1 if k == 0 else 2)
        assert Fraction(thresholds[k + 1] - thresholds[k], 1 << 95) == Fraction(ways, 1 << 84)
    assert Fraction(thresholds[1], 1 << 95) != Fraction(math.comb(82, 41), 1 << 82)


def test_a_wide_error_is_the_number_of_thresholds_that_95_bits_reach():
    """Just below and at each threshold, with both signs; where the upper bits decide they say the same, and elsewhere that they do not."""
    numbers = [max(t + step, 0) for t in rlwe_samplers.wide_thresholds() for step in (-(1 << 64), -1, 0, 1, 1 << 64)]
    numbers = [n for n in (*numbers, 0, (1 << 95) - 1) if n < 1 << 95]
    wanted = np.array([sum(n >= t for t in rlwe_samplers.wide_thresholds()) for n in numbers])
    assert set(wanted) == set(range(43))
    lower = jnp.array([[n >> shift & 0xFFFFFFFF for n in numbers] for shift in (32, 0)], jnp.uint32)
    tops = {t >> 64 for t in rlwe_samplers.wide_thresholds()}
    for sign in (0, 1):
        words = jnp.array([(n >> 64) << 1 | sign for n in numbers], jnp.uint32)
        signed = -wanted if sign else wanted
        np.testing.assert_array_equal(rlwe_samplers.compare_all(words, lower), signed)
        marked = np.asarray(rlwe_samplers.compare_upper(words))
        undecided = np.array([n >> 64 in tops for n in numbers])
        np.testing.assert_array_equal(marked & 1, undecided)
        np.testing.assert_array_equal((marked >> 1)[~undecided], signed[~undecided])
        assert ((marked >> 1) != signed)[undecided].any(), "the upper bits alone would be another law"
        assert (np.asarray(rlwe_samplers.compare_all(words, lower[::-1])) != signed).any(), (
            "the lower words have an order"
        )


def test_every_upper_word_near_a_threshold_is_counted_right():
    """All sections and their borders: 31-bit numbers around each threshold's, against a comparison with all of them."""
    tops = sorted({t >> 64 for t in rlwe_samplers.wide_thresholds()})
    upper = np.unique([min(max(t + step, 0), 2**31 - 1) for t in tops for step in range(-3, 4)]).astype(np.int64)
    marked = np.asarray(rlwe_samplers.compare_upper(jnp.asarray(upper << 1, jnp.uint32)))
    for number, mark in zip(upper.tolist(), marked.tolist(), strict=True):
        assert mark & 1 == (number in tops)
        if number not in tops:
            assert mark >> 1 == sum(number > t for t in tops)


def test_lower_bits_are_made_where_a_wide_error_needs_them(monkeypatch):
    """Upper bits cut to seven of them, those of a threshold among them: a call with ties has the draws that all bits decide."""
    stream, shape = seeded_stream(), (3, 2048)
    top = rlwe_samplers.wide_thresholds()[5] >> 64
    plain = rlwe_samplers.word_planes

    def cut(stream, planes, shape, then=None):
        words = plain(stream, planes, shape)
        near = jnp.uint32(top << 1) | (words[0] & jnp.uint32(1))
        words = words.at[0].set(jnp.where(words[0] >> jnp.uint32(25) == jnp.uint32(3), near, words[0]))
        return words if then is None else then(words)

    monkeypatch.setattr(rlwe_samplers, "word_planes", cut)
    got = np.asarray(rlwe_samplers.wide_binomial(stream, shape))
    words = cut(stream, 3, shape)
    assert (np.asarray(words[0] >> jnp.uint32(1)) == top).sum() > 3
    np.testing.assert_array_equal(got, rlwe_samplers.compare_all(words[0], words[1:]))
    assert (got != np.asarray(rlwe_samplers.compare_upper(words[0]) >> 1)).any()


@pytest.mark.parametrize("shape", [(7,), (4096,), (3, 4001)])
def test_the_first_planes_of_words_are_the_same_however_many_there_are(shape):
    stream = seeded_stream()
    three = np.asarray(rlwe_samplers.word_planes(stream, 3, shape))
    assert three.shape == (3, *shape) and len(np.unique(three)) > 0.99 * three.size
    np.testing.assert_array_equal(rlwe_samplers.word_planes(stream, 1, shape)[0], three[0])
    np.testing.assert_array_equal(rlwe_samplers.random_words(stream, shape), three[0])
    marked = rlwe_samplers.word_planes(stream, 1, shape, rlwe_samplers.compare_upper)[0]
    np.testing.assert_array_equal(marked, rlwe_samplers.compare_upper(jnp.asarray(three[0])))
    assert (np.asarray(marked) & 1).sum() == 0
    np.testing.assert_array_equal(rlwe_samplers.wide_binomial(stream, shape), np.asarray(marked) >> 1)


def test_wide_errors_do_not_depend_on_how_they_are_compiled():
    streams = [rlwe_samplers.fold_in(seeded_stream(), "wide", i) for i in range(2)]
    for shape in ((7,), (1, 64, 37)):
        one_by_one = [np.asarray(rlwe_samplers.wide_binomial(stream, shape)) for stream in streams]
        batch = jax.tree.map(lambda *x: jnp.stack(x), *streams)
        batched = jax.jit(jax.vmap(lambda s, shape=shape: rlwe_samplers.wide_binomial(s, shape)))(batch)
        assert np.array_equal(np.asarray(batched), np.stack(one_by_one))
        assert not np.array_equal(one_by_one[0], one_by_one[1])


@pytest.mark.statistical
def test_residues_are_uniform_and_independent_over_the_limbs():
    moduli = ntt.primes_below(1 << 30, 64, 3)
    residues = np.asarray(
        rlwe_samplers.uniform_residues(rlwe_samplers.fold_in(seeded_stream(), "a"), (1 << 13, 64), moduli)
    )
    assert residues.shape == (1 << 13, 3, 64)
    assert (residues < np.asarray(moduli)[:, None]).all()
    cells = [
        (residues[:, limb].astype(np.uint64) * np.uint64(16) // np.uint64(q)).ravel() for limb, q in enumerate(moduli)
    ]
    for i in range(3):
        assert chi_square_pvalue(np.bincount(cells[i], minlength=16), np.full(16, 1 / 16)) > 1e-6
        parity = np.bincount((residues[:, i] & 1).ravel(), minlength=2)
        assert chi_square_pvalue(parity, np.asarray([0.5, 0.5])) > 1e-6
        for j in range(i):
            joint = np.bincount((16 * cells[i] + cells[j]).astype(np.int64), minlength=256)
            assert chi_square_pvalue(joint, np.full(256, 1 / 256)) > 1e-6
    short = np.asarray(chacha.bits(rlwe_samplers.fold_in(seeded_stream(), "b"), SIZE)) % np.uint32(
        3 << 29
    )  # the twin: 32 bits modulo 1.5 * 2^30
    biased = np.bincount((short.astype(np.uint64) * np.uint64(16) // np.uint64(3 << 29)).astype(np.int64), minlength=16)
    assert chi_square_pvalue(biased, np.full(16, 1 / 16)) < 1e-12


def test_residues_are_those_of_the_random_integer_and_its_bits_suffice():
    for bits, limbs in ((31, 2), (30, 7), (27, 1)):
        moduli = ntt.primes_below(1 << bits, 64, limbs)
        stream = rlwe_samplers.fold_in(seeded_stream(), limbs)
        count = rlwe_samplers.uniform_words(math.prod(moduli).bit_length())
        assert 32 * count >= math.log2(math.prod(moduli)) + 92  # 2^30 coefficients together: 2^(30 - 92 - 2) = 2^-64
        words = np.asarray(rlwe_samplers.random_words(stream, (count, 64))).astype(object)
        integers = [sum(int(words[i, n]) << 32 * i for i in range(count)) for n in range(64)]
        found = np.asarray(rlwe_samplers.uniform_residues(stream, (64,), moduli))
        assert np.array_equal(found, np.asarray([[x % q for x in integers] for q in moduli], np.uint32))
        assert combine_crt(found, moduli)[0] % math.prod(moduli) == integers[0] % math.prod(moduli)


def test_public_residues_take_fewer_words_of_the_same_stream():
    moduli = ntt.primes_below(1 << 23, 64, 4)  # log2 Q = 92
    slack = rlwe_samplers.public_slack_bits(3 * 64)
    public, secret = (rlwe_samplers.uniform_words(math.prod(moduli).bit_length(), s) for s in (slack, 92))
    assert (public, secret) == (4, 6) and 32 * public >= math.log2(math.prod(moduli)) + slack
    for count in (1, 3 * 64, 1 << 17, 1 << 30):  # the factor on an attack's advantage
        assert count * math.log1p(2.0 ** -rlwe_samplers.public_slack_bits(count)) <= 2.0**-6
    stream = rlwe_samplers.fold_in(seeded_stream(), "public")
    words = np.asarray(rlwe_samplers.random_words(stream, (public, 3, 64))).astype(object)
    integers = sum(words[i] << 32 * i for i in range(public))
    found = rlwe_samplers.uniform_residues(stream, (3, 64), moduli, slack_bits=slack)
    assert np.array_equal(np.asarray(found), np.stack([integers % q for q in moduli], axis=1).astype(np.uint32))


def test_random_words_are_the_stream_in_another_order():
    stream = rlwe_samplers.fold_in(seeded_stream(), "order")
    everything = np.asarray(chacha.bits(stream, 16 * 512)).reshape(16, 512)
    few = np.asarray(rlwe_samplers.random_words(stream, (16 * 100 - 3,)))  # one tile of as many blocks as are needed
    assert np.array_equal(few, everything[:, :100].ravel()[: 16 * 100 - 3])
    many = np.asarray(rlwe_samplers.random_words(stream, (3, 16 * 100)))
    tiles = everything.reshape(16, 2, rlwe_samplers.TILE_BLOCKS).swapaxes(0, 1)
    assert np.array_equal(many.ravel(), tiles.ravel()[: 3 * 16 * 100])


def test_streams_differ_and_repeat():
    a = draw(rlwe_samplers.ternary, 1, shape=(64,))
    assert np.array_equal(a, draw(rlwe_samplers.ternary, 1, shape=(64,)))
    assert not np.array_equal(a, draw(rlwe_samplers.ternary, 2, shape=(64,)))
    batch = jax.vmap(lambda i: rlwe_samplers.ternary(rlwe_samplers.fold_in(seeded_stream(), i), (64,)))(
        jnp.arange(1, 3, dtype=jnp.uint32)
    )
    assert np.array_equal(np.asarray(batch[0]), a)


def test_combinations_at_the_ends_of_their_ranges():
    """All words 2^32 - 1, all weights q - 1, at every prime size: lazy sums must not overflow."""
    for bits in (31, 30, 29, 28, 20):
        moduli = ntt.primes_below(1 << bits, 64, 2)
        count = 12
        weights = rlwe_samplers.combination([[q - 1] * count for q in moduli], [q - 1 for q in moduli], moduli)
        words = jnp.full((count, 64, 1), (1 << 32) - 1, jnp.uint32)
        found = np.asarray(rlwe_samplers.combine(words, weights, ntt.tables(64, moduli), ntt.capacity(moduli)))[..., 0]
        expected = [[(count * ((1 << 32) - 1) * (q - 1) + q - 1) % q] * 64 for q in moduli]
        assert np.array_equal(found, np.asarray(expected, np.uint32))
        assert modular.constants(moduli).q.shape == (2, 1)
