"""One round of many clients as one compiled program: a scan over chunks of clients, vmap inside, integers as running sums.

Memory is that of one chunk, whatever the cohort. Sums are integers, so their bits depend neither on the order nor on the number of devices (`spread`).

Encryption has three levels, and every output names the one in use:

* "every_client": the opened ciphertext is the sum of one ciphertext for each client, bit for bit, under each client's own randomness. Encryption is
  linear, so what is added up while the clients pass is their counts and their secret masks (small integers), and the transforms are taken once of the
  sums (`ckks.encrypt_sum` has the argument, a test has the bits). `transforms="each"` makes every ciphertext by itself: the same bits, at the price that
  real clients pay together. Seeded ciphertexts are always made one by one.
* "sum_only": the counts are added in the clear inside the program and their sum is encrypted once. The arithmetic of the release is the same; a server
  that saw this program's memory would see single clients.
* "off": nothing is encrypted.

What a client with a broken update (NaN or infinite) or without records does is what privacy asks of it: it sends the embedding of a zero update, noise and
all, so that the number of noise shares does not depend on anybody's data; the report names it. A client that was lost (`present` False) sends nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson import trees
from fedjax_poisson.ckks import Ciphertext, CkksParameters, PublicKey, SecretKey, encryption
from fedjax_poisson.federated.client import Client, Examples, run_steps
from fedjax_poisson.federated.population import Cohort
from fedjax_poisson.federated.records import sample_units
from fedjax_poisson.federated.reuse import fingerprint
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream, fold_in

Encryption = Literal["every_client", "sum_only", "off"]
LEVELS: tuple[Encryption, ...] = ("every_client", "sum_only", "off")
Tree = Any

NOT_FINITE, EMPTY, NOT_SAMPLED, ABSENT = 1, 2, 4, 8
"""Bits of a client's report."""

_CPU_VALUES = 1 << 18  # coordinates of a chunk on a CPU


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the cohort is laid out in the program; speed and memory only.

    Attributes:
      chunk: clients vmapped at once; None takes `default_chunk`.
      transforms: "summed" or "each" (module docstring).
    """

    chunk: int | None = None
    transforms: Literal["summed", "each"] = "summed"

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk={self.chunk} must be at least 1.")
        if self.transforms not in ("summed", "each"):
            raise ValueError(f'transforms={self.transforms!r}; there are "summed" and "each".')


class Total(NamedTuple):
    """The sum over a cohort.

    Attributes:
      values: int32 `[D]` summed counts, or float32 `[D]` summed updates where there is no mechanism; None where it is encrypted.
      ciphertext: the encrypted sum, or None.
      senders: uint32 `[]`, clients in the sum.
      largest: int32 `[]`, the largest |count| that one client sent.
      fingerprint: uint32 `[2]` of what would be opened (`reuse`); None where there is no mechanism, and so no noise to use twice.
    """

    values: Array | None
    ciphertext: Ciphertext | None
    senders: Array
    largest: Array
    fingerprint: Array | None = None


class CohortSum(NamedTuple):
    """The compiled parts of a round; all pure.

    Attributes:
      start: `() -> carry`.
      add: `(carry, params, shared, own, cohort, stream, key) -> (carry, own, report)`: one cohort or block; report is uint8 `[K]`, bits above.
      close: `(carry, key, stream) -> Total`; `key` is what senders encrypt under, None without encryption. Transforms of summed masks happen here.
      counts: `(params, shared, own, cohort, stream) -> (int32 [K, D], own, report)`: for backends that encrypt on the host.
      one_by_one: whether every client's ciphertext is made by itself.
    """

    start: Callable[[], Tree]
    add: Callable[..., tuple[Tree, Tree, Array]]
    close: Callable[..., Total]
    counts: Callable[..., tuple[Array, Tree, Array]]
    one_by_one: bool


def default_chunk(dimension: int, clients: int) -> int:
    """Clients that are vmapped at once: all of them on an accelerator; on a CPU about as many as keep a chunk within a core's cache.

    Measured by `experiments/benchmarks/scaling.py`, section chunk. Of the sizes near the best one that leaves the fewest places of the last chunk empty.
    """
    if jax.default_backend() != "cpu":
        return clients
    best = max(1.0, min(clients, 100, _CPU_VALUES / dimension))
    near = range(max(1, round(0.7 * best)), max(1, round(1.3 * best)) + 1)
    return min(near, key=lambda width: (-clients % width, abs(width - best)))


def cohort_sum(
    client: Client,
    shapes: Tree,
    mechanism: Mechanism | None,
    *,
    clients: int,
    params: CkksParameters | None = None,
    encryption_level: Encryption = "off",
    layout: Layout | None = None,
    sampling_rate: float = 1.0,
    isolate: bool = True,
) -> CohortSum:
    """The programs of a round.

    Args:
      client: one client's work.
      shapes: the parameters' shapes (arrays or `jax.ShapeDtypeStruct`), D values in all.
      mechanism: what turns updates into counts; None adds float32 updates as they are (no privacy, no encryption, and no promise about the last bit).
      clients: K of a usual cohort or block, for the default chunk.
      params: ring parameters of the encryption.
      encryption_level: "every_client", "sum_only" or "off".
      layout: chunk and transforms.
      sampling_rate: q: each client takes part with this chance, secretly; one that does not sends the embedding of zero.
      isolate: look for updates that are not finite, client by client. Without a mechanism it may be left out: a sum that is finite had none.

    Raises:
      ValueError: an unknown level, or encryption of something that is not integer.
    """
    if encryption_level not in LEVELS:
        raise ValueError(f"encryption={encryption_level!r}; there are {', '.join(LEVELS)}.")
    if encryption_level != "off" and (mechanism is None or not mechanism.facts.integer or params is None):
        raise ValueError(
            f"encryption={encryption_level!r} needs integers and a ring: use an integer mechanism and an aggregator, or encryption='off'."
        )
    layout, dimension = layout or Layout(), sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    chunk = layout.chunk or default_chunk(dimension, clients)
    each = (
        params is not None
        and encryption_level == "every_client"
        and (layout.transforms == "each" or params.mode == "seeded")
    )
    summed = encryption_level == "every_client" and not each
    dtype = jnp.int32 if mechanism is not None and mechanism.facts.integer else jnp.float32
    if mechanism is not None:
        isolate = True  # a NaN must not reach the embedding

    def one_client(
        weights: Tree, shared: Tree, own: Tree, number: Array, examples: Examples, present: Array, stream: Stream
    ) -> Any:
        stream = fold_in(stream, number)
        tree, new_own = run_steps(client, weights, shared, own, examples, stream)
        update = tree if mechanism is None else trees.flatten(tree)
        finite = jnp.bool_(True)
        if isolate:
            finite = functools.reduce(
                jnp.logical_and, [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(update)]
            )
        some = jnp.bool_(True) if examples.mask is None else jnp.any(examples.mask)
        sampled = jnp.bool_(True)
        if sampling_rate < 1:
            sampled = sample_units(fold_in(stream, "participation"), 1, sampling_rate)[0]
        works = finite & some & sampled
        if mechanism is not None:
            update = jnp.where(works, update, jnp.float32(0))
        new_own = jax.tree.map(lambda new, old: jnp.where(works & present, new, old), new_own, own)
        sent = update if mechanism is None else mechanism.privatize(fold_in(stream, "embed"), update)
        counted = present if mechanism is not None else present & works
        sent = jax.tree.map(lambda leaf: jnp.where(counted, leaf, jnp.zeros((), leaf.dtype)), sent)
        report = sum(
            (jnp.where(bit, jnp.uint8(flag), jnp.uint8(0)) for bit, flag in
             ((~finite & sampled, NOT_FINITE), (~some, EMPTY), (~sampled, NOT_SAMPLED), (~present, ABSENT))),
            jnp.uint8(0),
        )  # fmt: skip
        return sent, new_own, report, fold_in(stream, "encrypt")

    def one_chunk(carry: Tree, weights: Tree, shared: Tree, part: Any, stream: Stream, key: Any) -> tuple[Tree, Any]:
        own, ids, examples, present = part
        sent, own, report, streams = jax.vmap(one_client, in_axes=(None, None, 0, 0, 0, 0, None))(
            weights, shared, own, ids, examples, present, stream
        )
        if mechanism is not None:
            sent = jax.lax.optimization_barrier(sent)  # else XLA for CPUs draws again for the sum
        carry = dict(carry)
        if each:
            carry["ciphertext"] = _add_each(params, key, carry["ciphertext"], sent, streams, present)
        else:
            carry["values"] = jax.tree.map(
                lambda total, own: total + jnp.sum(own, axis=0, dtype=own.dtype), carry["values"], sent
            )
        if summed:
            masks = jax.vmap(lambda s: encryption.draw_masks(params, dimension, s))(streams)
            kept = jnp.where(present.reshape(-1, 1, 1, 1), masks, jnp.int32(0))
            carry["masks"] = carry["masks"] + jnp.sum(kept, axis=0, dtype=jnp.int32)
        carry["senders"] = carry["senders"] + jnp.sum(present.astype(jnp.uint32), dtype=jnp.uint32)
        if dtype == jnp.int32:
            carry["largest"] = jnp.maximum(carry["largest"], jnp.max(jnp.abs(sent)))
        return carry, (own, report)

    def start() -> Tree:
        carry: dict[str, Any] = {"senders": jnp.uint32(0), "largest": jnp.int32(0)}
        if each:
            assert params is not None
            carry["ciphertext"] = encryption.zero(params, dimension)
        elif mechanism is None:
            carry["values"] = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), shapes)
        else:
            carry["values"] = jnp.zeros(dimension, dtype)
        if summed:
            assert params is not None
            carry["masks"] = jnp.zeros((3, params.degree, params.rows(dimension)), jnp.int32)
        return carry

    def add(
        carry: Tree, weights: Tree, shared: Tree, own: Tree, cohort: Cohort, stream: Stream, key: Any = None
    ) -> tuple[Tree, Tree, Array]:
        part = (own, cohort.ids, cohort.examples, cohort.present)
        size = cohort.ids.shape[0]
        parts = -(-size // chunk)
        width = -(-size // parts)

        def split(leaf: Array) -> Array:  # what is missing in the last chunk is absent: zeros, `present` False
            padded = jnp.pad(leaf, [(0, parts * width - size)] + [(0, 0)] * (leaf.ndim - 1))
            return padded.reshape(parts, width, *leaf.shape[1:])

        if parts == 1:
            carry, (own, report) = one_chunk(carry, weights, shared, part, stream, key)
            return carry, own, report
        carry, done = jax.lax.scan(
            lambda c, xs: one_chunk(c, weights, shared, xs, stream, key), carry, jax.tree.map(split, part)
        )
        new_own, report = jax.tree.map(lambda leaf: leaf.reshape(parts * width, *leaf.shape[2:])[:size], done)
        return carry, new_own, report

    def close(carry: Tree, key: PublicKey | SecretKey | None, stream: Stream) -> Total:
        senders, largest = carry["senders"], carry["largest"]
        if each:
            return Total(None, carry["ciphertext"], senders, largest, fingerprint(carry["ciphertext"].data))
        values = trees.flatten(carry["values"]) if mechanism is None else carry["values"]
        if encryption_level == "off":
            mark = None if mechanism is None else fingerprint(jax.lax.bitcast_convert_type(values, jnp.uint32))
            return Total(values, None, senders, largest, mark)
        assert params is not None and key is not None
        if summed:
            assert isinstance(key, PublicKey)
            sealed = encryption.encrypt_with_masks(params, key, values, carry["masks"], senders=senders)
        else:
            sealed = encryption.encrypt(params, key, values, fold_in(stream, "sum"))._replace(senders=senders)
        return Total(None, sealed, senders, largest, fingerprint(sealed.data))

    def counts(weights: Tree, shared: Tree, own: Tree, cohort: Cohort, stream: Stream) -> tuple[Array, Tree, Array]:
        sent, new_own, report, _ = jax.vmap(one_client, in_axes=(None, None, 0, 0, 0, 0, None))(
            weights, shared, own, cohort.ids, cohort.examples, cohort.present, stream
        )
        return sent, new_own, report

    return CohortSum(start, add, close, counts, each)


def _add_each(params: Any, key: Any, total: Ciphertext, sent: Array, streams: Stream, present: Array) -> Ciphertext:
    """The ciphertexts of a chunk's clients, each made by itself and added."""

    def one(total: Ciphertext, xs: tuple[Array, Stream, Array]) -> tuple[Ciphertext, None]:
        counts, stream, here = xs
        added = encryption.add(params, total, encryption.encrypt(params, key, counts, stream))
        return jax.tree.map(lambda new, old: jnp.where(here, new, old), added, total), None

    return jax.lax.scan(one, total, (sent, streams, present))[0]
