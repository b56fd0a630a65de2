"""Risk-steered noise: rounds become cheaper as their sums say less, and end when they say nothing.

**Rule.** A round's ratio is R = ||g||^2 / (D s^2), g the released mean gradient and s the known standard deviation of its noise. Where the sum is noise
alone, D R is chi-square with D degrees of freedom (approximately: counts are nearly normal), so the mean of R over a block of `BLOCK` rounds is 1 with
standard deviation sqrt(2 / (D BLOCK)). A block whose mean is not above 1 by 1.645 of them (one-sided 5 %) shows no signal above the noise that protects it:
the next block uses half of the portions. One that shows a signal doubles them again, up to all. A block without signal at one portion ends the training.

Every round costs at most what was planned for it, so a run stays within its budget wherever it goes. A block without visible signal still moves the
parameters towards the optimum on average, so this rule gives up accuracy for budget; `experiments/controllers.py` measures how much.

**Why no audit steers it.** Leakage measured by canaries would be the direct reading of risk. It could be done soundly (coins that choose the canaries are
shared by both worlds), but one run shows too little while it goes on: an ideal auditor of 1,000 canaries under epsilon 3 bounds it from below by 0.5 after a
quarter of the budget and by 1.3 at its end, with a spread of 0.2 to 0.3 between runs, and with 100 by 0.1 and 0.4, spread 0.2 to 0.4 (the same script).
What was charged bounds the leakage from above at every moment, exactly, and is what a ledger goes by.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from fedjax_poisson.federated.control import Controller, Decision, Plan, Released, Start, decision

BLOCK = 5
"""Rounds that are judged together: as many as a momentum of 0.8 averages over."""

_ONE_SIDED = 1.645


class Memory(NamedTuple):
    """What is remembered of past releases: the sum of the ratios of this block, float32 `[]`, and the whole noise, int32 `[]`."""

    ratios: Array
    whole: Array


@functools.cache
def risk() -> Controller:
    """Halve the noise budget of a round where its sum shows no signal, double it where it does, stop where nothing is left (module docstring)."""

    def init(start: Start) -> tuple[Memory, Decision]:
        return Memory(jnp.float32(0), jnp.int32(start.whole)), decision(start.whole)

    def step(memory: Memory, released: Released) -> tuple[Memory, Decision]:
        dimension = released.gradient.size
        ratio = jnp.vdot(released.gradient, released.gradient) / (dimension * jnp.square(released.noise))
        ratios, ends = memory.ratios + ratio, released.number % BLOCK == 0
        seen = ratios / BLOCK > 1 + _ONE_SIDED * math.sqrt(2 / (dimension * BLOCK))
        changed = jnp.where(
            seen, jnp.minimum(2 * released.portions, memory.whole), jnp.maximum(released.portions // 2, 1)
        )
        stop = ends & ~seen & (released.portions == 1)
        after = Memory(jnp.where(ends, jnp.float32(0), ratios), memory.whole)
        return after, decision(jnp.where(ends, changed, released.portions), stop)

    return Controller("risk", init, step, stopped="stopped: its sums were noise alone")


def risk_of(plan: Plan) -> Controller:
    """For a run."""
    del plan
    return risk()
