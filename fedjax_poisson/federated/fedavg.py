"""`fedavg`: local training at many clients, with the client as the privacy unit, every update embedded and encrypted, and one release per round.

A round is a sum over the cohort, one opening and one server step, in one compiled program where one can hold them (`round_programs.straight_round`); its parts
are checked once (`federation`). The
estimated *mean update* is handed to the server optimiser as a negative gradient: `optax.sgd(1.0)` is FedAvg, `optax.adam`, `optax.yogi` and
`optax.adagrad` are FedAdam, FedYogi and FedAdagrad (Reddi et al. 2021, arXiv:2003.00295); the choice of client selects FedAvg, FedProx or SCAFFOLD
(`client`).

Privacy. Without sampling (`sampling_rate=1`) a round costs the clients of its cohort the mechanism's curve, and the others nothing. Rounds that the caller
chooses are all charged, as if one client took part in all of them. With fixed `cohorts` (`turns`) the algorithm chooses: every client takes part in every
b-th round, a participation is charged once in b rounds, and `band` adds correlated noise that cancels over rounds (`banded` has the proof, `cohort_plan`
says which band is worth its uploads). Amplification is claimed in one way only: every client of the population sends
in every round and always sends the full dark noise, and takes part with a secret chance q (`sampling_rate=q`, cohorts are then the whole population).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import checks
from fedjax_poisson.federated.algorithm import Algorithm
from fedjax_poisson.federated.banded import Banded, BandedState, banded_round, first_banded_state, make_banded
from fedjax_poisson.federated.banding import Banding, banding
from fedjax_poisson.federated.charging import Paying, RoundAccount, check_paying, make_round_account, payment
from fedjax_poisson.federated.chunks import Chunking
from fedjax_poisson.federated.client import ClientOf
from fedjax_poisson.federated.federation import (
    Federation,
    FedState,
    ServerRule,
    first_state,
    make_federation,
    numbers_of,
    structure_of,
    with_release,
)
from fedjax_poisson.federated.fidelity import Fidelity, choose_fidelity, in_words
from fedjax_poisson.federated.fused import fused_rounds
from fedjax_poisson.federated.insiders import Insiders, check_possible, insider_numbers, insiders_in_words
from fedjax_poisson.federated.norm_check import TESTED_IN_WORDS
from fedjax_poisson.federated.population import Population
from fedjax_poisson.federated.private_sum import SumInfo
from fedjax_poisson.federated.release import Screening, check_once, check_round, check_screening, named, open_total
from fedjax_poisson.federated.reuse import Openings, openings, round_stream
from fedjax_poisson.federated.round_programs import Programs, blocks_of, compile_programs, straight_round, sum_cohort
from fedjax_poisson.federated.sent import ABSENT, EMPTY, NOT_FINITE, REFUSED, Encryption
from fedjax_poisson.federated.server import ServerOptimizer, final_parameters
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.federated.turns import FixedCohorts
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream

_ENCRYPTED: dict[Fidelity, str] = {
    "messages": "every client's counts are hidden under a secret of its own and only the sum is opened; messages are summed, not signed, boxed or screened",
    "release": "the sum is hidden under a secret with the law of the sum of every client's, and opened; nothing is signed, boxed or screened",
}
"""What is simulated of the encryption of rounds."""

_ON_HOST = {
    "tenseal": "every client's counts are encrypted by TenSEAL under one key holder's key; only the sum is opened",
    "plain": "NO ENCRYPTION: every client's counts are summed in the clear",
}


def _in_words(federation: Federation) -> str:
    backend = "" if federation.aggregator is None else federation.aggregator.info.backend
    if federation.encrypts_on_host and backend in _ON_HOST:
        return _ON_HOST[backend]
    return (
        "NO ENCRYPTION: the sum is handed over in the clear"
        if federation.level == "off"
        else _ENCRYPTED[federation.fidelity]
    )


class RoundInfo(NamedTuple):
    """Diagnostics of one round. Those about single clients are for the researcher's eyes: nothing may adapt to them.

    Attributes:
      senders: contributions in the sum.
      bytes_up_per_sender: bytes of one client's message; without encryption, of its counts or floats.
      encryption: what was encrypted, in words.
      fidelity: whether messages were made (`fidelity`), in words; empty without a mechanism.
      exact: every opened value was within the backend's margin of an integer.
      epsilon: spent so far at the delta of the algorithm's ledger; infinite without a mechanism or if a round was released unaccounted, None where a
        caller's gate paid.
      update_norm: L2 norm of the released mean update.
      not_finite: clients whose update was NaN or infinite: they sent the embedding of zero.
      empty: clients without records: likewise.
      absent: clients that were lost after they had been chosen.
      refused: clients whose counts were too long: they are not in the sum (norm rounds).
      screening: how norms were tested, in words; empty in light rounds.
      seconds: wall clock of "train and seal" (local training, embedding, encryption, sums), "open" and "step"; a round in one program has the first alone, with
        all in it.
      insiders: which corrupt clients were simulated, and their attack; empty for an honest run.
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
    refused: tuple[int, ...] = ()
    screening: str = ""
    insiders: str = ""
    fidelity: str = ""

    @property
    def sum(self) -> SumInfo:
        """The cost of the sum; embedding, encryption and addition are one program with the training, so they have no time of their own."""
        return SumInfo(
            senders=self.senders,
            bytes_up_per_sender=self.bytes_up_per_sender,
            exact=self.exact,
            embed_seconds=None,
            encrypt_seconds=None,
            add_seconds=None,
            open_seconds=self.seconds.get("open"),
            fidelity=self.fidelity,
        )


def fedavg(
    model: Model,
    *,
    client: ClientOf,
    population: Population,
    senders: int,
    server_optimizer: ServerOptimizer,
    mechanism: Mechanism | None = None,
    aggregator: Aggregator | None = None,
    encryption: Encryption | None = None,
    fidelity: Fidelity | None = None,
    minimum_senders: int | None = None,
    honest_senders: int | None = None,
    sampling_rate: float = 1.0,
    adjacency: Adjacency = "zero_out",
    average_from: int | None = None,
    layout: Chunking | None = None,
    mesh: Mesh | None = None,
    cohorts: FixedCohorts | None = None,
    band: int | Banding = 1,
    ledger: accounting.Ledger | None = None,
    delta: float | None = None,
    screening: Screening | None = None,
    insiders: Insiders | None = None,
) -> Algorithm:
    """Federated averaging over a population of simulated clients.

    Args:
      model: `init`, `apply` and per-record `loss`.
      client: `local_sgd(...)`, `local_optimizer(...)`, `scaffold(...)` or a custom function of the model.
      population: the clients.
      senders: K, clients of a round; with sampling the whole population; with fixed cohorts the most that send in a round, `cohorts.senders(band)[1]`.
      server_optimizer: optax transformation, or a `Server` of your own, fed with minus the estimated mean update.
      mechanism: client-level mechanism; None trains without privacy, and the outputs say so.
      aggregator: encryption backend with room for K senders; None for rounds with a committee of five, all roles in this process, if anything is encrypted.
      encryption: "on" (default for a mechanism that sends integers) or "off".
      fidelity: "release" draws the counts of each sum at once, with the exact law of the sum of every client's counts; "messages" draws every client's
        (`fidelity`). None takes the first where it is possible; where it is not, an explicit wish for it is refused with the reason.
      minimum_senders: fewest clients whose sum is released; with fewer, the round is refused unopened. Default: the aggregator's, else K; with sampling K;
        with fixed cohorts the fewest that send in a round.
      honest_senders: clients that do not collude with the server, of the fewest that may be released; default minimum_senders - 1.
      sampling_rate: q; below 1, cohorts must be the whole population and nobody may be lost: who sends must not depend on the secret sample, and the
        amplified privacy cost counts the dark noise of all (`release.check_round`). The mean update is then over the K q clients that are expected to train.
      adjacency: "zero_out" or "replace_one".
      average_from: round after which parameters are averaged; None for no averaging.
      layout: chunk of clients vmapped at once, and how ciphertexts are summed.
      mesh: devices (`client_mesh`); None for one.
      cohorts: fixed cohorts that take turns (`fixed_cohorts`); None leaves the choice of clients to the caller.
      band: rounds that a client sends in from its turn on, at most as many as there are cohorts; or coefficients of your own (`banding`). Beyond 1 it
        needs a mechanism whose price for scaled updates is stated (the Poisson embedding; the Gaussian baseline).
      ledger: the ledger charged for rounds without a gate; None creates one in memory that counts and refuses nothing (`accounting.memory_ledger`).
      delta: delta of the ledger created in that case; None for 1e-5.
      screening: "norm" where the mechanism's clients send clean counts (`mechanisms.committee_noise`), whose norms are tested and whose noise is sent by noise
        senders; "light" for all others. None takes what the mechanism needs, the other one is refused.
      insiders: corrupt clients to be simulated (`insiders`); None where all are honest. Every output then says so, and `apply_rounds` is None.

    Returns:
      `Algorithm`; `apply(state, cohort, stream, gate=None)` takes client numbers `[K]`, a `Cohort`, or an iterator of `Cohort` blocks (`cohort_blocks`);
      `apply_rounds(state, ids [T, K], stream, gates=None)` runs T rounds in one program on one device, with the noise that `apply` would draw. Each release
      is charged beforehand, to the algorithm's ledger or through T gates (or the word "unaccounted"); charges stand even if a later round cannot be charged.
      With fixed cohorts `apply` takes None, or the numbers of the round's senders that are there; `price` and `rdp` are those of one participation,
      charged where a round is not covered by an earlier charge (`banded`), usually once in b rounds, and only then is a gate asked; `apply_rounds` is None.

    Raises:
      ValueError: a privacy claim would be unsound, or the parts do not fit, with the reason and the remedy.
      TypeError: the model, or the client, has the wrong type.
    """
    check_screening(mechanism, screening, cohorts is not None)
    sends_integers = mechanism is not None and mechanism.facts.integer
    level: Encryption = encryption or ("on" if aggregator is not None or sends_integers else "off")
    encoding = band if isinstance(band, Banding) else banding(band)
    if cohorts is None and encoding.band > 1:
        raise ValueError(f"band={encoding.band} needs fixed cohorts: give cohorts=fixed_cohorts(clients, ...).")
    fewest = senders if aggregator is None or sampling_rate < 1 else aggregator.info.minimum_senders
    if cohorts is not None:
        fewest = min(fewest, cohorts.senders(encoding.band)[0])
    minimum = minimum_senders or fewest
    participation = accounting.Participation(
        senders=senders,
        minimum_senders=minimum,
        honest_senders=minimum - 1 if honest_senders is None else honest_senders,
        sampling_rate=sampling_rate,
        adjacency=adjacency,
    )
    check_possible(insiders, mechanism, mesh is not None, cohorts is not None)
    rule = ServerRule(server_optimizer, average_from)
    federation = make_federation(model, client, population, participation, rule, mechanism, aggregator, level, mesh)
    federation = federation._replace(
        fidelity=choose_fidelity(
            fidelity,
            mechanism,
            on_host=federation.encrypts_on_host,
            each=layout is not None and layout.transforms == "each",
            insiders=insiders is not None,
            turns=cohorts is not None,
        )
    )
    opened = openings()
    account = make_round_account(
        mechanism=mechanism,
        participation=participation,
        dimension=federation.size,
        unit="client",
        ledger=ledger,
        delta=delta,
        factors=encoding.factors,
        fidelity=None if mechanism is None else federation.fidelity,
    )
    if cohorts is not None:
        banded = make_banded(federation, cohorts, encoding, layout, account.ledger)
        return Algorithm(
            init=functools.partial(first_banded_state, banded),
            apply=functools.partial(_apply_banded, banded, account, opened),
            parameters=lambda state: final_parameters(state.server, average_from),
            rdp=account.rdp,
            ledger=account.ledger,
            price=account.price,
            fidelity=federation.fidelity,
        )
    programs = compile_programs(structure_of(federation), layout)
    corrupt = None
    if insiders is not None:
        corrupt = insider_numbers(insiders, population.size, population.host)
    numbers = functools.cache(lambda: numbers_of(federation)._replace(insiders=corrupt))  # at the first round: tables
    apply_rounds = None
    if mesh is None and insiders is None:
        apply_rounds = fused_rounds(
            programs.fused,
            lambda: with_release(federation, numbers(), senders),
            population,
            federation.aggregator,
            level,
            participation,
            account,
            opened,
            _made(federation, senders),
        )
    return Algorithm(
        init=functools.partial(first_state, federation),
        apply=functools.partial(_apply, federation, programs, numbers, account, opened, insiders_in_words(insiders)),
        parameters=lambda state: final_parameters(state.server, average_from),
        rdp=account.rdp,
        ledger=account.ledger,
        price=account.price,
        apply_rounds=apply_rounds,
        fidelity=federation.fidelity,
    )


def _apply(
    federation: Federation,
    programs: Programs,
    numbers: Callable[[], Numbers],
    account: RoundAccount,
    opened: Openings,
    insiders: str,
    state: FedState,
    cohort: Any,
    stream: Stream,
    gate: Paying = None,
) -> tuple[FedState, RoundInfo]:
    """One round: sum the cohort, check what would be released, pay, open, step, report; or all on the device, check, pay, and only then hand it out."""
    began = time.perf_counter()
    checks.check_stream(stream)
    check_paying(gate)
    blocks = blocks_of(federation, cohort)
    straight = straight_round(federation, programs, numbers(), state, blocks, stream)
    if straight:
        summed, after, update_norm, number = straight
    else:
        number = int(state.server.round)
        summed = sum_cohort(federation, programs, numbers(), state, blocks, round_stream(stream, number))
        check_once(summed.ids)
    present = int(((summed.flags & (ABSENT | REFUSED)) == 0).sum())
    sealed_at = time.perf_counter()
    check_round(summed.ids, present, federation.participation, functools.partial(account.judged, gate, number + 1))
    pay = payment(account, opened, stream, number, summed.mark, gate, present)
    if straight:
        pay()
        exact, state = True, after
        seconds = {"train and seal": time.perf_counter() - began}
    else:
        values, exact = open_total(federation.aggregator, summed.total, federation.size, federation.level, pay, number)
        opened_at = time.perf_counter()
        state, norm = programs.finish(state, summed.client_state, values, np.uint32(present), numbers())
        update_norm = float(norm)
        stepped_at = time.perf_counter()
        seconds = {"train and seal": sealed_at - began, "open": opened_at - sealed_at, "step": stepped_at - opened_at}
    return state, RoundInfo(
        senders=present,
        bytes_up_per_sender=_message_bytes(federation),
        encryption=_in_words(federation),
        exact=exact,
        epsilon=account.epsilon(gate),
        update_norm=update_norm,
        not_finite=named(summed.ids, summed.flags, NOT_FINITE),
        empty=named(summed.ids, summed.flags, EMPTY),
        absent=named(summed.ids, summed.flags, ABSENT),
        refused=named(summed.ids, summed.flags, REFUSED),
        screening="" if programs.structure.norm is None else TESTED_IN_WORDS,
        seconds=seconds,
        insiders=insiders,
        fidelity=_made(federation, present),
    )


def _apply_banded(
    banded: Banded,
    account: RoundAccount,
    opened: Openings,
    state: BandedState,
    cohort: Any,
    stream: Stream,
    gate: Paying = None,
) -> tuple[BandedState, RoundInfo]:
    """`_apply` with fixed cohorts."""
    state, done = banded_round(banded, account, opened, state, cohort, stream, gate)
    return state, RoundInfo(
        senders=done.present,
        bytes_up_per_sender=_message_bytes(banded.federation),
        encryption=_in_words(banded.federation),
        exact=done.exact,
        epsilon=account.epsilon(gate),
        update_norm=done.norm,
        not_finite=done.who("not_finite"),
        empty=done.who("empty"),
        absent=done.who("absent"),
        seconds=done.seconds,
        fidelity=_made(banded.federation, done.present),
    )


def _made(federation: Federation, present: int) -> str:
    """Whether messages were made, in words."""
    if federation.mechanism is None:
        return ""
    return in_words(federation.fidelity, present, federation.level == "on")


def _message_bytes(federation: Federation) -> int:
    if federation.aggregator is None or federation.level == "off":
        return 4 * federation.size
    return federation.aggregator.message_bytes(federation.size)
