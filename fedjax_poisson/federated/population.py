"""The clients of a simulation: on the device, in host memory or in a memory-mapped file; each round takes a cohort, as a whole or block by block.

Clients are padded to the same length so that one compiled program serves them all. A population that fits stays on the device; otherwise it is read
block by block (`cohort_blocks`), and the next block is gathered and sent while the device works on the current one.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_poisson.federated.client import Examples
from fedjax_poisson.federated.features import Features, is_sequence_of_clients, kept_dtype, leading_of, on_host

CLIENTS = "clients"
"""Name of the mesh axis over which a cohort is spread."""


class Cohort(NamedTuple):
    """The clients of one round, or one block of them.

    Attributes:
      ids: uint32 `[K]`, which clients of the population.
      examples: `Examples` with a leading axis K; None where the program takes them from the population on its device (`chosen`).
      present: bool `[K]`: False for a client that was lost after it had been chosen (and for padding): it sends nothing.
      numbers: the client numbers on the host, without the padding that lets K divide evenly; `()` inside compiled programs.
    """

    ids: Any
    examples: Examples | None
    present: Any
    numbers: np.ndarray | tuple[()] = ()


class HostExamples(NamedTuple):
    """`Examples` as NumPy arrays on the host, `[N, n, ...]`; memory-mapped arrays stay on disk."""

    x: Features
    y: np.ndarray
    mask: np.ndarray | None = None


class Population(NamedTuple):
    """N clients of at most n records each.

    Attributes:
      size: N.
      records: n, the padded length.
      counts: int64 `[N]`, real records of each client.
      host: the records in host memory or in files; a read-only view of `device` where that is a CPU.
      device: `Examples` of device arrays `[N, n, ...]`; None where they are streamed.
    """

    size: int
    records: int
    counts: np.ndarray
    host: HostExamples
    device: Examples | None

    def __repr__(self) -> str:
        place = "device" if self.device is not None else "host"
        return f"Population(size={self.size}, records={self.records}, on={place!r})"


def make_population(
    x: Any, y: Any, mask: Any = None, *, on_device: bool = True, records: int | None = None, mesh: Mesh | None = None
) -> Population:
    """A population from arrays, or from one array for each client.

    Args:
      x: float32 `[N, n, ...]` (a memory-mapped array is not read here), or a sequence of N arrays `[n_i, ...]`; a dict of arrays instead of an array
        where a record's features are one (`features`).
      y: `[N, n, ...]`, or a sequence of N arrays `[n_i, ...]`.
      mask: bool `[N, n]`, True for real records; None where all are (or where sequences are given).
      on_device: keep everything on the device; False streams cohorts from the host.
      records: padded length for sequences; None takes the largest client.
      mesh: with several devices, the mesh on which the population is replicated.

    Raises:
      ValueError: shapes do not fit, a client has more records than `records`, or there is no client.
    """
    if is_sequence_of_clients(x):
        host = _from_ragged(x, y, records)
    else:
        host = HostExamples(on_host(x), y, None if mask is None else np.asarray(mask, bool))
    shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(host.x)]
    if any(len(shape) < 2 or shape[:2] != host.y.shape[:2] for shape in shapes) or not shapes:
        raise ValueError(
            f"x has shape {', '.join(map(str, shapes))} and y {host.y.shape}: both start with [clients, records]; a single client is x[None], y[None]."
        )
    if host.mask is not None and host.mask.shape != host.y.shape[:2]:
        raise ValueError(f"mask has shape {host.mask.shape}, expected {host.y.shape[:2]} ([clients, records]).")
    size, length = host.y.shape[:2]
    if not size or not length:
        raise ValueError(f"x has shape {', '.join(map(str, shapes))}: there is no client, or no room for a record.")
    counts: np.ndarray = np.full(size, length) if host.mask is None else host.mask.sum(axis=1)
    device = None
    if on_device:
        place = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        device = Examples(*jax.tree.map(lambda leaf: _placed(np.asarray(leaf), place), tuple(host)))
        if mesh is None:
            host = HostExamples(*jax.tree.map(_held_once, tuple(host), tuple(device)))
    return Population(size, length, counts, host, device)


def _placed(leaf: np.ndarray, place: NamedSharding | None) -> Array:
    """`leaf` on the device, in memory that is not its maker's."""
    # On a CPU device_put takes over an array that starts at a multiple of 64 bytes, whatever may_alias says (jax 0.10.2).
    placed = jax.device_put(leaf, place)
    if any(np.shares_memory(leaf, np.asarray(shard.data)) for shard in _shards_on_cpus(placed)):
        placed = jax.device_put(leaf.copy(), place)
    return placed


def _shards_on_cpus(placed: Array) -> list[Any]:
    return [shard for shard in placed.addressable_shards if shard.device.platform == "cpu"]


def _held_once(leaf: Any, placed: Array) -> Any:
    """A view of the copy on the device where that is the host's own memory (CPUs), so that a population is held once when its maker lets go of it."""
    on_cpu = all(device.platform == "cpu" for device in placed.devices())
    same = isinstance(leaf, np.ndarray) and not isinstance(leaf, np.memmap) and leaf.dtype == placed.dtype
    return np.asarray(placed) if on_cpu and same else leaf


def _from_ragged(x: Sequence[Any], y: Sequence[Any], records: int | None) -> HostExamples:
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"There are features of {len(x)} clients and labels of {len(y)}; give the same number, at least 1."
        )
    sizes = [leading_of(on_host(one), 1)[0] for one in x]
    if wrong := [i for i, (one, n) in enumerate(zip(y, sizes, strict=True)) if len(one) != n]:
        raise ValueError(f"client {wrong[0]} has {sizes[wrong[0]]} records and {len(y[wrong[0]])} labels.")
    length = max(*sizes, 1) if records is None else records
    if large := [i for i, n in enumerate(sizes) if n > length]:
        raise ValueError(
            f"client {large[0]} has {sizes[large[0]]} records, clients are padded to {length} ({len(large)} clients are larger): "
            "raise records, or leave records out of those clients knowingly."
        )
    first_y = np.asarray(y[0])
    padded_y = np.zeros((len(x), length, *first_y.shape[1:]), first_y.dtype)
    for i, own_y in enumerate(y):
        padded_y[i, : sizes[i]] = own_y

    def padded(*own: Any) -> np.ndarray:
        arrays = [np.asarray(each) for each in own]
        kept = kept_dtype(arrays[0].dtype) if isinstance(x[0], Mapping) else np.float32
        found: np.ndarray = np.zeros((len(x), length, *arrays[0].shape[1:]), kept)
        for i, each in enumerate(arrays):
            found[i, : sizes[i]] = each
        return found

    padded_x = jax.tree.map(padded, *x) if isinstance(x[0], Mapping) else padded(*x)
    mask = np.arange(length)[None] < np.asarray(sizes)[:, None]
    return HostExamples(padded_x, padded_y, None if mask.all() else mask)


def check_ids(size: int, ids: Any) -> np.ndarray:
    """Client numbers as uint32 `[K]`.

    Raises:
      ValueError: there are more than the population has, one is unknown, or one is named twice.
    """
    ids = vector_of_ids(ids)
    if ids.size > size:
        raise ValueError(f"the cohort has {ids.size} clients, the population {size}: a client takes part once a round.")
    ordered = np.sort(ids)
    if ordered[0] < 0 or ordered[-1] >= size:
        raise ValueError(
            f"the cohort names client {int(ordered[-1] if ordered[-1] >= size else ordered[0])}; clients are 0..{size - 1}."
        )
    if (again := _repeated(ordered)).size:
        raise ValueError(
            f"the cohort names client {int(again[0])} twice: its records would count twice while its noise was counted once."
        )
    return ids.astype(np.uint32)


def vector_of_ids(ids: Any) -> np.ndarray:
    """Client numbers as a vector of integers, whatever they name.

    Raises:
      ValueError: not that, or empty.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"a cohort is a vector of client numbers, seen {ids.dtype}{list(ids.shape)}.")
    return ids


def named_twice(ids: np.ndarray) -> bool:
    """Whether a client number stands more than once in a vector."""
    return _repeated(np.sort(ids)).size > 0


def _repeated(ordered: np.ndarray) -> np.ndarray:
    """The entries of a sorted vector that stand behind their like; quicker than `np.unique`, which every round would wait for."""
    return ordered[1:][ordered[1:] == ordered[:-1]]


def sampled_cohorts(population: Population, clients: int, seed: int = 0) -> Callable[[int], np.ndarray]:
    """`(number) -> client numbers`: each round a uniform choice of clients, the same for the same seed.

    The choice is public, so it amplifies nothing: a client is charged for every round. For amplification by secret sampling let everybody send and set the
    algorithm's `sampling_rate`.

    Raises:
      ValueError: there are not so many clients.
    """
    if not 1 <= clients <= population.size:
        raise ValueError(f"clients={clients}: choose 1 to {population.size} clients a round.")
    return lambda number: np.random.default_rng((seed, number)).choice(population.size, clients, replace=False)


def make_cohort(
    population: Population, ids: Any, *, present: Any = None, multiple: int = 1, mesh: Mesh | None = None
) -> Cohort:
    """The records of some clients, ready for a round.

    Args:
      population: where they live.
      ids: client numbers `[K]`, each once.
      present: bool `[K]`; None means that all are there.
      multiple: pad K to a multiple of this (devices times chunk).
      mesh: spread the cohort over this mesh; with several processes each reads its own part only.

    Raises:
      ValueError: as `check_ids`, or present has another length.
    """
    ids = check_ids(population.size, ids)
    here = np.ones(ids.size, bool) if present is None else np.asarray(present, bool)
    if here.shape != ids.shape:
        raise ValueError(f"present has shape {here.shape}, the cohort {ids.shape}.")
    missing = -ids.size % multiple
    padded = np.concatenate([ids, np.full(missing, ids[0], np.uint32)])
    here = np.concatenate([here, np.zeros(missing, bool)])
    if population.device is not None:
        examples = _taker(mesh)(population.device, padded)
    else:
        examples = Examples(*jax.tree.map(lambda leaf: _gather(leaf, padded, mesh), tuple(population.host)))
    return Cohort(_spread(padded, mesh), examples, _spread(here, mesh), ids)


def checked(population: Population, cohort: Cohort, *, streamed: bool = False) -> Cohort:
    """A cohort that a caller gives, or one block of them: its parts have to name the same clients, each once, and clients of this population.

    `ids` decides which states and noise are used, `numbers` who is counted and charged. Where several processes hold a part of `ids` each, only `numbers` is
    looked at.

    Raises:
      ValueError: what is wrong with it.
    """
    numbers = check_ids(population.size, cohort.numbers)
    if cohort.examples is None and (streamed or population.device is None):
        raise ValueError(
            "a cohort without records: make it by make_cohort, or give the clients' numbers as one vector."
        )
    here, clients = np.shape(cohort.present), np.shape(cohort.ids)
    if len(here) != 1 or here != clients or numbers.size > here[0]:
        raise ValueError(
            f"a cohort with ids {list(clients)}, present {list(here)} and {numbers.size} numbers: ids and present have a place for each number, and padding."
        )
    if any(isinstance(part, jax.Array) and not part.is_fully_addressable for part in (cohort.ids, cohort.present)):
        return cohort
    ids, present = np.asarray(cohort.ids), np.asarray(cohort.present)
    if not np.array_equal(ids[: numbers.size], numbers) or present[numbers.size :].any():
        raise ValueError(
            "a cohort whose ids are not its numbers, or whose padding is present: other clients would be in the sum than are counted; use make_cohort."
        )
    return cohort


def chosen(ids: Any) -> Cohort:
    """A cohort of arrays on the host, without its records: for programs that are given all clients' (`Population.device`) and take each when it is its turn.

    Which clients these are is not looked at: whoever uses the cohort does it (`check_ids` of `numbers`), before anything of it is released.

    Raises:
      ValueError: not a vector of integers, or empty.
    """
    ids = vector_of_ids(ids)
    return Cohort(ids.astype(np.uint32), None, np.ones(ids.size, bool), ids)


@functools.lru_cache(maxsize=8)
def _taker(mesh: Mesh | None) -> Any:
    """Rows of a population on the device(s), as one program; with a mesh the rows are spread over it."""
    place = None if mesh is None else NamedSharding(mesh, PartitionSpec(CLIENTS))
    return jax.jit(lambda examples, rows: jax.tree.map(lambda leaf: leaf[rows], examples), out_shardings=place)


def _spread(values: np.ndarray, mesh: Mesh | None) -> Array:
    return _gather(values, np.arange(len(values)), mesh)


def _gather(leaf: Any, rows: np.ndarray, mesh: Mesh | None) -> Array:
    """Rows of a host array on the device(s); every process reads the rows of its own devices."""
    if mesh is None:
        return jnp.asarray(np.asarray(leaf[rows]))
    sharding = NamedSharding(mesh, PartitionSpec(CLIENTS))
    shape = (len(rows), *leaf.shape[1:])
    return jax.make_array_from_callback(shape, sharding, lambda index: np.asarray(leaf[rows[index[0]]]))  # type: ignore[index]


def cohort_blocks(
    population: Population,
    ids: Any,
    block: int,
    *,
    present: Any = None,
    multiple: int = 1,
    mesh: Mesh | None = None,
    ahead: int = 1,
) -> Iterator[Cohort]:
    """A cohort block by block, the next ones gathered by another thread while the device works.

    Args:
      population: where the clients live.
      ids: client numbers `[K]`, each once.
      block: clients of one block; the last is padded to it, so that one compiled program serves all.
      present: as in `make_cohort`.
      multiple: as in `make_cohort`; `block` is rounded up to a multiple of it.
      mesh: as in `make_cohort`.
      ahead: blocks gathered ahead.

    Raises:
      ValueError: as `make_cohort`, before the first block is read.
    """
    ids = check_ids(population.size, ids)
    here = np.ones(ids.size, bool) if present is None else np.asarray(present, bool)
    if here.shape != ids.shape:
        raise ValueError(f"present has shape {here.shape}, the cohort {ids.shape}.")
    if block < 1 or ahead < 1:
        raise ValueError(f"block={block} and ahead={ahead} must be at least 1.")
    block = -(-min(block, ids.size) // multiple) * multiple

    def gather(start: int) -> Cohort:
        end = min(start + block, ids.size)
        return make_cohort(population, ids[start:end], present=here[start:end], multiple=block, mesh=mesh)

    def produce() -> Iterator[Cohort]:
        starts = iter(range(0, ids.size, block))
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="cohort") as pool:
            waiting = [pool.submit(gather, start) for start in itertools.islice(starts, ahead)]
            while waiting:
                ready = waiting.pop(0).result()
                if (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(gather, start))
                yield ready

    return produce()
