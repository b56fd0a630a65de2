"""The `Mechanism` record: pure functions bundled with the facts that make them private.

A mechanism is one value, so an inconsistent trio (clip at one bound, embed at another, account for a third) cannot be assembled by
accident. Nothing here holds state; every function is a function of its arguments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.accounting import Adjacency, Cost
from fedjax_poisson.accounting.checks import check_adjacency
from fedjax_poisson.mechanisms.sum_law import NO_SUM_LAW, SumLaw
from fedjax_poisson.randomness import Stream


class Bounds(NamedTuple):
    """What bounds one unit's contribution and one sender's sum of them, in the update's own unit. None where a mechanism has no such bound.

    Attributes:
      clip_norm: L2 bound C of one unit's contribution; None where there is no one norm (`grouped`, whose blocks have one each).
      coordinate_bound: bound c_inf on each coordinate of one unit's contribution; the clip norm where nothing tighter holds.
      total_bound: A, the clamp on each coordinate of one sender's summed contributions; None where a sum is not clamped.
      grid_step: value of one step of the integer grid that `Mechanism.clip` returns; None where coordinates differ in it.
    """

    clip_norm: float | None = None
    coordinate_bound: float | None = None
    total_bound: float | None = None
    grid_step: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts that a reader, a ledger row or a report must know about a mechanism.

    Attributes:
      name: short name, e.g. "poisson_embedding".
      parameters: (name, value) pairs, in the order of the factory's arguments: for printing and for ledger rows. What code computes with is in
        `Mechanism.bounds` and in its functions.
      integer: True when counts are integers that survive an exact encrypted sum.
      status: "proved", "published" (cited theorem), "baseline" or "experimental".
      guarantee: one sentence stating what is proved, for which release, and its source.
      sampler_distance: total-variation distance of one coordinate's draw to the law the proof speaks of; added to delta.
      data_dependent_noise: whether the noise of a count depends on what is embedded; it is then smallest at the lower end of the range, where
        neighbouring inputs are told apart best.
      noise_by: "senders" where each sender's counts have noise of their own, and the cost falls with the number of honest senders; "committee" where noise
        senders send it (`Mechanism.noise_senders`), and the cost does not depend on how many clients there are.
    """

    name: str
    parameters: tuple[tuple[str, float | None], ...]
    integer: bool
    status: Literal["proved", "published", "baseline", "experimental"]
    guarantee: str
    sampler_distance: float
    data_dependent_noise: bool = False
    noise_by: Literal["senders", "committee"] = "senders"


@dataclasses.dataclass(frozen=True, eq=False)
class WithNumbers:
    """A function of a mechanism whose numbers (bounds, scales, sampling tables) can be arguments of a compiled program; called like any other.

    Attributes:
      partial: `(dimension) -> Partial`: the function for vectors of so many coordinates, the numbers its leaves, so that mechanisms that differ in numbers
        alone share a program. They are made at first use: a planner tries many mechanisms and draws nothing.
      vector: which argument is the vector, whose length is the dimension, or the dimension itself.
      on_host: the same function of a few NumPy rows, without a program, and with the same bits: of `clip` `(float32 [n, D]) -> int32 [n, D]`, of `embed`
        `(n streams, int32 [n, D]) -> int32 [n, D]`, of `estimate` as it is; its result is None where a program does it sooner. None where there is none.
    """

    partial: Callable[[int], Partial]
    vector: int = 0
    on_host: Callable[..., np.ndarray | None] | None = None

    def __call__(self, *arguments: Any) -> Array:
        """What the function gives for its arguments; called inside a program, its numbers are constants of that program."""
        vector = arguments[self.vector]
        value: Array = self.partial(vector if isinstance(vector, int) else jnp.shape(vector)[-1])(*arguments)
        return value


def partial_of(function: Callable[..., Array], dimension: int) -> Partial:
    """A mechanism's function as a pytree, to be an argument of a compiled program; one without numbers of its own belongs to the program's structure."""
    return function.partial(dimension) if isinstance(function, WithNumbers) else Partial(function)


def can_on_host(function: Callable[..., Array]) -> bool:
    """Whether a mechanism's function has a form for the host at all."""
    return isinstance(function, WithNumbers) and function.on_host is not None


def on_host(function: Callable[..., Array], *arguments: Any) -> np.ndarray | None:
    """What a mechanism's function gives for a few rows of the host (`WithNumbers.on_host`); None where a program has to."""
    of_rows = function.on_host if isinstance(function, WithNumbers) else None
    return None if of_rows is None else of_rows(*arguments)


class Portions(NamedTuple):
    """A mechanism whose noise is a number of equal portions, of which a round may use fewer: one program for a schedule of noise levels.

    Attributes:
      whole: portions of the whole mechanism.
      embed: `(stream, int32[D], used)` to int32 `[D]`: `Mechanism.embed` with this many portions, which may be a traced integer.
      estimate: `(int[D], senders, used)` to float32 `[D]`: `Mechanism.estimate` of such a sum.
      mechanism: `(used)` to the mechanism with so many portions, 1 <= used <= whole; its facts are what such a round costs.
    """

    whole: int
    embed: Callable[[Stream, Array, int | Array], Array]
    estimate: Callable[[Array, int | Array, int | Array], Array]
    mechanism: Callable[[int], Mechanism]


class NoiseSenders(NamedTuple):
    """Who sends the noise of a mechanism whose clients send clean counts, and what such counts keep to (`committee_noise`).

    Attributes:
      senders: l, parties that send noise; all of them must be in the sum.
      honest: h of them that are assumed honest and closed: the cost is that of their noise alone.
      squared_norm: `(dimension)` to Delta^2, an integer that no client's squared norm exceeds, whatever is drawn.
      count_rms: `(senders, dimension)` to a bound on the root mean square of the counts of a sum of so many honest clients and all noise.
    """

    senders: int
    honest: int
    squared_norm: Callable[[int], int]
    count_rms: Callable[[int, int], float]


class Mechanism(NamedTuple):
    """Pure functions of one privacy mechanism. D coordinates, n senders, h honest senders (the target included).

    Attributes:
      facts: static description.
      bounds: of one unit's contribution and one sender's sum, in the update's unit.
      clip: float32 `[D]` to int32 `[D]`: one unit's contribution (a client, a record or a patient) inside its proven bounds, on the
        mechanism's grid. Contributions of several units of one sender are added as integers.
      embed: `(stream, int32[D])` to int32 `[D]`: the counts one sender sends for its summed contributions.
      privatize: `(stream, float32[D])` to int32 `[D]`: what one sender sends for a single unit; `embed(stream, clip(update))`.
      estimate: `(int[D] sum over senders, senders)` to float32 `[D]`: unbiased estimate of the SUM of the (clipped) updates. `senders` is how many are in
        the sum, not how many were planned: a Python int or a traced integer.
      rdp: `(orders, honest_senders, dimension, adjacency="zero_out")` to float64 `[orders]`: Renyi divergence of one opened sum.
      variance: `(senders)` to the noise variance per coordinate of the estimated sum (an upper bound where it depends on data).
      count_bound: `(senders, dimension, failure=2**-64)` to an int that no coordinate of the sum exceeds, except with that probability.
      tight_delta: `(epsilon, rounds, honest_senders, dimension)` to the delta of so many opened sums under zero_out by an argument tighter than the
        Renyi conversion; None where there is none.
      scaled_rdp: `(factor, orders, honest_senders, dimension, adjacency="zero_out")` to float64 `[orders]`: the divergence of one opened sum where
        a unit's bounds are `factor` in (0, 1] times those of `clip`, as they are where grids are scaled before they are embedded (`federated.banding`);
        None where no such price is stated.
      cost: `(honest_senders, dimension, adjacency="zero_out")` to what one opened sum takes from a tight ledger (`accounting.remaining_variance`); None
        where no such bound is proved.
      portions: the noise in equal portions, for a schedule; None where it comes in one piece.
      noise: `(stream, dimension)` to int32 `[D]`: the vector of ONE noise sender; None where every sender's counts have noise of their own. Where it is
        given, `embed` adds no noise, and a sum without the vectors of all noise senders is not private.
      noise_senders: who sends it; None likewise.
      sum_law: how a simulation draws the sum of many senders' counts at once; or why it cannot, in words that go on "NAME cannot: ...".
    """

    facts: Facts
    bounds: Bounds
    clip: Callable[[Array], Array]
    embed: Callable[[Stream, Array], Array]
    privatize: Callable[[Stream, Array], Array]
    estimate: Callable[[Array, int | Array], Array]
    rdp: Callable[..., np.ndarray]
    variance: Callable[[int], float]
    count_bound: Callable[..., int]
    tight_delta: Callable[[float, int, int, int], float] | None = None
    scaled_rdp: Callable[..., np.ndarray] | None = None
    cost: Callable[..., Cost] | None = None
    portions: Portions | None = None
    noise: Callable[[Stream, int], Array] | None = None
    noise_senders: NoiseSenders | None = None
    sum_law: SumLaw | str = NO_SUM_LAW

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value}" for name, value in self.facts.parameters)
        return f"{self.facts.name}({inner})"


class Functions(NamedTuple):
    """What compiled programs call of a mechanism, a pytree: `Mechanism` describes each.

    Attributes:
      clip: as in `Mechanism`.
      embed: as in `Mechanism`.
      estimate: as in `Mechanism`.
      noise: as in `Mechanism`; None where counts have noise of their own.
      contribute: as in `SumLaw`; None where there is none, or it does nothing.
    """

    clip: Partial
    embed: Partial
    estimate: Partial
    noise: Partial | None = None
    contribute: Partial | None = None

    def privatize(self, stream: Stream, update: Array) -> Array:
        """`Mechanism.privatize`."""
        counts: Array = self.embed(stream, jax.lax.optimization_barrier(self.clip(update)))
        return counts


def functions_of(mechanism: Mechanism, dimension: int) -> Functions:
    """The functions of a mechanism for vectors of D coordinates, as an argument of compiled programs (`partial_of`)."""
    contribute = mechanism.sum_law.contribute if isinstance(mechanism.sum_law, SumLaw) else None
    return Functions(
        clip=partial_of(mechanism.clip, dimension),
        embed=partial_of(mechanism.embed, dimension),
        estimate=partial_of(mechanism.estimate, dimension),
        noise=None if mechanism.noise is None else partial_of(mechanism.noise, dimension),
        contribute=None if contribute is None else partial_of(contribute, dimension),
    )


def make_mechanism(
    *,
    facts: Facts,
    bounds: Bounds,
    clip: Callable[[Array], Array],
    embed: Callable[[Stream, Array], Array],
    estimate: Callable[[Array, int | Array], Array],
    rdp: Callable[[np.ndarray, int, int, Adjacency], np.ndarray],
    variance: Callable[[int], float],
    count_bound: Callable[..., int],
    tight_delta: Callable[[float, int, int, int], float] | None = None,
    scaled_rdp: Callable[[float, np.ndarray, int, int, Adjacency], np.ndarray] | None = None,
    cost: Callable[[int, int, Adjacency], Cost] | None = None,
    portions: Portions | None = None,
    noise: Callable[[Stream, int], Array] | None = None,
    noise_senders: NoiseSenders | None = None,
    sum_law: SumLaw | str = NO_SUM_LAW,
) -> Mechanism:
    """Assemble a mechanism: `privatize` follows from clip and embed, and no curve is computed for an unsound claim.

    Args:
      facts: static description.
      bounds: as in `Mechanism`.
      clip: as in `Mechanism`.
      embed: as in `Mechanism`.
      estimate: as in `Mechanism`.
      rdp: the curve, given an adjacency that is accounted and a possible number of honest senders.
      variance: as in `Mechanism`.
      count_bound: as in `Mechanism`.
      tight_delta: as in `Mechanism`.
      scaled_rdp: the curve at scaled bounds, given what `rdp` is given, or None.
      cost: what one release takes from a tight ledger, under the same conditions.
      portions: as in `Mechanism`.
      noise: as in `Mechanism`.
      noise_senders: as in `Mechanism`.
      sum_law: as in `Mechanism`.
    """
    if (noise is None) != (noise_senders is None):
        raise ValueError(
            "noise and noise_senders belong together: clean counts without noise senders would be opened as they are."
        )

    def checked_cost(honest_senders: int, dimension: int, adjacency: Adjacency = "zero_out") -> Cost:
        check_adjacency(adjacency)
        check_honest(honest_senders)
        assert cost is not None
        return cost(honest_senders, dimension, adjacency)

    def checked_rdp(
        orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency = "zero_out"
    ) -> np.ndarray:
        check_adjacency(adjacency)
        check_honest(honest_senders)
        return rdp(orders, honest_senders, dimension, adjacency)

    def checked_scaled_rdp(
        factor: float, orders: np.ndarray, honest_senders: int, dimension: int, adjacency: Adjacency = "zero_out"
    ) -> np.ndarray:
        assert scaled_rdp is not None
        check_adjacency(adjacency)
        check_honest(honest_senders)
        if not 0 < factor <= 1:
            raise ValueError(f"factor={factor} must be in (0, 1]: a unit's bounds may be scaled down, not up.")
        return scaled_rdp(factor, orders, honest_senders, dimension, adjacency)

    return Mechanism(
        facts=facts,
        bounds=bounds,
        clip=clip,
        embed=embed,
        privatize=lambda stream, update: embed(stream, jax.lax.optimization_barrier(clip(update))),
        estimate=estimate,
        rdp=checked_rdp,
        variance=variance,
        count_bound=count_bound,
        tight_delta=tight_delta,
        scaled_rdp=None if scaled_rdp is None else checked_scaled_rdp,
        cost=None if cost is None else checked_cost,
        portions=portions,
        noise=noise,
        noise_senders=noise_senders,
        sum_law=sum_law._replace(clip=clip, embed=embed) if isinstance(sum_law, SumLaw) else sum_law,
    )


def at_portions(mechanism: Mechanism, used: int) -> Mechanism:
    """The mechanism with so many of its portions.

    Raises:
      ValueError: the mechanism has no portions, or not so many.
    """
    if mechanism.portions is None:
        raise ValueError(
            f"{mechanism.facts.name} was made in one piece: a schedule needs `poisson_embedding(..., portions=...)`."
        )
    if not 1 <= used <= mechanism.portions.whole or int(used) != used:
        raise ValueError(
            f"{used} portions of {mechanism.portions.whole}: a round uses a whole number from 1 to all of them."
        )
    return mechanism.portions.mechanism(int(used))


def one_grid_step(mechanism: Mechanism) -> float:
    """The value of one grid step, in the update's unit.

    Raises:
      ValueError: the mechanism's coordinates differ in it (`grouped`).
    """
    if mechanism.bounds.grid_step is None:
        raise ValueError(
            f"{mechanism.facts.name} has no one grid step, so its sums cannot be read in the update's unit; take its parts one by one."
        )
    return mechanism.bounds.grid_step


def check_positive(**values: float) -> None:
    """Refuse NaN, infinite, zero and negative parameters, naming the one at fault."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value} must be a positive finite number.")


def check_bounds(clip_norm: float, coordinate_bound: float) -> None:
    """Refuse a coordinate bound above the L2 bound: it could never bind, and K = (C / c_inf)**2 would fall below one coordinate."""
    if coordinate_bound > clip_norm:
        raise ValueError(
            f"coordinate_bound={coordinate_bound} exceeds clip_norm={clip_norm}, so it would bound nothing; "
            "set coordinate_bound=clip_norm for no per-coordinate clip."
        )


def check_honest(honest_senders: int, senders: int | None = None) -> None:
    """At least the target itself must be honest, and no more senders can be honest than send."""
    if honest_senders < 1 or int(honest_senders) != honest_senders:
        raise ValueError(f"honest_senders={honest_senders} must be a whole number >= 1 (the target itself is honest).")
    if senders is not None and honest_senders > senders:
        raise ValueError(f"honest_senders={honest_senders} exceeds senders={senders}.")
