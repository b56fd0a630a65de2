"""One round of many clients as one compiled program: a scan over chunks of clients, vmap inside, integers as running sums.

Memory use is that of one chunk, whatever the cohort size. Sums are integers, so their bits depend neither on the order nor on the number of devices
(`spread`).

Encryption has three levels, and every output names the one in use:

* "every_client": what is opened is, bit for bit, the sum of every client's rows under that client's randomness. Encryption is linear, so the
  scan accumulates counts, errors and secrets, and the transform runs once on the sums (`aggregation.bare`; a test compares the bits).
  `transforms="each"` makes every client's rows separately: the same bits, at the total cost that real clients would incur.
* "sum_only": the counts are added in the clear inside the program and their sum is encrypted once. The arithmetic of the release is the same; a server
  that saw this program's memory would see individual clients.
* "off": nothing is encrypted.

A client with a broken update (NaN or infinite) or without records does what privacy requires: it sends the embedding of a zero update, including the noise,
so that the number of noise shares does not depend on anyone's data; the report names it. A client that was lost (`present` False) sends nothing.

In norm rounds clients send clean counts; whoever's norm does not pass is left out (`norm_check`), and the noise senders' vectors are added once a round.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum
from fedjax_poisson.federated.chunks import Chunking, by_chunks, default_chunk
from fedjax_poisson.federated.client import Client, run_steps
from fedjax_poisson.federated.each_ciphertext import add_each
from fedjax_poisson.federated.insiders import InsiderNumbers, informed, poisoned, sent_by
from fedjax_poisson.federated.noise_vectors import with_noise
from fedjax_poisson.federated.norm_check import NormCheck, draw_functionals, passes
from fedjax_poisson.federated.population import Cohort
from fedjax_poisson.federated.records import sample_units
from fedjax_poisson.federated.reuse import fingerprint
from fedjax_poisson.federated.sharing_programs import Numbers, Sends
from fedjax_poisson.mechanisms.types import Functions
from fedjax_poisson.randomness import Stream, fold_in

Encryption = Literal["every_client", "sum_only", "off"]
LEVELS: tuple[Encryption, ...] = ("every_client", "sum_only", "off")
Tree = Any

NOT_FINITE, EMPTY, NOT_SAMPLED, ABSENT, REFUSED = 1, 2, 4, 8, 16
"""Bits of a client's report."""


class Total(NamedTuple):
    """The sum over a cohort.

    Attributes:
      values: int32 `[D]` summed counts, or float32 `[D]` summed updates where there is no mechanism; None where it is encrypted.
      sealed: the encrypted sum, or None.
      senders: uint32 `[]`, clients in the sum; noise senders are not counted.
      largest: int32 `[]`, the largest |count| that one client sent.
      fingerprint: uint32 `[2]` of what would be opened (`reuse`); None where there is no mechanism, and so no noise to use twice.
    """

    values: Array | None
    sealed: RoundSum | None
    senders: Array
    largest: Array
    fingerprint: Array | None = None


class CohortSum(NamedTuple):
    """The compiled parts of a round; all pure.

    Attributes:
      start: `() -> carry`.
      add: `(carry, params, shared, client_state, cohort, stream, numbers) -> (carry, client_state, report)`: one cohort or block; report is uint8 `[K]`,
        bits above.
      close: `(carry, numbers, stream) -> Total`. Transforms of sums happen here.
      counts: `(params, shared, client_state, cohort, stream, numbers) -> (int32 [K, D], client_state, report)`: for backends that encrypt on the host.
      grids: the same with every client's clipped update in place of its counts, which no client sends as it is.
      one_by_one: whether every client's rows are made separately.
    """

    start: Callable[[], Tree]
    add: Callable[..., tuple[Tree, Tree, Array]]
    close: Callable[..., Total]
    counts: Callable[..., tuple[Array, Tree, Array]]
    grids: Callable[..., tuple[Array, Tree, Array]]
    one_by_one: bool


def cohort_sum(
    client: Client | None,
    shapes: Tree,
    sends: Sends,
    *,
    clients: int,
    device: DeviceFunctions | None = None,
    encryption_level: Encryption = "off",
    chunking: Chunking | None = None,
    sampling_rate: float = 1.0,
    isolate: bool = True,
    norm: NormCheck | None = None,
) -> CohortSum:
    """The programs of a round.

    Args:
      client: one client's work; None for clients that only send: the cohort's `examples` are then clipped updates on the mechanism's grid, int32 `[K, D]`.
      shapes: the parameters' shapes (arrays or `jax.ShapeDtypeStruct`), D values in all.
      sends: what clients send (`sends_of`); "updates" are added as they are (no privacy, no encryption, and no promise about the last bit).
      clients: K of a usual cohort or block, for the default chunk.
      device: the encryption's functions.
      encryption_level: "every_client", "sum_only" or "off".
      chunking: chunk and transforms.
      sampling_rate: q: each client takes part with this chance, secretly; one that does not sends the embedding of zero.
      isolate: look for updates that are not finite, client by client. Without a mechanism it may be left out: a sum that is finite had none.
      norm: the test of clean counts, and who sends the noise; None where senders bring their own.

    Raises:
      ValueError: an unknown level, or encryption of something that is not integer.
    """
    if encryption_level not in LEVELS:
        raise ValueError(f"encryption={encryption_level!r}; there are {', '.join(LEVELS)}.")
    if encryption_level != "off" and (sends != "counts" or device is None):
        raise ValueError(
            f"encryption={encryption_level!r} needs integers and a ring: use an integer mechanism and an aggregator, or encryption='off'."
        )
    chunking, dimension = chunking or Chunking(), sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    each = device is not None and encryption_level == "every_client" and chunking.transforms == "each"
    work = _Work(
        client=client,
        shapes=shapes,
        private=sends != "updates",
        device=device,
        level=encryption_level,
        dimension=dimension,
        chunk=chunking.chunk or default_chunk(dimension, clients),
        each=each,
        summed=encryption_level == "every_client" and not each,
        integer=sends == "counts",
        sampling_rate=sampling_rate,
        isolate=isolate or sends != "updates",  # a NaN must not reach the embedding
        norm=norm,
    )
    return CohortSum(
        start=functools.partial(_start, work),
        add=functools.partial(_add, work),
        close=functools.partial(_close, work),
        counts=functools.partial(_counts, work),
        grids=functools.partial(_grids, work),
        one_by_one=each,
    )


class _Work(NamedTuple):
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
    integer: bool
    sampling_rate: float
    isolate: bool
    norm: NormCheck | None


class _Part(NamedTuple):
    """Clients of one chunk, with a leading axis: their kept states, numbers, records, and who is there."""

    client_state: Tree
    ids: Array
    examples: Any
    present: Array


def _one_update(work: _Work, weights: Tree, shared: Tree, part: _Part, stream: Stream) -> Any:
    """The update of one client (`part` without the leading axis), whether it counts, what the client keeps and its report; `stream` is the client's."""
    assert work.client is not None
    present = part.present
    tree, kept = run_steps(work.client, weights, shared, part.client_state, part.examples, stream)
    update = trees.flatten(tree) if work.private else tree
    finite = jnp.bool_(True)
    if work.isolate:
        finite = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(update)])
    some = jnp.bool_(True) if part.examples.mask is None else jnp.any(part.examples.mask)
    sampled = jnp.bool_(True)
    if work.sampling_rate < 1:
        sampled = sample_units(fold_in(stream, "participation"), 1, work.sampling_rate)[0]
    works = finite & some & sampled
    if work.private:
        update = jnp.where(works, update, jnp.float32(0))
    kept = jax.tree.map(lambda new, old: jnp.where(works & present, new, old), kept, part.client_state)
    report = sum(
        (jnp.where(bit, jnp.uint8(flag), jnp.uint8(0)) for bit, flag in
         ((~finite & sampled, NOT_FINITE), (~some, EMPTY), (~sampled, NOT_SAMPLED), (~present, ABSENT))),
        jnp.uint8(0),
    )  # fmt: skip
    return update, works, kept, report


def _one_client(
    work: _Work,
    insiders: InsiderNumbers | None,
    weights: Tree,
    shared: Tree,
    part: _Part,
    stream: Stream,
    functions: Functions | None,
) -> Any:
    """What one client (`part` without the leading axis) sends, what it keeps, its report and the stream it encrypts with."""
    present = part.present
    stream = fold_in(stream, part.ids)
    if insiders is not None:
        part = part._replace(examples=poisoned(insiders, part.ids, part.examples, stream))
    update, works, kept, report = _one_update(work, weights, shared, part, stream)
    sent = update if functions is None else functions.privatize(fold_in(stream, "embed"), update)
    if insiders is not None and functions is not None:
        sent = sent_by(insiders, part.ids, update, sent, weights, functions, stream)
    counted = present & works if functions is None else present
    sent = jax.tree.map(lambda leaf: jnp.where(counted, leaf, jnp.zeros((), leaf.dtype)), sent)
    return sent, kept, report, fold_in(stream, "encrypt")


def _one_sender(
    work: _Work, weights: Tree, shared: Tree, part: _Part, stream: Stream, functions: Functions | None
) -> Any:
    """The same for a client that sends a clipped update of its own, without training: of a presence, it reports whether it is there."""
    del work, weights, shared
    assert functions is not None
    stream = fold_in(stream, part.ids)
    counts = functions.embed(fold_in(stream, "embed"), part.examples)
    sent = jnp.where(part.present, counts, jnp.zeros((), counts.dtype))
    report = jnp.where(part.present, jnp.uint8(0), jnp.uint8(ABSENT))
    return sent, part.client_state, report, fold_in(stream, "encrypt")


def _clients(work: _Work, weights: Tree, shared: Tree, part: _Part, stream: Stream, numbers: Numbers) -> Any:
    """What all clients of a part send."""
    one = functools.partial(_one_sender, work)
    if work.client is not None:
        one = functools.partial(_one_client, work, numbers.insiders)
    return jax.vmap(one, in_axes=(None, None, 0, None, None))(weights, shared, part, stream, numbers.functions)


def _one_chunk(
    work: _Work,
    functionals: Array | None,
    carry: Tree,
    weights: Tree,
    shared: Tree,
    part: _Part,
    stream: Stream,
    numbers: Numbers,
) -> tuple[Tree, Any]:
    """The running sums with one chunk of clients added; what the clients keep and their reports."""
    sent, kept, report, streams = _clients(work, weights, shared, part, stream, numbers)
    if work.private:
        sent = jax.lax.optimization_barrier(sent)  # else XLA for CPUs draws again for the sum
    included = part.present
    if work.norm is not None:
        assert functionals is not None
        included = part.present & passes(work.norm, functionals, numbers.norm_bound, sent)
        sent = jnp.where(included[:, None], sent, jnp.int32(0))
        report = report | jnp.where(part.present & ~included, jnp.uint8(REFUSED), jnp.uint8(0))
    carry = dict(carry)
    if work.each:
        assert work.device is not None
        carry["sealed"] = add_each(work.device, numbers.key, carry["sealed"], sent, streams, included)
    else:
        carry["values"] = jax.tree.map(
            lambda total, leaf: total + jnp.sum(leaf, axis=0, dtype=leaf.dtype), carry["values"], sent
        )
    if work.summed:
        assert work.device is not None
        carry["secrets"] = work.device.add_up(carry["secrets"], jax.vmap(work.device.draw)(streams), included)
    carry["senders"] = carry["senders"] + jnp.sum(included.astype(jnp.uint32), dtype=jnp.uint32)
    if work.integer:
        carry["largest"] = jnp.maximum(carry["largest"], jnp.max(jnp.abs(sent)))
    return carry, (kept, report)


def _start(work: _Work) -> Tree:
    """Empty running sums."""
    carry: dict[str, Any] = {"senders": jnp.uint32(0), "largest": jnp.int32(0)}
    if work.each:
        assert work.device is not None
        carry["sealed"] = work.device.zero()
    elif not work.private:
        carry["values"] = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), work.shapes)
    else:
        carry["values"] = jnp.zeros(work.dimension, jnp.int32 if work.integer else jnp.float32)
    if work.summed:
        assert work.device is not None
        carry["secrets"] = work.device.none()
    return carry


def _add(
    work: _Work,
    carry: Tree,
    weights: Tree,
    shared: Tree,
    client_state: Tree,
    cohort: Cohort,
    stream: Stream,
    numbers: Numbers,
) -> tuple[Tree, Tree, Array]:
    """The running sums with a cohort added, chunk by chunk."""
    functionals = None if work.norm is None else draw_functionals(work.norm, stream)
    numbers = numbers._replace(insiders=informed(numbers.insiders, work.client, weights, shared, stream))
    carry, (kept, report) = by_chunks(
        work.chunk,
        lambda c, part: _one_chunk(work, functionals, c, weights, shared, part, stream, numbers),
        carry,
        _Part(client_state, cohort.ids, cohort.examples, cohort.present),
    )
    return carry, kept, report


def _close(work: _Work, carry: Tree, numbers: Numbers, stream: Stream) -> Total:
    """The total of the running sums, encrypted where that is left to the end; in norm rounds with the noise senders' vectors."""
    if work.norm is not None:
        carry = with_noise(work.device, carry, numbers, work.norm.noise_senders, work.dimension, stream)
    senders, largest = carry["senders"], carry["largest"]
    if work.each:
        return Total(None, carry["sealed"], senders, largest, fingerprint(carry["sealed"].rows))
    values = carry["values"] if work.private else trees.flatten(carry["values"])
    if work.level == "off":
        mark = fingerprint(jax.lax.bitcast_convert_type(values, jnp.uint32)) if work.private else None
        return Total(values, None, senders, largest, mark)
    assert work.device is not None and numbers.key is not None
    drawn = carry["secrets"] if work.summed else work.device.draw(fold_in(stream, "sum"))
    noise = jnp.uint32(0 if work.norm is None else work.norm.noise_senders)
    sealed = work.device.close(numbers.key, values, drawn, senders + noise, fold_in(stream, "shares"), noise)
    return Total(None, sealed, senders, largest, fingerprint(sealed.rows))


def _counts(
    work: _Work, weights: Tree, shared: Tree, client_state: Tree, cohort: Cohort, stream: Stream, numbers: Numbers
) -> tuple[Array, Tree, Array]:
    """Every client's counts by themselves."""
    numbers = numbers._replace(insiders=informed(numbers.insiders, work.client, weights, shared, stream))
    part = _Part(client_state, cohort.ids, cohort.examples, cohort.present)
    sent, kept, report, _ = _clients(work, weights, shared, part, stream, numbers)
    return sent, kept, report


def _grids(
    work: _Work, weights: Tree, shared: Tree, client_state: Tree, cohort: Cohort, stream: Stream, numbers: Numbers
) -> tuple[Array, Tree, Array]:
    """Every client's clipped update on the mechanism's grid, zeros for one that is lost, chunk by chunk."""
    assert numbers.functions is not None
    clip = numbers.functions.clip

    def one(part: _Part) -> Any:
        own = fold_in(stream, part.ids)
        update, _, kept, report = _one_update(work, weights, shared, part, own)
        return jnp.where(part.present, clip(update), jnp.int32(0)), kept, report

    part = _Part(client_state, cohort.ids, cohort.examples, cohort.present)
    _, rows = by_chunks(work.chunk, lambda carry, some: (carry, jax.vmap(one)(some)), (), part)
    grids, kept, report = rows
    return grids, kept, report
