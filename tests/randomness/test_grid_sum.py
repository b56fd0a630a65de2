"""Sums in two words are the integers that they stand for, in any order, and their digits are those of the integers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.randomness.grid_sum import MOST_ROWS, GridSum, add_rows, digit_of, empty_sum, normalised, whole

ONE = 1 << 20
RNG = np.random.default_rng(0)


def as_int64(total: GridSum) -> np.ndarray:
    return np.asarray(total.high, np.int64) * ONE + np.asarray(total.low, np.int64)


@pytest.mark.parametrize("rows", [1, 50, 1023, 1024, 5000])
@pytest.mark.parametrize("extreme", [None, ONE, -ONE])
def test_sums_are_exact_whatever_the_chunk(rows: int, extreme: int | None) -> None:
    values = RNG.integers(-ONE, ONE + 1, (rows, 7)) if extreme is None else np.full((rows, 7), extreme)
    once = add_rows(empty_sum(7), jnp.asarray(values, jnp.int32))
    np.testing.assert_array_equal(as_int64(once), values.sum(axis=0))
    parts = empty_sum(7)
    for part in np.array_split(values, min(rows, 3)):
        parts = jax.jit(add_rows)(parts, jnp.asarray(part, jnp.int32))
    for word, other in zip(once, parts, strict=True):
        np.testing.assert_array_equal(word, other)
    assert int(once.low.min()) >= 0 and int(once.low.max()) < ONE


def test_sums_of_several_devices_are_put_right_word_by_word() -> None:
    values = RNG.integers(-ONE, ONE + 1, (8, 600, 5))
    parts = [add_rows(empty_sum(5), jnp.asarray(part, jnp.int32)) for part in values]
    added = GridSum(sum(p.high for p in parts), sum(p.low for p in parts))
    whole_sum = normalised(added)
    np.testing.assert_array_equal(as_int64(whole_sum), values.sum(axis=(0, 1)))
    for word, other in zip(
        whole_sum, add_rows(empty_sum(5), jnp.asarray(values.reshape(-1, 5), jnp.int32)), strict=True
    ):
        np.testing.assert_array_equal(word, other)


def test_one_word_where_it_fits() -> None:
    values = np.asarray([0, 1, -1, 2**30, -(2**30), 12345678, -87654321])
    total = GridSum(jnp.asarray(values >> 20, jnp.int32), jnp.asarray(values & (ONE - 1), jnp.int32))
    np.testing.assert_array_equal(whole(total), values)


@pytest.mark.parametrize("span", [21, 28, 38])
def test_digits_are_those_of_the_integer_and_the_last_owns_the_unit_that_is_left(span: int) -> None:
    w = np.concatenate([RNG.integers(0, 2**span, 200), [0, 1, 2**20, 2**20 - 1, 2**span - 1, 2**span]])
    units = GridSum(jnp.asarray(w >> 20, jnp.int32), jnp.asarray(w & (ONE - 1), jnp.int32))
    for sizes in ([9, 12], [12, 12], [7, 7, 7]):
        sizes = [*sizes, *[4] * ((span - sum(sizes)) // 4)] if sum(sizes) < span else [10, 11]
        sizes[-1] += span - sum(sizes)
        found, shift = np.zeros(w.size, np.int64), 0
        for bits in sizes:
            digit = np.asarray(digit_of(units, shift, bits, span), np.int64)
            most = (1 << bits) - (shift > 0)
            assert digit.min() >= 0 and digit.max() <= most
            found += digit << shift
            shift += bits
        assert shift == span
        np.testing.assert_array_equal(found, w)


def test_more_rows_than_the_words_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="add at most 1048576 at once"):
        jax.eval_shape(add_rows, empty_sum(1), jax.ShapeDtypeStruct((MOST_ROWS + 1, 1), jnp.int32))
