"""The server's step: an optax update of the parameters from an estimated mean gradient, and the running average of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from fedjax_poisson import trees


class Server(NamedTuple):
    """A custom rule for the server, where an optax transformation is not enough: it sees the parameters and may set them.

    FedDyn (Acar et al. 2021, arXiv:2111.04263), for example, keeps a drift `h` and moves the parameters by the mean update and by `h`.

    Attributes:
      init: `(params) -> memory`, what the server keeps between rounds.
      step: `(params, gradient, memory) -> (params, memory)`; the gradient is the estimated mean gradient of `fedsgd`, or minus the mean update of
        `fedavg`, a tree like params. A function of the release only, so it costs no privacy.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]


class Paced(NamedTuple):
    """An optax transformation of step size 1 whose updates are multiplied by a factor: algorithms that differ in the factor share their programs.

    `Paced(optax.sgd(1.0), rate)` is `optax.sgd(rate)`, bit for bit, as is Adam; the factor is an argument of the program in place of a constant.

    Attributes:
      unit: the transformation, the same object for all algorithms that are to share programs.
      factor: a number, or float32 `[]`.
    """

    unit: optax.GradientTransformation
    factor: float | Array

    def init(self, params: Any) -> Any:
        """The optimiser's state."""
        return self.unit.init(params)

    def update(self, gradient: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """As the transformation's, times the factor."""
        updates, state = self.unit.update(gradient, state, params)
        factor = jnp.asarray(self.factor, jnp.float32)
        return jax.tree.map(lambda leaf: factor * leaf, updates), state


ServerOptimizer: TypeAlias = optax.GradientTransformation | Server | Paced
"""What algorithms take: an optax transformation, one whose step size is an argument of programs, or a rule of your own."""


def factor_apart(optimizer: ServerOptimizer) -> tuple[ServerOptimizer, np.float32 | None]:
    """What of an optimiser belongs to a program's structure, and what is a number; `with_factor` joins them."""
    return (optimizer.unit, np.float32(optimizer.factor)) if isinstance(optimizer, Paced) else (optimizer, None)


def with_factor(optimizer: Any, factor: Any) -> ServerOptimizer:
    """The optimiser of which these are the parts."""
    return optimizer if factor is None else Paced(optimizer, factor)


AverageFrom: TypeAlias = int | Literal["growing"] | None
"""Which parameters are averaged: those after later rounds than this, with equal weights; about the last half of the rounds done so far, whenever training
stops ("growing"); none."""


class State(NamedTuple):
    """The state that the next round needs.

    Attributes:
      params: the model's parameters.
      optimizer: the server optimiser's state.
      average: running mean of the parameters over the averaged rounds (a function of past releases: costs no privacy).
      round: int32 `[]`, rounds done.
      controller: what the controller remembers and decided for the next round (`control.Control`); empty where nothing steers.
    """

    params: Any
    optimizer: Any
    average: Any
    round: Array
    controller: Any = ()


def init_state(params: Any, optimizer: ServerOptimizer) -> State:
    """State before the first round."""
    return State(params, optimizer.init(params), jax.tree.map(jnp.zeros_like, params), jnp.int32(0))


def server_step(state: State, gradient: Array, optimizer: ServerOptimizer, average_from: AverageFrom) -> State:
    """One optimiser step.

    Args:
      state: current state.
      gradient: float32 `[D]`, estimated mean gradient (or minus a mean update), flat.
      optimizer: optax transformation, or a `Server`.
      average_from: parameters after rounds > average_from enter the average with equal weights; None for no averaging. "growing" weighs the parameters after
        round s by s (s + 1): at any time t the centre of the average is near 3 t / 4 and its effective length 5 t / 9, as of the mean over the last half
        (polynomial-decay averaging, Shamir and Zhang 2013, arXiv:1212.1824).
    """
    tree = trees.layout(state.params).unflatten(gradient)
    if isinstance(optimizer, Server):
        params, inner = optimizer.step(state.params, tree, state.optimizer)
    else:
        updates, inner = optimizer.update(tree, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
    done = state.round + jnp.int32(1)
    average = state.average
    if average_from == "growing":
        share = jnp.float32(3) / (done + 2).astype(jnp.float32)
        average = jax.tree.map(lambda a, p: a + (p - a) * share, state.average, params)
    elif average_from is not None:
        start = jnp.int32(average_from)
        weight = jnp.float32(1) / jnp.maximum(done - start, jnp.int32(1)).astype(jnp.float32)
        average = jax.tree.map(lambda a, p: jnp.where(done > start, a + (p - a) * weight, a), state.average, params)
    return State(params, inner, average, done, state.controller)


def is_averaged(rounds: int, average_from: AverageFrom) -> bool:
    """Whether the average has begun after so many rounds."""
    return rounds > (0 if average_from == "growing" else average_from) if average_from is not None else False


def final_parameters(state: State, average_from: AverageFrom) -> Any:
    """The parameters to evaluate or ship: the average once it has begun, else the last iterate."""
    return state.average if is_averaged(int(state.round), average_from) else state.params
