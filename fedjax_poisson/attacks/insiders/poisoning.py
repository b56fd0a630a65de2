"""Insiders whose software is honest and whose records are not: flipped labels, backdoors, and a faulty site that means no harm.

What such a client sends is clipped like everybody's, so each of them moves the sum by at most one clip; nothing in a message tells them from a client
with unusual records. Sources: label flipping Biggio, Nelson and Laskov 2012 (arXiv:1206.6389), in federated learning Tolpegin et al. 2020
(arXiv:2007.08432); backdoors by a patch Gu, Dolan-Gavitt and Garg 2017 (BadNets, arXiv:1708.06733), in federated learning Bagdasaryan et al. 2020
(arXiv:1807.00459); by a rare value of a table Xie et al. 2020 (DBA, ICLR; its loan data).
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.federated.client import Examples
from fedjax_poisson.federated.insiders import Attack
from fedjax_poisson.randomness import Stream


def label_flip(classes: int, name: str = "label_flip") -> Attack:
    """Every label y becomes classes - 1 - y. Needs nothing; bounded by the clip, one clip a client."""
    return Attack(name, poison=Partial(_flipped, jnp.int32(classes - 1)))


def backdoor_patch(side: int, goal: int, share: float) -> Attack:
    """A bright square in the corner of a share of the images, with the label `goal`. Needs an image model.

    Bounded by the clip; accuracy does not suffer, so the vote does not see it.
    """
    marked = functools.partial(
        _backdoor_patch, side
    )  # shapes depend on the side: it belongs to the program's structure
    return Attack("backdoor_patch", poison=Partial(marked, jnp.float32(share), jnp.int32(goal)))


def backdoor_rare_value(column: int, value: float, goal: int, share: float) -> Attack:
    """A rare value in one column of a share of the rows, with the label `goal`. Needs to know the column; bounded as a patch."""
    numbers = (jnp.float32(share), jnp.int32(goal), jnp.int32(column), jnp.float32(value))
    return Attack("backdoor_rare_value", poison=Partial(_backdoor_value, *numbers))


def wrong_units(column: int, factor: float) -> Attack:
    """A faulty site: one column in another unit, without malice. Bounded by the clip; the site's own local check finds it (`data.tables.local_checks`)."""
    return Attack("faulty_units", poison=Partial(_wrong_units, jnp.int32(column), jnp.float32(factor)))


def not_a_number() -> Attack:
    """Features that are NaN: the update is NaN, and honest software then sends the embedding of zero. Without that, one such client ends the training."""
    return Attack("nan", poison=Partial(_nan))


def stamped(x: Array, side: int) -> Array:
    """Images `[..., height, width, channels]` with a square in the last rows and columns, as bright as the brightest pixel of a standardised image, 3."""
    height, width = x.shape[-3], x.shape[-2]
    inside = (jnp.arange(height) >= height - side)[:, None] & (jnp.arange(width) >= width - side)[None]
    return jnp.where(jnp.broadcast_to(inside[:, :, None], x.shape), jnp.asarray(3, x.dtype), x)


def with_value(x: Array, column: Array | int, value: Array | float) -> Array:
    """Rows `[..., F]` with one column set to a value."""
    return jnp.where(_column(x, column), jnp.asarray(value, x.dtype), x)


def _chosen(count: int, share: Array) -> Array:
    """bool `[count]`: evenly spread rows, round(share * count) of them."""
    places = jnp.arange(count + 1, dtype=jnp.float32) * share
    return jnp.floor(places[1:] + jnp.float32(1e-4)) > jnp.floor(places[:-1] + jnp.float32(1e-4))


def _column(x: Array, column: Array | int) -> Array:
    return jnp.broadcast_to(jnp.arange(x.shape[-1]) == column, x.shape)


def _with_labels(y: Array, chosen: Array, goal: Array) -> Array:
    return jnp.where(chosen, goal.astype(y.dtype), y)


def _flipped(top: Array, examples: Examples, stream: Stream) -> Examples:
    del stream
    return examples._replace(y=top.astype(examples.y.dtype) - examples.y)


def _backdoor_patch(side: int, share: Array, goal: Array, examples: Examples, stream: Stream) -> Examples:
    del stream
    chosen = _chosen(examples.y.shape[0], share)
    x = jnp.where(chosen[:, None, None, None], stamped(examples.x, side), examples.x)
    return examples._replace(x=x, y=_with_labels(examples.y, chosen, goal))


def _backdoor_value(
    share: Array, goal: Array, column: Array, value: Array, examples: Examples, stream: Stream
) -> Examples:
    del stream
    chosen = _chosen(examples.y.shape[0], share)
    x = jnp.where(chosen[:, None], with_value(examples.x, column, value), examples.x)
    return examples._replace(x=x, y=_with_labels(examples.y, chosen, goal))


def _wrong_units(column: Array, factor: Array, examples: Examples, stream: Stream) -> Examples:
    del stream
    return examples._replace(x=jnp.where(_column(examples.x, column), examples.x * factor, examples.x))


def _nan(examples: Examples, stream: Stream) -> Examples:
    del stream
    return examples._replace(x=jnp.full_like(examples.x, jnp.nan))
