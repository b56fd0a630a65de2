"""From a budget to any mechanism: the least noise whose own curve, or own cost, fits what is left; bounds are never touched.

For mechanisms that say how to be built at a noise level. What a release costs falls with its noise, so the least noise is found by bisection on its
logarithm, and what is returned was itself held against the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms.dark_counts import Priced, Shape, Terms
from fedjax_poisson.mechanisms.types import Mechanism

AtNoise = Callable[[Shape, float, Terms], Mechanism]
"""`(shape, noise_std, terms) -> Mechanism`: these bounds, and this standard deviation of ONE sender's noise per coordinate, in the update's unit.

Its noise depends on the clip norm and the coordinate bound in no way: a unit at several sites is charged by the mechanism with multiples of both.
"""

_STEPS, _PRECISION = 40, 1e-6  # most halvings of the logarithm of the noise, and what is near enough
_LEAST, _MOST = 1e-9, 1e12  # noise in units of the clip norm between which it is looked for


class Calibrate(Protocol):
    """How a release that is repeated in every round gets its noise (`dark_counts.repeated` has the arguments)."""

    def __call__(
        self,
        terms: Terms,
        shape: Shape,
        *,
        rounds: int,
        portions: Sequence[int] | None = None,
        sampling_rate: float = 1.0,
        other_rdp: np.ndarray | None = None,
        between: tuple[float, float] = (0.0, 0.0),
    ) -> Priced:
        """The mechanism and how it is charged."""
        ...


def by_noise(at_noise: AtNoise) -> Calibrate:
    """The calibration of a mechanism that can be built at a noise level.

    Args:
      at_noise: builds it; raises ValueError where it cannot be built at that level, which the search takes for too little noise.

    Returns:
      `(terms, shape, *, rounds, ...) -> Priced` as `dark_counts.repeated`; schedules of portions are refused.
    """

    def calibrate(
        terms: Terms,
        shape: Shape,
        *,
        rounds: int,
        portions: Sequence[int] | None = None,
        sampling_rate: float = 1.0,
        other_rdp: np.ndarray | None = None,
        between: tuple[float, float] = (0.0, 0.0),
    ) -> Priced:
        if portions is not None:
            raise ValueError(
                "portions: this mechanism comes with the same noise in every round; leave the schedule out."
            )
        other = np.zeros(len(terms.orders)) if other_rdp is None else other_rdp

        def priced(noise_std: float) -> Priced:
            own = at_noise(shape, noise_std, terms)
            units = terms.sites_per_unit
            if units == 1:
                return Priced(own, own)
            wide = shape._replace(clip_norm=units * shape.clip_norm, coordinate_bound=units * shape.coordinate_bound)
            return Priced(own, at_noise(wide, noise_std, terms))

        def fits(found: Priced) -> bool:
            if terms.variance is not None:
                after = accounting.spend_all(terms.variance, between[0], [found.cost(terms, shape.dimension)] * rounds)
                return after is not None and after >= between[1]
            curve = found.rdp(terms, shape.dimension)
            if sampling_rate < 1:
                curve = accounting.subsampled_rdp(terms.orders, curve, sampling_rate)
            return accounting.epsilon(terms.orders, rounds * curve + other, terms.delta) <= terms.epsilon

        return _least(priced, fits, shape.clip_norm, terms.epsilon)

    return calibrate


def _least(
    priced: Callable[[float], Priced], fits: Callable[[Priced], bool], clip_norm: float, epsilon: float
) -> Priced:
    """The least noise that fits, by bisection between a noise that does not and one that does."""
    refusal: ValueError | None = None

    def tried(noise: float) -> Priced | None:
        nonlocal refusal
        try:
            found = priced(noise)
        except ValueError as error:
            refusal = error
            return None
        return found if fits(found) else None

    high = clip_norm
    while (best := tried(high)) is None:
        if high > _MOST * clip_norm:
            raise ValueError(f"no noise fits what is left of epsilon={epsilon:g}.") from refusal
        high *= 4
    low = high / 4
    while low > _LEAST * clip_norm and (found := tried(low)) is not None:
        high, best, low = low, found, low / 4
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        if (found := tried(middle)) is None:
            low = middle
        else:
            high, best = middle, found
        if high / low < 1 + _PRECISION:
            break
    return best
