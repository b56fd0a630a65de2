"""`fedavg` over fixed cohorts: cohorts take turns at training (`turns`), messages are banded (`banding`), and a participation is charged as a whole.

A round trains the cohort whose turn it is and clips its updates; the clients of the last `band` cohorts send c_j times their update of j rounds ago, each
with fresh noise; the sum is opened, decoded, divided by the size of the cohort that trained, and handed to the server. With band = 1 this is `fedavg`
with a cap on participations: the same bits as if the caller had passed the cohorts. A client's last update is kept by the client (in a simulation: in
the state), for band - 1 rounds; a client that is lost when its turn comes has nothing to send in this turn, one that is lost later leaves its message out.

**What is charged.** A *charge* is the price P of one participation, the sum over j < band of the price p_j of a release to which the client contributes
within c_j times its bounds. It is due when a round is to be opened that no earlier charge of this algorithm covers, and covers that round and the
later ones of its *epoch* (rounds e b + 1 to e b + b), each for one opening. Usually: once in every b rounds, at the first.

*Claim.* The charges bound every client's loss: at any time, whatever was opened and however it was chosen from earlier releases, the releases
are (a, C P(a))-Renyi private for each client, C being the number of charges, at every order a; with a filter that admits a charge only within a budget
at one order, they are within that budget.

*Proof.* Fix a client i; its neighbouring world has its updates replaced by zero (or by another client's data). Give the observer, besides the releases, all
randomness other than the noise of honest senders: other clients' updates are then the same function of the past releases in both worlds,
and so is client i's own update of its world. (1) *One release.* At an opening of round t let j = (t - 1 - turn of i) mod b. If j >= band, client i does not
send, and the laws of the release given the past are equal. If j < band, its message embeds c_j times one clipped update, made in the round of its last turn
or zero: `turns` lets it train in no other round, and band <= b excludes a second one. `banding` bounds it, exactly and in integers, by c_j C in L2 and
c_j c_inf per coordinate; what else is in the message is its dark noise, drawn afresh for this round, independent of all earlier noise. So given the past
the divergence is at most p_j (`accounting.renyi` at step c_j h, for the honest senders of the smallest sum that may be opened: `turns` has the
noise of `band` cohorts in every sum, the first rounds included). (2) *One epoch.* As t runs through the b rounds of an epoch, j runs through 0 .. b-1, each
value once. Every round is opened at most as often as there are charges that cover it, all of one epoch; if c charges were made in this epoch, the openings
of the round with offset j cost client i at most c p_j, and all of them c P. It does not matter which participation they belong to, so an
update whose messages reach into the next epoch is covered there. (3) *Composition.* Per order the bounds p_j are constants, so divergences given the past
add up (adaptive composition: Mironov 2017, proposition 1; Feldman and Zrnic 2021 for a number of charges that is chosen on the way), and every
charge precedes what it covers. QED

Three consequences. Rounds of an epoch after the first cost nothing more, so a run that stops early has paid for the rest of its epoch. A round that is
opened again, from a copy of the state or after a restart, needs a charge that covers it again: the memory of what is covered is this process's own, and a
new one begins with none (resume a run at the end of an epoch, or plan one charge more). And the state belongs to its cohorts, coefficients and clip: with
others its kept updates could pass their bounds, so it carries a mark of them, and of its round, and is refused elsewhere.

A tight ledger is charged with sum_j c_j**2 times the events of one message at the full step (`accounting.scaled_cost`, with the proof that this covers the
messages in any order); this replaces (3), with the releases of client i in the order in which they happen. It needs that nothing of another shape is charged
between the rounds of an epoch, for which the order would matter, by 1e-4 of what is spent: if something was charged to the ledger since, the cover is void
and a charge is due. (A charge of another kind then stands before it in the same order for every client, and the part of the earlier charge that was used is
no more than the whole.) A gate's ledger cannot be looked at: charge other releases to it at the ends of epochs, or with a Renyi law at any time.

At orders a >= 2 P is at most (sum_j c_j**2) p_0, and in the limit of small steps equal to it: g(r, c h) <= c**2 g(r, h), as the cost of a step is convex in
its square (`accounting.renyi`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson import accounting, trees
from fedjax_poisson.federated import checks
from fedjax_poisson.federated.banding import Banding, decode, first_history, pick
from fedjax_poisson.federated.charging import Paying, RoundAccount, check_paying, no_scaled_price
from fedjax_poisson.federated.chunks import Chunking
from fedjax_poisson.federated.epochs import Coverage, coverage, last_of_epoch
from fedjax_poisson.federated.federation import Federation, FedState, Structure, first_state, numbers_of, structure_of
from fedjax_poisson.federated.population import Cohort, make_cohort, vector_of_ids
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.federated.release import check_once, check_round, named, open_total
from fedjax_poisson.federated.reuse import Openings, round_stream
from fedjax_poisson.federated.round_programs import Programs, compile_programs, sum_cohort
from fedjax_poisson.federated.sent import ABSENT, EMPTY, NOT_FINITE
from fedjax_poisson.federated.server import State, server_step, with_factor
from fedjax_poisson.federated.sharing_programs import Numbers, built_once
from fedjax_poisson.federated.turns import FixedCohorts, Turn, check_band
from fedjax_poisson.randomness import Stream


class BandedState(NamedTuple):
    """The state that the next round needs.

    Attributes:
      server: as in `FedState`.
      shared: as in `FedState`.
      client_state: as in `FedState`.
      kept: int32 `[band - 1, m, D]`, the clipped updates of the cohorts that still send, newest first. They never leave their clients: a checkpoint of a
        simulation, which holds them, is as confidential as the records.
      history: float32 `[band - 1, D]`, the sums decoded before, newest first.
      mark: uint32 `[3]`, of the cohorts, the coefficients and the clip, and the rounds done.
    """

    server: State
    shared: Any
    client_state: Any
    kept: Array
    history: Array
    mark: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Banded:
    """What a banded algorithm is made of.

    Attributes:
      federation: the parts; its participation is that of `band` cohorts.
      cohorts: who takes turns.
      encoding: the coefficients.
      train: the programs of the cohort that trains.
      send: the programs of clients that send.
      numbers: `() -> Numbers` of all programs.
      pick: `(new, kept, rows, numerators) -> (scaled, kept)`: what each sender embeds, int32 `[n, D]`, and what is kept.
      finish: `(state, client_state, kept, total, senders, size, trained, numbers) -> (state, norm)`.
      covers: charges' coverage of rounds (`coverage`).
      mark: uint32 `[2]`, of a state that belongs here.
    """

    federation: Federation
    cohorts: FixedCohorts
    encoding: Banding
    train: Programs
    send: Programs
    numbers: Callable[[], Numbers]
    pick: Callable[..., tuple[Array, Array]]
    finish: Callable[..., tuple[BandedState, Array]]
    covers: Coverage
    mark: np.ndarray


def make_banded(
    federation: Federation,
    cohorts: FixedCohorts,
    encoding: Banding,
    layout: Chunking | None,
    ledger: accounting.Ledger | None,
) -> Banded:
    """The parts of the algorithm, if they fit.

    Raises:
      ValueError: a privacy claim would be unsound, or the parts do not fit, with the reason and the remedy.
    """
    _check(federation, cohorts, encoding)

    return Banded(
        federation=federation,
        cohorts=cohorts,
        encoding=encoding,
        train=compile_programs(structure_of(federation), layout),
        send=compile_programs(structure_of(federation, trains=False), layout),
        numbers=functools.cache(functools.partial(numbers_of, federation)),
        pick=functools.partial(pick, encoding.band),
        finish=_finish_program(structure_of(federation), encoding),
        covers=coverage(cohorts.cohorts, ledger),
        mark=_mark_of(federation, cohorts, encoding),
    )


def _check(federation: Federation, cohorts: FixedCohorts, encoding: Banding) -> None:
    participation, mechanism = federation.participation, federation.mechanism
    check_band(encoding.band, cohorts.cohorts)
    if cohorts.clients != federation.population.size:
        raise ValueError(
            f"the cohorts are of {cohorts.clients} clients, the population has {federation.population.size}: make them with "
            f"fixed_cohorts({federation.population.size}, ...)."
        )
    if mechanism is None:
        raise ValueError(
            "fixed cohorts bound how often a client's noise must hide it, and there is no mechanism: without privacy pass each round's client numbers."
        )
    if encoding.band > 1 and mechanism.scaled_rdp is None:
        raise ValueError(no_scaled_price(mechanism))
    if participation.sampling_rate < 1:
        raise ValueError(
            f"sampling_rate={participation.sampling_rate} with fixed cohorts: it is public who is in a cohort, so no sampling is claimed; leave it out."
        )
    if federation.mesh is not None:
        raise ValueError("fixed cohorts run on one device: leave mesh out.")
    fewest, most = cohorts.senders(encoding.band)
    if participation.senders != most:
        raise ValueError(
            f"senders={participation.senders}, but {most} clients send in a round of {encoding.band} of these cohorts: give senders={most}."
        )
    if participation.minimum_senders > fewest:
        raise ValueError(
            f"minimum_senders={participation.minimum_senders}, but in some rounds only {fewest} clients send (cohorts differ by a client): "
            f"give minimum_senders={fewest} or fewer, to the aggregator too."
        )


def _mark_of(federation: Federation, cohorts: FixedCohorts, encoding: Banding) -> np.ndarray:
    assert federation.mechanism is not None
    text = repr((encoding, federation.size, federation.mechanism.facts.name, federation.mechanism.bounds))
    digest = hashlib.blake2b(text.encode(), digest_size=8)
    for each in cohorts.members:
        digest.update(each.tobytes() + b"|")
    return np.frombuffer(digest.digest(), np.uint32)


def first_banded_state(banded: Banded, key: Array) -> BandedState:
    """Fresh parameters, nothing kept, nothing decoded."""
    first, size, older = first_state(banded.federation, key), banded.federation.size, banded.encoding.band - 1
    kept = jnp.zeros((older, banded.cohorts.largest, size), jnp.int32)
    mark = jnp.asarray(np.append(banded.mark, np.uint32(0)))
    return BandedState(*first, kept, first_history(banded.encoding, size), mark)


class BandedRound(NamedTuple):
    """What one round of `banded_round` found, for its report.

    Attributes:
      turn: who was to train and to send.
      present: clients in the sum.
      exact: as in `RoundInfo`.
      flags: uint8 of the clients that trained, and of those that sent (`cohort`).
      norm: L2 norm of the decoded mean update.
      seconds: as in `RoundInfo`.
    """

    turn: Turn
    present: int
    exact: bool
    flags: tuple[np.ndarray, np.ndarray]
    norm: float
    seconds: dict[str, float]

    def who(self, name: str) -> tuple[int, ...]:
        """The clients that were "not_finite", "empty" or "absent"."""
        trained, sent = self.flags
        if name == "absent":
            return named(self.turn.sends, sent, ABSENT)
        return named(self.turn.trains, trained, {"not_finite": NOT_FINITE, "empty": EMPTY}[name])


def banded_round(
    banded: Banded,
    account: RoundAccount,
    opened: Openings,
    state: BandedState,
    cohort: Any,
    stream: Stream,
    gate: Paying,
) -> tuple[BandedState, BandedRound]:
    """One round: train the cohort whose turn it is, send, check, pay if it is due, open, decode, step.

    Args:
      banded: the parts.
      account: of the algorithm.
      opened: its memory of openings.
      state: before the round.
      cohort: None for everybody whose turn it is to train or to send, or the numbers of those of them that are there.
      stream: the run's.
      gate: asked in place of the ledger where a charge is due, and only there.

    Raises:
      ValueError: a client is out of turn, or the state is of another algorithm.
      RoundRefused: as `fedavg`.
    """
    began = time.perf_counter()
    checks.check_stream(stream)
    check_paying(gate)
    federation, number = banded.federation, int(state.server.round)
    _check_state(banded, state)
    turn = banded.cohorts.turn(number, banded.encoding.band)
    here = _present(banded, turn, cohort, number)
    of_round = round_stream(stream, number)
    trained, client_state, reports = _train(banded, state, turn, here, of_round)
    blocks, kept = _messages(banded, state, turn, here, trained)
    sends_only = FedState(state.server, (), ())
    summed = sum_cohort(federation, banded.send, banded.numbers(), sends_only, [blocks], of_round)
    present = int(here.sum())
    sealed_at = time.perf_counter()
    check_once(turn.sends)
    check_round(turn.sends, present, federation.participation)
    pay = _payment(banded, account, opened, stream, number, summed.mark, gate, present)
    values, exact = open_total(federation.aggregator, summed.total, federation.size, federation.level, pay, number)
    opened_at = time.perf_counter()
    size, worked = turn.trains.size, int(here[: turn.trains.size].sum())
    counts = (jnp.float32(each) for each in (size, worked))
    state, norm = banded.finish(state, client_state, kept, values, jnp.uint32(present), *counts, banded.numbers())
    found = float(norm)
    seconds = {
        "train and seal": sealed_at - began,
        "open": opened_at - sealed_at,
        "step": time.perf_counter() - opened_at,
    }
    return state, BandedRound(turn, present, exact, (reports, summed.flags), found, seconds)


def _check_state(banded: Banded, state: Any) -> None:
    belongs = isinstance(state, BandedState) and np.array_equal(
        np.asarray(state.mark), np.append(banded.mark, np.uint32(state.server.round))
    )
    if not belongs:
        raise ValueError(
            "the state is of an algorithm with other cohorts, coefficients or bounds, or its round was changed: the updates that its clients still send were "
            "clipped for those, and were not made in these turns. Continue it with the algorithm that made it, or begin with init."
        )


def _present(banded: Banded, turn: Turn, cohort: Any, number: int) -> np.ndarray:
    """bool `[n]`: which of this round's senders are there."""
    if cohort is None:
        return np.ones(turn.sends.size, bool)
    if isinstance(cohort, Cohort | Iterator):
        raise TypeError(
            f"cohort is a {type(cohort).__name__}: with fixed cohorts give None, or the numbers of this round's senders that are there."
        )
    numbers = vector_of_ids(cohort)
    check_once(numbers)
    if (out := numbers[~np.isin(numbers, turn.sends)]).size:
        raise ValueError(
            f"client {int(out[0])} is out of turn in round {number + 1}: cohort {number % banded.cohorts.cohorts} of {banded.cohorts.cohorts} trains, and the "
            f"cohorts of the last {banded.encoding.band} turns send. A client that took part more often than its cohort would not be charged for. Leave the "
            "choice to the algorithm (cohort None), or name senders of this round only."
        )
    return np.isin(turn.sends, numbers)


def _train(
    banded: Banded, state: BandedState, turn: Turn, here: np.ndarray, stream: Stream
) -> tuple[Array, Any, np.ndarray]:
    """Clipped updates int32 `[m, D]` of the cohort in turn, zeros where a client is lost; what clients keep; their reports."""
    population, size = banded.federation.population, turn.trains.size
    cohort = make_cohort(population, turn.trains, present=here[:size], multiple=banded.cohorts.largest)
    fed = FedState(state.server, state.shared, state.client_state)
    grids, client_state, report = banded.train.grids(
        fed, state.client_state, cohort._replace(numbers=()), stream, banded.numbers()
    )
    return grids, client_state, np.asarray(report)[:size]


def _messages(banded: Banded, state: BandedState, turn: Turn, here: np.ndarray, trained: Array) -> tuple[Cohort, Array]:
    """What every sender of the round embeds, padded to the most that send in a round; and the updates that are kept."""
    missing = banded.federation.participation.senders - turn.sends.size

    def padded(values: np.ndarray, dtype: Any) -> Array:
        return jnp.asarray(np.pad(values, (0, missing), mode="edge").astype(dtype))

    rows = padded(turn.ago * banded.cohorts.largest + turn.place, np.int32)
    numerators = padded(np.asarray(banded.encoding.numerators, np.uint32)[turn.ago], np.uint32)
    scaled, kept = banded.pick(trained, state.kept, rows, numerators)
    present = jnp.asarray(np.pad(here, (0, missing)))
    return Cohort(padded(turn.sends, np.uint32), cast(Any, scaled), present, tuple(turn.sends.tolist())), kept


def _payment(
    banded: Banded,
    account: RoundAccount,
    opened: Openings,
    stream: Stream,
    number: int,
    mark: Array | np.ndarray | None,
    paying: Paying,
    senders: int,
) -> Gate:
    """As `charging.payment`, with a charge only where the round is not covered."""
    covers = banded.covers

    def pay() -> None:
        if mark is not None:
            opened.check(stream, number, mark)
        if covers.due(paying, number):
            account.charge(paying, number + 1, senders, last_of_epoch(number, banded.cohorts.cohorts))
            covers.charged(paying, number)
        covers.opened(paying, number)
        if mark is not None:
            opened.remember(stream, number, mark)

    return pay


@built_once
def _finish_program(structure: Structure, encoding: Banding) -> Callable[..., tuple[BandedState, Array]]:
    return jax.jit(functools.partial(_finish, structure, encoding))


def _finish(
    structure: Structure,
    encoding: Banding,
    state: BandedState,
    client_state: Any,
    kept: Array,
    total: Array,
    senders: Array,
    size: Array,
    trained: Array,
    numbers: Numbers,
) -> tuple[BandedState, Array]:
    """Decode and step. The mean is over the cohort as it was announced: few of it may be there while the noise is that of all senders."""
    assert numbers.functions is not None and structure.client is not None
    history, decoded = decode(encoding, state.history, numbers.functions.estimate(total, senders))
    update = decoded / size
    server = server_step(
        state.server, -update, with_factor(structure.optimizer, numbers.factor), structure.average_from
    )
    shared, advance = state.shared, structure.client.shared
    if advance is not None:
        there = jnp.maximum(trained, jnp.float32(1))
        tree = trees.layout(state.server.params).unflatten(decoded / there)
        shared = advance.advance(shared, tree, trained / jnp.float32(structure.clients))
    mark = state.mark.at[2].set(server.round.astype(jnp.uint32))
    return BandedState(server, shared, client_state, kept, history, mark), jnp.linalg.norm(update)
