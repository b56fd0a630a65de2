"""Settle and stop: training ends when its last half could not have gained more than fitting noise gains.

**Rule.** After round t let g be the mean of the w gradients that the last half of the rounds released, and m how far the parameters moved meanwhile. Along
any move of this length the loss (of clipped gradients, to first order) falls by at most ||g|| ||m||, whichever way momentum swung: Cauchy-Schwarz. What is
known of the noise in g is taken off: its squared norm is s^2/w times a chi-square with D degrees of freedom, s the noise of one round, of which the lower 5 %
point is about D - 1.645 sqrt(2 D). So

    G_t = ||m|| sqrt(max(||g||^2 - (D - 1.645 sqrt(2 D)) s^2 / w, 0))

bounds the gain of the last half from above at 95 % confidence. Training stops at the first t >= 8 with

    G_t <= D / (2 n)    and    G_t < G_(t/2).

D / (2 n) is what D parameters gain in mean log-likelihood on n units where there is nothing to learn (Wilks 1938: 2 n times the gain is chi-square with D
degrees of freedom, so D on average); the second condition keeps a training that has not got under way from being taken for one that has settled. Both sides
follow from D, n and the known noise; the form of the rule was chosen on parts of the training records of seven tables, no constant was.
(Where the loss is no log-likelihood, such as a bounded loss of a number, the comparison with D / (2 n) is a convention in the loss's own unit.)

**What it saves.** A run is planned with the same noise in every round up to its last, so a stop after t of T rounds leaves about 1 - t/T of the variance. (The
schedule for a fixed number of rounds has spent nine tenths of its noise after three quarters of them and leaves little to save.) The parameters are averaged
with growing weights, which need not know the last round. What is claimed is budget, not accuracy; `experiments/controllers.py` measures both.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from fedjax_poisson.federated.control import Controller, Decision, Plan, Released, Start, decision

_FIRST = 8  # before it, half of the rounds are fewer than four
_MARKS = 60  # of a training, at which sums and parameters are remembered: memory is twice that times D
_ONE_SIDED = 1.645


class Memory(NamedTuple):
    """What is remembered of past releases, at each mark.

    Attributes:
      gradient: float32 `[marks + 1, D]`, sum of the gradients up to there.
      energy: float32 `[marks + 1]`, sum of the noise variances of a coordinate up to there.
      params: float32 `[marks + 1, D]`, parameters there; the initial ones at 0.
      gain: float32 `[marks + 1]`, G there, infinite before the first two.
    """

    gradient: Array
    energy: Array
    params: Array
    gain: Array


@functools.lru_cache(maxsize=32)
def settle(rounds: int, records: float) -> Controller:
    """Stop when half of the rounds gained no more than fitting noise would (module docstring).

    Args:
      rounds: T, the most rounds.
      records: n, units that the gradient is the mean over, public or released.
    """
    if rounds < 1 or not records > 0:
        raise ValueError(
            f"rounds={rounds} and records={records}: give at least one round and a positive number of units."
        )
    apart = -(-rounds // _MARKS)  # rounds between marks
    marks = -(-rounds // apart)

    def init(start: Start) -> tuple[Memory, Decision]:
        vectors, numbers = jnp.zeros((marks + 1, start.params.size), jnp.float32), jnp.zeros(marks + 1, jnp.float32)
        return Memory(vectors, numbers, vectors.at[0].set(start.params), numbers + jnp.inf), decision(start.whole)

    def step(memory: Memory, released: Released) -> tuple[Memory, Decision]:
        dimension = released.gradient.size
        mark = jnp.minimum((released.number + apart - 1) // apart, marks)
        begins = (released.number - 1) % apart == 0
        before = jnp.where(begins, mark - 1, mark)
        gradient = memory.gradient.at[mark].set(memory.gradient[before] + released.gradient)
        energy = memory.energy.at[mark].set(memory.energy[before] + jnp.square(released.noise))
        params = memory.params.at[mark].set(released.params)
        half = mark // 2
        window = jnp.maximum((released.number - half * apart).astype(jnp.float32), 1)
        mean = (gradient[mark] - gradient[half]) / window
        known = max(dimension - _ONE_SIDED * math.sqrt(2 * dimension), 0.0)
        noise = known * (energy[mark] - energy[half]) / jnp.square(window)
        signal = jnp.sqrt(jnp.maximum(jnp.vdot(mean, mean) - noise, 0))
        gained = jnp.where(mark >= 2, signal * jnp.linalg.norm(params[mark] - params[half]), jnp.inf)
        settled = (gained <= dimension / (2 * records)) & (gained < memory.gain[half]) & (released.number % apart == 0)
        after = Memory(gradient, energy, params, memory.gain.at[mark].set(gained))
        return after, decision(released.portions, settled & (released.number >= _FIRST))

    return Controller("settle", init, step, stopped="settled")


def settle_of(plan: Plan) -> Controller:
    """For a run."""
    return settle(plan.rounds, plan.records)
