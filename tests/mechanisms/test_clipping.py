"""Bounds hold in exact integers, whatever comes in, and a float32 norm would not do."""

from __future__ import annotations

import math
from fractions import Fraction
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.mechanisms import clipping


def _exact(grid: np.ndarray) -> int:
    return sum(int(m) ** 2 for m in grid.tolist())


clip_jit = jax.jit(clipping.clip_to_grid, static_argnums=1)

_LIMITS = [
    clipping.clip_limits(clip_norm=norm, coordinate_bound=coordinate, total_bound=total)
    for norm, coordinate, total in ((1.0, 1.0, 1.0), (1.1, 0.05, 3.0), (0.3, 0.2, 9000.0), (0.9, 0.9, 2.0**17))
]


@hypothesis.given(
    st.lists(st.floats(-2.0, 2.0, width=32), min_size=1, max_size=40),
    st.sampled_from(range(len(_LIMITS))),
    st.floats(0.0, 2.0, width=32),
)
def test_both_bounds_hold_exactly_whatever_the_rounding_does(values: list[float], which: int, near: float) -> None:
    """Updates of every length, many of them within a rounding of the bound, on fine and on very coarse grids."""
    limits, update = _LIMITS[which], np.zeros(40, np.float32)
    update[: len(values)] = values
    norm = math.sqrt(limits.squared_norm_limit) * limits.grid_step
    length = np.linalg.norm(update.astype(np.float64))
    if length:
        update = (update / length * norm * (1 + (near - 1) * 2.0 ** -(4 * which + 2))).astype(np.float32)
    grid = np.asarray(clip_jit(update, limits))
    assert _exact(grid) <= limits.squared_norm_limit
    assert np.abs(grid).max() <= limits.coordinate_limit
    assert np.all(grid * update >= 0)


@pytest.mark.parametrize("size", [2**18, 2**18 + 1, 300_000])
def test_bounds_hold_for_more_coordinates_than_columns_take(size: int) -> None:
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=40.0)
    u = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    grid = np.asarray(clip_jit(u, limits), np.int64)
    assert 0.9 * limits.squared_norm_limit < (grid**2).sum() <= limits.squared_norm_limit
    u[:] = 2.0**-9  # exactly on half a step or a whole one everywhere: what rounding adds is not random
    assert (np.asarray(clip_jit(u, limits), np.int64) ** 2).sum() <= limits.squared_norm_limit


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_it_is_lowered_for_every_platform(platform: str) -> None:
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=0.2, total_bound=0.5)
    many = jax.jit(jax.vmap(lambda one: clipping.clip_to_grid(one, limits)))
    text = many.trace(jnp.zeros((3, 4097), jnp.float32)).lower(lowering_platforms=(platform,)).as_text()
    assert "custom_call" not in text and "f64" not in text


@pytest.mark.statistical
@pytest.mark.parametrize("length", [0.5, 0.999, 1.0, 1.3, 1e4])
def test_the_mean_of_many_contributions_is_not_biased_toward_zero(length: float) -> None:
    """On a grid of .05 for coordinates of about .1 (short) or .2 (scaled), as a large total_bound makes it: truncation lost a fifth."""
    size, count = 40, 4000
    limits = clipping.clip_limits(clip_norm=1.5, coordinate_bound=1.5, total_bound=0.05 * 2**20)
    rng = np.random.default_rng(4)
    u = rng.standard_normal((count, size)) + 0.5
    u *= 1.5 * length / np.linalg.norm(u, axis=1, keepdims=True)
    wanted = u * np.minimum(1, 1.5 / np.linalg.norm(u, axis=1, keepdims=True))
    grid = np.asarray(jax.jit(jax.vmap(lambda one: clipping.clip_to_grid(one, limits)))(u.astype(np.float32)))
    assert all(_exact(row) <= limits.squared_norm_limit for row in grid[:200])
    found = grid * limits.grid_step
    along = (found * wanted).sum() / (wanted**2).sum()  # the share of a contribution that survives
    # Steps of a thirtieth of the bound: what is scaled is scaled to 1.16 + 40 / 720 steps below it, direction kept.
    lowest = 0.995 if length < 0.9 else 1 - 1.5 / 30
    assert lowest < along < 1.005
    truncated = np.sign(wanted) * np.floor(np.abs(wanted) / limits.grid_step) * limits.grid_step
    assert (truncated * wanted).sum() / (wanted**2).sum() < 0.93, "the twin: rounding toward zero is told apart"


@pytest.mark.statistical
@pytest.mark.parametrize("size", [40, 400])
def test_factors_are_rarely_lowered(size: int) -> None:
    """The model behind `scaled_target`: rounding to nearest passes the bound in fewer than one of a thousand long updates."""
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=1.0 / 200 * 2**20)
    u = np.random.default_rng(6).standard_normal((60_000 // size + 900, size)).astype(np.float32) * 7
    values, factor, is_long = jax.jit(jax.vmap(lambda one: clipping._scaled(one, clipping.clip_numbers(limits, size))))(
        u
    )
    first = np.rint(np.asarray(values) * np.asarray(factor)[:, None])
    assert np.asarray(is_long).all() and ((first**2).sum(axis=1) > limits.squared_norm_limit).mean() < 1e-3
    assert _passes_without_room(u, limits) > 0.2, "without the room it would pass it often"


def _outward(size: int, limits: clipping.ClipLimits, most: int) -> np.ndarray:
    """Updates float32 `[4, size]` with a squared length of `most`, about, or longer, whose coordinates in grid steps all lie just above k + 1/2."""
    x = math.sqrt(most / size)
    upper = math.floor(x) + 0.5 + 2.0**-6
    share = (x**2 - (upper - 1) ** 2) / (2 * upper - 1)
    steps = np.where(np.arange(size) < math.floor(share * size), upper, upper - 1)
    signs = np.random.default_rng(size).choice([-1.0, 1.0], (4, size))
    lengths = np.array([1.0, 1 - 2.0**-20, 1 + 2.0**-20, 3.0])[:, None]
    return (signs * steps * limits.grid_step * lengths).astype(np.float32)


@pytest.mark.parametrize("size", [1, 40, 4097, 60_000])
def test_where_the_bound_follows_from_the_length_before_rounding_it_holds(size: int) -> None:
    """All coordinates are rounded away from zero, which adds sqrt(D) / 2 steps; without room for that (the twin) the bound is passed."""
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=8.0)
    target, proved = clipping.scaled_target(limits, size)
    assert proved and clipping.clip_numbers(limits, size).bound is None
    assert (1 - 2.0**-9) ** 2 * limits.squared_norm_limit < target < limits.squared_norm_limit
    updates = np.concatenate([_outward(size, limits, most) for most in (target, limits.squared_norm_limit)])

    def lengths() -> list[int]:
        with mock.patch.object(clipping, "exact_numbers", clipping.exact_numbers.__wrapped__):  # nothing of before
            numbers = clipping.clip_numbers.__wrapped__(limits, size)
        grids = jax.jit(jax.vmap(lambda one: clipping.clip_with(numbers, one)))(updates)
        return [_exact(np.asarray(grid)) for grid in grids]

    assert max(lengths()) <= limits.squared_norm_limit
    assert max(lengths()) > (1 - 2.0**-8) * limits.squared_norm_limit, "hardly shorter than it may be"
    if size > 1:
        with mock.patch.object(clipping, "scaled_target", lambda limits, size: (limits.squared_norm_limit, True)):
            assert max(lengths()) > limits.squared_norm_limit


def test_what_came_out_is_compared_where_rounding_could_add_more() -> None:
    for size, total, proved in (
        (4097, 1.0, True),
        (421_642, 1.0, True),
        (25_600_000, 1.0, False),
        (40, 0.05 * 2**20, False),
        (14, 300.0, True),
    ):
        limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=min(total, 1.0), total_bound=total)
        target, found = clipping.scaled_target(limits, size)
        assert found is proved, (size, total)
        assert (clipping.clip_numbers(limits, size).bound is None) is proved
        assert 0 < target <= limits.squared_norm_limit


@pytest.mark.parametrize("excess", [1.001, 1.5, 30.0])
def test_a_factor_that_is_too_large_is_lowered_until_the_bound_holds(excess: float) -> None:
    """Whatever the factor, the bound is compared; the twin without the comparison passes it."""
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=40.0)
    u = np.random.default_rng(7).standard_normal((8, 60)).astype(np.float32)
    u[3] *= 1e-3  # one that is short

    def clipped() -> np.ndarray:
        with mock.patch.object(
            clipping, "scaled_target", lambda limits, size: (int(excess * limits.squared_norm_limit), False)
        ):
            numbers = clipping.clip_numbers.__wrapped__(limits, 60)
        return np.asarray(jax.jit(jax.vmap(lambda one: clipping.clip_with(numbers, one)))(u), np.int64)

    grid = clipped()
    assert all(_exact(row) <= limits.squared_norm_limit for row in grid)
    np.testing.assert_array_equal(grid[3], clip_jit(u[3], limits))
    if excess < 2:
        assert (grid[0] ** 2).sum() > 0.5 * limits.squared_norm_limit, "no further than it must"
    with mock.patch.object(clipping.limbs, "at_most", lambda squared, limit: squared.limbs[0] < 0):
        with mock.patch.object(jax.lax, "while_loop", lambda goes_on, step, first: first):
            assert _exact(clipped()[0]) > limits.squared_norm_limit


def test_a_factor_of_the_wrong_sign_is_compared_too() -> None:
    """No update makes one; where what came out is compared, the bound rests on that alone."""
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=2.0**10)
    assert not clipping.scaled_target(limits, 60)[1]
    u = np.random.default_rng(9).standard_normal((8, 60)).astype(np.float32)
    scaled = clipping._scaled

    def turned(update, numbers):
        values, factor, is_long = scaled(update, numbers)
        return values, factor * jnp.float32(-1.5), is_long

    with mock.patch.object(clipping, "_scaled", turned):
        grid = np.asarray(jax.jit(jax.vmap(lambda one: clipping.clip_to_grid(one, limits)))(u), np.int64)
    assert all(_exact(row) <= limits.squared_norm_limit for row in grid)
    assert (grid * u < 0).any()


def _passes_without_room(u: np.ndarray, limits: clipping.ClipLimits) -> float:
    full = u / np.linalg.norm(u, axis=1, keepdims=True) * math.sqrt(limits.squared_norm_limit)
    return float(((np.rint(full) ** 2).sum(axis=1) > limits.squared_norm_limit).mean())


def test_the_same_bits_under_jit_vmap_and_scan() -> None:
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=0.3, total_bound=500.0)
    u = jnp.asarray(np.random.default_rng(8).standard_normal((9, 33)) * np.geomspace(0.05, 5, 9)[:, None], jnp.float32)
    rows = [np.asarray(clip_jit(row, limits)) for row in u]
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda x: clipping.clip_to_grid(x, limits)))(u), rows)
    scanned = jax.lax.scan(lambda c, x: (c, clipping.clip_to_grid(x, limits)), 0, u)[1]
    np.testing.assert_array_equal(scanned, rows)


@pytest.mark.parametrize(
    "norm, coordinate, total", [(1.0, 0.6, 0.6), (1.1, 0.05, 3.0), (0.3, 0.3, 100.0), (7.7, 0.0123, 0.0123)]
)
def test_bounds_hold_exactly_for_awkward_updates(norm: float, coordinate: float, total: float) -> None:
    limits = clipping.clip_limits(clip_norm=norm, coordinate_bound=coordinate, total_bound=total)
    step = Fraction(total) / 2**20
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1e-3, 1.0, 1e6, 1e38):
        grid = np.asarray(clip_jit((rng.standard_normal(300) * scale).astype(np.float32), limits))
        assert Fraction(_exact(grid)) * step**2 <= Fraction(norm) ** 2
        assert max(abs(int(m)) for m in grid) * step <= Fraction(coordinate)
    grid = np.asarray(clip_jit(np.array([0, 3e38, -3e38, 1e38, 1.0], np.float32), limits))
    assert grid[0] == 0 and grid[1] == -grid[2] > 0 and grid[3] > 0
    assert Fraction(_exact(grid)) * step**2 <= Fraction(norm) ** 2


@pytest.mark.parametrize("total", [1.0, 2.0**14])
@pytest.mark.parametrize("size", [1, 2, 5, 300])
def test_an_update_that_is_not_finite_becomes_zeros(size: int, total: float) -> None:
    """In both kinds of clip, wherever the number stands, and whatever its bits; infinity's neighbour, the largest float, is a number."""
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=total)
    assert clipping.scaled_target(limits, size)[1] is (total == 1.0)
    nans = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    for place in sorted({0, size // 2, size - 1}):
        for bad in (*nans, np.float32(np.inf), np.float32(-np.inf)):
            u = np.full(size, 0.5, np.float32)
            u[place] = bad
            assert not np.asarray(clip_jit(u, limits)).any()
            assert not bool(jax.jit(clipping.is_finite)(u))
        u[place] = np.finfo(np.float32).max
        assert bool(jax.jit(clipping.is_finite)(u)) and np.asarray(clip_jit(u, limits))[place] > 0


def test_a_float32_norm_lands_above_the_bound() -> None:
    """The twin: the usual float32 clip exceeds C for some input, in exact arithmetic; the integer clip does not."""
    rng, norm = np.random.default_rng(1), 1.0
    limits = clipping.clip_limits(clip_norm=norm, coordinate_bound=norm, total_bound=norm)
    over = 0
    for _ in range(50):
        u = rng.standard_normal(100).astype(np.float32)
        usual = u * np.minimum(np.float32(1), np.float32(norm) / np.linalg.norm(u))
        over += sum(Fraction(float(x)) ** 2 for x in usual) > 1
        grid = np.asarray(clip_jit(jnp.asarray(u), limits))
        assert _exact(grid) <= 2**40
    assert over > 0


@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.031, 0.032, 1.0, 77.0, 1e20, 1e37])
@pytest.mark.parametrize(
    "norm, coordinate, total", [(1.0, 1.0, 1.0), (1.0, 0.06, 0.06), (1.0, 0.06, 1.0), (0.9, 0.5, 30.0)]
)
def test_clip_is_scale_to_the_norm_then_clamp(scale: float, norm: float, coordinate: float, total: float) -> None:
    u = (np.random.default_rng(2).standard_normal(1000) * scale).astype(np.float32)
    limits = clipping.clip_limits(clip_norm=norm, coordinate_bound=coordinate, total_bound=total)
    wanted = u.astype(np.float64)
    wanted = np.clip(wanted * min(1, norm / np.linalg.norm(wanted)), -coordinate, coordinate)
    clipped = np.asarray(clip_jit(jnp.asarray(u), limits)) * limits.grid_step
    target, _ = clipping.scaled_target(limits, u.size)
    room = 1 - math.sqrt(target / limits.squared_norm_limit)
    assert room < 2.0**-9
    np.testing.assert_allclose(clipped, wanted, atol=1.01 * limits.grid_step + (4e-6 + room) * norm)


def test_one_long_coordinate_is_kept() -> None:
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=1.0, total_bound=1.0)
    for value in (1.0, 2.0, 3.7, 2.0**100):
        grid = np.asarray(clip_jit(jnp.zeros(5, jnp.float32).at[2].set(value), limits))
        np.testing.assert_allclose(grid, [0, 0, 2**20, 0, 0], atol=6)


def test_vmap_equals_loop() -> None:
    u = np.random.default_rng(3).standard_normal((5, 33)).astype(np.float32) * 2
    limits = clipping.clip_limits(clip_norm=1.0, coordinate_bound=0.2, total_bound=0.5)
    together = np.asarray(jax.jit(jax.vmap(lambda x: clipping.clip_to_grid(x, limits)))(u))
    np.testing.assert_array_equal(together, [np.asarray(clip_jit(row, limits)) for row in u])


@pytest.mark.parametrize("norm", [0.7, 1.0, 4.63e9])
def test_numbers_of_numpy_give_the_limits_of_python_s(norm: float) -> None:
    """A NumPy number's powers overflow in 64 bits: thresholds of 447 times the length, once."""
    made = [
        clipping.clip_limits(clip_norm=kind(norm), coordinate_bound=kind(norm), total_bound=kind(norm))
        for kind in (np.float64, float)
    ]
    assert made[0] == made[1] and all(type(limits.top_exponent) is int for limits in made)
    numbers = [clipping.clip_numbers.__wrapped__(limits, 7) for limits in made]
    jax.tree.map(np.testing.assert_array_equal, *numbers)


def test_bounds_out_of_order_are_refused() -> None:
    for coordinate, total in ((2.0, 1.0), (-1.0, -1.0), (0.0, 1.0), (1.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="at most total_bound"):
            clipping.clip_limits(clip_norm=1.0, coordinate_bound=coordinate, total_bound=total)


def test_a_bound_below_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match="below one grid step"):
        clipping.clip_limits(clip_norm=1.0, coordinate_bound=1e-7, total_bound=1.0)


@pytest.mark.parametrize(
    "norm, scale, point", [(3.0, 1000.0, 8), (0.5, 60.0, 15), (64.0, 1.0, 14), (0.25, 1.0, 20), (2.0, 2.0**15, 4)]
)
def test_integer_steps_leave_the_grid_as_many_places_as_the_norm_leaves_room(
    norm: float, scale: float, point: int
) -> None:
    """2**point grid steps to an integer, and the clip norm, in grid steps, still at most 2**20."""
    limits, found = clipping.integer_steps(clip_norm=norm, scale=scale)
    assert found == point
    assert limits.grid_step * scale * 2**point == pytest.approx(1.0, rel=1e-15)
    length = Fraction(norm) * Fraction(scale) * 2**point
    assert abs(Fraction(limits.squared_norm_limit) / length**2 - 1) < Fraction(1, 10**10)
    assert limits.coordinate_limit <= 2**20


def test_more_than_two_to_the_sixteen_integer_steps_are_refused() -> None:
    assert clipping.integer_steps(clip_norm=2.0, scale=2.0**15)[1] == 4
    with pytest.raises(ValueError, match="lower scale"):
        clipping.integer_steps(clip_norm=2.0, scale=math.nextafter(2.0**15, math.inf))


@pytest.mark.parametrize("norm", [1.5 * 2.0**-60, 0.75 * 2.0**60])
def test_extreme_norms_clip_like_others_and_those_beyond_are_refused(norm: float) -> None:
    u = (np.random.default_rng(9).standard_normal(30)).astype(np.float32)
    limits, usual = (
        clipping.clip_limits(clip_norm=n, coordinate_bound=n / 4, total_bound=n)
        for n in (norm, norm * 2.0 ** -math.frexp(norm)[1])
    )
    grid = np.asarray(clip_jit(u * np.float32(norm), limits))
    np.testing.assert_array_equal(grid, clip_jit(u * np.float32(norm * 2.0 ** -math.frexp(norm)[1]), usual))
    for beyond in (2.0**-60, 2.0**60):
        with pytest.raises(ValueError, match="outside"):
            clipping.clip_limits(clip_norm=beyond, coordinate_bound=beyond, total_bound=beyond)


def test_updates_below_the_last_octave_are_short_at_any_length() -> None:
    """2**40 coordinates, each just below the last octave, for the clip norm that is lowest against its power of two."""
    norm = math.nextafter(0.5, 1)
    top = clipping.clip_limits(clip_norm=norm, coordinate_bound=norm, total_bound=norm).top_exponent
    assert 2**40 * Fraction(2) ** (2 * (top + 1 - clipping._OCTAVES)) < Fraction(norm) ** 2


@pytest.mark.parametrize("ratio, refused", [(2.0**28 - 1, False), (2.0**28, True)])
def test_a_norm_too_far_above_the_coordinate_bound_is_refused(ratio: float, refused: bool) -> None:
    limits = clipping.clip_limits(clip_norm=ratio, coordinate_bound=1.0, total_bound=1.0)
    update = jnp.asarray([1.5 * ratio, 0.25, -ratio], jnp.float32)
    if refused:
        with pytest.raises(ValueError, match="raise coordinate_bound"):
            jax.eval_shape(lambda u: clipping.clip_to_grid(u, limits), update)
        return
    # A quarter of a bound that is far below the norm survives the scaling, by 1 / sqrt(1.5**2 + 1), beside coordinates that are clamped.
    np.testing.assert_allclose(clip_jit(update, limits), [2**20, 2**18 / 3.25**0.5, -(2**20)], atol=1)
