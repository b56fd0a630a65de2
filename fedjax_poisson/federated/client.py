"""The work of one client in a round: a few optimiser steps on its records, as three replaceable pure functions.

    state = begin(params, shared, client_state)        # from the global parameters
    state = step(state, batch)                # once for each batch
    update, client_state = finish(params, shared, client_state, state)   # what goes to the mechanism, and what the client keeps for its next round

`shared` is broadcast by the server (SCAFFOLD's control variate; `()` if there is none) and is a function of past releases only. `client_state` never
leaves the client. `fedavg` takes a function from a `Model` to such a record: `local_sgd(...)`, `local_optimizer(...)` and `scaffold(...)` return one,
and you can write your own.

Sources: McMahan et al. 2017 (FedAvg, arXiv:1602.05629, algorithm 1); Li et al. 2020 (FedProx, arXiv:1812.06127, equation 2); Karimireddy et al. 2020
(SCAFFOLD, arXiv:1910.06378, algorithm 1, option II). FedAdam, FedYogi and FedAdagrad (Reddi et al. 2021, arXiv:2003.00295) are server optimisers:
`optax.adam`, `optax.yogi`, `optax.adagrad`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.federated.features import Features
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream, bits

Params = Any
Tree = Any


class Examples(NamedTuple):
    """Records of one client (or of several, with a leading axis).

    Attributes:
      x: features `[n, ...]`: an array, or a dict of arrays (`features`).
      y: `[n]` or `[n, classes]`.
      mask: bool `[n]`, False for padding; None where every row is a record.
    """

    x: Features
    y: Array
    mask: Array | None = None


class Shared(NamedTuple):
    """State that the server broadcasts in addition to the parameters.

    Attributes:
      init: `(params, steps) -> shared`, with the number of local steps of one round.
      advance: `(shared, mean_update, share) -> shared`, after a round: `mean_update` is the released estimate as a tree, `share` the clients that trained
        in the round over the population: those present over N, times q where a secret sample with rate q trains.
    """

    init: Callable[[Params, int], Tree]
    advance: Callable[[Tree, Params, Array], Tree]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a client goes through its records.

    Attributes:
      batch_size: records of one step; None takes all of them at once.
      epochs: passes over the records.
      shuffle: a new order for every client, round and epoch; else the order of the records.
      unrolled: steps written out in the program before a loop takes over. The first step starts from weights that all clients still share, so it costs
        one matrix product for all of them where it is written out.
    """

    batch_size: int | None = None
    epochs: int = 1
    shuffle: bool = False
    unrolled: int = 2

    def __post_init__(self) -> None:
        if (self.batch_size is not None and self.batch_size < 1) or self.epochs < 1 or self.unrolled < 1:
            raise ValueError(
                f"batch_size={self.batch_size}, epochs={self.epochs}, unrolled={self.unrolled}: each must be at least 1."
            )

    def steps(self, records: int) -> int:
        """Steps of one round for a client padded to `records` records."""
        return self.epochs * -(-records // (self.batch_size or records))


class Client(NamedTuple):
    """One client's work.

    Attributes:
      begin: `(params, shared, client_state) -> state`.
      step: `(state, batch: Examples) -> state`; a batch may hold padding (`mask`), never padding alone.
      finish: `(params, shared, client_state, state) -> (update, client_state)`; the update is a tree like params, the new minus the old parameters.
      schedule: how the records are cut into batches.
      shared: what the server broadcasts; None for nothing.
      init_client_state: `(params) -> client_state`, what a client keeps before its first round; None for nothing.
    """

    begin: Callable[[Params, Tree, Tree], Tree]
    step: Callable[[Tree, Examples], Tree]
    finish: Callable[[Params, Tree, Tree, Tree], tuple[Params, Tree]]
    schedule: Schedule
    shared: Shared | None = None
    init_client_state: Callable[[Params], Tree] | None = None


ClientOf = Callable[[Model], Client]
"""What `fedavg` takes: the client's work for a given model."""


def mean_loss(model: Model, params: Params, batch: Examples) -> Array:
    """The mean loss over the real records of a batch, float32 `[]`; 0 where there is none."""
    losses = model.loss(params, batch.x, batch.y)
    if batch.mask is None:
        return jnp.mean(losses)
    count = jnp.maximum(jnp.sum(batch.mask.astype(jnp.float32)), jnp.float32(1))
    return jnp.sum(jnp.where(batch.mask, losses, jnp.float32(0))) / count


def check_rate(name: str, value: Any) -> float:
    """A positive finite number.

    Raises:
      ValueError: NaN, infinite, zero or negative.
      TypeError: not a number.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}={value!r} must be a number.") from error
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}={value} must be a positive finite number.")
    return number


def local_optimizer(
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int | None = None,
    epochs: int = 1,
    shuffle: bool = False,
    proximal: float = 0.0,
    unrolled: int = 2,
) -> ClientOf:
    """Local training with any optax optimiser, its state fresh in every round.

    Args:
      optimizer: the client's optimiser.
      batch_size: as in `Schedule`.
      epochs: as in `Schedule`.
      shuffle: as in `Schedule`.
      proximal: FedProx's mu: adds mu (w - w_global) to every gradient; 0 is FedAvg.
      unrolled: as in `Schedule`.

    Raises:
      ValueError: proximal is negative or a number of the schedule is below 1.
    """
    if not 0 <= proximal < math.inf:
        raise ValueError(f"proximal={proximal} must be 0 (FedAvg) or a positive finite number (FedProx).")
    schedule = Schedule(batch_size=batch_size, epochs=epochs, shuffle=shuffle, unrolled=unrolled)

    def of(model: Model) -> Client:
        def begin(params: Params, shared: Tree, client_state: Tree) -> Tree:
            del shared, client_state
            return params, optimizer.init(params), params if proximal else ()

        def step(state: Tree, batch: Examples) -> Tree:
            params, inner, start = state
            gradient = jax.grad(lambda p: mean_loss(model, p, batch))(params)
            if proximal:
                gradient = jax.tree.map(lambda g, p, s: g + jnp.float32(proximal) * (p - s), gradient, params, start)
            moves, inner = optimizer.update(gradient, inner, params)
            return optax.apply_updates(params, moves), inner, start

        def finish(params: Params, shared: Tree, client_state: Tree, state: Tree) -> tuple[Params, Tree]:
            del shared
            return jax.tree.map(jnp.subtract, state[0], params), client_state

        return Client(begin, step, finish, schedule)

    return of


def local_sgd(
    learning_rate: float,
    *,
    batch_size: int | None = None,
    epochs: int = 1,
    momentum: float = 0.0,
    shuffle: bool = False,
    proximal: float = 0.0,
    unrolled: int = 2,
) -> ClientOf:
    """Local SGD: FedAvg's client, or FedProx's with `proximal` > 0.

    Args:
      learning_rate: step size on the batch's mean gradient.
      batch_size: as in `Schedule`.
      epochs: as in `Schedule`.
      momentum: of the client's optimiser, fresh in every round.
      shuffle: as in `Schedule`.
      proximal: FedProx's mu.
      unrolled: as in `Schedule`.

    Raises:
      ValueError: the learning rate is not positive and finite, momentum is outside [0, 1), or as in `local_optimizer`.
    """
    rate = check_rate("learning_rate", learning_rate)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum} must be in [0, 1); 0 is plain SGD.")
    return local_optimizer(
        optax.sgd(rate, momentum=momentum or None),
        batch_size=batch_size,
        epochs=epochs,
        shuffle=shuffle,
        proximal=proximal,
        unrolled=unrolled,
    )


def scaffold(
    learning_rate: float, *, batch_size: int | None = None, epochs: int = 1, shuffle: bool = False, unrolled: int = 2
) -> ClientOf:
    """SCAFFOLD's client: SGD corrected by the server's control variate minus the client's.

    With K steps of size h, w_i the client's result and x the global parameters, option II sets c_i' = c_i - c + (x - w_i) / (K h). The change
    c_i' - c_i = -(w_i - x) / (K h) - c is an affine function of the update that is sent anyway, so the server computes the change of c from the released
    mean update: c' = c + share (-mean_update / (K h) - c). Nothing but the update is released, so the privacy cost is that of FedAvg.
    K is the number of steps of the padded client, the same for all: with ragged clients both sides use it, which keeps the sum of the c_i consistent.

    Args:
      learning_rate: h.
      batch_size: as in `Schedule`.
      epochs: as in `Schedule`.
      shuffle: as in `Schedule`.
      unrolled: as in `Schedule`.

    Raises:
      ValueError: the learning rate is not positive and finite.
    """
    rate = check_rate("learning_rate", learning_rate)
    schedule = Schedule(batch_size=batch_size, epochs=epochs, shuffle=shuffle, unrolled=unrolled)
    h = jnp.float32(rate)

    def zeros(params: Params) -> Tree:
        return jax.tree.map(jnp.zeros_like, params)

    def of(model: Model) -> Client:
        def begin(params: Params, shared: Tree, client_state: Tree) -> Tree:
            return params, jax.tree.map(jnp.subtract, shared[0], client_state)

        def step(state: Tree, batch: Examples) -> Tree:
            params, correction = state
            gradient = jax.grad(lambda p: mean_loss(model, p, batch))(params)
            return jax.tree.map(lambda p, g, c: p - h * (g + c), params, gradient, correction), correction

        def finish(params: Params, shared: Tree, client_state: Tree, state: Tree) -> tuple[Params, Tree]:
            c, steps = shared
            update = jax.tree.map(jnp.subtract, state[0], params)
            return update, jax.tree.map(lambda o, s, u: o - s - u / (steps * h), client_state, c, update)

        def advance(shared: Tree, mean_update: Params, share: Array) -> Tree:
            c, steps = shared
            return jax.tree.map(lambda s, u: s + share * (-u / (steps * h) - s), c, mean_update), steps

        shared = Shared(lambda params, steps: (zeros(params), jnp.float32(steps)), advance)
        return Client(begin, step, finish, schedule, shared, zeros)

    return of


def run_client(
    client: Client, params: Params, shared: Tree, client_state: Tree, examples: Examples, stream: Stream
) -> tuple[Array, Tree]:
    """`run_steps` with the update as one flat float32 `[D]`, in tree order."""
    update, client_state = run_steps(client, params, shared, client_state, examples, stream)
    return trees.flatten(update), client_state


def run_steps(
    client: Client, params: Params, shared: Tree, client_state: Tree, examples: Examples, stream: Stream
) -> tuple[Params, Tree]:
    """All the steps of one client.

    Args:
      client: its work.
      params: global parameters.
      shared: broadcast state.
      client_state: what this client kept from its last round.
      examples: its records `[n, ...]`, padded to a length that is the same for all clients.
      stream: draws the order of the records where the schedule shuffles, and nothing else.

    Returns:
      The update, a tree like params, and what the client keeps for its next.
    """
    state = client.begin(params, shared, client_state)
    batches = _batches(client.schedule, examples, stream)
    count = batches.y.shape[0]

    def step(state: Tree, batch: Examples) -> Tree:
        moved = client.step(state, batch)
        if batch.mask is None:
            return moved
        some = jnp.any(batch.mask)  # a batch of padding alone must not move momentum or a proximal term
        return jax.tree.map(lambda new, old: jnp.where(some, new, old), moved, state)

    written = min(count, client.schedule.unrolled)
    for i in range(written):
        state = step(state, jax.tree.map(lambda leaf, i=i: leaf[i], batches))
    if written < count:
        rest = jax.tree.map(lambda leaf: leaf[written:], batches)
        state = jax.lax.scan(lambda s, batch: (step(s, batch), None), state, rest)[0]
    return client.finish(params, shared, client_state, state)


def _batches(schedule: Schedule, examples: Examples, stream: Stream) -> Examples:
    """The records cut into `[steps, B, ...]`, the last batch padded where B does not divide n."""
    count = examples.y.shape[0]
    size = min(schedule.batch_size or count, count)
    parts = -(-count // size)
    missing = parts * size - count
    mask = examples.mask
    if missing and mask is None:
        mask = jnp.ones(count, bool)

    def pad(leaf: Array) -> Array:
        return jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1)) if missing else leaf

    padded = jax.tree.map(pad, Examples(examples.x, examples.y, mask))
    if not schedule.shuffle and schedule.epochs == 1:
        return jax.tree.map(lambda leaf: leaf.reshape(parts, size, *leaf.shape[1:]), padded)

    def one_epoch(words: Array | None) -> Examples:
        order = padded
        if words is not None:
            # Real records first, in random order: a client's steps are full of records before any padding comes.
            key = (
                words >> jnp.uint32(1)
                if mask is None
                else (words >> jnp.uint32(1)) | (~padded.mask).astype(jnp.uint32) << jnp.uint32(31)
            )
            places = jnp.argsort(key)
            order = jax.tree.map(lambda leaf: leaf[places], padded)
        return jax.tree.map(lambda leaf: leaf.reshape(parts, size, *leaf.shape[1:]), order)

    if not schedule.shuffle:
        epochs = [one_epoch(None)] * schedule.epochs
    else:
        words = bits(stream, (schedule.epochs, parts * size))
        epochs = [one_epoch(words[i]) for i in range(schedule.epochs)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *epochs)
