"""Checks when an algorithm is built or given its input; an error states what was wrong, what was seen and what to do.

Nothing is computed here: shapes are traced and numbers compared. A mistake that would otherwise surface inside a compiled program, as an error about tracers
or axes, is caught before the program is built.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated.client import Client
from fedjax_poisson.federated.features import batch_spec
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream


def check_stream(stream: Any) -> None:
    """Refuse anything but a ChaCha20 stream.

    Raises:
      TypeError: with what to give instead.
    """
    if isinstance(stream, Stream):
        return
    key = isinstance(stream, jax.Array) and (
        jnp.issubdtype(stream.dtype, jax.dtypes.prng_key) or (stream.dtype == jnp.uint32 and stream.shape == (2,))
    )
    seen = "a jax.random key" if key else f"{type(stream).__name__}"
    raise TypeError(
        f"stream is {seen}: privacy and encryption draw from ChaCha20 streams only. Give randomness.stream() (256 bits from the operating system), or "
        "randomness.stream(seed) for a run that can be repeated and is not private."
    )


def check_model(model: Any) -> None:
    """Refuse anything that is not a record of `init`, `apply` and `loss`.

    Raises:
      TypeError: with how to wrap a module.
    """
    if all(callable(getattr(model, name, None)) for name in ("init", "apply", "loss")):
        return
    module = callable(getattr(model, "init", None)) and callable(getattr(model, "apply", None))
    how = (
        'wrap the module: models.from_flax(module, "softmax") for class logits [B, classes], or "binary" for one 0/1 label'
        if module
        else "give a models.Model, such as models.logistic() or models.with_loss(init, apply, loss=...)"
    )
    raise TypeError(f"model is a {type(model).__name__}, which has no loss for each record; {how}.")


def check_client(client: Any) -> None:
    """Refuse a client that was already made: `fedavg` makes it for its model.

    Raises:
      TypeError: with how to hand it over.
    """
    if isinstance(client, Client):
        raise TypeError(
            "client is a Client that was already made for some model; give the function that makes it, as local_sgd(...) returns one, "
            "or client=lambda model: your_client."
        )
    if not callable(client):
        raise TypeError(
            f"client is {client!r}; give local_sgd(...), local_optimizer(...), scaffold(...) or a function from a model to a Client."
        )


def check_made_client(work: Any) -> None:
    """Refuse the return value of a `client` function if it is not a `Client`.

    Raises:
      TypeError: with what was returned.
    """
    if not isinstance(work, Client):
        raise TypeError(f"client(model) returned a {type(work).__name__}; it must return a federated.Client.")


def check_loss(
    model: Model, spec: Any, labels: tuple[Any, ...] = (jnp.int32, jnp.float32), more: tuple[int, ...] = ()
) -> None:
    """Refuse a loss that is not one number for each record: record-level privacy clips each record's gradient.

    Args:
      model: the model.
      spec: features of one record, a tree of `jax.ShapeDtypeStruct`.
      labels: dtypes that labels may have; a loss that takes none of them is left to say so itself.
      more: shape of one label, () for a number.

    Raises:
      ValueError: with the shape that was seen.
    """
    x = batch_spec(spec, 2)
    params = jax.eval_shape(lambda one: model.init(jax.random.key(0), one), x)
    for dtype in labels:
        try:
            found = jax.eval_shape(model.loss, params, x, jax.ShapeDtypeStruct((2, *more), dtype))
        except (TypeError, ValueError):
            continue
        if getattr(found, "shape", None) == (2,):
            return
        seen = "one number for the whole batch" if getattr(found, "shape", None) == () else f"{found}"
        raise ValueError(
            f"model.loss returned {seen} for a batch of 2 records; it must return one loss for each, float32 [2]: leave the mean out "
            "(each record's gradient is clipped by itself)."
        )


def check_labels(model: Model, labels: Any, mask: Any) -> None:
    """Refuse labels other than 0 and 1 for a model of one 0/1 label: its loss takes every other label for 1.

    Raises:
      ValueError: with a label that was seen.
    """
    if not model.binary:
        return
    values = np.asarray(labels)
    wrong = (values != 0) & (values != 1)
    if mask is not None:
        wrong &= np.asarray(mask, bool)
    if wrong.any():
        raise ValueError(
            f"the model is for one 0/1 label and a label is {values[wrong][0]}: its loss would take it for 1. Use a model of several classes "
            "(binary=False, integer class numbers), or make the labels 0 and 1."
        )


def check_aggregator(
    aggregator: Aggregator, mechanism: Mechanism, size: int, senders: int, minimum: int, *, reals: bool = False
) -> None:
    """Refuse an aggregator that cannot carry the mechanism's counts of these senders; with `reals`, the plain one may stand for a sum of real numbers.

    Raises:
      ValueError: what does not fit.
    """
    name, info = mechanism.facts.name, aggregator.info
    if not mechanism.facts.integer and not (reals and info.backend == "plain"):
        raise ValueError(
            f"{name} does not send integers, so no exact encrypted sum exists; use an integer mechanism (poisson_embedding, skellam), "
            "fedsgd with the \"plain\" aggregator, or fedavg with encryption='off'."
        )
    if info.senders < senders or minimum < info.minimum_senders:
        raise ValueError(
            f"the aggregator is for {info.minimum_senders} to {info.senders} senders, the algorithm for {minimum} to {senders}: "
            "make the aggregator for these."
        )
    if aggregator.size not in (None, size):
        raise ValueError(
            f"the model has {size} parameters, the aggregator takes messages of {aggregator.size} values: make it with size={size}."
        )
    if mechanism.facts.integer and info.count_bound < (needed := mechanism.count_bound(senders, size)):
        raise ValueError(
            f"the aggregator's count_bound={info.count_bound} is too small for {name} with {senders} senders and {size} coordinates: sums would be "
            f"refused or wrap. Make it with count_bound=mechanism.count_bound({senders}, {size}) = {needed}."
        )
