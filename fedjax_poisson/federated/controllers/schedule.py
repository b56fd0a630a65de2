"""Noise that was fixed before the first round: the same in every round, or a list of portions. Neither looks at a release."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from fedjax_poisson.federated.control import Controller, Decision, Plan, Released, Start, decision


@functools.cache
def constant() -> Controller:
    """All of the noise in every round."""
    return Controller(
        "constant", lambda start: ((), decision(start.whole)), lambda memory, released: (memory, _same(released))
    )


def _same(released: Released) -> Decision:
    return decision(released.portions)


def schedule(portions: Sequence[int]) -> Controller:
    """Portions of the noise that round 1, 2, ... uses, such as `tail_average_portions`; after the last it stops.

    Args:
      portions: one whole number a round, at least 1; the algorithm refuses more than the mechanism has.
    """
    if not len(portions) or any(int(each) != each or each < 1 for each in portions):
        raise ValueError(f"portions={list(portions)}: give one whole number from 1 for each round.")
    return _scheduled(tuple(int(each) for each in portions))


@functools.lru_cache(
    maxsize=32
)  # one controller for each schedule, so that algorithms with the same one share its programs
def _scheduled(planned: tuple[int, ...]) -> Controller:
    def init(start: Start) -> tuple[jnp.ndarray, Decision]:
        if max(planned) > start.whole:
            raise ValueError(
                f"{max(planned)} portions of {start.whole}: a schedule needs a mechanism that was made with `poisson_embedding(..., portions=...)`, and a "
                "round uses a whole number from 1 to all of them."
            )
        return jnp.array(planned, jnp.int32), decision(planned[0])

    def step(memory: jnp.ndarray, released: Released) -> tuple[jnp.ndarray, Decision]:
        last = len(planned) - 1
        return memory, decision(memory[jnp.minimum(released.number, last)], released.number > last)

    return Controller("schedule", init, step, stopped="at the end of its schedule")


def schedule_of(plan: Plan) -> Controller:
    """The schedule that a run planned; all of the noise where it planned none."""
    return constant() if plan.portions is None else schedule(plan.portions)
