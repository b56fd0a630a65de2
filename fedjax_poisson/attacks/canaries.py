"""Canaries through the real pipeline: records in `fedsgd`, clients in `private_sum`, encrypted, added and opened like everything else.

Each canary is in by a fair coin. What an auditor then sees is scored: **white-box**, the dot product of the released noisy sums with the
canary's own clipped gradient, less what the honest records and the other canaries are expected to add to it; **black-box**, the canary's loss
under the final parameters. `one_run` turns scores and coins into a lower bound of epsilon.

White-box scores are the linear least-squares estimate of the coins. With G_t `[m, D]` the canaries' clipped gradients in round t, s_t the opened
sum less the honest records' expected part, q the sampling rate and v the noise variance of a coordinate,

    b = 1/2 + (q**2 sum_t G_t G_t' + 4 v)^-1 (q sum_t G_t s_t - q**2 sum_t G_t G_t' 1/2),

the dot product `G_t s_t` where gradients are orthogonal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.attacks.training import AttackedTraining
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated.algorithm import Algorithm
from fedjax_poisson.federated.client import Client, ClientOf, Schedule
from fedjax_poisson.federated.population import Population, make_population
from fedjax_poisson.federated.private_sum import Gate, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.server import Paced
from fedjax_poisson.mechanisms.types import Mechanism, one_grid_step
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import GRID_BITS, Stream, fold_in

WHITE_BOX = (
    "the released sums of every round, the parameters they were taken at, canaries of its own choosing in the training data, and every other "
    "record (the adversary of the definition, stronger than any server)"
)
BLACK_BOX = "the final parameters and canaries of its own choosing in the training data"


class CanaryRun(NamedTuple):
    """The result of a run with canaries.

    Attributes:
      included: bool `[m]`, the coins.
      white_box: float64 `[m]`, scores from the released sums, larger means included.
      black_box: float64 `[m]`, minus the loss under the final parameters; None where no model was trained.
      rounds: releases that were scored.
    """

    included: np.ndarray
    white_box: np.ndarray
    black_box: np.ndarray | None
    rounds: int


class Released(NamedTuple):
    """State of `recording`: the last released mean gradient, a tree like the parameters."""

    gradient: Any


def recording(optimizer: optax.GradientTransformation | Paced) -> optax.GradientTransformation:
    """The same optimiser, which also keeps the released mean gradient in its state: the server sees it anyway, the auditor reads it there.

    Pass it to `fedsgd` as `server_optimizer`; `federated` itself stays as it is.
    """

    def init(params: Any) -> tuple[Released, Any]:
        return Released(jax.tree.map(jnp.zeros_like, params)), optimizer.init(params)

    def update(gradient: Any, state: tuple[Released, Any], params: Any = None) -> tuple[Any, tuple[Released, Any]]:
        updates, inner = optimizer.update(gradient, state[1], params)
        return updates, (Released(gradient), inner)

    return optax.GradientTransformation(init, update)


def craft_records(
    model: Model, params: Any, shape: tuple[int, ...], count: int, key: Array, scale: float = 3.0
) -> tuple[Array, Array]:
    """Canary records with long gradients in different directions: Gaussian features of this scale, labelled against the model.

    Args:
      model: the model; one logit for a binary label, or one for each class.
      params: the public initial parameters.
      shape: of one record.
      count: m.
      key: draws the features.
      scale: their standard deviation, beyond that of standardised records.

    Returns:
      (float32 `[m, *shape]`, labels `[m]`: float32 0/1, or int32 classes).
    """
    x = jnp.float32(scale) * jax.random.normal(key, (count, *shape), jnp.float32)
    return x, labels_against(model, params, x)


def labels_against(model: Model, params: Any, x: Array) -> Array:
    """The label that the model finds least likely, for each record: float32 `[m]` 0/1, or int32 classes `[m]`."""
    logits = model.apply(params, x)
    return (logits <= 0).astype(jnp.float32) if logits.ndim == 1 else jnp.argmin(logits, axis=1).astype(jnp.int32)


def plant(cohort: Records, x: Array, y: Array, included: np.ndarray) -> Records:
    """The cohort with canaries appended, canary i at site i mod S; one that is out is padding: its contribution is zero.

    Args:
      cohort: records `[S, n]`; each canary becomes a separate unit.
      x: float32 `[m, ...]`.
      y: `[m]`.
      included: bool `[m]`.
    """
    sites, room = cohort.labels.shape
    extra = -(-len(x) // sites)
    order = np.full((sites, extra), -1)
    for i in range(len(x)):
        order[i % sites, i // sites] = i
    there = order >= 0
    taken = np.where(there, order, 0)
    mask = np.where(there, np.asarray(included)[taken], False)
    unit = np.where(mask, np.arange(room, room + extra, dtype=np.int32), np.int32(-1))
    return Records(
        features=jnp.concatenate([cohort.features, jnp.asarray(x)[taken]], axis=1),
        labels=jnp.concatenate([cohort.labels, jnp.asarray(y)[taken].astype(cohort.labels.dtype)], axis=1),
        mask=jnp.concatenate([cohort.mask, jnp.asarray(mask)], axis=1),
        unit=jnp.concatenate([cohort.unit, jnp.asarray(unit)], axis=1),
    )


def coins(canaries: int, seed: int) -> np.ndarray:
    """bool `[m]`: which canaries are in. Independent fair coins, as the theorem wants (not exactly half)."""
    return np.random.default_rng(seed).random(canaries) < 0.5


class CanaryRecords(NamedTuple):
    """Canaries among records.

    Attributes:
      x: float32 `[m, ...]` (`craft_records`).
      y: `[m]`.
      included: bool `[m]`, from `coins`.
    """

    x: Array
    y: Array
    included: np.ndarray


def run_with_canary_records(
    algorithm: Algorithm,
    training: AttackedTraining,
    cohort: Records,
    canaries: CanaryRecords,
    key: Array,
    stream: Stream,
    *,
    gate: Gate | None = None,
    report: Callable[[int], None] | None = None,
) -> CanaryRun:
    """Train with canary records through `fedsgd` and score them.

    Args:
      algorithm: `fedsgd(...)` of this training, its `server_optimizer` wrapped in `recording`.
      training: what the auditor knows of it.
      cohort: the honest records, standardised.
      canaries: with their coins.
      key: initial parameters.
      stream: the run's stream; round t takes `fold_in(stream, t)`.
      gate: asked before each opening.
      report: called with the number of rounds done, after each.

    Returns:
      `CanaryRun`.
    """
    x, y, included = canaries
    model, rate = training.model, training.sampling_rate
    planted = plant(cohort, x, y, included)
    state = algorithm.init(key)
    if not isinstance(state.optimizer, tuple) or not isinstance(state.optimizer[0], Released):
        raise ValueError(
            "the algorithm's server_optimizer does not keep what was released; wrap it: recording(optimizer)."
        )
    gram, along = np.zeros((len(x), len(x))), np.zeros(len(x))
    largest = records_lib.largest_unit(np.asarray(cohort.unit))
    for number in range(training.rounds):
        params = state.params
        state, _ = algorithm.apply(state, planted, fold_in(stream, number), gate)
        clipped, honest = _expected(model, training.mechanism, params, cohort, x, y, largest)
        mean = np.asarray(trees.flatten(state.optimizer[0].gradient), np.float64)
        rest = mean * rate * training.records - rate * np.asarray(honest, np.float64)
        directions = rate * np.asarray(clipped, np.float64)
        gram += directions @ directions.T
        along += directions @ rest
        if report is not None:
            report(number + 1)
    noise = training.mechanism.variance(cohort.labels.shape[0])
    white = np.linalg.solve(gram + 4 * noise * np.eye(len(x)), along - gram.sum(axis=1) / 2)
    black = -np.asarray(model.loss(algorithm.parameters(state), x, y.astype(cohort.labels.dtype)), np.float64)
    return CanaryRun(np.asarray(included, bool), white, black, training.rounds)


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def _expected(
    model: Model, mechanism: Mechanism, params: Any, cohort: Records, x: Array, y: Array, largest: int
) -> tuple[Array, Array]:
    """Clipped gradients of the canaries, float32 `[m, D]`, and the honest records' clipped sum, float32 `[D]`, in the update's unit."""
    records_lib.check_sums_fit(mechanism, cohort.labels.shape[1])
    contribution = records_lib.gradient_contribution(model.loss, params)
    step = jnp.float32(one_grid_step(mechanism))
    clipped = jax.vmap(lambda a, b: mechanism.clip(contribution(a, b)))(x, y.astype(cohort.labels.dtype))

    def one_site(xs: Array, ys: Array, unit: Array) -> Array:
        everyone = jnp.ones(xs.shape[0], bool)
        return records_lib.summed_contributions(
            contribution, mechanism.clip, xs, ys, unit, everyone, largest_unit=largest
        )

    top = jnp.int32(2**GRID_BITS)
    sums = jnp.clip(jax.vmap(one_site)(cohort.features, cohort.labels, cohort.unit), -top, top)
    return clipped.astype(jnp.float32) * step, jnp.sum(sums, axis=0).astype(jnp.float32) * step


def canary_updates(mechanism: Mechanism, canaries: int, dimension: int) -> np.ndarray:
    """Orthogonal updates of canary clients, each as long as the clip allows: float32 `[m, D]` on disjoint blocks of coordinates.

    A block has `K = min((C / c_inf)**2, D / m)` coordinates at -c_inf, the direction that the accountant calls worst.

    Raises:
      ValueError: there are more canaries than coordinates, or the mechanism has no single clip norm (`grouped`).
    """
    norm, bound = mechanism.bounds.clip_norm, mechanism.bounds.coordinate_bound
    if norm is None or bound is None:
        raise ValueError(
            f"{mechanism.facts.name} states no clip_norm, so no update is as long as its clip allows; audit its parts."
        )
    width = dimension // canaries
    if width < 1:
        raise ValueError(f"{canaries} canary clients need {canaries} separate coordinates; the update has {dimension}.")
    width = min(width, max(int((norm / bound) ** 2 + 1e-9), 1))
    updates = np.zeros((canaries, dimension), np.float32)
    for i in range(canaries):
        updates[i, i * width : (i + 1) * width] = -bound
    return updates


def run_with_canary_clients(
    mechanism: Mechanism,
    aggregator: Aggregator,
    updates: np.ndarray,
    included: np.ndarray,
    stream: Stream,
    *,
    rounds: int = 1,
    gate: Gate | None = None,
    sum_of: Callable[..., Any] = private_sum,
) -> CanaryRun:
    """Canary clients as the senders of encrypted sums: one that is out sends zero and its dark noise.

    Args:
      mechanism: an integer mechanism at client level.
      aggregator: of m senders.
      updates: float32 `[m, D]` (`canary_updates`).
      included: bool `[m]`.
      stream: round t takes `fold_in(stream, t)`.
      rounds: releases.
      gate: asked before each opening.
      sum_of: the private sum; another one only to test the audit itself.

    Returns:
      `CanaryRun` with white-box scores only.
    """
    clipped = _clip_all(mechanism, jnp.asarray(updates))
    grids = jnp.where(jnp.asarray(included, bool)[:, None], clipped, jnp.int32(0))
    scores = np.zeros(len(updates))
    for number in range(rounds):
        released, _ = sum_of(mechanism, aggregator, grids, fold_in(stream, number), gate=gate)
        scores += np.asarray(updates, np.float64) @ np.asarray(released, np.float64)
    return CanaryRun(np.asarray(included, bool), scores, None, rounds)


def canary_population(updates: np.ndarray, included: np.ndarray) -> tuple[Model, ClientOf, Population]:
    """Canary clients for `fedavg`: client i holds its update as its one record and sends it as it is; one that is out holds zeros.

    Args:
      updates: float32 `[m, D]` (`canary_updates`).
      included: bool `[m]`.

    Returns:
      A model of D parameters, the work of a client, and the population of m clients: `fedavg(model, client=client, population=population,
      senders=m, mechanism=mechanism, aggregator=..., server_optimizer=optax.sgd(1.0), fidelity="messages")` adds the
      released mean update to the parameters. With fidelity "release" what is audited is one draw for the sum, and not whether clients bring their shares of
      the noise.
    """
    held = np.where(np.asarray(included, bool)[:, None], np.asarray(updates, np.float32), np.float32(0))
    size = held.shape[1]
    model = Model(
        init=lambda key, x: jnp.zeros(size, jnp.float32),
        apply=lambda params, x: x @ params,
        loss=lambda params, x, y: -(x @ params),
    )

    def work(same_model: Model) -> Client:
        del same_model
        return Client(
            begin=lambda params, shared, client_state: jnp.zeros_like(params),
            step=lambda state, batch: state + jnp.sum(batch.x, axis=0),
            finish=lambda params, shared, client_state, state: (state, client_state),
            schedule=Schedule(),
        )

    return model, work, make_population(held[:, None], np.zeros((len(held), 1), np.float32))


def run_with_canary_fedavg(
    algorithm: Algorithm, updates: np.ndarray, included: np.ndarray, key: Array, stream: Stream, *, rounds: int = 1
) -> CanaryRun:
    """Canary clients through `fedavg`: local training, embedding, encryption and sums as in any other federation of clients.

    Args:
      algorithm: `fedavg` of a `canary_population` of these updates and coins, with `optax.sgd(1.0)` as the server's optimiser and fidelity "messages".
      updates: float32 `[m, D]`.
      included: bool `[m]`.
      key: of `algorithm.init`.
      stream: round t takes `fold_in(stream, t)`.
      rounds: releases.

    Returns:
      `CanaryRun` with white-box scores only: the sum over rounds of a canary's update times the released change of the parameters.
    """
    state, ids = algorithm.init(key), np.arange(len(updates))
    start = np.asarray(trees.flatten(algorithm.parameters(state)), np.float64)
    for number in range(rounds):
        state, _ = algorithm.apply(state, ids, fold_in(stream, number))
    moved = np.asarray(trees.flatten(algorithm.parameters(state)), np.float64) - start
    return CanaryRun(np.asarray(included, bool), np.asarray(updates, np.float64) @ moved * len(updates), None, rounds)


@functools.partial(jax.jit, static_argnums=0)
def _clip_all(mechanism: Mechanism, updates: Array) -> Array:
    return jax.vmap(mechanism.clip)(updates)
