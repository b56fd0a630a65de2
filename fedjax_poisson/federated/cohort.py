"""One round of many clients as one compiled program: a scan over chunks of clients, vmap inside, integers as running sums.

Memory use is that of one chunk, whatever the cohort size. Sums are integers, so their bits depend neither on the order nor on the number of devices
(`spread`).

Two words say what is simulated, and every output has both: the *fidelity* (`fidelity`), whether clients' messages are made at all, and *encryption*, "on" or
"off":

* "messages", encrypted: what is opened is, bit for bit, the sum of every client's rows under that client's randomness. Encryption is linear, so the
  scan accumulates counts, errors and secrets, and the transform runs once on the sums (`aggregation.bare`; a test compares the bits).
  `transforms="each"` makes every client's rows separately: the same bits, at the total cost that real clients would incur.
* "release", encrypted: the scan accumulates clipped grids; counts of the sum are drawn once, and encrypted once, under a secret and errors that are drawn from
  the law of the sum of all clients' secrets and errors. The ciphertext has the law of the sum of messages; no message is made.
* "off": nothing is encrypted, with either fidelity.

What one client does is in `sent`. In norm rounds clients send clean counts; whoever's norm does not pass is left out (`norm_check`), and the noise senders'
vectors are added once a round.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum
from fedjax_poisson.federated.chunks import Chunking, by_chunks, default_chunk
from fedjax_poisson.federated.client import Client
from fedjax_poisson.federated.each_ciphertext import add_each
from fedjax_poisson.federated.insiders import informed
from fedjax_poisson.federated.noise_vectors import with_noise
from fedjax_poisson.federated.norm_check import NormCheck, draw_functionals, passes
from fedjax_poisson.federated.population import Cohort
from fedjax_poisson.federated.reuse import fingerprint
from fedjax_poisson.federated.sent import LEVELS, REFUSED, Encryption, Part, Tree, Work, one_grid, sent_by_all
from fedjax_poisson.federated.sharing_programs import Numbers, Sends
from fedjax_poisson.randomness import Stream, fold_each
from fedjax_poisson.randomness.grid_sum import add_rows, empty_sum, normalised
from fedjax_poisson.randomness.sum_tables import draw_sum


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
      add: `(carry, params, shared, client_state, cohort, stream, numbers, held=None) -> (carry, client_state, report)`: one cohort or block; report is
        uint8 `[K]`, bits of `sent`. With `held`, all clients' records, a chunk's are taken from there when it is its turn, not from the cohort.
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
    at_once: bool = False,
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
      encryption_level: "on" or "off".
      at_once: fidelity "release": sum the grids, draw once. `Numbers.release` then has the law of the sum, for the number of clients that are in it.
      chunking: chunk and transforms.
      sampling_rate: q: each client takes part with this chance, secretly; one that does not sends the embedding of zero.
      isolate: look for updates that are not finite, client by client. Without a mechanism it may be left out: a sum that is finite had none.
      norm: the test of clean counts, and who sends the noise; None where senders bring their own.

    Raises:
      ValueError: an unknown level, or encryption or one draw of something that is not integer, or one draw of a sum whose single messages are wanted.
    """
    if encryption_level not in LEVELS:
        raise ValueError(f"encryption={encryption_level!r}; there are {', '.join(LEVELS)}.")
    if encryption_level != "off" and (sends != "counts" or device is None):
        raise ValueError(
            f"encryption={encryption_level!r} needs integers and a ring: use an integer mechanism and an aggregator, or encryption='off'."
        )
    chunking, dimension = chunking or Chunking(), sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    each = device is not None and encryption_level == "on" and chunking.transforms == "each"
    if at_once and (sends != "counts" or each or norm is not None or client is None):
        raise ValueError(
            "one draw for a sum needs integer counts, and nobody who looks at single ones: no transforms='each', norm test or clients that only send."
        )
    work = Work(
        client=client,
        shapes=shapes,
        private=sends != "updates",
        device=device,
        level=encryption_level,
        dimension=dimension,
        chunk=chunking.chunk or default_chunk(dimension, clients),
        each=each,
        summed=encryption_level == "on" and not each and not at_once,
        at_once=at_once,
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


def _one_chunk(
    work: Work,
    functionals: Array | None,
    carry: Tree,
    weights: Tree,
    shared: Tree,
    part: Part,
    stream: Stream,
    numbers: Numbers,
    held: Any,
) -> tuple[Tree, Any]:
    """The running sums with one chunk of clients added; what the clients keep and their reports."""
    if held is not None:
        part = part._replace(examples=jax.tree.map(lambda leaf: leaf[part.ids], held))
    if work.at_once:
        return _one_chunk_of_grids(work, carry, weights, shared, part, stream, numbers)
    sent, counted, kept, report, streams = sent_by_all(work, weights, shared, part, stream, numbers)
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
        carry["values"] = jax.tree.map(lambda total, leaf: total + _sum_of(work, counted, leaf), carry["values"], sent)
    if work.summed:
        assert work.device is not None
        carry["secrets"] = work.device.add_up(carry["secrets"], streams, included)
    carry["senders"] = carry["senders"] + jnp.sum(included.astype(jnp.uint32), dtype=jnp.uint32)
    if work.integer:
        carry["largest"] = jnp.maximum(carry["largest"], jnp.max(jnp.abs(sent)))
    return carry, (kept, report)


def _sum_of(work: Work, counted: Array, leaf: Array) -> Array:
    """The sum over the clients of a chunk; what does not count is zeros, or is left out by a product with zeros and ones, which is the faster sum."""
    if work.isolate:
        return jnp.sum(leaf, axis=0, dtype=leaf.dtype)
    return jnp.tensordot(counted.astype(leaf.dtype), leaf, 1, precision="highest")


def _one_chunk_of_grids(
    work: Work, carry: Tree, weights: Tree, shared: Tree, part: Part, stream: Stream, numbers: Numbers
) -> tuple[Tree, Any]:
    """The same where only what clients contribute is summed."""
    assert numbers.functions is not None
    one = functools.partial(one_grid, work, numbers.functions, True)
    grids, kept, report = jax.vmap(one, in_axes=(None, None, 0, None))(weights, shared, part, stream)
    here = jnp.sum(part.present.astype(jnp.uint32), dtype=jnp.uint32)
    return carry | {"grids": add_rows(carry["grids"], grids), "senders": carry["senders"] + here}, (kept, report)


def _start(work: Work) -> Tree:
    """Empty running sums."""
    carry: dict[str, Any] = {"senders": jnp.uint32(0), "largest": jnp.int32(0)}
    if work.each:
        assert work.device is not None
        carry["sealed"] = work.device.zero()
    elif work.at_once:
        carry["grids"] = empty_sum(work.dimension)
    elif not work.private:
        carry["values"] = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), work.shapes)
    else:
        carry["values"] = jnp.zeros(work.dimension, jnp.int32 if work.integer else jnp.float32)
    if work.summed:
        assert work.device is not None
        carry["secrets"] = work.device.none()
    return carry


def _add(
    work: Work,
    carry: Tree,
    weights: Tree,
    shared: Tree,
    client_state: Tree,
    cohort: Cohort,
    stream: Stream,
    numbers: Numbers,
    held: Any = None,
) -> tuple[Tree, Tree, Array]:
    """The running sums with a cohort added, chunk by chunk."""
    functionals = None if work.norm is None else draw_functionals(work.norm, stream)
    numbers = numbers._replace(insiders=informed(numbers.insiders, work.client, weights, shared, stream))
    carry, (kept, report) = by_chunks(
        work.chunk,
        lambda c, part: _one_chunk(work, functionals, c, weights, shared, part, stream, numbers, held),
        carry,
        Part(client_state, cohort.ids, cohort.examples, cohort.present),
    )
    return carry, kept, report


def _close(work: Work, carry: Tree, numbers: Numbers, stream: Stream) -> Total:
    """The total of the running sums, encrypted where that is left to the end; in norm rounds with the noise senders' vectors."""
    if work.norm is not None:
        carry = with_noise(work.device, carry, numbers, work.norm.noise_senders, work.dimension, stream)
    senders, largest = carry["senders"], carry["largest"]
    if work.each:
        return Total(None, carry["sealed"], senders, largest, fingerprint(carry["sealed"].rows))
    of_counts, of_secrets, of_shares = fold_each(stream, "release", "sum", "shares")
    if work.at_once:
        values = _drawn(carry, numbers, of_counts)
    else:
        values = carry["values"] if work.private else trees.flatten(carry["values"])
    if work.level == "off":
        mark = fingerprint(jax.lax.bitcast_convert_type(values, jnp.uint32)) if work.private else None
        return Total(values, None, senders, largest, mark)
    assert work.device is not None and numbers.key is not None
    drawn = carry["secrets"] if work.summed else work.device.draw_sum(of_secrets, numbers.release.secrets)
    noise = jnp.uint32(0 if work.norm is None else work.norm.noise_senders)
    sealed = work.device.close(numbers.key, values, drawn, senders + noise, of_shares, noise)
    return Total(None, sealed, senders, largest, fingerprint(sealed.rows))


def _drawn(carry: Tree, numbers: Numbers, stream: Stream) -> Array:
    """The counts of the sum, int32 `[D]`: partial sums of several devices were added word by word, so the words are put right first."""
    assert numbers.release is not None
    return draw_sum(stream, normalised(carry["grids"]), numbers.release.counts)


def _counts(
    work: Work, weights: Tree, shared: Tree, client_state: Tree, cohort: Cohort, stream: Stream, numbers: Numbers
) -> tuple[Array, Tree, Array]:
    """Every client's counts by themselves."""
    numbers = numbers._replace(insiders=informed(numbers.insiders, work.client, weights, shared, stream))
    part = Part(client_state, cohort.ids, cohort.examples, cohort.present)
    sent, _, kept, report, _ = sent_by_all(work, weights, shared, part, stream, numbers)
    return sent, kept, report


def _grids(
    work: Work, weights: Tree, shared: Tree, client_state: Tree, cohort: Cohort, stream: Stream, numbers: Numbers
) -> tuple[Array, Tree, Array]:
    """Every client's clipped update on the mechanism's grid, zeros for one that is lost, chunk by chunk."""
    assert numbers.functions is not None
    one = functools.partial(one_grid, work, numbers.functions, False)
    part = Part(client_state, cohort.ids, cohort.examples, cohort.present)

    def step(carry: Tree, some: Part) -> tuple[Tree, Any]:
        return carry, jax.vmap(one, in_axes=(None, None, 0, None))(weights, shared, some, stream)

    _, rows = by_chunks(work.chunk, step, (), part)
    grids, kept, report = rows
    return grids, kept, report
