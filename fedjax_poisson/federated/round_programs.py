"""The compiled programs of a round of `fedavg`, and the sum over a cohort by them: in one program, block by block, over a mesh, or on the host."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_poisson.federated import one_program
from fedjax_poisson.federated import spread as spread_lib
from fedjax_poisson.federated.chunks import Chunking
from fedjax_poisson.federated.cohort import CohortSum, Total, cohort_sum
from fedjax_poisson.federated.federation import Federation, FedState, Structure, mean_update, step, with_release
from fedjax_poisson.federated.fused import RoundParts, rounds_in_one
from fedjax_poisson.federated.host_calls import calls_host
from fedjax_poisson.federated.population import CLIENTS, Cohort, check_ids, checked, chosen, make_cohort
from fedjax_poisson.federated.release import arrays, reports, sums_on_host
from fedjax_poisson.federated.sharing_programs import Numbers, built_once
from fedjax_poisson.platforms import for_only
from fedjax_poisson.randomness import Stream

Blocks = list[Cohort] | Iterator[Cohort]
"""A round's clients: a list of the one cohort, or blocks that are streamed."""


class MeshPrograms(NamedTuple):
    """The programs of several devices.

    Attributes:
      mesh: the devices.
      sums: partial sums on every device.
      take: `(client_state, ids) -> rows`, spread like the cohort.
      keep: `(client_state, ids, present, rows, report) -> (client_state, report)`, the same on every device.
    """

    mesh: Mesh
    sums: spread_lib.Spread
    take: Callable[..., Any]
    keep: Callable[..., tuple[Any, Array]]


class Programs(NamedTuple):
    """The compiled programs of a round. Its `Numbers` are arguments, so that algorithms of one structure share programs.

    Attributes:
      structure: what they are compiled for.
      parts: the pure pieces.
      whole: `(state, cohort, stream, numbers, held) -> (total, client_state, report)`: a round's sum in one program; `held` is the population's records for
        a cohort without its own (`population.chosen`), else None.
      straight: `(state, cohort, stream, numbers, held) -> (state, uint32 [facts + K])`: the whole round in one program, opening and step included, and
        what the host looks at (`one_program`). Without a mechanism it takes no look at each client, so a round whose norm is not finite is made again.
        None in norm rounds, whose sums are opened apart.
      start: `() -> carry`.
      block: `(carry, state, client_state, cohort, stream, numbers) -> (carry, client_state, report)`.
      counts: `(state, client_state, cohort, stream, numbers) -> (counts, client_state, report)`, for encryption on the host.
      grids: the same with clipped updates in place of counts.
      close: `(carry, numbers, stream) -> total`.
      finish: `(state, client_state, total, present, numbers) -> (state, norm)`: estimate, mean, step.
      fused: several rounds in one program (`fused.rounds_in_one`).
      mesh: programs of several devices; None for one.
    """

    structure: Structure
    parts: RoundParts
    whole: Callable[..., tuple[Total, Any, Array]]
    straight: Callable[..., tuple[FedState, Array]] | None
    start: Callable[[], Any]
    block: Callable[..., tuple[Any, Any, Array]]
    counts: Callable[..., tuple[Array, Any, Array]]
    grids: Callable[..., tuple[Array, Any, Array]]
    close: Callable[..., Total]
    finish: Callable[..., tuple[FedState, Array]]
    fused: Callable[..., tuple[FedState, Any]]
    mesh: MeshPrograms | None


class Summed(NamedTuple):
    """A round's sum before it is opened.

    Attributes:
      total: `Total`, or what a backend on the host summed.
      client_state: what every client keeps.
      ids: who was asked.
      flags: what each did (`cohort`).
      mark: fingerprint of what would be opened; None without noise.
    """

    total: Any
    client_state: Any
    ids: np.ndarray
    flags: np.ndarray
    mark: Array | np.ndarray | None


@built_once
def compile_programs(structure: Structure, chunking: Chunking | None) -> Programs:
    """The programs of rounds of a structure, compiled at their first use and shared by all algorithms of it."""
    make = functools.partial(
        cohort_sum,
        structure.client,
        structure.tree,
        structure.sends,
        clients=structure.participation.senders,
        device=structure.device,
        encryption_level=structure.level,
        chunking=chunking,
        sampling_rate=structure.participation.sampling_rate,
        norm=structure.norm,
        at_once=structure.fidelity == "release",
    )
    sums = make()
    add_block = functools.partial(_add_block, sums)
    average, advance = functools.partial(mean_update, structure), functools.partial(step, structure)

    def finish(
        state: FedState, client_state: Any, total: Array, present: Array, numbers: Numbers
    ) -> tuple[FedState, Array]:
        return advance(state, client_state, average(total, present, numbers), present, numbers)

    opens = None if structure.device is None else structure.device.open
    straight = None
    if structure.norm is None and structure.mesh is None:
        careless = make(isolate=False) if structure.sends == "updates" else sums
        whole = functools.partial(_whole_round, careless)
        straight = jax.jit(functools.partial(one_program.whole_round, whole, opens, finish))
    parts = RoundParts(sums, add_block, average, advance, opens)
    return Programs(
        structure=structure,
        parts=parts,
        whole=jax.jit(functools.partial(_whole_round, sums)),
        straight=straight,
        start=jax.jit(sums.start),
        block=jax.jit(add_block),
        counts=jax.jit(functools.partial(_rows_of_block, sums.counts)),
        grids=jax.jit(functools.partial(_rows_of_block, sums.grids)),
        close=jax.jit(sums.close),
        finish=jax.jit(finish),
        fused=jax.jit(functools.partial(rounds_in_one, parts, structure.level)),
        mesh=None if structure.mesh is None else _mesh_programs(sums, structure.mesh),
    )


def _mesh_programs(sums: CohortSum, mesh: Mesh) -> MeshPrograms:
    def keep(client_state: Any, ids: Array, present: Array, rows: Any, report: Array) -> tuple[Any, Array]:
        return _scatter_clients(client_state, ids, present, rows), report

    return MeshPrograms(
        mesh=mesh,
        sums=spread_lib.spread(sums, mesh),
        take=jax.jit(_gather_clients, out_shardings=NamedSharding(mesh, PartitionSpec(CLIENTS))),
        keep=jax.jit(keep, out_shardings=NamedSharding(mesh, PartitionSpec())),
    )


def blocks_of(federation: Federation, cohort: Any) -> Blocks:
    """What `apply` takes as a cohort, as blocks: client numbers `[K]`, a `Cohort`, or an iterator of them."""
    if isinstance(cohort, Cohort):
        return [checked(federation.population, cohort)]
    if isinstance(cohort, Iterator):
        return (checked(federation.population, block, streamed=True) for block in cohort)
    mesh = federation.mesh
    if mesh is None and federation.population.device is not None and not federation.encrypts_on_host:
        return [chosen(cohort)]
    return [make_cohort(federation.population, cohort, multiple=1 if mesh is None else mesh.devices.size, mesh=mesh)]


def sum_cohort(
    federation: Federation, programs: Programs, numbers: Numbers, state: FedState, blocks: Blocks, stream: Stream
) -> Summed:
    """Train, embed, seal and add up the clients of a round; `stream` is the round's."""
    if federation.encrypts_on_host:
        assert federation.aggregator is not None
        total, client_state, seen, mark = sums_on_host(
            federation.aggregator, programs.counts, state, blocks, stream, numbers
        )
        return Summed(total, client_state, *reports(seen), mark)
    if programs.mesh is not None:
        total, client_state, seen = _sum_over_mesh(federation, programs, programs.mesh, numbers, state, blocks, stream)
    elif isinstance(blocks, list):
        total, client_state, seen = _sum_at_once(federation, programs, numbers, state, blocks[0], stream)
    else:
        total, client_state, seen = _sum_blocks(federation, programs, numbers, state, blocks, stream)
    return Summed(total, client_state, *reports(seen), total.fingerprint)


def straight_round(
    federation: Federation, programs: Programs, numbers: Numbers, state: FedState, blocks: Blocks, stream: Stream
) -> tuple[Summed, FedState, float, int] | None:
    """A round in one program, from the algorithm's stream: who did what, the next state, the norm of the update, and rounds done before.

    None of it is released before its checks are done and it is paid for.

    The opening is in the program, since one machine plays all roles, as in fused rounds: the opened sum is on the device before it is paid for, and leaves it
    afterwards. Its own checks have to hold here, or the round is made again step by step, and opened, or refused with the reason, behind the gate.

    None where there is no such program, where the opening has more to check than programs do, where too few clients are here, where the program would show
    numbers to somebody while it runs (a callback, `jax.debug.print`), and where a check did not hold or the norm is not finite (it is finite only if the
    sum is): then the sum is made by itself (`sum_cohort`), clients are looked at one by one, and it is opened apart.

    Raises:
      ValueError: the cohort names an unknown client, or one twice; nothing of it was released.
    """
    if programs.straight is None or not isinstance(blocks, list) or federation.encrypts_on_host:
        return None
    bound = _bound_in_program(federation)
    if bound is None or numbers.insiders is not None:
        return None
    cohort = blocks[0]
    here = int(np.asarray(cohort.present).sum())
    if here < federation.participation.minimum_senders or len(cohort.numbers) > federation.participation.senders:
        return None  # to be refused before anything is opened
    if federation.fidelity == "release":
        numbers = with_release(federation, numbers, here)
    held = federation.population.device if cohort.examples is None else None
    given = state, arrays(cohort), stream, numbers, held
    platform = one_program.platform_of(programs.straight, given)
    with for_only(platform):  # half of the time to trace is for other platforms
        if calls_host(programs.straight, given):
            return None
        after, seen = programs.straight(*given)
    _check_numbers(federation, cohort)  # while the device works
    looked = one_program.read(np.asarray(seen), cohort.present.shape[0])
    if not (math.isfinite(looked.norm) and looked.exact and looked.most <= bound):
        return None
    who = reports([(cohort.numbers, looked.report)])
    return Summed(None, after.client_state, *who, looked.mark), after, looked.norm, looked.number


def _check_numbers(federation: Federation, cohort: Cohort) -> None:
    """Refuse a cohort that names an unknown client, or one twice, where that was not looked at when it was made (`chosen`).

    Raises:
      ValueError: as `check_ids`.
    """
    if cohort.examples is None:
        check_ids(federation.population.size, cohort.numbers)


def _bound_in_program(federation: Federation) -> int | None:
    """The bound on counts that a round in one program is held to; None for an aggregator that checks more than programs do."""
    if not federation.encrypts_on_device:
        return 0
    assert federation.aggregator is not None and federation.aggregator.device is not None
    return None if federation.aggregator.device.states_rms else federation.aggregator.info.count_bound


def _sum_at_once(
    federation: Federation, programs: Programs, numbers: Numbers, state: FedState, cohort: Cohort, stream: Stream
) -> tuple[Total, Any, list[Any]]:
    if federation.fidelity == "release":
        numbers = with_release(federation, numbers, int(np.asarray(cohort.present).sum()))
    _check_numbers(federation, cohort)
    held = federation.population.device if cohort.examples is None else None
    total, client_state, report = programs.whole(state, arrays(cohort), stream, numbers, held)
    return total, client_state, [(cohort.numbers, report)]


def _sum_blocks(
    federation: Federation, programs: Programs, numbers: Numbers, state: FedState, blocks: Blocks, stream: Stream
) -> tuple[Total, Any, list[Any]]:
    carry, client_state, seen = programs.start(), state.client_state, []
    for block in blocks:
        carry, client_state, report = programs.block(carry, state, client_state, arrays(block), stream, numbers)
        seen.append((block.numbers, report))
        _keep_pace(seen)
    if federation.fidelity == "release":
        numbers = with_release(federation, numbers, int(carry["senders"]))
    return programs.close(carry, numbers, stream), client_state, seen


def _sum_over_mesh(
    federation: Federation,
    programs: Programs,
    on: MeshPrograms,
    numbers: Numbers,
    state: FedState,
    blocks: Blocks,
    stream: Stream,
) -> tuple[Total, Any, list[Any]]:
    state = spread_lib.replicated(on.mesh, state)  # a state that was read from a checkpoint lies on one device
    carry, client_state, seen = on.sums.start(), state.client_state, []
    embedding = spread_lib.replicated(on.mesh, numbers._replace(key=None, factor=None))
    for block in blocks:
        rows = on.take(client_state, block.ids)
        carry, rows, report = on.sums.add(
            carry, state.server.params, state.shared, rows, arrays(block), stream, embedding
        )
        client_state, report = on.keep(client_state, block.ids, block.present, rows, report)
        seen.append((block.numbers, report))
        _keep_pace(seen)
    noise = (
        None if programs.structure.norm is None else numbers.functions
    )  # in light rounds it is in the counts already
    gathered = on.sums.gather(carry)
    law = with_release(federation, numbers, int(gathered["senders"])).release
    key, noise, law, stream = jax.device_put((numbers.key, noise, law, stream), on.sums.first)
    total = programs.close(gathered, Numbers(key, noise, release=law), stream)
    if (
        total.values is not None
    ):  # the step is on all devices: values that are bound to the first would not go with its state
        total = total._replace(values=jnp.asarray(np.asarray(total.values)))
    return total, client_state, seen


def _keep_pace(seen: list[Any]) -> None:
    """Waits until the block before the last one is done.

    Calls return before the device has worked: without a wait all blocks of a streamed cohort lie in its queue, and memory grows with the clients. One that
    waits while another is at work keeps it busy.
    """
    if len(seen) > 1:
        jax.block_until_ready(seen[-2][1])


def _gather_clients(client_state: Any, ids: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[ids], client_state)


def _scatter_clients(client_state: Any, ids: Array, present: Array, rows: Any) -> Any:
    def put(leaf: Array, new: Array) -> Array:
        places = jnp.where(present, ids, jnp.uint32(leaf.shape[0]))  # padding repeats a client: it must not write
        return leaf.at[places].set(new, mode="drop")

    return jax.tree.map(put, client_state, rows)


def _add_block(
    sums: CohortSum,
    carry: Any,
    state: FedState,
    client_state: Any,
    cohort: Cohort,
    stream: Stream,
    numbers: Numbers,
    held: Any = None,
) -> tuple[Any, Any, Array]:
    rows = _gather_clients(client_state, cohort.ids)
    carry, rows, report = sums.add(carry, state.server.params, state.shared, rows, cohort, stream, numbers, held)
    return carry, _scatter_clients(client_state, cohort.ids, cohort.present, rows), report


def _rows_of_block(
    rows_of: Callable[..., tuple[Array, Any, Array]],
    state: FedState,
    client_state: Any,
    cohort: Cohort,
    stream: Stream,
    numbers: Numbers,
) -> tuple[Array, Any, Array]:
    rows = _gather_clients(client_state, cohort.ids)
    counts, rows, report = rows_of(state.server.params, state.shared, rows, cohort, stream, numbers)
    return counts, _scatter_clients(client_state, cohort.ids, cohort.present, rows), report


def _whole_round(
    sums: CohortSum, state: FedState, cohort: Cohort, stream: Stream, numbers: Numbers, held: Any
) -> tuple[Total, Any, Array]:
    carry, client_state, report = _add_block(
        sums, sums.start(), state, state.client_state, cohort, stream, numbers, held
    )
    return sums.close(carry, numbers, stream), client_state, report
