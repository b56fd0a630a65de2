"""The seam for what adapts during a training: a controller decides the next round's noise, and when to stop, from what was released.

A controller is two pure functions, `init(start) -> (memory, decision)` and `step(memory, released) -> (memory, decision)`. It knows its arguments only:
`Released` holds the estimate of the opened sum, what the server computed from it and from earlier ones, and public numbers; no record, no sender's message,
no score on private records. `checked` holds it to that: `step` is traced with abstract values, so it is a fixed function of its arguments, and it is
refused if it carries an array of its own or calls back into Python. `init` runs before any record is read; the numbers that a controller is made with are
public or released, like the code it is written in.

**Why this is private (proved).** Every round is charged with the facts of the noise that it uses, before its sum is opened, and these facts are a function
of earlier releases. Both laws of a ledger are fully adaptive filters: remaining variance (the theorem of `accounting.remaining_variance` covers "any
dependence on the past: dark counts, ..., whether to go on") and Renyi curves at an order that was fixed beforehand (Feldman and Zrnic 2021, arXiv:2008.11193;
`accounting.law`). So the ledger's (epsilon, delta) holds whatever a controller does, at any moment of stopping. It is that budget which is guaranteed:
what a ledger *reads* after an early stop is what is no longer there for the next question, and not a smaller guarantee, since the moment of stopping was
itself chosen from releases. A controller that adapts therefore needs a ledger with a budget; a meter, which reads the best order for what was spent, is
valid for fixed schedules only and is refused.

**A run needs less than that (proved).** Let every round use at most the portions that were planned for it, and let there be at most as many rounds. Then all
releases together are a function of those of the plan: stopping drops rounds, and the counts of p portions can be had from those of P >= p by keeping each
event with probability p/P (every bound here is of the counts of both channels, of which the opened difference is a function). So the epsilon of the fixed
plan holds, by post-processing, under any way of accounting it. `run` holds controllers to its plan (`runs.steering`) and states the plan's epsilon.

**Why the clip is no part of the decision.** It could be charged soundly (bounds that shrink have a price, `Mechanism.scaled_rdp`), but on tables a clip that
follows the released gradients loses accuracy or gains nothing, and it would change what the grid can hold. The noise can be changed in
portions (`Mechanism.portions`), which share one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.federated.host_calls import is_host_call, programs_of
from fedjax_poisson.federated.sharing_programs import built_once
from fedjax_poisson.mechanisms.types import Mechanism, at_portions


class Start(NamedTuple):
    """What a controller knows before the first round.

    Attributes:
      params: float32 `[D]`, the initial parameters, flat; they are public.
      whole: portions of the mechanism's noise; 1 where it comes in one piece.
    """

    params: Array
    whole: int


class Plan(NamedTuple):
    """What a run knows when it makes its controller; public or released.

    Attributes:
      rounds: T, the most rounds.
      portions: the most portions of the noise that each round uses, which the budget was planned for; None for all of it in one piece.
      records: units that the mean gradient is taken over.
    """

    rounds: int
    portions: tuple[int, ...] | None
    records: float


class Released(NamedTuple):
    """What a controller sees of a round: its release and public numbers.

    Attributes:
      number: int32 `[]`, the round, 1, 2, ...
      gradient: float32 `[D]`, the estimated mean gradient, a function of the opened sum.
      params: float32 `[D]`, the parameters after the server's step.
      average: float32 `[D]`, the averaged parameters after it.
      portions: int32 `[]`, of the noise that the round used.
      noise: float32 `[]`, standard deviation of the noise in each coordinate of the gradient, from the mechanism's facts.
    """

    number: Array
    gradient: Array
    params: Array
    average: Array
    portions: Array
    noise: Array


class Decision(NamedTuple):
    """What the next round does.

    Attributes:
      portions: int32 `[]`, portions of the noise's dark count, 1 to all; privacy spent grows with it, variance falls with it.
      stop: bool `[]`, True if there is no next round.
    """

    portions: Array
    stop: Array


class Controller(NamedTuple):
    """A rule for noise and stopping.

    Attributes:
      name: for outputs.
      init: `(start) -> (memory, decision)`: the memory is a pytree of arrays, the decision that of round 1.
      step: `(memory, released) -> (memory, decision)` after a round, the decision that of the next one.
      stopped: what it means when this controller stops: "settled", for example.
    """

    name: str
    init: Callable[[Start], tuple[Any, Decision]]
    step: Callable[[Any, Released], tuple[Any, Decision]]
    stopped: str = "stopped"


class Control(NamedTuple):
    """A controller in the state of an algorithm, saved and restored with it: a resumed run decides as one that was never stopped.

    Attributes:
      memory: the controller's.
      next: decision for the next round.
    """

    memory: Any
    next: Decision


class Steering(NamedTuple):
    """A controller that was checked for one algorithm.

    Attributes:
      controller: the controller.
      adapts: whether anything it remembers or decides depends on releases.
      start: `(params) -> Control` before the first round; params float32 `[D]`.
      after: `(control, released) -> Control`, compiled.
    """

    controller: Controller
    adapts: bool
    start: Callable[[Array], Control]
    after: Callable[[Control, Released], Control]


def decision(portions: Any, stop: Any = False) -> Decision:
    """A decision from numbers or arrays."""
    return Decision(jnp.asarray(portions, jnp.int32), jnp.asarray(stop, bool))


def whole_noise(mechanism: Mechanism) -> int:
    """Portions of all of a mechanism's noise."""
    return 1 if mechanism.portions is None else mechanism.portions.whole


def mechanism_at(mechanism: Mechanism, portions: int) -> Mechanism:
    """The mechanism of a round that uses so many portions; its facts are what the round costs.

    Raises:
      ValueError: there are not so many.
    """
    return mechanism if mechanism.portions is None and portions == 1 else at_portions(mechanism, portions)


def checked(controller: Controller, dimension: int, mechanism: Mechanism) -> Steering:
    """Hold a controller to the seam (module docstring).

    Args:
      controller: the controller.
      dimension: D of the model.
      mechanism: of a round.

    Raises:
      ValueError: it carries an array of its own, calls back into Python, or gives something else than a `Decision`.
    """
    return _steering(controller, dimension, whole_noise(mechanism))


@built_once
def _steering(controller: Controller, dimension: int, whole: int) -> Steering:
    """The same for equal controllers, so that a sweep over noise levels traces and compiles it once."""
    vector = jax.ShapeDtypeStruct((dimension,), jnp.float32)
    one, word = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
    released: Any = (one, vector, vector, vector, one, word)
    memory, first = jax.eval_shape(lambda params: controller.init(Start(params, whole)), vector)
    followed, (after, then) = jax.make_jaxpr(controller.step, return_shape=True)(memory, Released(*released))
    _check_closed(controller, followed)
    if not isinstance(first, Decision) or not isinstance(then, Decision):
        raise ValueError(f"the controller {controller.name!r} must return (memory, Decision(portions, stop)).")
    if str(jax.tree.structure(after)) != str(jax.tree.structure(memory)) or _kinds((after, then)) != _kinds(
        (memory, first)
    ):
        raise ValueError(
            f"the controller {controller.name!r} starts with {_kinds((memory, first))} and goes on with {_kinds((after, then))}: memory and decision must keep "
            "their structure, shapes and types (`control.decision` gives int32 and bool)."
        )
    # Gradient, parameters and average depend on records; the other fields, and what begins a memory, are public.
    sight = [False] * len(jax.tree.leaves(memory)) + [False, True, True, True, False, False]
    begin_state = jax.jit(lambda params: Control(*controller.init(Start(params, whole))))
    step = jax.jit(lambda control, released: Control(*controller.step(control.memory, released)))
    return Steering(controller, _depends(followed.jaxpr, sight), begin_state, step)


def _kinds(tree: Any) -> list[str]:
    return [f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(tree)]


def _depends(jaxpr: Any, sight: list[bool]) -> bool:
    """Whether any result depends on the arguments that are marked; an equation is taken to use all of its inputs."""
    reached = {id(variable) for variable, marked in zip(jaxpr.invars, sight, strict=True) if marked}
    for equation in jaxpr.eqns:
        if any(id(each) in reached for each in equation.invars):
            reached |= {id(each) for each in equation.outvars}
    return any(id(each) in reached for each in jaxpr.outvars)


def _check_closed(controller: Controller, traced: Any) -> None:
    for constants, equations in programs_of(traced):
        if shapes := [np.shape(each) for each in constants if np.ndim(each)]:
            raise ValueError(
                f"the controller {controller.name!r} carries an array of its own, of shape {shapes[0]}: it may see nothing but what was released. Put "
                "public numbers into the memory that init returns."
            )
        if called := [each for each in equations if is_host_call(each)]:
            raise ValueError(
                f"the controller {controller.name!r} calls back into Python ({called[0]}), where it could see anything; write it in jax.numpy."
            )
