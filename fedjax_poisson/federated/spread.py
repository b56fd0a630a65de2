"""A cohort over several devices and several processes: every device sums its own clients, one collective adds the integers.

The clients' part is one program over the mesh (`shard_map`): each device scans its share of the cohort and keeps its partial sums. A second program
adds these as integers, so order and rounding play no role and the bits are the same on one device and on many. The remaining steps, the transforms of the
summed secrets and the opening, are done by each process on its first device, from the same integers.

For several processes, call `jax.distributed.initialize(...)` first, then build the mesh; every process runs the same script. If a process dies, the others
cannot finish the round's collective: they report what they are waiting for, and end with `RoundLost` or are terminated by jax once its heartbeat times out
(`heartbeat_timeout_seconds` of `initialize`). Nothing of that round was opened or charged, and all processes can be restarted from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, shard_map
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_poisson.federated.cohort import CohortSum
from fedjax_poisson.federated.population import CLIENTS, Cohort
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.randomness import Stream
from fedjax_poisson.randomness import stream as new_stream

Tree = Any
_LOG = logging.getLogger("fedjax_poisson")


class RoundLost(RuntimeError):
    """A process of the run is gone: this round's sum cannot be made. Nothing of it was opened or charged."""


class Spread(NamedTuple):
    """The parts of a round over a mesh.

    Attributes:
      start: `() -> carry`, partial sums with a leading axis of devices, spread over the mesh.
      add: `(carry, params, shared, client_state, cohort, stream, numbers) -> (carry, client_state, report)`; `client_state` has the rows of the cohort's
        clients, spread like the cohort, and so are the results.
      gather: `(carry) -> carry` on this process's first device, the same in every process. Raises `RoundLost`.
      first: this process's first device.
    """

    start: Callable[[], Tree]
    add: Callable[..., tuple[Tree, Tree, Array]]
    gather: Callable[[Tree], Tree]
    first: jax.Device


def client_mesh(devices: int | None = None) -> Mesh:
    """A mesh of the first `devices` devices (by default all, of all processes) with the one axis "clients".

    Raises:
      ValueError: there are not so many.
    """
    found = jax.devices()
    if devices is not None and not 1 <= devices <= len(found):
        raise ValueError(f"devices={devices}, but there are {len(found)} of kind {found[0].device_kind}.")
    return Mesh(np.asarray(found[:devices]), (CLIENTS,))


def replicated(mesh: Mesh, tree: Tree) -> Tree:
    """The same arrays on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shared_stream(seed: int | None = None) -> Stream:
    """A stream that all processes share: the first process's, from the operating system or from a seed."""
    own = new_stream(seed)
    if jax.process_count() == 1:
        return own
    return Stream(*(jnp.asarray(leaf) for leaf in multihost_utils.broadcast_one_to_all(tuple(own))))


def first_process_gate(gate: Gate | None) -> Gate | None:
    """A gate that only the first process asks (it keeps the ledger); every process obeys its answer.

    Raises, when called:
      PermissionError: the first process's gate refused (there, the gate's own error is raised).
    """
    if gate is None or jax.process_count() == 1:
        return gate

    def ask() -> None:
        refused: Exception | None = None
        if jax.process_index() == 0:
            try:
                gate()
            except Exception as error:  # raised below, once the other processes know
                refused = error
        allowed = bool(multihost_utils.broadcast_one_to_all(np.asarray(refused is None)))
        if refused is not None:
            raise refused
        if not allowed:
            raise PermissionError("the first process's ledger refused the release; nothing is opened here either.")

    return ask


def spread(programs: CohortSum, mesh: Mesh) -> Spread:
    """The programs of a round over a mesh.

    Args:
      programs: those of one device, without rows made one by one.
      mesh: devices (`client_mesh`).

    Raises:
      ValueError: the mesh has other axes, or the programs make rows one by one.
    """
    if mesh.axis_names != (CLIENTS,):
        raise ValueError(f'the mesh has axes {mesh.axis_names}; it must have the one axis "{CLIENTS}" (client_mesh).')
    if programs.one_by_one:
        raise ValueError(
            "Rows made one by one (transforms='each') need a product that jax cannot compile for several devices yet: "
            "use transforms='summed', or one device."
        )
    devices, split, whole = mesh.devices.size, PartitionSpec(CLIENTS), PartitionSpec()

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, split))
    def start() -> Tree:
        return jax.tree.map(lambda leaf: jnp.zeros((devices, *leaf.shape), leaf.dtype), programs.start())

    def local(
        carry: Tree,
        weights: Tree,
        shared: Tree,
        client_state: Tree,
        cohort: Cohort,
        stream: Stream,
        numbers: Numbers,
    ) -> Any:
        mine = jax.tree.map(lambda leaf: leaf[0], carry)
        mine, client_state, report = programs.add(mine, weights, shared, client_state, cohort, stream, numbers)
        return jax.tree.map(lambda leaf: leaf[None], mine), client_state, report

    specs = (split, whole, whole, split, split, whole, whole)
    add = jax.jit(shard_map(local, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False))

    def over_devices(stacked: Tree) -> Tree:
        mine = jax.tree.map(lambda leaf: leaf[0], stacked)
        sums = {name: leaf for name, leaf in mine.items() if name != "largest"}
        return jax.lax.psum(sums, CLIENTS) | {"largest": jax.lax.pmax(mine["largest"], CLIENTS)}

    collect = jax.jit(shard_map(over_devices, mesh=mesh, in_specs=split, out_specs=whole, check_vma=False))

    def gather(carry: Tree) -> Tree:
        try:
            with _patience():
                total = jax.block_until_ready(collect(carry))
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            raise RoundLost(
                "Another process of this run is gone or unreachable, so the round's sum cannot be made. Nothing was opened and nothing was charged. "
                f"Start all processes again: they go on from the last checkpoint. ({str(error).splitlines()[0]})"
            ) from error
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, total)

    first = next(device for device in mesh.devices.flat if device.process_index == jax.process_index())
    return Spread(start, add, gather, first)


@contextlib.contextmanager
def _patience(seconds: float = 3.0) -> Iterator[None]:
    """Say what is being waited for if a collective of several processes takes long: if a peer is dead, jax ends this process without a word of ours."""
    if jax.process_count() == 1:
        yield
        return
    say = threading.Timer(
        seconds,
        _LOG.warning,
        [
            "process %d of %d waits for the other processes' sums of this round. If one of them has died this process will end: nothing of this round "
            "has been opened or charged, start all processes again from the last checkpoint.",
            jax.process_index(),
            jax.process_count(),
        ],
    )
    say.daemon = True
    say.start()
    try:
        yield
    finally:
        say.cancel()
