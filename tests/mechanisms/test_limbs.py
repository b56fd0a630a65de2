"""Arithmetic in limbs against Python's integers, and twins whose limbs or candidates are a little wrong."""

from __future__ import annotations

import math
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.mechanisms import limbs

WIDTH = 7  # limbs of a limit in the clip


def _value(wide: limbs.Wide) -> int:
    return sum(int(limb) << (16 * i) for i, limb in enumerate(np.asarray(wide.limbs)))


def _wide(value: int) -> limbs.Wide:
    return limbs.Wide(jnp.asarray(limbs.limbs_of(value, 5 if value >> 64 else 4)))


def _exact(grid: np.ndarray) -> int:
    return sum(int(m) ** 2 for m in grid.tolist())


_norm = jax.jit(limbs.squared_norm)
_factor = jax.jit(limbs.largest_factor)


@pytest.mark.parametrize("size", [1, 14, 2047, 2048, 2049, 4096, 4097, 40_000, 300_000])
def test_squared_norm_is_exact(size: int) -> None:
    grid = np.random.default_rng(size).integers(-(2**20), 2**20 + 1, size).astype(np.int32)
    assert _value(_norm(grid)) == _exact(grid)
    full = np.full(size, -(2**20), np.int32)
    assert _value(_norm(full)) == size * 2**40
    # 2**20 - 1 has the largest middle product, 2 high low
    assert _value(_norm(full + 1)) == size * (2**20 - 1) ** 2


def test_twin_rows_that_are_twice_as_wide_are_told_apart() -> None:
    """2**12 parts of 2**20 pass 32 bits in a row: the test above would see it."""
    full = np.full(2**13, 2**20, np.int32)
    assert _value(limbs.squared_norm(full)) == 2**13 * 2**40
    with mock.patch.object(limbs, "_WIDTH", 2**12):
        assert _value(limbs.squared_norm(full)) != 2**13 * 2**40


def test_sums_of_rows_are_exact_beyond_one_block() -> None:
    """What 2**26 coordinates and more would need, with smaller blocks."""
    grid = np.random.default_rng(3).integers(-(2**20), 2**20 + 1, 40 * 2048 + 7).astype(np.int32)
    for block in (2, 3, 40):
        with mock.patch.object(limbs, "_BLOCK", block):
            assert _value(limbs.squared_norm(grid)) == _exact(grid)


def _largest(squared: int, limit: int) -> int:
    return min(2**31 - 1, math.isqrt(limit // squared))


def _wrong(pairs: list[tuple[int, int]], factor) -> int:
    squared = jnp.asarray([limbs.limbs_of(n, 5) for n, _ in pairs])
    limit = jnp.asarray([limbs.limbs_of(bound, WIDTH) for _, bound in pairs])
    found = np.asarray(jax.jit(jax.vmap(lambda n, bound: factor(limbs.Wide(n), bound)))(squared, limit))
    assert all(int(s) ** 2 * n <= bound for s, (n, bound) in zip(found, pairs, strict=True))  # whatever the guess was
    return sum(int(s) != _largest(n, bound) for s, (n, bound) in zip(found, pairs, strict=True))


def _awkward(count: int) -> list[tuple[int, int]]:
    """Norms of every length against limits of every length, many of them where a factor only just fits or only just does not."""
    rng = np.random.default_rng(12)
    pairs = []
    for _ in range(count):
        n = int(rng.integers(1, 2**62)) >> int(rng.integers(0, 62)) or 1
        n = n << int(rng.integers(0, 17)) if rng.random() < 0.2 else n
        s = int(rng.integers(1, 2**31)) >> int(rng.integers(0, 31)) or 1
        limit = s * s * n + int(rng.integers(-1, 2))
        limit = limit if 0 < limit < 2**98 else int(rng.integers(1, 2**62)) << int(rng.integers(0, 36))
        pairs.append((n, limit))
    return pairs


def test_the_factor_is_the_largest_that_fits() -> None:
    assert _wrong(_awkward(20_000), limbs.largest_factor) == 0


@hypothesis.given(st.integers(1, 2**80 - 1), st.integers(1, 2**98 - 1))
def test_the_factor_of_any_norm_and_limit(squared: int, limit: int) -> None:
    assert int(_factor(_wide(squared), jnp.asarray(limbs.limbs_of(limit, WIDTH)))) == _largest(squared, limit)


def test_nothing_has_a_norm_of_zero_and_any_factor() -> None:
    assert int(_factor(_wide(0), jnp.asarray(limbs.limbs_of(2**97, WIDTH)))) < 2**31


@pytest.mark.parametrize("name, wrong", [("_FURTHEST", 2), ("_FURTHEST", 0)])
def test_twin_a_worse_step_loses_factors_and_never_the_bound(name: str, wrong: int) -> None:
    """Without the step from the exact residual the guess alone is often off: smaller factors, never ones that do not fit (`_wrong` asserts it)."""
    with mock.patch.object(limbs, name, wrong):
        assert _wrong(_awkward(2_000), limbs.largest_factor) > 20


def test_twin_a_float_that_is_far_off_never_breaks_the_bound() -> None:
    real = limbs.__dict__["_as_float"]
    for off in (0.7, 1.5, 1e30, float("nan"), float("inf"), 0.0):
        with mock.patch.object(limbs, "_as_float", lambda values, off=off: real(values) * jnp.float32(off) + 1):
            assert _wrong(_awkward(300), limbs.largest_factor) > 0


def test_twin_a_candidate_that_is_not_compared_breaks_it() -> None:
    """The comparison is what holds the bound: were every candidate taken, the factor would be one too large."""
    squared, limit = 3 * 2**40 + 12345, 2**90 + 7
    with mock.patch.object(limbs, "_least_first", lambda a, b: jnp.bool_(True)):
        found = int(limbs.largest_factor(_wide(squared), jnp.asarray(limbs.limbs_of(limit, WIDTH))))
    assert found**2 * squared > limit


@hypothesis.given(st.integers(0, 2**110), st.integers(0, 2**110), st.integers(-2, 2))
def test_comparison_is_exact(first: int, second: int, apart: int) -> None:
    for a, b in ((first, second), (first, max(first + apart, 0))):
        found = limbs.at_most(limbs.Wide(jnp.asarray(limbs.limbs_of(a, 8))), jnp.asarray(limbs.limbs_of(b, WIDTH)))
        assert bool(found) == (a <= b)


def test_a_bound_of_too_many_bits_is_refused() -> None:
    assert limbs.limbs_of(2**112 - 1, 7).tolist() == [0xFFFF] * 7
    with pytest.raises(ValueError, match="113 bits exceeds 7 limbs"):
        limbs.limbs_of(2**112, 7)
