"""The failure bound at a rate that can be counted: steps so small that coefficients are opened wrongly, or refused, as often as the errors' exact law says."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.aggregation import bare, opening, rows
from fedjax_poisson.aggregation.parameters import RoundParameters, choose
from fedjax_poisson.ckks import ntt
from fedjax_poisson.ckks.noise_bound import WIDE_PAIRS, noise_bound
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters
from fedjax_poisson.randomness import fold_in, stream
from tests.aggregation.sums import DIGEST
from tests.helpers.entropy import drawn_once
from tests.helpers.stat import chi_square_pvalue

pytestmark = pytest.mark.statistical
DEGREE, ROUNDS, CLIENTS, FIELDS, WIDTH = 1024, 400, 30, 2, 8
CERTAIN = 1e-6
"""Two-sided chance that an honest test fails."""


def weak(sigmas: float, clients: int = CLIENTS) -> RoundParameters:
    """One row in a ring of one prime, whose step is so many standard deviations of the errors of these clients."""
    aim = sigmas * math.sqrt(clients * WIDE_PAIRS / 2) * 2 ** (FIELDS * WIDTH)
    q = round(aim) // (2 * DEGREE) * 2 * DEGREE + 1
    while not ntt.is_prime(q):
        q += 2 * DEGREE
    ring = CkksParameters(
        degree=DEGREE,
        moduli=(q,),
        mode="round",
        count_bound=100,
        senders=clients,
        values=DEGREE * FIELDS,
        values_per_coefficient=FIELDS,
        field_bits=WIDTH,
    )
    return RoundParameters(ring, 1, DEGREE * FIELDS, 3, 2)


def exact_step(params: RoundParameters) -> float:
    return params.ring.modulus / 2 ** (FIELDS * WIDTH)


def law(pairs: int = WIDE_PAIRS, clients: int = CLIENTS) -> tuple[np.ndarray, np.ndarray]:
    """Values and probabilities of one coefficient's error: the sum over clients of differences of `pairs` and `pairs` fair bits."""
    n = 2 * pairs * clients
    return np.arange(n + 1) - n // 2, stats.binom.pmf(np.arange(n + 1), n, 0.5)


def beyond(limit: float, pairs: int = WIDE_PAIRS) -> float:
    """P(|error| >= limit)."""
    values, chances = law(pairs)
    return float(chances[np.abs(values) >= limit].sum())


def interval(trials: int, chance: float) -> tuple[float, float]:
    found = stats.binom.ppf([CERTAIN / 2, 1 - CERTAIN / 2], trials, chance)
    return float(found[0]), float(found[1])


def within(count: int, trials: int, chance: float) -> bool:
    low, high = interval(trials, chance)
    return low <= count <= high


@drawn_once
def opened(sigmas: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `ROUNDS` sums of counts that are all zero are opened to: int [rounds, fields, N], and largest and rms distance, in steps."""
    params = weak(sigmas)
    key = bare.round_key(params, DIGEST)
    draw = functools.partial(rows.draw, params)

    @jax.jit
    def one(key, root):
        drawn = jax.vmap(lambda i: draw(fold_in(root, i)))(jnp.arange(CLIENTS, dtype=jnp.uint32))
        summed = jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=jnp.int32), drawn)
        sent = rows.encrypt(params, key.a, jnp.zeros(params.size, jnp.int32), summed)
        counts, largest, rms = opening.decode_sum(params, key.a, sent, rows.small_form(params, summed.secret))
        return counts.reshape(FIELDS, DEGREE), largest, rms

    root = stream()
    many = jax.jit(
        lambda key, root: jax.lax.map(lambda i: one(key, fold_in(root, i)), jnp.arange(ROUNDS, dtype=jnp.uint32))
    )
    return tuple(np.asarray(x) for x in many(key, root))


def shifts(sigmas: float) -> np.ndarray:
    """By how many steps each coefficient is off: V with V Q = M modulo t, M the integer that its signed fields make up (`ckks.packing`)."""
    counts, t = opened(sigmas)[0], 1 << FIELDS * WIDTH
    packed = (counts.astype(np.int64) << (WIDTH * np.arange(FIELDS))[None, :, None]).sum(axis=1).ravel()
    return (packed * pow(weak(sigmas).ring.modulus, -1, t) + t // 2) % t - t // 2


def test_wrong_coefficients_are_as_many_as_the_law_says():
    """Half a step at three standard deviations: 0.27 % are wrong, and 0.002 % would be if errors had half of the variance."""
    wrong, trials = int((shifts(6.0) != 0).sum()), ROUNDS * DEGREE
    half = exact_step(weak(6.0)) / 2
    assert within(wrong, trials, beyond(half))
    assert interval(trials, beyond(half))[1] < 1.25 * trials * beyond(half), "the interval must be narrow"
    assert not within(wrong, trials, beyond(half, WIDE_PAIRS // 2))
    assert not within(wrong, trials, beyond(half, WIDE_PAIRS + 2)), "forty-four pairs instead of forty-two"
    assert set(np.unique(shifts(6.0))) == {-1, 0, 1}


def test_shifts_follow_the_law_of_the_errors():
    """A step of one standard deviation: how far each coefficient is off is the rounded error, cell by cell."""
    found, step = shifts(1.0), exact_step(weak(1.0))
    cells = np.arange(-8, 9)
    seen = np.array([(found == k).sum() for k in cells])
    assert seen.sum() == found.size

    def expected(pairs: int) -> np.ndarray:
        values, chances = law(pairs)
        nearest = np.rint(values / step).astype(np.int64)
        return np.array([chances[nearest == k].sum() for k in cells])

    assert chi_square_pvalue(seen, expected(WIDE_PAIRS)) > CERTAIN
    assert chi_square_pvalue(seen, expected(WIDE_PAIRS // 2)) < 1e-100
    assert chi_square_pvalue(seen, expected(WIDE_PAIRS + 1)) < CERTAIN


def test_refused_rounds_are_as_many_as_the_law_says():
    """A coefficient beyond 7/16 of a step ends a round: about one in eleven at a margin of four standard deviations, none with half of the variance."""
    sigmas = 4.0 / MARGIN
    _, largest, rms = opened(sigmas)
    refused, margin = int((largest > MARGIN).sum()), MARGIN * exact_step(weak(sigmas))
    chance, half = (-math.expm1(DEGREE * math.log1p(-beyond(margin, pairs))) for pairs in (WIDE_PAIRS, WIDE_PAIRS // 2))
    assert 0.03 < chance < 0.2 and half < 1e-3
    assert within(refused, ROUNDS, chance) and not within(refused, ROUNDS, half)
    squares = (
        rms.astype(np.float64) * exact_step(weak(sigmas))
    ) ** 2  # each over n 21 is about chi-square with N degrees
    spread = math.sqrt(2 / (DEGREE * ROUNDS))
    assert abs(squares.mean() / (CLIENTS * WIDE_PAIRS / 2) - 1) < 5 * spread
    assert abs(squares.mean() / (CLIENTS * WIDE_PAIRS / 4) - 1) > 100 * spread


def test_no_more_rounds_reach_the_bound_than_it_states():
    """The bound of the parameters at a failure of a half, a quarter, ...: exceeded at most as often, and not by a bound for half of the variance."""
    _, largest, _ = opened(6.0)
    reached = largest * exact_step(weak(6.0))  # distances wrap at half a step: three standard deviations
    assert reached.max() <= exact_step(weak(6.0)) / 2 + 1e-3
    _, largest, _ = opened(4.0 / MARGIN)
    reached = largest.astype(np.float64) * exact_step(weak(4.0 / MARGIN))
    for failure in (0.5, 0.25, 0.1, 0.05):
        said = dict(degree=DEGREE, coefficients=DEGREE, failure=failure)
        bound, low = (
            noise_bound(senders=CLIENTS, mode="round", **said),
            noise_bound(senders=CLIENTS, mode="seeded", **said),
        )
        assert -math.expm1(DEGREE * math.log1p(-beyond(bound))) <= failure, "by the exact law"
        assert (reached >= bound).sum() <= stats.binom.ppf(1 - CERTAIN, ROUNDS, failure)
        assert (reached >= low).sum() > stats.binom.ppf(1 - CERTAIN, ROUNDS, failure), (
            "errors of seeded mode are half as wide"
        )


def fates(sigmas: float) -> tuple[float, float, float]:
    """Chances of a round: refused; opened although wrong (all coefficients within `MARGIN` of multiples of the step, some not of zero); wrong at all."""
    values, chances = law()
    steps = values / exact_step(weak(sigmas))
    moved = np.rint(steps) != 0
    far = np.abs(steps - np.rint(steps)) > MARGIN
    seen, unseen, any_ = (float(chances[which].sum()) for which in (far, moved & ~far, moved))
    clear = math.exp(DEGREE * math.log1p(-seen))
    silent = clear - math.exp(DEGREE * math.log1p(-seen - unseen))
    return 1 - clear, silent, -math.expm1(DEGREE * math.log1p(-any_))


def many_opened(sigmas: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of so many whole openings of counts that are all one are refused, and which are exact: bool [rounds] each."""
    params = weak(sigmas)
    use = bare.device_functions(params, DIGEST, opening.Expected(CLIENTS, 0, 100))

    def one(key, root):
        streams = jax.vmap(lambda i: fold_in(root, i))(jnp.arange(CLIENTS, dtype=jnp.uint32))
        summed = use.add_up(use.none(), streams, jnp.ones(CLIENTS, bool))
        ones, shares = jnp.ones(params.size, jnp.int32), fold_in(root, "shares")
        counts, ok = use.open(key, use.close(key, ones, summed, jnp.uint32(CLIENTS), shares))
        return ~ok, jnp.all(counts == jnp.int32(1))

    many = jax.jit(
        lambda key, root: jax.lax.map(lambda i: one(key, fold_in(root, i)), jnp.arange(rounds, dtype=jnp.uint32))
    )
    refused, exact = many(use.key, stream())
    return np.asarray(refused), np.asarray(exact)


def test_honest_rounds_are_refused_where_errors_are_too_large_and_opened_where_they_are_not():
    """The whole opening, bare. At a margin of fourteen standard deviations nothing is refused and all is exact. At one of 3.4 half of the rounds are refused;
    an error beyond 1 - MARGIN of a step looks small again: rounds are opened wrongly as often as the law says, far less often than without the check."""
    refused, exact = many_opened(14.0 / MARGIN, 100)
    assert not refused.any() and exact.all()
    refused, exact = many_opened(3.4 / MARGIN, ROUNDS)
    chance, silent, unchecked = fates(3.4 / MARGIN)
    assert within(int(refused.sum()), ROUNDS, chance) and 0.3 < chance < 0.7
    assert within(int((~refused & ~exact).sum()), ROUNDS, silent)
    wrong = int((~exact).sum())  # the twin: what would be opened wrongly if nothing were refused
    assert within(wrong, ROUNDS, unchecked) and not within(wrong, ROUNDS, silent)


@pytest.mark.parametrize("at_once", [1, 3_000, 1 << 22])
def test_a_large_sum_decodes_to_the_same_a_few_rows_at_a_time(at_once, monkeypatch):
    """Counts bit for bit, the largest distance as well, and the root mean square to a float's digits; in any rows at once."""
    params = choose(20_000, 3_000, 4, 5, 4)
    assert params.rows > 3
    key, own = bare.round_key(params, DIGEST), stream(1)
    counts = np.random.default_rng(1).integers(-3_000, 3_000, params.size).astype(np.int32)
    drawn = rows.draw(params, own)
    sent, secret = rows.encrypt(params, key.a, jnp.asarray(counts), drawn), rows.small_form(params, drawn.secret)
    whole, largest, rms = opening._decode(params, key.a, sent, secret)
    monkeypatch.setattr(opening, "_AT_ONCE", at_once)
    parts, most, spread = opening._decoded(params, key.a, np.asarray(sent), secret)
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(np.asarray(parts)[: params.size], counts)
    assert most == float(largest) and spread == pytest.approx(float(rms), rel=1e-6)
    lied = np.asarray(sent).copy()
    lied[-1] = (lied[-1] + 12345) % np.asarray(params.ring.moduli, np.uint32)[:, None]
    assert opening._decoded(params, key.a, lied, secret)[1] > most  # the twin: one row is another
