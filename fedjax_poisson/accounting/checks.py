"""Input checks of the accountants, in one place: every value is checked before any search begins.

The limits are far outside any practical use. Within them no formula of this package overflows in a way that could give a
wrong number, and every search ends: a divergence too large for float64 becomes +inf, never a small number.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Adjacency = Literal["zero_out", "replace_one"]
"""Neighbouring inputs: one unit's contribution becomes zero and the noise stays, or it becomes another unit's."""
FloatArray = NDArray[np.float64]

LARGEST_EPSILON = 1e4
"""Largest epsilon that a calibration aims at: odds of e^10000 protect nobody, and float64 has no digits left there."""

LEAST_ORDER = 1.001
"""Closer to 1 the divergences (a difference over a - 1) lose their digits in float64, down to a false 0."""

_LEAST, _LARGEST = 1e-100, 1e100  # squares and reciprocals of these, and products of two, stay inside float64
_LARGEST_WHOLE = 1 << 53
_LEAST_DELTA = 1e-150


def positive(name: str, value: float) -> float:
    """Return the value as a float, refusing all but finite numbers above 0 (and outside [1e-100, 1e100])."""
    number = _number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} is {value}; it must be a finite number above 0")
    if not _LEAST <= number <= _LARGEST:
        raise ValueError(f"{name} is {value}; choose units in which it lies in [{_LEAST:g}, {_LARGEST:g}]")
    return number


def whole(name: str, value: float, remedy: str = "", least: int = 1) -> int:
    """Return the value as an int, refusing all but integers of at least `least` (and at most 2^53)."""
    number = _number(name, value)
    if not (math.isfinite(number) and number == int(number) and number >= least):
        raise ValueError(f"{name} is {value}; it must be an integer of at least {least}{remedy}")
    if number > _LARGEST_WHOLE:
        raise ValueError(f"{name} is {value}; it must be an integer of at most 2^53")
    return int(number)


def check_delta(delta: float) -> float:
    """Return delta as a float, refusing anything outside (0, 1)."""
    number = _number("delta", delta)
    if not 0 < number < 1:
        raise ValueError(f"delta is {delta}; it must lie in (0, 1), usually below 1 / number of units")
    if number < _LEAST_DELTA:
        raise ValueError(f"delta is {delta}; float64 needs at least {_LEAST_DELTA:g}")
    return number


def check_rate(rate: float) -> float:
    """Return the sampling rate as a float, refusing anything outside (0, 1]."""
    number = _number("the sampling rate", rate)
    if not 0 <= number <= 1:
        raise ValueError(f"the sampling rate is {rate}; it is a probability and must lie in (0, 1]")
    if number == 0:
        raise ValueError("the sampling rate is 0: nobody ever takes part, there is nothing to account or to calibrate")
    return number


def check_budget(epsilon: float, delta: float) -> tuple[float, float]:
    """Return (epsilon, delta) of a target or budget as floats, refusing what cannot or need not be met."""
    number = _number("epsilon", epsilon)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"the target epsilon is {epsilon}; epsilon must be finite and above 0")
    if number > LARGEST_EPSILON:
        raise ValueError(
            f"the target epsilon is {epsilon}; above {LARGEST_EPSILON:g} it protects nobody: "
            "choose a smaller one (1 to 10 is usual) or run without a mechanism and say so"
        )
    return number, check_delta(delta)


def check_target(epsilon: float, delta: float, rounds: int) -> tuple[float, float, int]:
    """`check_budget` and a number of rounds."""
    return *check_budget(epsilon, delta), whole("rounds", rounds)


def check_orders(orders: ArrayLike) -> FloatArray:
    """Return orders as a float64 vector, refusing anything not strictly increasing from `LEAST_ORDER`."""
    values = np.asarray(orders, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(
            f"orders must be a non-empty vector, its shape is {values.shape}; pass accounting.DEFAULT_ORDERS"
        )
    if not np.all(np.isfinite(values)) or values[0] < LEAST_ORDER or np.any(np.diff(values) <= 0):
        raise ValueError(
            f"orders must be finite, at least {LEAST_ORDER} and strictly increasing, first and last are "
            f"{values[0]} and {values[-1]}; pass accounting.DEFAULT_ORDERS"
        )
    return values


def check_curve(orders: ArrayLike, rdp: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return (orders, rdp) as aligned float64 vectors, refusing misaligned, negative or undefined values."""
    orders, values = check_orders(orders), np.asarray(rdp, np.float64)
    if values.shape != orders.shape:
        raise ValueError(f"{orders.size} orders and a curve of shape {values.shape}: compute the curve on these orders")
    if np.any(np.isnan(values)) or np.any(values < 0):
        raise ValueError("a Renyi curve holds a negative or undefined value; divergences are in [0, inf]")
    return orders, values


def check_adjacency(adjacency: str) -> None:
    """Refuse any neighbouring relation but zero_out and replace_one, literal add/remove with its reason."""
    if adjacency in get_args(Adjacency):
        return
    if adjacency in ("add_remove", "add_or_remove", "add/remove"):
        raise ValueError(
            f"adjacency={adjacency!r} is refused: the noise is held by the senders, so removing one literally also removes "
            "its share of the noise and the guarantee is void (order 2 alone costs about dimension / (2 senders^2), even "
            "for a zero update). Use adjacency='zero_out' (the unit's contribution is replaced by zero, the dark noise "
            "stays) or 'replace_one'."
        )
    raise ValueError(f"adjacency={adjacency!r} is unknown; use 'zero_out' or 'replace_one'")


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {value!r}; pass a number that float64 can hold") from error
