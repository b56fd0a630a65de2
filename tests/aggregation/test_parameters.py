"""Parameters of rounds: secure, exact, one opening, and the cheapest, each by a computation of its own."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import mpmath
import numpy as np
import pytest

from fedjax_poisson.aggregation.parameters import (
    BALL,
    RoundParameters,
    allowed_rms,
    choose,
    default_malicious,
    least_threshold,
)

GUIDELINE = {1024: 26, 2048: 53, 4096: 106, 8192: 214}
"""Bossuat et al. 2024, Table 5.2."""
OPENED = 15
VARIANCE = 21
SIZES = (1, 2, 1000, 3000, 60_000, 421_642, 1 << 20, 25_600_000)
SENDERS = (1, 10, 100, 1000, 10_000)
BOUNDS = (1, 200, 5_000, 1_000_000, 2**31 - 1)
COMMITTEES = (1, 3, 20, 5)
GRID = list(itertools.product(SIZES, SENDERS, BOUNDS))


def threshold(members: int) -> int:
    return least_threshold(members, default_malicious(members))


def made(size: int, senders: int, bound: int, members: int = 5, **changes) -> RoundParameters:
    return choose(size, bound, senders, members, threshold(members), **changes)


# What a test believes by itself


def tail(senders: int, coefficients: int, variance: float = VARIANCE, log_failure: float = -128 * math.log(2)) -> float:
    """T with coefficients 2 exp(-T^2 / (2 n variance)) = failure, the failure of an honest sum."""
    return math.sqrt(2 * senders * variance * (math.log(2 * coefficients) - log_failure))


def margin_holds(p: RoundParameters, senders: int, variance: float = VARIANCE) -> bool:
    """Noise and the rounding of each sender's message stay below 7/16 of a step."""
    noise = tail(senders, p.rows * p.ring.degree, variance)
    return noise + senders / 2 <= 7 / 16 * (math.prod(p.ring.moduli) / 2.0 ** (fields_bits(p)))


def fields_bits(p: RoundParameters) -> int:
    return p.ring.values_per_coefficient * p.ring.field_bits


def secure(p: RoundParameters, limits: dict[int, int], hints: int = OPENED) -> bool:
    """log2 Q within the guideline's limit, scaled for the equations that screening opens."""
    allowed = mpmath.mpf(limits[p.ring.degree]) * (1 - mpmath.mpf(hints) / p.ring.degree)
    return mpmath.log(math.prod(p.ring.moduli), 2) <= allowed


def one_opening(degree, rows, fields, width, step, size, senders, corrupt, count_rms) -> bool:
    """Whether false sums of secrets times false openings, per sum, stay below 2^-128; all as logarithms, by mpmath."""
    with mpmath.workdps(50):
        rms = mpmath.sqrt(VARIANCE) * (mpmath.mpf("1.2") * mpmath.sqrt(senders) + (3 if corrupt else 0))
        log_secrets = degree * mpmath.log(mpmath.mpf("8.3") * rms, 2)
        coefficient = min(mpmath.mpf(1), mpmath.mpf("8.3") * rms / step)
        log_accepted = rows * degree * mpmath.log(coefficient, 2)
        log_accepted -= (rows * degree * fields - size) * width
        if count_rms is not None:
            count = min(mpmath.mpf(1), mpmath.mpf("8.3") * max(count_rms, 1) / mpmath.mpf(2) ** width)
            log_accepted += size * mpmath.log(count, 2)
        return log_secrets + log_accepted <= -128


@functools.cache
def primes(bits: int, degree: int) -> list[int]:
    """Primes of this many bits that are 1 modulo 2 N, largest first, at most eight; trial division."""
    divisors = np.arange(3, 1 << (bits + 1) // 2, 2)
    found = []
    for q in range((1 << bits) // (2 * degree) * 2 * degree + 1, 1 << (bits - 1), -2 * degree):
        if q < 1 << bits and (q % divisors[divisors < q] != 0).all():
            found.append(q)
        if len(found) == 8:
            break
    return found


@functools.cache
def chains(degree: int, limit: int) -> list[tuple[int, int, int]]:
    """(bits, product, smallest prime) of the balanced chains of primes below 2^30, by bits."""
    found = []
    for bits in range(2, limit + 1):
        count = -(-bits // 30)
        low, longer = divmod(bits, count)
        chain = primes(low + 1, degree)[:longer] + primes(low, degree)[: count - longer]
        if len(chain) == count:
            found.append((bits, math.prod(chain), min(chain)))
    return found


def least_cost(size, senders, bound, members, *, corrupt=0, count_rms=None) -> int:
    """(R + m - t + 1) N log2 Q, least over every ring, every number of fields and every number of rows."""
    width, kept = bound.bit_length() + 1, members - threshold(members) + 1
    best = None
    for degree, limit in GUIDELINE.items():
        listed = chains(degree, math.floor(limit * (1 - OPENED / degree)))
        for fields in range(1, limit // width + 1):
            least = -(-size // (degree * fields))
            for rows in range(least, least + 64):
                noise = tail(senders, 2 * rows * degree)  # half of the failure is kept for what has no noise here
                step = math.ceil((noise + senders / 2) / (7 / 16 - 2.0**-20)) + 1
                enough = (c for c in listed if c[1] >= step << fields * width and c[2] > 84 * senders)
                bits, product, _ = next(enough, (0, 0, 0))
                cost = (rows + kept) * degree * bits
                if not bits or (best is not None and cost >= best):
                    break
                found = product >> fields * width
                if one_opening(degree, rows, fields, width, found, size, senders, corrupt, count_rms):
                    best = cost
                    break
    return best


def cost(p: RoundParameters) -> int:
    return (p.rows + p.members - p.threshold + 1) * p.ring.degree * sum(q.bit_length() for q in p.ring.moduli)


# On the whole grid


@pytest.mark.parametrize("members", COMMITTEES)
def test_every_choice_is_secure_exact_and_large_enough(members):
    for size, senders, bound in GRID if members == 5 else GRID[members::9]:
        p = made(size, senders, bound, members, corrupt=1)
        ring, what = p.ring, (size, senders, bound)
        assert secure(p, GUIDELINE), what
        assert margin_holds(p, senders), what
        assert (1 << (ring.field_bits - 1)) - 1 >= bound, what
        assert 42 * senders < min(ring.moduli) / 2, what
        assert fields_bits(p) < math.log2(math.prod(ring.moduli)), what
        assert p.rows * ring.degree * ring.values_per_coefficient == p.padded >= size, what
        assert ring.rows(p.padded) == p.rows and (p.size, p.members) == (size, members), what
        fact = (ring.degree, p.rows, ring.values_per_coefficient, ring.field_bits, ring.step)
        assert one_opening(*fact, size, senders, 1, None), what
        residues = [(q - 1).bit_length() for q in ring.moduli]
        sent = sum(-(-p.rows * ring.degree * b // 8) for b in residues)
        sent += p.corrections * sum(-(-ring.degree * b // 8) for b in residues)
        assert ring.bytes_per_value * size == pytest.approx(sent), what


def test_a_wrong_limit_variance_or_ball_would_be_seen():
    """The checks above fail on parameters for other limits, for errors of another variance and for fewer rows."""
    loose = tight = short = 0
    for size, senders, bound in GRID:
        p = made(size, senders, bound, corrupt=1)
        loose += not secure(p, {n: 0.95 * bits for n, bits in GUIDELINE.items()})
        tight += not margin_holds(p, senders, 2 * VARIANCE)
        ring = p.ring
        fact = (ring.degree, p.rows - 1, ring.values_per_coefficient, ring.field_bits, ring.step)
        short += fact[1] * ring.values_per_row >= size and not one_opening(*fact, size, senders, 1, None)
    assert loose > 20 and tight > 50 and short > 20
    unscaled = made(1, 1, 1)._replace(ring=dataclasses.replace(made(1, 1, 1).ring, moduli=(33550337, 12289)))
    assert not secure(unscaled, GUIDELINE)


@pytest.mark.parametrize("size", SIZES)
def test_no_other_ring_packing_or_number_of_rows_is_cheaper(size):
    """Chains are balanced products of primes below 2^30, as few as hold the fields; every other choice is searched."""
    for senders, bound, members in [
        (1, 200, 1),
        (10, 5000, 5),
        (1000, 5000, 5),
        (100, 1, 20),
        (10_000, 1_000_000, 5),
        (10_000, 1, 3),
        (1, 2**31 - 1, 5),
    ]:
        corrupt = min(1, senders - 1)
        p = made(size, senders, bound, members, corrupt=corrupt)
        assert cost(p) == least_cost(size, senders, bound, members, corrupt=corrupt), (senders, bound, members)


def test_known_counts_save_rows_and_nothing_else():
    saved = 0
    for size, senders, bound in itertools.product((1000, 3000, 7000, 20_000), (1, 10, 100), (200, 5000)):
        known = bound / 20
        with_it, without = (made(size, senders, bound, count_rms=rms) for rms in (known, None))
        assert cost(with_it) == least_cost(size, senders, bound, 5, count_rms=known) <= cost(without)
        saved += cost(with_it) < cost(without)
        assert secure(with_it, GUIDELINE) and margin_holds(with_it, senders)
    assert saved > 3


@pytest.mark.parametrize("senders", [10_000, 3000, 1000])
def test_many_senders_find_a_ring_whatever_the_count_bound(senders):
    """Where the fields alone would do with short primes, sums of secrets ask for longer ones."""
    for bits in range(1, 32):
        p = made(1, senders, (1 << bits) - 1)
        assert 42 * senders < min(p.ring.moduli) / 2 and cost(p) <= 3 * 4096 * 45


# One opening


def inside(radius_squared: int, dimension: int) -> int:
    """Integer points in a ball, exactly."""
    squares = np.zeros(radius_squared + 1, object)
    for x in range(-math.isqrt(radius_squared), math.isqrt(radius_squared) + 1):
        squares[x * x] += 1
    total = np.zeros(radius_squared + 1, object)
    total[0] = 1
    for _ in range(dimension):
        grown = np.zeros(radius_squared + 1, object)
        for norm in np.flatnonzero(squares):
            grown[norm:] += squares[norm] * total[: radius_squared + 1 - norm]
        total = grown
    return int(total.sum())


def test_the_ball_holds_all_differences_of_accepted_sums():
    """(8.3 rms)^N is above the number of integer vectors of twice the rms: counted, and by exp(t R^2) theta(t)^N for every N."""
    for rms, dimension in itertools.product((1.0, 2.5, 5.5), (1, 2, 5, 12)):
        assert inside(int(4 * rms * rms * dimension), dimension) <= (BALL * rms) ** dimension
    assert inside(4 * 25 * 12, 12) > (0.5 * BALL * 5) ** 12, "half of the ball would not do"
    for senders, corrupt in itertools.product((1, 10, 1000, 100_000), (0, 1)):
        rms = allowed_rms(senders, corrupt)
        t = 1 / (8 * rms**2)
        points = np.arange(-40 * rms, 40 * rms + 1).round()
        bound = 0.5 + math.log(np.exp(-t * points**2).sum())
        assert bound <= math.log(BALL * rms) < bound + 0.01


def test_an_honest_sum_keeps_to_the_allowed_rms():
    """1.2 times the expected one: chi-square bound of Laurent and Massart, N = 1024."""
    degree = 1024
    x = min((y for y in range(1, 200) if 1 + 2 * math.sqrt(y / degree) + 2 * y / degree > 1.44), default=0) - 1
    assert math.exp(-x) < 2.0**-50
    for senders in SENDERS:
        assert allowed_rms(senders) ** 2 == pytest.approx(1.44 * VARIANCE * senders)
        assert allowed_rms(senders, 1) == allowed_rms(senders, 7) > allowed_rms(senders)


def false_openings(rows: int, rms: float, q: int, fields_bits: int, rounds: int) -> float:
    """Mean number of false sums of secrets that open a toy round, N = 4: every small S' is tried against every row, with fresh rows each time."""
    rng, degree, edge = np.random.default_rng(rows), 4, math.isqrt(int(4 * rms * rms))
    allowed = 4 * rms * rms
    every = np.stack(np.meshgrid(*[np.arange(-edge, edge + 1)] * degree), -1).reshape(-1, degree)
    every = every[(every**2).sum(axis=1) <= allowed]
    steps, found = 1 << fields_bits, 0
    for _ in range(rounds):
        secret = every[rng.integers(len(every))]
        kept = np.ones(len(every), bool)
        for _ in range(rows):
            a, error = rng.integers(0, q, degree), every[rng.integers(len(every))]
            turned = np.stack([np.concatenate([-a[degree - i :], a[: degree - i]]) for i in range(degree)])  # a X^i
            opened = (error + (secret - every) @ turned) % q
            residue = opened - np.rint(opened * steps / q) * q / steps
            kept &= (residue**2).sum(axis=1) <= allowed
        found += int(kept.sum()) - 1
    return found / rounds


@pytest.mark.parametrize(("rms", "q", "fields_bits"), [(1.6, 257, 5), (2.0, 641, 6), (2.4, 641, 5)])
def test_false_sums_of_secrets_of_a_toy_round_are_fewer_than_counted(rms, q, fields_bits):
    """A search through all small S', against (8.3 rms)^N of them, each accepted with (8.3 rms / step)^RN; one row does open to something else."""
    step, means = q / 2**fields_bits, []
    for rows, rounds in ((1, 200), (2, 400), (4, 400)):
        means.append(false_openings(rows, rms, q, fields_bits, rounds))
        once, quarter = ((ball * rms) ** 4 * min(1.0, ball * rms / step) ** (4 * rows) for ball in (BALL / 2, BALL / 4))
        assert means[-1] <= once, "S' itself, not its distance to S, is in the ball: half the radius is enough here"
        assert rows == 4 or means[-1] > 10 * quarter, "a ball of a quarter is not"
    assert means[0] > 10 and means[2] < means[1] < means[0]


# Bytes and refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 0}, "size = 0"),
        ({"size": -5}, "size = -5"),
        ({"senders": 0}, "senders = 0"),
        ({"count_bound": 0}, "count_bound = 0"),
        ({"count_bound": -1}, "count_bound = -1"),
        ({"count_bound": 2**31}, "count_bound"),
        ({"members": 0, "threshold": 0}, "members = 0"),
        ({"threshold": 0}, "threshold = 0"),
        ({"threshold": 6}, "threshold = 6"),
        ({"corrupt": -1}, "corrupt = -1"),
        ({"count_rms": -1.0}, "count_rms"),
        ({"count_rms": math.nan}, "count_rms"),
        ({"failure": 0.0}, "failure"),
        ({"failure": 1.0}, "failure"),
        ({"senders": 1 << 40}, "fewer senders or a smaller count_bound would help"),
    ],
)
def test_what_is_out_of_range_is_named(changes, words):
    good = {"size": 10, "count_bound": 10, "senders": 3, "members": 5, "threshold": 4}
    choose(**good)
    with pytest.raises(ValueError, match=words):
        choose(**{**good, **changes})
