"""Private histograms: exact without noise, bounded per unit, and ranges and levels that noise does not lead astray."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.data.tables.bins import BUCKETS, LINEAR, OCTAVES, linear_bins, octave_bins, text_buckets
from fedjax_poisson.data.tables.schema import MOST_LEVELS, ColumnSpec, Schema
from fedjax_poisson.federated.histogram import histogram_grids, private_histogram
from fedjax_poisson.federated.noisy_histogram import find_interval, find_levels, runs_of, significance
from fedjax_poisson.federated.private_columns import refine, released_from_counts
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.clipping import clip_limits
from tests.federated import helpers
from tests.helpers import stat

COLUMNS, SIZE, SITES = 3, 30, 3
NUMBER = Schema((ColumnSpec("x", "open_number"),), "impute")


def mechanism(dark_count: float = 400.0, columns: int = COLUMNS, total: float = 64.0) -> Mechanism:
    return poisson_embedding(
        clip_norm=math.sqrt(columns), coordinate_bound=1.0, dark_count=dark_count, modulation=0.1, total_bound=total
    )


def records(rng: np.random.Generator, count: int = 60, people: int | None = None) -> tuple[np.ndarray, ...]:
    """Bins (a tenth missing), sites and whose each record is; people stay at one site."""
    group = np.arange(count) if people is None else rng.integers(0, people, count)
    bins = rng.integers(0, SIZE // COLUMNS, (count, COLUMNS)) + np.arange(COLUMNS) * (SIZE // COLUMNS)
    bins[rng.random(bins.shape) < 0.1] = -1
    return bins.astype(np.int32), (group % SITES).astype(np.int32), group.astype(np.int64)


def histogram(bins: np.ndarray, size: int = SIZE) -> np.ndarray:
    return np.bincount(bins[bins >= 0], minlength=size)[:size].astype(float)


def of_units(bins: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Each person's mean one-hot vector, added: float64 `[SIZE]`."""
    return sum((histogram(bins[group == g]) / (group == g).sum() for g in np.unique(group)), np.zeros(SIZE))


@pytest.mark.parametrize("people", [None, 12])
def test_without_noise_the_sum_is_the_plain_histogram(people: int | None) -> None:
    bins, site, group = records(np.random.default_rng(1), people=people)
    exact = helpers.noise_free(mechanism())
    agg = helpers.plain_aggregator(exact, SITES, SIZE)
    counts, info = private_histogram(
        bins, site, group, sites=SITES, size=SIZE, mechanism=exact, aggregator=agg, stream=helpers.seeded(0)
    )
    np.testing.assert_allclose(counts, of_units(bins, group), atol=60 * helpers.step_of(exact))
    assert info.senders == SITES and counts.dtype == np.float64


def test_a_huge_dark_count_gives_the_histogram_and_its_noise_has_the_stated_variance() -> None:
    rng, real = np.random.default_rng(2), mechanism(2e6)
    bins, site, group = records(rng)
    agg = helpers.plain_aggregator(real, SITES, SIZE)
    draws = []
    for seed in range(40):
        counts, _ = private_histogram(
            bins, site, group, sites=SITES, size=SIZE, mechanism=real, aggregator=agg, stream=helpers.seeded(seed)
        )
        draws.append(counts - histogram(bins))
    deviation = math.sqrt(real.variance(SITES))
    assert np.abs(draws).max() < 6 * deviation < 4
    stat.assert_moments(np.array(draws), 0.0, deviation**2, kurtosis=0.0)
    with pytest.raises(AssertionError):
        stat.assert_moments(1.15 * np.array(draws), 0.0, deviation**2, kurtosis=0.0)


def test_clipping_without_the_zeros_has_the_bits_of_clipping_the_whole_vector() -> None:
    for clip_norm in (math.sqrt(COLUMNS), 1.3):  # one that binds
        own = poisson_embedding(
            clip_norm=clip_norm, coordinate_bound=1.0, dark_count=400.0, modulation=0.1, total_bound=64.0
        )
        bins, site, group = records(np.random.default_rng(3), people=15)
        people, first = np.unique(group, return_index=True)
        vectors = [histogram(bins[group == person]) / (group == person).sum() for person in people]
        dense = np.zeros((SITES, SIZE), np.int64)
        np.add.at(dense, site[first], np.asarray(jax.jit(jax.vmap(own.clip))(jnp.asarray(vectors, jnp.float32))))
        np.testing.assert_array_equal(histogram_grids(own, bins, site, group, sites=SITES, size=SIZE), dense)


def change_of_one(bins: np.ndarray, site: np.ndarray, group: np.ndarray, person: int, weight) -> np.ndarray:
    """How much the grids move when one person's records go, where `weight` makes grids of the rest."""
    rest = group != person
    return weight(bins, site, group) - weight(bins[rest], site[rest], group[rest])


@pytest.mark.parametrize("people", [None, 6])
def test_one_unit_moves_the_grids_within_the_stated_bounds(people: int | None) -> None:
    """The neighbour test; without the mean over a patient's records, and the clip, the same bound is broken."""
    own = mechanism()
    limits = clip_limits(clip_norm=math.sqrt(COLUMNS), coordinate_bound=1.0, total_bound=64.0)
    bins, site, group = records(np.random.default_rng(4), people=people)
    if people:
        bins[group == 0] = bins[group == 0][0]  # a patient whose records are all alike: the longest mean

    def clipped(*table: np.ndarray) -> np.ndarray:
        return histogram_grids(own, *table, sites=SITES, size=SIZE).astype(np.int64)

    def unclipped(bins: np.ndarray, site: np.ndarray, group: np.ndarray) -> np.ndarray:
        return np.stack([histogram(bins[site == s]) for s in range(SITES)]).astype(np.int64) * limits.coordinate_limit

    squares = []
    for person in np.unique(group):
        move = change_of_one(bins, site, group, person, clipped)
        assert np.abs(move).max() <= limits.coordinate_limit
        assert (move.astype(object) ** 2).sum() <= limits.squared_norm_limit
        squares.append((move.astype(object) ** 2).sum())
    assert max(squares) > 0.9 * limits.squared_norm_limit  # the bound is met, not merely kept
    if people:
        moves = [change_of_one(bins, site, group, person, unclipped) for person in np.unique(group)]
        assert max(np.abs(move).max() for move in moves) > limits.coordinate_limit


def test_nothing_but_the_opened_sum_is_used() -> None:
    """A mechanism whose estimate is always the same: other records, same facts."""
    fixed = np.zeros(OCTAVES, np.float32)
    fixed[80:84] = 500.0
    own = mechanism(columns=1)._replace(estimate=lambda total, senders: jnp.asarray(fixed))
    found = []
    for seed, centre in ((0, 50.0), (1, -7e6)):
        values = np.random.default_rng(seed).normal(centre, 3, 90)
        bins = octave_bins(values)[:, None]
        counts, _ = private_histogram(
            bins,
            np.arange(90) % SITES,
            np.arange(90),
            sites=SITES,
            size=OCTAVES,
            mechanism=own,
            aggregator=helpers.plain_aggregator(own, SITES, OCTAVES),
            stream=helpers.seeded(0),
        )
        found.append(released_from_counts(NUMBER, counts, 1.0))
    assert found[0] == found[1] and found[0].ranges["x"][0] == 0 < found[0].ranges["x"][1]


def facts_of(values: np.ndarray, deviation: float, seed: int = 0):
    """Both releases about one column, noise of a normal law."""
    rng = np.random.default_rng(seed)
    counts = histogram(octave_bins(values), OCTAVES) + rng.normal(0, deviation, OCTAVES)
    first = released_from_counts(NUMBER, counts, deviation**2)
    counts = histogram(linear_bins(values, *first.ranges["x"]), LINEAR) + rng.normal(0, deviation, LINEAR)
    return first, refine(NUMBER, first, counts, deviation**2)


LAWS = {
    "years": lambda rng, n: rng.integers(1950, 2021, n).astype(float),
    "blood pH": lambda rng, n: rng.normal(7.4, 0.08, n),
    "heavy tail": lambda rng, n: rng.lognormal(0, 1.2, n),
    "negative": lambda rng, n: rng.normal(-250, 40, n),
    "around zero": lambda rng, n: rng.normal(0, 3e-4, n),
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.7, 0.0, rng.uniform(100, 900, n)),
    "large": lambda rng, n: rng.normal(3e9, 8e8, n),
    "a typing error": lambda rng, n: np.append(rng.normal(60, 12, n - 1), 65511.0),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("deviation", [0.0, 60.0])
def test_the_range_holds_the_records_and_is_not_far_wider(law: str, deviation: float) -> None:
    values = LAWS[law](np.random.default_rng(5), 6000)
    first, second = facts_of(values, deviation)
    low, high = second.ranges["x"]
    assert first.ranges["x"][0] <= low < high <= first.ranges["x"][1]
    assert np.mean((values < low) | (values > high)) < 0.12
    spread = np.quantile(values, 0.99) - np.quantile(values, 0.01)
    clipped = np.clip(values, low, high)
    # What standardisation needs: the deviation is above its floor (0.05 of half the range), or nearly.
    assert clipped.std() > 0.7 * 0.05 * (high - low) / 2 and high - low < 20 * spread
    assert np.quantile(values, 0.3) - 0.1 * spread <= second.fills["x"] <= np.quantile(values, 0.7) + 0.1 * spread
    if law in ("years", "blood pH"):
        assert high - low < 0.6 * (first.ranges["x"][1] - first.ranges["x"][0])


def test_a_thin_tail_at_zero_is_kept_although_the_noise_hides_it() -> None:
    values = np.random.default_rng(9).normal(110, 25, 6000)
    values[:100] = 12.0  # a low hormone, which tells more than a normal one
    for seed in range(20):
        low, high = facts_of(values, 60.0, seed)[1].ranges["x"]
        assert low == 0.0 and high == 256.0


def test_equal_values_are_in_a_range_around_them() -> None:
    for value in (0.0, 5.0, -1e4):
        low, high = facts_of(np.full(3000, value), 20.0)[1].ranges["x"]
        assert low <= value <= high and high - low <= max(0.5 * abs(value), 1e-5)


@pytest.mark.parametrize("values", [np.full(400, np.nan), np.append(np.full(390, np.nan), np.arange(10.0) * 1e7)])
def test_a_column_below_the_noise_gets_the_fallback(values: np.ndarray) -> None:
    for seed in range(20):
        first, second = facts_of(values, 60.0, seed)
        assert first.ranges["x"] == (-1.0, 1.0) and first.fills["x"] == 0.0
        assert second.ranges["x"] == (-1.0, 1.0) and second.fills["x"] == 0.0


def test_noise_alone_is_seldom_seen_and_at_a_lower_threshold_often() -> None:
    rng, threshold = np.random.default_rng(6), significance(runs_of(OCTAVES))
    draws = rng.normal(0, 1, (200, OCTAVES))
    assert sum(find_interval(counts, 1.0, threshold) is not None for counts in draws) <= 6  # 1 % is promised: mean 2
    assert sum(find_interval(counts, 1.0, 3.0) is not None for counts in draws) > 20


def test_a_column_spread_over_bins_none_of_which_is_seen_is_found() -> None:
    counts = np.zeros(OCTAVES)
    counts[70:90] = 3.0
    found = find_interval(counts + np.random.default_rng(7).normal(0, 1, OCTAVES), 1.0, significance(runs_of(OCTAVES)))
    assert found is not None and 68 <= found.first <= 73 and 86 <= found.last <= 91


def test_a_large_bin_lends_no_weight_to_empty_neighbours() -> None:
    threshold = significance(runs_of(OCTAVES))
    for seed in range(50):
        counts = np.random.default_rng(seed).normal(0, 1, OCTAVES)
        counts[70] += 200
        assert find_interval(counts, 1.0, threshold)[:2] == (70, 70)


def test_frequent_levels_are_found_and_empty_buckets_are_not() -> None:
    schema = Schema((ColumnSpec("sex", "open_text"), ColumnSpec("stage", "open_text")), "impute")
    sex, stage = text_buckets("sex", ["F"] * 500 + ["M"] * 400 + ["U"] * 3), text_buckets("stage", ["I"] * 903)
    exact = np.concatenate([histogram(sex, BUCKETS), histogram(stage, BUCKETS)])
    noisy = exact + np.random.default_rng(8).normal(0, 20, 2 * BUCKETS)
    levels = released_from_counts(schema, noisy, 400.0).levels
    assert levels["sex"] == tuple(sorted({int(sex[0]), int(sex[600])})) and levels["stage"] == (int(stage[0]),)
    assert len(find_levels(np.arange(200.0), 0.1, 5.0, MOST_LEVELS)) == MOST_LEVELS
    assert min(find_levels(np.arange(200.0), 0.1, 5.0, MOST_LEVELS)) == 150


def test_a_sites_counts_are_clamped_to_the_total_bound() -> None:
    own = mechanism(total=8.0)
    bins = np.zeros((100, 1), np.int32)
    grids = histogram_grids(own, bins, np.zeros(100, np.int32), np.arange(100), sites=2, size=4)
    np.testing.assert_array_equal(grids, [[2**20, 0, 0, 0], [0, 0, 0, 0]])
    assert isinstance(jnp.asarray(grids), jax.Array)
