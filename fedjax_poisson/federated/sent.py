"""What one client of a simulated cohort does: its work, what it sends of it, and what it reports.

A client with a broken update (NaN or infinite) or without records does what privacy requires: it sends the embedding of a zero update, including the noise,
so that the number of noise shares does not depend on anyone's data; the report names it. A client that was lost (`present` False) sends nothing.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.aggregation.bare import DeviceFunctions
from fedjax_poisson.federated.client import Client, run_steps
from fedjax_poisson.federated.insiders import InsiderNumbers, poisoned, sent_by
from fedjax_poisson.federated.norm_check import NormCheck
from fedjax_poisson.federated.records import sample_units
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.mechanisms.clipping import is_finite
from fedjax_poisson.mechanisms.types import Functions
from fedjax_poisson.randomness import Stream, fold_each, fold_in

Encryption = Literal["on", "off"]
LEVELS: tuple[Encryption, ...] = ("on", "off")
Tree = Any

NOT_FINITE, EMPTY, NOT_SAMPLED, ABSENT, REFUSED = 1, 2, 4, 8, 16
"""Bits of a client's report."""


class Work(NamedTuple):
    """What the programs of a round are made for: the arguments of `cohort_sum`, and what follows from them.

    Attributes:
      client: one client's work; None where clients only send.
      shapes: the parameters' shapes.
      private: there is a mechanism.
      device: the encryption's functions.
      level: of the encryption.
      dimension: D.
      chunk: clients vmapped at once.
      each: every client's rows are made by themselves.
      summed: rows are made of summed counts and summed secrets.
      at_once: clients' grids are summed, and the counts of the sum are drawn at once (`fidelity`).
      integer: counts are sent, not floats.
      sampling_rate: q.
      isolate: look at each client's update.
      norm: the test of clean counts.
    """

    client: Client | None
    shapes: Tree
    private: bool
    device: DeviceFunctions | None
    level: Encryption
    dimension: int
    chunk: int
    each: bool
    summed: bool
    at_once: bool
    integer: bool
    sampling_rate: float
    isolate: bool
    norm: NormCheck | None


class Part(NamedTuple):
    """Clients of one chunk, with a leading axis: their kept states, numbers, records, and who is there."""

    client_state: Tree
    ids: Array
    examples: Any
    present: Array


def one_update(work: Work, weights: Tree, shared: Tree, part: Part, stream: Stream) -> Any:
    """What one client (`part` without the leading axis) made: its update as it is, whether that counts, what it keeps, its report; `stream` is the client's."""
    assert work.client is not None
    present = part.present
    tree, kept = run_steps(work.client, weights, shared, part.client_state, part.examples, stream)
    update = trees.flatten(tree) if work.private else tree
    finite = jnp.bool_(True)
    if work.isolate:
        finite = functools.reduce(jnp.logical_and, [is_finite(leaf) for leaf in jax.tree.leaves(update)])
    some = jnp.bool_(True) if part.examples.mask is None else jnp.any(part.examples.mask)
    sampled = jnp.bool_(True)
    if work.sampling_rate < 1:
        sampled = sample_units(fold_in(stream, "participation"), 1, work.sampling_rate)[0]
    works = finite & some & sampled
    kept = jax.tree.map(lambda new, old: jnp.where(works & present, new, old), kept, part.client_state)
    report = sum(
        (jnp.where(bit, jnp.uint8(flag), jnp.uint8(0)) for bit, flag in
         ((~finite & sampled, NOT_FINITE), (~some, EMPTY), (~sampled, NOT_SAMPLED), (~present, ABSENT))),
        jnp.uint8(0),
    )  # fmt: skip
    return update, works, kept, report


def _one_client(
    work: Work,
    insiders: InsiderNumbers | None,
    weights: Tree,
    shared: Tree,
    part: Part,
    stream: Stream,
    functions: Functions | None,
) -> Any:
    """What one client (`part` without the leading axis) sends, whether that counts, what it keeps, its report and the stream it encrypts with.

    What does not count is zeros, but where nobody looks at single clients (`Work.isolate`): there the sum leaves it out.
    """
    present = part.present
    stream = fold_in(stream, part.ids)
    if insiders is not None:
        part = part._replace(examples=poisoned(insiders, part.ids, part.examples, stream))
    update, works, kept, report = one_update(work, weights, shared, part, stream)
    if work.private:
        update = jnp.where(works, update, jnp.float32(0))
    to_embed, to_encrypt = fold_each(stream, "embed", "encrypt")
    sent = update if functions is None else functions.privatize(to_embed, update)
    if insiders is not None and functions is not None:
        sent = sent_by(insiders, part.ids, update, sent, weights, functions, stream)
    counted = present & works if functions is None else present
    if work.isolate:
        sent = jax.tree.map(lambda leaf: jnp.where(counted, leaf, jnp.zeros((), leaf.dtype)), sent)
    return sent, counted, kept, report, to_encrypt


def _one_sender(
    work: Work, weights: Tree, shared: Tree, part: Part, stream: Stream, functions: Functions | None
) -> Any:
    """`_one_client` for a client that sends a clipped update of its own, without training: of a presence, it reports whether it is there."""
    del work, weights, shared
    assert functions is not None
    stream = fold_in(stream, part.ids)
    to_embed, to_encrypt = fold_each(stream, "embed", "encrypt")
    counts = functions.embed(to_embed, part.examples)
    sent = jnp.where(part.present, counts, jnp.zeros((), counts.dtype))
    report = jnp.where(part.present, jnp.uint8(0), jnp.uint8(ABSENT))
    return sent, part.present, part.client_state, report, to_encrypt


def sent_by_all(work: Work, weights: Tree, shared: Tree, part: Part, stream: Stream, numbers: Numbers) -> Any:
    """What all clients of a part send."""
    one = functools.partial(_one_sender, work)
    if work.client is not None:
        one = functools.partial(_one_client, work, numbers.insiders)
    return jax.vmap(one, in_axes=(None, None, 0, None, None))(weights, shared, part, stream, numbers.functions)


def one_grid(
    work: Work, functions: Functions, contributes: bool, weights: Tree, shared: Tree, part: Part, stream: Stream
) -> Any:
    """The clipped update of one client (`part` without the leading axis) on the mechanism's grid, zeros for one that is lost; what it keeps; its report.

    With `contributes` it is what the client's noise would be added to (`SumLaw.contribute`), drawn from the stream that its message would be drawn from.
    """
    own = fold_in(stream, part.ids)
    update, works, kept, report = one_update(work, weights, shared, part, own)
    if not contributes:
        update, works = jnp.where(works, update, jnp.float32(0)), jnp.bool_(True)
    # Whatever has a law of its sum clips zeros to zeros, and put in afterwards they cost nothing: in the update it would be a pass over all of it.
    grid = jnp.where(works, functions.clip(update), jnp.int32(0))
    if contributes and functions.contribute is not None:
        grid = functions.contribute(fold_in(own, "embed"), grid)
    return jnp.where(part.present, grid, jnp.int32(0)), kept, report
