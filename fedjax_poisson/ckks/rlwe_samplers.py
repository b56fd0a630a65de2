"""The laws of RLWE encryption drawn from ChaCha20 streams: ternary, centred binomial of two widths, uniform residues.

Each sampler has a fixed number of random words, runs under jit, vmap and scan and gives the same numbers on every device. None looks up a table, and none but
`wide_binomial` has a branch (it says what the branch depends on). Centred binomials are exact. The others reduce a random integer of b bits modulo m: of the
2^b integers r = 2^b mod m classes get one more than the other m - r, so the law of the result is within total variation
r (m - r) / (m 2^b) <= m / 2^(b + 2) of uniform. The bounds are stated with each function, for one draw and for a whole vector.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import modular, noise_bound, ntt
from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness.chacha import BLOCK_WORDS, Stream, bits, fold_in, word_tiles
from fedjax_poisson.randomness.wide import upper_product

__all__ = [
    "Combination",
    "Stream",
    "bits",
    "centred_binomial",
    "combination",
    "combine",
    "error_pair",
    "fold_in",
    "public_slack_bits",
    "random_words",
    "ternary",
    "uniform_combination",
    "uniform_residues",
    "uniform_words",
    "wide_binomial",
    "word_tiling",
]

TRITS = 16
_TRIT_MODULUS = 3**TRITS
_TRIT_WORDS = 4
UNIFORM_SLACK_BITS = (
    92  # total variation 2^-94 a coefficient, 2^-64 for 2^30 of them: the longest vector that parameters are stated for
)


def public_slack_bits(coefficients: int) -> int:
    """Slack for so many coefficients that everyone sees: an attack's mean advantage grows by at most a factor 1.02, see `uniform_residues`."""
    return coefficients.bit_length() + 6


TILE_BLOCKS = 256
_WIDE_BITS, _LOWER_BITS = (
    95,
    64,
)  # of the uniform integer that decides a wide draw, and of it those that are rarely needed
_SECTIONS = 4  # of its thresholds: three comparisons say in which one a draw is, and the other comparisons are those of one section


def random_words(stream: Stream, shape: tuple[int, ...]) -> jax.Array:
    """Uniform random words in an order that is cheap to produce tile by tile: [tiles, 16, lanes], cut to the shape.

    The same numbers as `bits`, in the order in which a CPU makes them: nothing is moved afterwards.

    Args:
        stream: Consumed by this call.
        shape: Shape of the answer.

    Returns:
        uint32 of that shape.
    """
    return word_planes(stream, 1, shape)[0]


def word_tiling(count: int) -> tuple[int, int]:
    """(tiles, lanes) in which so many words are made."""
    blocks = -(-count // BLOCK_WORDS)
    lanes = min(blocks, TILE_BLOCKS)
    return -(-blocks // lanes), lanes


def ternary(stream: Stream, shape: tuple[int, ...]) -> jax.Array:
    """Uniform values of {-1, 0, 1}.

    Sixteen values are the base-3 digits of one 128-bit random integer modulo 3^16: total variation at most
    3^16 / 2^130 < 2^-104 for the sixteen, 2^-78 for 2^30 values.

    Args:
        stream: Consumed by this call.
        shape: Shape of the answer.

    Returns:
        int32 of that shape.
    """
    size = math.prod(shape)
    blocks = -(-size // TRITS)
    words = random_words(stream, (_TRIT_WORDS, blocks))
    x = jax.lax.optimization_barrier(
        _modulo(words, _TRIT_MODULUS)
    )  # sixteen digits share it: not to be computed for each
    digits = jax.lax.bitcast_convert_type(base_three_digits(x), jnp.int32) - jnp.int32(1)
    return digits.reshape(-1)[:size].reshape(shape)


def base_three_digits(x: jax.Array) -> jax.Array:
    """The sixteen base-3 digits of uint32 [n] below 3^16, lowest first: uint32 [16, n].

    floor(x / 3^j) = mulhi(x, m_j) >> s_j with m_j = ceil(2^(32 + s_j) / 3^j) and s_j = floor(log2 3^j): m_j exceeds the true ratio by less
    than one, so the product by less than x / 2^(32 + s_j) < 2^(-6 - s_j) <= 2^-5 / 3^j, not enough to reach the next integer.
    """
    shifts = [(3**j).bit_length() - 1 for j in range(TRITS + 1)]
    # The factor 2^32 of j = 0 is one too large for a word: that row is x itself.
    factors = np.asarray([min(-(-(1 << (32 + s)) // 3**j), (1 << 32) - 1) for j, s in enumerate(shifts)], np.uint32)
    factors, shift = factors[:, None], np.asarray(shifts, np.uint32)[:, None]
    first = np.arange(TRITS)[:, None] == 0
    quotients = upper_product(x[None], jnp.asarray(factors[:-1])) >> shift[:-1]
    lower = jnp.where(first, x[None], quotients)
    upper = upper_product(x[None], jnp.asarray(factors[1:])) >> shift[1:]
    return lower - upper * jnp.uint32(3)


def _modulo(words: jax.Array, m: int) -> jax.Array:
    """The integers sum words[i] 2^(32 i) modulo m < 2^28, words uint32 [W, n], W <= 7, to uint32 [n] in [0, m)."""
    q, ratio = jnp.uint32(m), jnp.uint32((1 << 32) // m)
    total = modular.barrett(words[0], q, ratio, upper=upper_product)
    for i in range(1, words.shape[0]):
        weight = (1 << 32 * i) % m
        total = total + modular.multiply_shoup(
            words[i], jnp.uint32(weight), jnp.uint32((weight << 32) // m), q, upper=upper_product
        )
    return modular.reduce_once(modular.barrett(total, q, ratio, upper=upper_product), q)


def centred_binomial(stream: Stream, shape: tuple[int, ...]) -> jax.Array:
    """Centred binomial errors: the difference of two sums of 21 fair bits (variance 10.5, |e| <= 21), exact.

    Args:
        stream: Consumed by this call.
        shape: Shape of the answer; two errors share three random words, so the words are used best if the first axis is even.

    Returns:
        int32 of that shape.
    """
    size = math.prod(shape)
    pairs = -(-size // 2)
    first, second = error_pair(random_words(stream, (3, pairs)))
    return jnp.concatenate([first, second])[:size].reshape(shape)


def error_pair(words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two centred binomial errors out of 84 of 96 random bits: uint32 [3, ...] to two int32 [...]."""
    pairs = noise_bound.ERROR_PAIRS
    low = jnp.uint32((1 << pairs) - 1)
    rest = pairs - (32 - pairs)  # bits of the second error's halves that come from the third word
    mask = jnp.uint32((1 << rest) - 1)
    count = jax.lax.population_count
    a, b, c = words[0], words[1], words[2]
    first = count(a & low) - count(b & low)
    shift = jnp.uint32(pairs)
    second = count(((a >> shift) << jnp.uint32(rest)) | (c & mask)) - count(
        ((b >> shift) << jnp.uint32(rest)) | ((c >> jnp.uint32(rest)) & mask)
    )
    return jax.lax.bitcast_convert_type(first, jnp.int32), jax.lax.bitcast_convert_type(second, jnp.int32)


def wide_binomial(stream: Stream, shape: tuple[int, ...]) -> jax.Array:
    """Centred binomial draws of twice the variance: the difference of two sums of 42 fair bits (variance 21, |x| <= 42), exact.

    As a law it is the sum of two errors of `centred_binomial`, and a sum of 84 fair bits less 42. The law has 4.2 bits of entropy, and 84 bits of ChaCha20 cost
    more than what is made of them. So |x| is the number of thresholds that a uniform integer V of 95 bits reaches, T_k = 2^95 P(|x| < k) for k = 1 .. 42, each
    a whole number as 2^84 P is one, and one more bit is the sign: P(V >= T_k) = P(|x| >= k), exactly (*proved*). All thresholds are compared, and nothing is
    looked up, so neither time nor memory depends on the draw, but for this: the lower 64 bits of V are needed only where the upper 31 are those of a
    threshold, once in 2^26 draws, and a CPU makes them for all draws of a call or for none.

    Args:
        stream: Consumed by this call.
        shape: Shape of the answer; a random word a draw, and two more where lower bits are needed.

    Returns:
        int32 of that shape.
    """

    def decided(stream: Stream) -> jax.Array:
        words = word_planes(stream, 3, shape)
        return compare_all(words[0], words[1:])

    def at_need(stream: Stream) -> jax.Array:
        marked = word_planes(stream, 1, shape, compare_upper)[0]
        return jax.lax.cond(jnp.any((marked & jnp.int32(1)) > 0), decided, lambda _: marked >> jnp.int32(1), stream)

    few = math.prod(shape) <= BLOCK_WORDS * TILE_BLOCKS  # two forms would take longer to compile than one takes to run
    return by_platform(stream, cpu=decided if few else at_need, default=decided)


def word_planes(
    stream: Stream, planes: int, shape: tuple[int, ...], then: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """Planes of random words, [planes, *shape]; the first are the same however many there are. Order as in `random_words`, `then` as in `word_tiles`."""
    count = math.prod(shape)
    tiles, lanes = word_tiling(count)
    words = word_tiles(stream, planes * tiles, lanes, then)
    return words.reshape(planes, -1)[:, :count].reshape(planes, *shape)


@functools.cache
def wide_thresholds() -> tuple[int, ...]:
    """2^95 P(|x| < k), k = 1 .. 42, for x a sum of 84 fair bits less 42."""
    half = 2 * noise_bound.ERROR_PAIRS
    ways = [(1 + (k > 0)) * math.comb(2 * half, half + k) for k in range(half)]
    return tuple(below << (_WIDE_BITS - 2 * half) for below in itertools.accumulate(ways))


@functools.cache
def _places() -> tuple[int, ...]:
    """The upper 31 bits of the thresholds, each once, in sections of equally many; what is missing is 2^31, which no draw reaches."""
    places = sorted({threshold >> _LOWER_BITS for threshold in wide_thresholds()})
    return (*places, *[1 << 31] * (-len(places) % _SECTIONS))


def compare_upper(words: jax.Array) -> jax.Array:
    """Wide draws by the upper 31 bits of V, which are the upper 31 of each word; the lowest is the sign.

    Args:
        words: Any uint32 [...].

    Returns:
        int32 [...], twice the draw, and one more where these bits are those of a threshold: there the draw is undecided.
    """
    upper = words >> jnp.uint32(1)
    places = _places()
    width = len(places) // _SECTIONS
    beyond = [upper >= jnp.uint32(place) for place in places[width::width]]
    size = sum((jnp.where(here, jnp.uint32(width), jnp.uint32(0)) for here in beyond), jnp.zeros_like(words))
    nearest = jnp.full_like(words, 0xFFFFFFFF)
    for i in range(width):  # the i-th of a section: of the section that the word is in
        place = jnp.full_like(words, places[i])
        for section, here in enumerate(beyond, 1):
            place = jnp.where(here, jnp.uint32(places[section * width + i]), place)
        difference = upper - place  # upper is below 2^31 and no place above: the uppermost bit says which is larger
        size = size + (jnp.uint32(1) - (difference >> jnp.uint32(31)))
        nearest = jnp.minimum(nearest, difference)
    value = jnp.where((words & jnp.uint32(1)) == 0, size, jnp.uint32(0) - size)
    marked = (value << jnp.uint32(1)) | (nearest == 0).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(marked, jnp.int32)


def compare_all(words: jax.Array, lower: jax.Array) -> jax.Array:
    """Wide draws by all 95 bits: words uint32 [...] as in `compare_upper` and the lower 64 bits, uint32 [2, ...], to int32 [...]."""
    upper = words >> jnp.uint32(1)
    size = jnp.zeros(words.shape, jnp.int32)
    for threshold in wide_thresholds():
        high, middle, low = (jnp.uint32(threshold >> shift & 0xFFFFFFFF) for shift in (_LOWER_BITS, 32, 0))
        behind = (lower[0] > middle) | ((lower[0] == middle) & (lower[1] >= low))
        size = size + ((upper > high) | ((upper == high) & behind)).astype(jnp.int32)
    return jnp.where((words & jnp.uint32(1)) == 0, size, -size)


def uniform_words(modulus_bits: int, slack_bits: int = UNIFORM_SLACK_BITS) -> int:
    """Random words for one integer that is uniform modulo a Q of `modulus_bits` bits up to total variation 2^-(slack_bits + 2)."""
    return -(-(modulus_bits + slack_bits) // 32)


def uniform_residues(
    stream: Stream,
    shape: tuple[int, ...],
    moduli: tuple[int, ...],
    *,
    slack_bits: int = UNIFORM_SLACK_BITS,
) -> jax.Array:
    """Residues of integers uniform modulo Q, the product of the moduli: uniform and independent over the limbs.

    One integer X of b >= log2 Q + slack_bits random bits is reduced modulo each prime. By the Chinese remainder theorem the residues determine X mod Q, whose
    law is within total variation Q / 2^(b + 2) <= 2^-94 of uniform at 92 bits of slack, for each coefficient; over a vector of up to 2^30 coefficients that
    adds up to at most 2^-64. (Rejection would need log2 Q bits and spare words for every group of lanes; on a CPU the sorting out costs what the words
    would have.)

    Masks and shares of secrets need that: what they hide is as safe as they are uniform. The polynomial `a` of public rows a s + e hides nothing itself. No
    class is more likely than 1 + Q / 2^b <= 1 + 2^-slack_bits times its uniform share, so what happens with probability p for uniform polynomials happens
    with at most p (1 + 2^-slack_bits)^C for C such coefficients, and the mean advantage over `a` of an attack (a mean of values in [0, 1]) grows by no more
    than that factor: with `public_slack_bits(C)` at most exp(2^-6). Words are most of the cost: four instead of six at log2 Q = 104 and C = 2^17.

    Args:
        stream: Consumed by this call.
        shape: (..., N).
        moduli: The L primes.
        slack_bits: Random bits beyond those of Q; everyone who expands the same stream must ask for the same.

    Returns:
        uint32 [..., L, N], residues in [0, q).
    """
    combination = uniform_combination(moduli, slack_bits)
    words = random_words(stream, (combination.weights.shape[1], *shape))
    table, capacity = ntt.tables(shape[-1], moduli), ntt.capacity(moduli)
    return combine(words[..., None], combination, table, capacity)[..., 0]


class Combination(NamedTuple):
    """Constants of a fixed linear combination of words modulo each prime.

    Attributes:
        weights: uint32 [L, W], the weight of each word, in [0, q).
        quotients: uint32 [L, W], their Shoup companions.
        offset: uint32 [L, 1], a constant to add, in [0, q).
    """

    weights: np.ndarray
    quotients: np.ndarray
    offset: np.ndarray


def combination(weights: list[list[int]], offset: list[int], moduli: tuple[int, ...]) -> Combination:
    """The record of a linear combination: weights[l][i] of word i modulo q_l, and an offset for each modulus."""
    w = np.asarray(weights, np.uint32)
    return Combination(
        w, modular.shoup_quotient(w, modular.constants(moduli).q), np.asarray(offset, np.uint32)[:, None]
    )


@functools.lru_cache(maxsize=256)
def uniform_combination(moduli: tuple[int, ...], slack_bits: int = UNIFORM_SLACK_BITS) -> Combination:
    """Words to the integer sum words[i] 2^(32 i) modulo each prime."""
    count = uniform_words(math.prod(moduli).bit_length(), slack_bits)
    return combination([[(1 << 32 * i) % q for i in range(count)] for q in moduli], [0] * len(moduli), moduli)


def combine(
    words: jax.Array,
    weights: Combination,
    table: ntt.NttTables,
    capacity: int,
) -> jax.Array:
    """Offset plus the sum of words[i] weights[l, i], modulo each prime, summed lazily.

    Args:
        words: Any uint32 [W, ..., N, B].
        weights: The combination, host arrays or traced slices along the limb axis.
        table: The moduli (`q` and `ratio` are used), sliced likewise.
        capacity: `ntt.capacity` of the moduli.

    Returns:
        uint32 [..., L, N, B] in [0, q).
    """
    rank = words.ndim

    def column(constant: jax.typing.ArrayLike) -> jax.Array:
        return jnp.asarray(constant).reshape((1,) * (rank - 3) + (-1, 1, 1))

    q, ratio = column(table.q), column(table.ratio)
    total, bound = column(weights.offset), 1
    for i in range(words.shape[0]):
        term = modular.multiply_shoup(
            words[i][..., None, :, :], column(weights.weights[:, i]), column(weights.quotients[:, i]), q
        )
        if bound + 2 > capacity:
            total, bound = modular.barrett(total, q, ratio), 2
            if bound + 2 > capacity:  # 31-bit primes have room for two canonical residues only
                total, term, bound = modular.reduce_once(total, q), modular.reduce_once(term, q), 0
        total, bound = total + term, bound + 2
    return modular.reduce_once(modular.barrett(total, q, ratio), q)
