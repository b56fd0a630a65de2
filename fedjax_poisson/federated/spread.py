"""A cohort over several devices and several processes: every device sums its own clients, one collective adds the integers.

Each device runs the same single-device program on its part of the cohort (`jax` starts them side by side), so a client's bits cannot depend on where it is
computed. The partial sums are then added by one `shard_map`, as integers: no order, no rounding. Only the collective is a program over all devices, because
programs over several devices cannot hold the wide product `lax.mulhi` of clipping, sampling and transforms in jax up to 0.10 ("Unable to convert MHLO to
StableHLO").

Several processes: call `jax.distributed.initialize(...)` first, then make the mesh; every process runs the same script. A process whose peer has died gets
a `RoundLost` at the collective: nothing was opened or charged, and all processes can be started again from the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, shard_map
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_poisson.ckks import Ciphertext, CkksParameters, modular
from fedjax_poisson.federated.cohort import CohortSum
from fedjax_poisson.federated.population import CLIENTS, Cohort
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.randomness import Stream
from fedjax_poisson.randomness import stream as new_stream

Tree = Any


class RoundLost(RuntimeError):
    """A process of the run is gone: this round's sum cannot be made. Nothing of it was opened or charged."""


class Spread(NamedTuple):
    """The parts of a round over a mesh.

    Attributes:
      start: `() -> carries`, one for each device of this process.
      add: `(carries, params, shared, own, cohort, stream, key) -> (carries, own, report)`; `own` are the rows of the cohort's clients, spread like
        the cohort, and so are the results.
      gather: `(carries) -> carry` on this process's first device, the same in every process. Raises `RoundLost`.
      first: this process's first device.
    """

    start: Callable[[], list[Tree]]
    add: Callable[..., tuple[list[Tree], Tree, Array]]
    gather: Callable[[list[Tree]], Tree]
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


def spread(programs: CohortSum, mesh: Mesh, params: CkksParameters | None) -> Spread:
    """The programs of a round, one copy for each device of this process.

    Args:
      programs: the single-device programs.
      mesh: devices (`client_mesh`).
      params: ring parameters where ciphertexts are summed.

    Raises:
      ValueError: the mesh has other axes.
    """
    if mesh.axis_names != (CLIENTS,):
        raise ValueError(f'the mesh has axes {mesh.axis_names}; it must have the one axis "{CLIENTS}" (client_mesh).')
    local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    split, everywhere = PartitionSpec(CLIENTS), PartitionSpec()
    one_start, one_add = jax.jit(programs.start), jax.jit(programs.add)

    def joined(parts: list[Tree]) -> Tree:
        """The devices' parts as one array over the mesh, end to end."""

        def one(*leaves: Array) -> Array:
            shape = (mesh.devices.size * leaves[0].shape[0], *leaves[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, split), list(leaves))

        return jax.tree.map(one, *parts)

    def start() -> list[Tree]:
        return [jax.device_put(one_start(), device) for device in local]

    def add(
        carries: list[Tree], weights: Tree, shared: Tree, own: Tree, cohort: Cohort, stream: Stream, key: Any = None
    ) -> tuple[list[Tree], Tree, Array]:
        added, owns, reports = [], [], []
        for i, device in enumerate(local):
            mine = jax.tree.map(lambda leaf, i=i: leaf.addressable_shards[i].data, (weights, shared, own, cohort))
            carry, new_own, report = one_add(carries[i], *mine, *jax.device_put((stream, key), device))
            added.append(carry)
            owns.append(new_own)
            reports.append(report)
        return added, joined(owns), joined(reports)

    def over_devices(stacked: Tree) -> Tree:
        mine = jax.tree.map(lambda leaf: leaf[0], stacked)
        sums = {name: leaf for name, leaf in mine.items() if name not in ("largest", "ciphertext")}
        total = jax.lax.psum(sums, CLIENTS) | {"largest": jax.lax.pmax(mine["largest"], CLIENTS)}
        if "ciphertext" in mine:
            assert params is not None
            data, q = jax.lax.all_gather(mine["ciphertext"].data, CLIENTS), modular.constants(params.moduli).q
            whole = data[0]
            for i in range(1, mesh.devices.size):
                whole = modular.add(whole, data[i], q)
            total["ciphertext"] = Ciphertext(whole, None, jax.lax.psum(mine["ciphertext"].senders, CLIENTS))
        return total

    collect = jax.jit(shard_map(over_devices, mesh=mesh, in_specs=split, out_specs=everywhere, check_vma=False))

    def gather(carries: list[Tree]) -> Tree:
        stacked = joined([jax.tree.map(lambda leaf: leaf[None], carry) for carry in carries])
        try:
            total = jax.block_until_ready(collect(stacked))
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            raise RoundLost(
                "Another process of this run is gone or unreachable, so the round's sum cannot be made. Nothing was opened and nothing was charged. "
                f"Start all processes again: they go on from the last checkpoint. ({str(error).splitlines()[0]})"
            ) from error
        return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, total)

    return Spread(start, add, gather, local[0])
