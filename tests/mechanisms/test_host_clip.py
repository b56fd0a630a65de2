"""The clip on the host: both bounds in exact integers, and the integers of the program."""

from __future__ import annotations

import math

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from fedjax_poisson.mechanisms import clipping, host_clip
from fedjax_poisson.mechanisms.clipping import ClipLimits

# Bounds that are proved before rounding and bounds that are compared afterwards.
LIMITS = [
    clipping.clip_limits(clip_norm=norm, coordinate_bound=coordinate, total_bound=total)
    for norm, coordinate, total in (
        (1.0, 1.0, 1.0),
        (1.1, 0.05, 3.0),
        (1.1225, 1.1225, 153.6),
        (0.9, 0.9, 2.0**17),
        (30.0, 1e-3, 500.0),
        (1.0, 1.0, 2.0**19),
        (2.0**-50, 2.0**-51, 2.0**-49),
    )
]
_program = jax.jit(jax.vmap(clipping.clip_to_grid, (0, None)), static_argnums=1)


def updates(limits: ClipLimits, rows: int, width: int) -> np.ndarray:
    """Of every length, half of them within some roundings of the bound, and the numbers that are none."""
    rng = np.random.default_rng(rows * 1000 + width)
    norm = math.sqrt(limits.squared_norm_limit) * limits.grid_step
    made = rng.standard_normal((rows, width)) * norm * 10.0 ** rng.uniform(-9, 9, (rows, 1))
    near = made[: rows // 2]
    near *= norm * rng.uniform(0.98, 1.02, (len(near), 1)) / np.linalg.norm(near, axis=1, keepdims=True)
    made = made.astype(np.float32)
    ends = [np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-44, 1e-38]
    made[-len(ends) :, 0] = ends
    made[-1], made[-4] = 1e-30, 3e38
    return made


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("width", [1, 2, 14, 100])
def test_the_integers_are_those_of_the_program(limits: ClipLimits, width: int) -> None:
    given = updates(limits, 120, width)
    found = host_clip.clip_rows(limits, given)
    assert found is not None and found.dtype == np.int32
    np.testing.assert_array_equal(found, _program(given, limits))


@hypothesis.given(
    st.lists(st.floats(-2.0, 2.0, width=32), min_size=1, max_size=40),
    st.sampled_from(LIMITS),
    st.floats(0.0, 2.0, width=32),
)
def test_both_bounds_hold_exactly(values: list[float], limits: ClipLimits, near: float) -> None:
    row = np.array(values, np.float32)
    norm = math.sqrt(limits.squared_norm_limit) * limits.grid_step
    at_bound = row * np.float32(near * norm / max(float(np.linalg.norm(row.astype(np.float64))), 1e-6))
    found = host_clip.clip_rows(limits, np.stack([row, at_bound]))
    assert found is not None
    for each in found.tolist():
        assert sum(m * m for m in each) <= limits.squared_norm_limit
        assert max(abs(m) for m in each) <= limits.coordinate_limit


def _longest(limits: ClipLimits) -> float:
    """The largest squared norm of what comes out, of the bound."""
    found = host_clip.clip_rows(limits, updates(limits, 400, 14))
    assert found is not None
    return max(sum(m * m for m in row) for row in found.tolist()) / limits.squared_norm_limit


def test_a_factor_that_is_a_little_too_large_breaks_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: what comes out uses nearly all of its bound, so that a factor of a part in a thousand more is seen."""
    limits = LIMITS[0]
    assert 0.999 < _longest(limits) <= 1
    root = math.isqrt
    monkeypatch.setattr(host_clip.math, "isqrt", lambda number: root(number) + root(number) // 1000)
    assert _longest(limits) > 1


def test_without_the_look_at_what_came_out_a_coarse_grid_breaks_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the loop."""
    limits = LIMITS[3]
    assert _longest(limits) <= 1
    exact = clipping.exact_numbers
    monkeypatch.setattr(clipping, "exact_numbers", lambda *given: exact(*given)._replace(bound=None))
    assert _longest(limits) > 1


def test_many_values_are_left_to_the_program_and_none_give_none() -> None:
    assert host_clip.clip_rows(LIMITS[0], np.zeros((2, host_clip.MOST_VALUES // 2 + 1), np.float32)) is None
    found = host_clip.clip_rows(LIMITS[0], np.zeros((0, 3), np.float32))
    assert found is not None and found.shape == (0, 3)
