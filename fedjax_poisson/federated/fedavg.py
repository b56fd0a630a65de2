"""`fedavg`: local training at many clients, the client as the privacy unit, every update embedded and encrypted, one release a round.

A round is one compiled program over the cohort (`cohort`), one opening and one server step. The estimated *mean update* is handed to the server optimiser
as a negative gradient: `optax.sgd(1.0)` is FedAvg, `optax.adam`, `optax.yogi` and `optax.adagrad` are FedAdam, FedYogi and FedAdagrad (Reddi et al.
2021, arXiv:2003.00295); the client decides between FedAvg, FedProx and SCAFFOLD (`client`).

Privacy. Without sampling (`sampling_rate=1`) a round costs the clients of its cohort the mechanism's curve, and the others nothing: account the largest
number of rounds that one client takes part in (a participation cap). Amplification is claimed in one way only: every client of the population sends
in every round and always sends the full dark noise, and takes part with a secret chance q (`sampling_rate=q`, cohorts are then the whole population).
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedjax_poisson import accounting, trees
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import checks
from fedjax_poisson.federated import cohort as cohort_lib
from fedjax_poisson.federated import population as population_lib
from fedjax_poisson.federated import spread as spread_lib
from fedjax_poisson.federated.algorithm import Algorithm
from fedjax_poisson.federated.charging import Paying, check_paying, make_account
from fedjax_poisson.federated.client import ClientOf
from fedjax_poisson.federated.cohort import ABSENT, EMPTY, NOT_FINITE, Encryption, Layout
from fedjax_poisson.federated.fused import RoundParts, fused_rounds
from fedjax_poisson.federated.population import Cohort, Population
from fedjax_poisson.federated.release import arrays, check_parts, check_round, named, open_total, reports, sums_on_host
from fedjax_poisson.federated.reuse import openings, round_stream
from fedjax_poisson.federated.server import State, final_parameters, init_state, server_step
from fedjax_poisson.mechanisms.types import Mechanism, check_honest
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream

ENCRYPTION_IN_WORDS: dict[str, str] = {
    "every_client": "every client's update is encrypted; only the encrypted sum is opened",
    "sum_only": "SUM ONLY: the updates are added in the clear inside the simulation and only their sum is encrypted",
    "off": "NO ENCRYPTION: the sum is handed over in the clear",
}


class FedState(NamedTuple):
    """What the next round needs.

    Attributes:
      server: parameters, optimiser state, running average and round number.
      shared: what the server broadcasts beside the parameters (`()` for most clients).
      own: every client's own state with a leading axis N (`()` for most clients); it never leaves a client.
    """

    server: State
    shared: Any
    own: Any


class RoundInfo(NamedTuple):
    """Diagnostics of one round. Those about single clients are for the researcher's eyes: nothing may adapt to them.

    Attributes:
      senders: contributions in the sum.
      bytes_up_per_sender: bytes of one client's message; without encryption, of its counts or floats.
      encryption: the level of encryption in words.
      exact: every opened value was within the backend's margin of an integer.
      epsilon: spent so far at the delta of the algorithm's ledger; infinite without a mechanism or if a round was released unaccounted, None where a
        caller's gate paid.
      update_norm: L2 norm of the released mean update.
      not_finite: clients whose update was NaN or infinite: they sent the embedding of zero.
      empty: clients without records: likewise.
      absent: clients that were lost after they had been chosen.
      seconds: wall clock of "train and seal" (local training, embedding, encryption, sums), "open" and "step".
    """

    senders: int
    bytes_up_per_sender: int
    encryption: str
    exact: bool
    epsilon: float | None
    update_norm: float
    not_finite: tuple[int, ...]
    empty: tuple[int, ...]
    absent: tuple[int, ...]
    seconds: dict[str, float]


def fedavg(
    model: Model,
    *,
    client: ClientOf,
    population: Population,
    senders: int,
    server_optimizer: optax.GradientTransformation,
    mechanism: Mechanism | None = None,
    aggregator: Aggregator | None = None,
    encryption: Encryption | None = None,
    minimum_senders: int | None = None,
    honest_senders: int | None = None,
    sampling_rate: float = 1.0,
    adjacency: Adjacency = "zero_out",
    average_from: int | None = None,
    layout: Layout | None = None,
    mesh: Mesh | None = None,
    ledger: accounting.Ledger | None = None,
    delta: float | None = None,
) -> Algorithm:
    """Federated averaging over a population of simulated clients.

    Args:
      model: `init`, `apply` and per-record `loss`.
      client: `local_sgd(...)`, `local_optimizer(...)`, `scaffold(...)` or your own function of the model.
      population: the clients.
      senders: K, clients of a round; with sampling the whole population.
      server_optimizer: optax transformation fed with minus the estimated mean update.
      mechanism: client-level mechanism; None trains without privacy, and says so.
      aggregator: encryption backend with room for K senders; None where encryption is "off".
      encryption: "every_client" (default where there is an aggregator), "sum_only" or "off" (`cohort`).
      minimum_senders: fewest clients whose sum is released; below, the round is refused unopened. Default: the aggregator's, else K; with sampling K.
      honest_senders: clients that do not collude with the server, of the fewest that may be released; default minimum_senders - 1.
      sampling_rate: q; below 1, cohorts must be the whole population and nobody may be lost: who sends must not depend on the secret sample, and the
        amplified price counts the dark noise of all (`release.check_round`). The mean update is then over the K q clients that are expected to train.
      adjacency: "zero_out" or "replace_one".
      average_from: round after which parameters are averaged; None for no averaging.
      layout: chunk of clients vmapped at once, and how ciphertexts are summed.
      mesh: devices (`client_mesh`); None for one.
      ledger: what rounds without a gate are charged to; None makes one in memory that counts and refuses nothing (`accounting.memory_ledger`).
      delta: of the ledger that is made; None for 1e-5.

    Returns:
      `Algorithm`; `apply(state, cohort, stream, gate=None)` takes client numbers `[K]`, a `Cohort`, or an iterator of `Cohort` blocks (`cohort_blocks`);
      `apply_rounds(state, ids [T, K], stream, gates=None)` runs T rounds in one program on one device, with the noise that `apply` would draw. Each release
      is paid for beforehand, by the algorithm's ledger or by T gates (or the word "unaccounted"); what was paid stays paid if a later round cannot be.

    Raises:
      ValueError: a privacy claim would be unsound, or the parts do not fit, with the reason and the remedy.
      TypeError: the model, or the client, is something else.
    """
    checks.check_model(model)
    checks.check_client(client)
    level: Encryption = encryption or ("off" if aggregator is None else "every_client")
    everyone = sampling_rate < 1
    minimum = minimum_senders or (senders if aggregator is None or everyone else aggregator.info.minimum_senders)
    check_parts(population, senders, minimum, mechanism, aggregator, level, sampling_rate, adjacency, mesh)
    honest = minimum - 1 if honest_senders is None else honest_senders
    if mechanism is not None:
        check_honest(honest, minimum)
    work = client(model)
    checks.check_made_client(work)
    _check_data(model, population)
    blank = jnp.zeros((1, *_record_shape(population)), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), blank))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    if aggregator is not None and mechanism is not None and level != "off":
        checks.check_aggregator(aggregator, mechanism, size, senders, minimum)
    device = None if aggregator is None or level == "off" else aggregator.device
    on_host = level != "off" and device is None
    make_programs = functools.partial(
        cohort_lib.cohort_sum,
        work,
        shapes,
        mechanism,
        clients=senders,
        params=None if device is None else device.params,
        encryption_level="off" if on_host else level,
        layout=layout,
        sampling_rate=sampling_rate,
    )
    programs = make_programs()
    key = None if device is None else device.key
    many = None if mesh is None else spread_lib.spread(programs, mesh)
    sealed_bytes = 4 * size if aggregator is None or level == "off" else aggregator.message_bytes(size)

    def init(rng: Array) -> FedState:
        params = model.init(rng, blank)
        shared = () if work.shared is None else work.shared.init(params, work.schedule.steps(population.records))
        own: Any = ()
        if work.init_own is not None:
            first = work.init_own(params)
            own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (population.size, *leaf.shape)), first)
        state = FedState(init_state(params, server_optimizer), shared, own)
        return state if mesh is None else spread_lib.replicated(mesh, state)

    def gather_own(own: Any, ids: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[ids], own)

    def scatter_own(own: Any, ids: Array, present: Array, new: Any) -> Any:
        rows = jnp.where(present, ids, jnp.uint32(population.size))  # padding repeats a client: it must not write
        return jax.tree.map(lambda leaf, one: leaf.at[rows].set(one, mode="drop"), own, new)

    # Keys are arguments of every program: a secret one (seeded mode) must not become a constant of compiled, cached code.
    def add_block(
        carry: Any, state: FedState, own: Any, cohort: Cohort, stream: Stream, key: Any, with_programs: Any = programs
    ) -> tuple[Any, Any, Array]:
        mine = gather_own(own, cohort.ids)
        carry, new, report = with_programs.add(carry, state.server.params, state.shared, mine, cohort, stream, key)
        return carry, scatter_own(own, cohort.ids, cohort.present, new), report

    def counts_block(state: FedState, own: Any, cohort: Cohort, stream: Stream) -> tuple[Array, Any, Array]:
        mine = gather_own(own, cohort.ids)
        counts, new, report = programs.counts(state.server.params, state.shared, mine, cohort, stream)
        return counts, scatter_own(own, cohort.ids, cohort.present, new), report

    def mean_update(total: Array, present: Array) -> Array:
        summed = total if mechanism is None else mechanism.estimate(total, present)
        return summed / (jnp.float32(sampling_rate) * jnp.maximum(present.astype(jnp.float32), jnp.float32(1)))

    def step(state: FedState, own: Any, update: Array, present: Array) -> tuple[FedState, Array]:
        server = server_step(state.server, -update, server_optimizer, average_from)
        shared = state.shared
        if work.shared is not None:
            tree = trees.layout(state.server.params).unflatten(update)
            share = present.astype(jnp.float32) * jnp.float32(sampling_rate / population.size)
            shared = work.shared.advance(shared, tree, share)
        return FedState(server, shared, own), jnp.linalg.norm(update)

    def whole_round(
        with_programs: cohort_lib.CohortSum, state: FedState, cohort: Cohort, stream: Stream, key: Any
    ) -> tuple[Any, Any, Array]:
        carry, own, report = add_block(with_programs.start(), state, state.own, cohort, stream, key, with_programs)
        return with_programs.close(carry, key, stream), own, report

    whole = jax.jit(functools.partial(whole_round, programs))
    # Float sums are first made without a look at each client: only a sum that is not finite has to be made again.
    hopeful = jax.jit(functools.partial(whole_round, make_programs(isolate=False))) if mechanism is None else None

    start, one_block, one_count = jax.jit(programs.start), jax.jit(add_block), jax.jit(counts_block)
    place = None if mesh is None else NamedSharding(mesh, PartitionSpec(population_lib.CLIENTS))
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    take_own = jax.jit(gather_own, out_shardings=place)
    keep_own = jax.jit(
        lambda own, ids, present, new, report: (scatter_own(own, ids, present, new), report), out_shardings=everywhere
    )
    close = jax.jit(programs.close)
    finish = jax.jit(lambda state, own, total, present: step(state, own, mean_update(total, present), present))

    def sums(state: FedState, parts: Sequence[Cohort] | Iterator[Cohort], stream: Stream) -> tuple[Any, Any, list[Any]]:
        """The (sealed) sum, the clients' new own states, and for each block who was asked and what each did."""
        if many is not None:
            assert mesh is not None
            state = spread_lib.replicated(mesh, state)  # a state that was read from a checkpoint lies on one device
            carry, own, seen = many.start(), state.own, []
            for part in parts:
                mine = take_own(own, part.ids)
                carry, new, report = many.add(carry, state.server.params, state.shared, mine, arrays(part), stream)
                own, report = keep_own(own, part.ids, part.present, new, report)
                seen.append((part.numbers, report))
            return close(many.gather(carry), *jax.device_put((key, stream), many.first)), own, seen
        if isinstance(parts, list):
            total, own, report = (hopeful or whole)(state, arrays(parts[0]), stream, key)
            if hopeful is not None and not np.isfinite(np.asarray(total.values)).all():
                total, own, report = whole(state, arrays(parts[0]), stream, key)
            return total, own, [(parts[0].numbers, report)]
        carry, own, seen = start(), state.own, []
        for part in parts:
            carry, own, report = one_block(carry, state, own, arrays(part), stream, key)
            seen.append((part.numbers, report))
        return close(carry, key, stream), own, seen

    def rdp(orders: np.ndarray) -> np.ndarray:
        if mechanism is None:
            return np.full(len(orders), np.inf)
        curve = mechanism.rdp(orders, honest, size, adjacency)
        return curve if sampling_rate == 1 else accounting.subsampled_rdp(orders, curve, sampling_rate)

    account = make_account(
        mechanism=mechanism,
        rdp=rdp,
        ledger=ledger,
        delta=delta,
        unit="client",
        adjacency=adjacency,
        sampling_rate=sampling_rate,
        honest_senders=honest,
        dimension=size,
    )
    opened = openings()

    def apply(state: FedState, cohort: Any, stream: Stream, gate: Paying = None) -> tuple[FedState, RoundInfo]:
        began = time.perf_counter()
        checks.check_stream(stream)
        check_paying(gate)
        number = int(state.server.round)
        own_stream = round_stream(stream, number)
        if isinstance(cohort, Cohort):
            cohort = [cohort]
        elif not isinstance(cohort, Iterator):
            cohort = [
                population_lib.make_cohort(
                    population, cohort, multiple=1 if mesh is None else mesh.devices.size, mesh=mesh
                )
            ]
        if on_host:
            assert aggregator is not None
            total, own, seen, mark = sums_on_host(aggregator, one_count, state, cohort, own_stream)
        else:
            total, own, seen = sums(state, cohort, own_stream)
            mark = total.fingerprint
        ids, flags = reports(seen)
        present = int(((flags & ABSENT) == 0).sum())
        sealed_at = time.perf_counter()
        check_round(ids.size, present, senders=senders, minimum=minimum, everyone=everyone, size=population.size)

        def pay() -> None:
            if mark is not None:
                opened.check(stream, number, mark)
            account.charge(gate, number + 1, present)
            if mark is not None:
                opened.remember(stream, number, mark)

        values, exact = open_total(aggregator, total, size, level, pay, number)
        opened_at = time.perf_counter()
        state, norm = finish(state, own, values, jnp.uint32(present))
        norm = float(norm)
        return state, RoundInfo(
            senders=present,
            bytes_up_per_sender=sealed_bytes,
            encryption=ENCRYPTION_IN_WORDS[level],
            exact=exact,
            epsilon=account.epsilon(gate),
            update_norm=norm,
            not_finite=named(ids, flags, NOT_FINITE),
            empty=named(ids, flags, EMPTY),
            absent=named(ids, flags, ABSENT),
            seconds={
                "train and seal": sealed_at - began,
                "open": opened_at - sealed_at,
                "step": time.perf_counter() - opened_at,
            },
        )

    fused = None
    if mesh is None:
        parts = RoundParts(programs, add_block, mean_update, step, key, size)
        fused = fused_rounds(parts, population, aggregator, level, senders, account, opened)
    return Algorithm(
        init, apply, lambda state: final_parameters(state.server, average_from), rdp, account.ledger, fused
    )


def _check_data(model: Model, population: Population) -> None:
    labels = population.host.y
    dtype = jax.dtypes.canonicalize_dtype(labels.dtype)
    checks.check_loss(model, _record_shape(population), (dtype,), tuple(labels.shape[2:]))
    if not isinstance(labels, np.memmap):  # labels in a file are not read before their client's turn
        checks.check_labels(model, labels, population.host.mask)


def _record_shape(population: Population) -> tuple[int, ...]:
    return tuple(population.host.x.shape[2:])
