"""Shadow models: the attacked training, repeated on random halves of the records, all in one vmapped program.

A *trainer* is a pure function `(member bool [n], key) -> params`: the attacked training run on the members. LiRA is only as strong as its trainer's
resemblance to the attacked one, so there are two: `plain_trainer` (no privacy) and `private_trainer` (the private sum's own clip, sampling and
counts; encryption changes no number, so it is left out).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from fedjax_poisson.attacks.training import AttackedTraining
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.server import State, init_state, is_averaged, server_step
from fedjax_poisson.mechanisms.noise_source import check_own_noise
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream, fold_in

Trainer = Callable[[Array, Array], Any]
"""`(member bool [n], key) -> params`: one training on the members among n records."""


def balanced_memberships(shadows: int, records: int, seed: int) -> np.ndarray:
    """bool `[M, n]`: each record is a member of exactly half of the shadows (Carlini et al. 2022, section V-A).

    Raises:
      ValueError: M is odd or below 4: a variance for each side needs two models.
    """
    if shadows < 4 or shadows % 2:
        raise ValueError(
            f"{shadows} shadow models: an even number of at least 4 is needed (half of them hold each record)."
        )
    rng = np.random.default_rng(seed)
    ranks = rng.random((shadows, records)).argsort(axis=0)
    return ranks < shadows // 2


def plain_trainer(
    model: Model,
    x: Array,
    y: Array,
    *,
    steps: int,
    batch: int = 64,
    optimizer: optax.GradientTransformation | None = None,
) -> Trainer:
    """Minibatch training without privacy: what overfits.

    Args:
      model: as in `fedsgd`.
      x: float32 `[n, ...]`, all candidate records.
      y: `[n]`.
      steps: optimiser steps.
      batch: records of a step, drawn with replacement among the members.
      optimizer: None for Adam with step 0.01.
    """
    tool = optax.adam(1e-2) if optimizer is None else optimizer

    def train(member: Array, key: Array) -> Any:
        start, draws = jax.random.split(key)
        params = model.init(start, x[:1])
        # Members in front: a uniform index below their number is a uniform member.
        order, count = jnp.argsort(~member, stable=True), jnp.sum(member).astype(jnp.int32)

        def step(carry: tuple[Any, Any], number: Array) -> tuple[tuple[Any, Any], None]:
            params, state = carry
            picked = order[jax.random.randint(jax.random.fold_in(draws, number), (batch,), jnp.int32(0), count)]
            gradient = jax.grad(lambda p: jnp.mean(model.loss(p, x[picked], y[picked])))(params)
            updates, state = tool.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tool.init(params)), jnp.arange(steps, dtype=jnp.int32))[0][0]

    return train


def private_trainer(
    training: AttackedTraining, cohort: Records, *, stream: Stream, start: Any = None, chunk: int = 64
) -> Trainer:
    """`fedsgd` on the members, with the mechanism's clip and counts and without the encryption, which changes no number.

    Args:
      training: the recipe that is repeated.
      cohort: standardised records `[S, n]`; the trainer's member vector is `[S * n]`, over the coins of units (`records.units_of`): a record's
        own position at record level, `site * n + its number` for a patient. Padding is never a member.
      stream: samples and counts; each training folds in its own key.
      start: parameters that every training starts from where they are public; None draws them for each.
      chunk: records vmapped at once; memory is `shadows * chunk * D`.
    """
    model, mechanism, rate = training.model, training.mechanism, training.sampling_rate
    rule = (training.server_optimizer, training.average_from)
    embed, estimate, used = _noise_of_rounds(training)
    sites, count = cohort.labels.shape[:2]
    units = records_lib.units_of(np.asarray(cohort.unit), training.unit)
    sampling = records_lib.Sampling(units, rate, records_lib.record_slots(units, rate), chunk)
    records_lib.check_sums_fit(mechanism, min(sampling.slots, count))

    def train(member: Array, key: Array) -> Any:
        words = jax.random.bits(jax.random.fold_in(key, 1), (2,), jnp.uint32)
        root = fold_in(fold_in(stream, words[0]), words[1])
        kept = member.reshape(sites, count)
        params = model.init(jax.random.fold_in(key, 0), cohort.features[0, :1]) if start is None else start

        def step(state: State, here: tuple[Array, Array]) -> tuple[State, None]:
            number, noise = here
            of_round = fold_in(root, number)
            grids = records_lib.sampled_gradients(
                model.loss, state.params, mechanism.clip, cohort, sampling, of_round, among=kept
            )
            counts = jax.vmap(lambda site, grid: embed(fold_in(of_round, site, "embed"), grid, noise))(
                jnp.arange(sites, dtype=jnp.uint32), grids
            )
            total = estimate(jnp.sum(counts, axis=0, dtype=counts.dtype), sites, noise)
            return server_step(state, total / jnp.float32(rate * training.records), *rule), None

        first = init_state(params, training.server_optimizer)
        last = jax.lax.scan(step, first, (jnp.arange(training.rounds, dtype=jnp.uint32), used))[0]
        return last.average if is_averaged(training.rounds, training.average_from) else last.params

    return train


def _noise_of_rounds(training: AttackedTraining) -> tuple[Callable[..., Array], Callable[..., Array], Array]:
    """`(embed, estimate, used)`: the mechanism's functions with the portions of a round as their last argument, and those of each round, int32 `[T]`."""
    mechanism, rounds = training.mechanism, training.rounds
    check_own_noise(mechanism, "an attacked training")
    if training.portions is None:
        whole = jnp.zeros(rounds, jnp.int32)
        return (
            lambda stream, grid, used: mechanism.embed(stream, grid),
            lambda total, senders, used: mechanism.estimate(total, senders),
            whole,
        )
    if mechanism.portions is None or len(training.portions) < rounds:
        raise ValueError(
            f"portions={training.portions}: give one number for each of {rounds} rounds, of a mechanism made with portions."
        )
    return mechanism.portions.embed, mechanism.portions.estimate, jnp.asarray(training.portions[:rounds], jnp.int32)


def train_shadows(trainer: Trainer, member: np.ndarray, key: Array, *, at_once: int = 64) -> Any:
    """Parameters of every shadow model, stacked: leaves `[M, ...]`.

    Args:
      trainer: from `plain_trainer` or `private_trainer`.
      member: bool `[M, n]`, from `balanced_memberships`.
      key: one part for each shadow.
      at_once: shadows vmapped together; fewer where memory is short.
    """
    keys = jax.random.split(key, len(member))
    run = jax.jit(jax.vmap(trainer))
    size = math.ceil(len(member) / math.ceil(len(member) / at_once))
    parts = [run(jnp.asarray(member[i : i + size]), keys[i : i + size]) for i in range(0, len(member), size)]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def confidences(model: Model, params: Any, x: Array, y: Array) -> np.ndarray:
    """Logit-scaled confidence in the true label of each record under each shadow: float64 `[M, n]`.

    `phi = log(p / (1 - p))` with p the probability of the true label (Carlini et al. 2022, equation 4), from the loss `-log p` so that
    a confident model does not round to infinity.

    Args:
      model: its loss is the negative log likelihood.
      params: stacked parameters `[M, ...]`.
      x: float32 `[n, ...]`.
      y: `[n]`.
    """
    losses = np.asarray(_losses(model, params, x, y), np.float64)
    losses = np.clip(losses, 1e-30, 1e30)
    return -(losses + np.log(-np.expm1(-losses)))


@functools.partial(jax.jit, static_argnums=0)
def _losses(model: Model, params: Any, x: Array, y: Array) -> Array:
    return jax.vmap(lambda p: model.loss(p, x, y))(params)
