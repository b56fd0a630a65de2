"""From a budget to an embedding: the dark count that the budget allows, with bounds that are never lowered to make one fit.

Apart from a factor 1 / (1 - r**2) the noise does not depend on the modulation r, while the dark count falls with r**2. Unless the settings fix r, it is
therefore the smallest value from 0.05 to 0.3 whose sums fit 32 bits and whose dark count a few draws can serve: one for a long vector, more where vectors are
short and draws cost nothing; beyond that further draws are added up (`mechanisms.poisson.parts_of`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms.noise_source import noise_source
from fedjax_poisson.mechanisms.poisson import in_portions, poisson_embedding
from fedjax_poisson.mechanisms.types import Mechanism, at_portions

_LEAST_MODULATION, _MOST_MODULATION = 0.05, 0.3  # a price of at most 1 / (1 - r**2) in variance: 1.0025 and 1.10
_EASY_DARK = 5e7  # of one draw
_EASY_DRAWS, _EASY_COORDINATES = (
    16,
    4096,
)  # so many draws of a coordinate, and so many draws in all, before the modulation is raised
_LEAST_DARK = 0.01
NOISE_PORTIONS = 8
"""Portions of a schedule's noise (`federated.noise_schedule`): 0.4 % of variance above a continuous schedule."""
_MOST_COUNT = 2**31 - 1  # counts and their sums are int32


class Terms(NamedTuple):
    """What all releases of a run have in common.

    Attributes:
      epsilon: the budget of everything released.
      delta: its delta, less what samplers may add.
      participation: the sites that send in every release and those the guarantee counts on; its sampling rate is that of the training sums.
      largest_site: public bound on the units of one site.
      sites_per_unit: the most sites that one unit has records at.
      modulation: r of the embedding; None for the smallest that the samplers serve.
      orders: Renyi orders of every curve.
      variance: the budget of remaining variance that releases are charged to; None where they are charged with Renyi curves.
      noise_senders: l and h, parties that send the noise of training sums and those assumed honest, where clients send clean counts (`committee_noise`).
    """

    epsilon: float
    delta: float
    participation: accounting.Participation
    largest_site: int
    sites_per_unit: int
    modulation: float | None
    orders: np.ndarray
    variance: accounting.VarianceBudget | None = None
    noise_senders: tuple[int, int] | None = None


class Priced(NamedTuple):
    """A mechanism and how it is charged.

    Attributes:
      mechanism: the mechanism that every site uses.
      charged: the same noise against contributions `sites_per_unit` times as large; its curve is the privacy cost of one release.
    """

    mechanism: Mechanism
    charged: Mechanism

    def rdp(self, terms: Terms, dimension: int, honest_senders: int | None = None) -> np.ndarray:
        """float64 `[orders]`, the privacy cost of one release; with other honest senders than the terms count on, if given.

        How many senders are honest is no part of it where noise senders bring the noise (`noise_source`).
        """
        honest = noise_source(self.charged, terms.participation).honest
        if honest_senders is not None and self.charged.noise_senders is None:
            honest = honest_senders
        return self.charged.rdp(terms.orders, honest, dimension, terms.participation.adjacency)

    def cost(self, terms: Terms, dimension: int, honest_senders: int | None = None) -> accounting.Cost:
        """What one release takes of a remaining variance; with other honest senders than the terms count on, if given."""
        honest = terms.participation.honest_senders if honest_senders is None else honest_senders
        assert self.charged.cost is not None
        return self.charged.cost(honest, dimension, terms.participation.adjacency)

    def charge(self, terms: Terms, dimension: int) -> accounting.Charge:
        """What the ledger of these terms is charged with for one release."""
        return self.rdp(terms, dimension) if terms.variance is None else self.cost(terms, dimension)

    def used(self, portions: int) -> Priced:
        """The same with so many portions of the noise (`Mechanism.portions`)."""
        return Priced(at_portions(self.mechanism, portions), at_portions(self.charged, portions))


Planned = TypeVar("Planned")


def settle_distance(
    plan: Callable[[float], Planned], mechanisms: Callable[[Planned], Iterable[Mechanism]], draws: int = 1
) -> Planned:
    """A plan whose draws are as near to their laws as delta was charged for.

    A count that is the sum of several draws is farther from its law than one draw, which is known only once there are dark counts: the plan is made again
    for the distance that it turned out to have.

    Args:
      plan: `(draw) -> plan`, where every draw of one coordinate is within `draw` of its law in total variation.
      mechanisms: those that a plan uses.
      draws: how many draws a count is known to be the sum of.

    Raises:
      ValueError: the distance does not settle.
    """
    draw = draws * accounting.DRAW_DISTANCE
    for _ in range(3):
        planned = plan(draw)
        worst = max((each.facts.sampler_distance for each in mechanisms(planned)), default=0.0)
        if worst <= draw:
            return planned
        draw = 1.01 * worst
    raise ValueError(
        f"A sampler is {worst:.3g} from its law, above the {draw:.3g} that delta was charged for; lower largest_site."
    )


def once(terms: Terms, share: float, norm: float, dimension: int, left: float = 0.0) -> Priced:
    """A vector that is released once, entries of one unit within 1, for a share of the budget.

    Of a remaining variance it is a share of the whole. Of a Renyi budget it is the share of the dark count that would spend all of it: the curve is
    linear in the dark count, so it is one of the budget's curve.

    Args:
      terms: of the run.
      share: in (0, 1).
      norm: L2 bound of one unit's vector.
      dimension: its length.
      left: of the variance before this release; without one it is not used.
    """
    coordinate = min(1.0, norm)
    bound = coordinate * max(terms.largest_site, terms.sites_per_unit)
    ratios: dict[str, Any] = {
        "norm_ratio": norm / coordinate,
        "dimension": dimension,
        "step_ratio": terms.sites_per_unit * coordinate / bound,
    }

    def dark(modulation: float) -> float:
        if terms.variance is not None:
            return affordable_dark_count(
                terms, left, max(left - share * terms.variance.total, 0.0), modulation, **ratios
            )
        return share * accounting.calibrate_dark_count(rounds=1, modulation=modulation, **ratios, **budget(terms))

    return embedding(terms, dark, norm, coordinate, bound, dimension)


def cheapest(
    plans: Mapping[Any, Callable[[], Planned]], noise: Callable[[Planned], float]
) -> tuple[Planned, dict[str, float]]:
    """The plan with the least noise, and the noise of every plan that can be made, by name.

    Args:
      plans: functions that make a plan or raise ValueError; not every law serves every budget.
      noise: of a plan.

    Raises:
      ValueError: none can be made; what the last one said.
    """
    made: dict[str, Planned] = {}
    for name, make in plans.items():
        try:
            made[name] = make()
        except ValueError as error:
            refused = error
    if not made:
        raise refused
    found = {name: noise(plan) for name, plan in made.items()}
    return made[min(found, key=found.__getitem__)], found


class Shape(NamedTuple):
    """The bounds of a release, and its length.

    Attributes:
      clip_norm: L2 bound of one unit's contribution at one site.
      coordinate_bound: bound on each of its coordinates.
      total_bound: clamp on a site's sum, at least `sites_per_unit` coordinate bounds.
      dimension: coordinates of the release.
    """

    clip_norm: float
    coordinate_bound: float
    total_bound: float
    dimension: int


def repeated(
    terms: Terms,
    shape: Shape,
    *,
    rounds: int,
    portions: Sequence[int] | None = None,
    sampling_rate: float = 1.0,
    other_rdp: np.ndarray | None = None,
    between: tuple[float, float] = (0.0, 0.0),
) -> Priced:
    """The mechanism of a vector that is released in every round, with the largest dark count that fits.

    Args:
      terms: of the run.
      shape: of a round's release.
      rounds: T.
      portions: of `NOISE_PORTIONS`, that each round uses; None for all of the noise in every round.
      sampling_rate: probability that a unit is in a round; below 1 only with Renyi curves.
      other_rdp: curve of everything else that is released, float64 `[orders]`; None for nothing. Not used with a budget of variance.
      between: variance left before the first and after the last round. Not used with Renyi curves.

    Raises:
      ValueError: the budget cannot be met.
    """
    ratios: dict[str, Any] = {
        "norm_ratio": shape.clip_norm / shape.coordinate_bound,
        "dimension": shape.dimension,
        "step_ratio": terms.sites_per_unit * shape.coordinate_bound / shape.total_bound,
    }
    # In units of the noise's portion, which the whole noise has `most` of.
    most, spent = (1, rounds) if portions is None else (NOISE_PORTIONS, sum(portions))
    variance, (high, low) = terms.variance, between

    def dark(modulation: float) -> float:
        if variance is not None:
            return most * affordable_dark_count(terms, high, low, modulation, **ratios) / spent
        one = accounting.calibrate_dark_count(
            rounds=spent,
            sampling_rate=sampling_rate,
            other_rdp=other_rdp,
            modulation=modulation,
            **ratios,
            **budget(terms),
        )
        return most * one

    for doubt in (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2):  # one release after another is rounded more often than all in one
        priced = embedding(
            terms,
            functools.partial(_shrunk, dark, doubt),
            shape.clip_norm,
            shape.coordinate_bound,
            shape.total_bound,
            shape.dimension,
            None if portions is None else NOISE_PORTIONS,
        )
        if variance is None:
            return priced
        used = [priced] * rounds if portions is None else [priced.used(each) for each in portions]
        costs = [each.cost(terms, shape.dimension) for each in used]
        after = accounting.spend_all(variance, high, costs)
        if after is not None and after >= low:
            return priced
    raise AssertionError("the variance that is affordable as a whole is not affordable in parts")


def _shrunk(dark: Callable[[float], float], doubt: float, modulation: float) -> float:
    return (1 - doubt) * dark(modulation)


def affordable_dark_count(terms: Terms, high: float, low: float, modulation: float, **ratios: Any) -> float:
    """The largest total dark count of releases after which so little variance is left.

    Args:
      terms: of the run, with a budget of variance.
      high: left before.
      low: left afterwards.
      modulation: r.
      **ratios: norm_ratio, dimension and step_ratio as in `poisson_embedding_rdp`.

    Raises:
      ValueError: nothing is affordable.
    """
    participation = terms.participation
    cost = accounting.embedded_cost(
        dark_count=1.0,
        modulation=modulation,
        honest_senders=participation.honest_senders,
        adjacency=participation.adjacency,
        **ratios,
    )
    assert terms.variance is not None
    return accounting.affordable_events(terms.variance, high, low, cost) / participation.honest_senders


def budget(terms: Terms) -> dict[str, Any]:
    """The arguments that every calibration gets."""
    return {
        "epsilon": terms.epsilon,
        "delta": terms.delta,
        "honest_senders": terms.participation.honest_senders,
        "adjacency": terms.participation.adjacency,
        "orders": terms.orders,
    }


def embedding(
    terms: Terms,
    calibrate: Callable[[float], float],
    clip_norm: float,
    coordinate_bound: float,
    total_bound: float,
    dimension: int,
    portions: int | None = None,
) -> Priced:
    """The embedding with the dark count that `calibrate(modulation)` allows.

    Args:
      terms: of the run.
      calibrate: from a modulation to the largest dark count within the budget.
      clip_norm: L2 bound of one unit's contribution at one site.
      coordinate_bound: bound on each of its coordinates.
      total_bound: clamp on a site's sum, at least `sites_per_unit` coordinate bounds.
      dimension: coordinates of the release.
      portions: equal portions that the noise comes in, for a schedule.

    Raises:
      ValueError: counts would not fit 32 bits, or the budget leaves next to no events, with the remedy.
    """
    fixed, modulation = terms.modulation is not None, terms.modulation or _LEAST_MODULATION
    dark, easy = calibrate(modulation), _EASY_DARK * min(max(_EASY_COORDINATES // dimension, 1), _EASY_DRAWS)
    while not fixed and modulation < _MOST_MODULATION:
        too_many = 2.0 * terms.participation.senders * dark * modulation / (_MOST_COUNT / 2)
        if dark <= easy and too_many <= 1:
            break
        # The dark count falls with the square of the modulation, counts of the sum with itself.
        factor = max(math.sqrt(dark / easy), too_many)
        wanted = math.ceil(100 * modulation * factor) / 100
        modulation = min(max(wanted, modulation + 0.01), _MOST_MODULATION)
        dark = calibrate(modulation)
    largest = 2.0 * terms.participation.senders * dark * modulation
    if largest > _MOST_COUNT / 2:  # half: room for the random part, which the count bound checks exactly
        raise ValueError(
            f"the noise for epsilon={terms.epsilon:g} needs a dark count of {dark:.3g} with modulation={modulation:g} and a clamp of {total_bound:.4g} on a "
            f"site's sum: the counts of {terms.participation.senders} sites, up to {largest:.3g}, would not fit 32-bit integers. Lower largest_site (it "
            f"is the clamp's factor), {'raise modulation, ' if fixed else ''}or ask for a smaller epsilon."
        )
    if dark < _LEAST_DARK * (portions or 1):
        raise ValueError(
            f"epsilon={terms.epsilon:g} leaves a dark count of {dark:.2g} for one release, below the {_LEAST_DARK:g} that the samplers serve: the noise "
            "would be far above any signal. Ask for a larger epsilon, fewer rounds, or a smaller modulation."
        )
    if portions is not None:
        dark = in_portions(dark, portions)

    def with_steps(k: int) -> Mechanism:
        return poisson_embedding(
            clip_norm=k * clip_norm,
            coordinate_bound=k * coordinate_bound,
            dark_count=dark,
            modulation=modulation,
            total_bound=total_bound,
            portions=portions,
        )

    mechanism = with_steps(1)
    assert mechanism.count_bound(terms.participation.senders, dimension) <= _MOST_COUNT
    return Priced(mechanism, mechanism if terms.sites_per_unit == 1 else with_steps(terms.sites_per_unit))
