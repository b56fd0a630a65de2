"""`fedsgd`: DP-SGD of central quality over mutually distrusting sites, with the record or the patient as the privacy unit.

In each round every site takes a secret Poisson sample of its units, clips each unit's gradient, adds the clipped gradients, embeds the sum as Poisson
counts and encrypts the counts; only the encrypted sum over the sites is opened. Every site sends in every round and always sends the full dark noise,
so who sends reveals nothing about a unit, and the sampling theorem applies with the unit's sampling rate (`accounting.subsampled_rdp`). Gradients are
computed for the sampled units only, in a fixed number of slots. The probability that a sample does not fit is at most `records.OVERFLOW` per round and
is added to delta (`records`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting, trees
from fedjax_poisson.accounting import Adjacency
from fedjax_poisson.accounting.checks import check_adjacency
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import checks, control
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated.charging import Paying, check_paying, make_round_account, payment
from fedjax_poisson.federated.control import Controller, Decision, Released
from fedjax_poisson.federated.controllers.schedule import constant
from fedjax_poisson.federated.default_rounds import default_aggregator
from fedjax_poisson.federated.features import (
    RecordShape,
    batch_spec,
    blank_batch,
    floats_in,
    in_words,
    leading_of,
    record_spec,
    same_records,
    spec_of,
)
from fedjax_poisson.federated.fidelity import Fidelity
from fedjax_poisson.federated.host_sums import in_order, is_summed_on_host, of_each_place, sums_of_sites
from fedjax_poisson.federated.insiders import (
    Insiders,
    check_possible,
    insider_numbers,
    insiders_in_words,
    lying_sites,
    poisoned_sites,
)
from fedjax_poisson.federated.private_sum import SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.reuse import fingerprint, openings, round_stream
from fedjax_poisson.federated.server import (
    AverageFrom,
    ServerOptimizer,
    State,
    factor_apart,
    final_parameters,
    init_state,
    server_step,
    with_factor,
)
from fedjax_poisson.federated.sharing_programs import built_once
from fedjax_poisson.mechanisms.types import Mechanism, check_honest, partial_of
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream
from fedjax_poisson.traced_programs import traced_once


class Info(NamedTuple):
    """Diagnostics of one round.

    Attributes:
      sum: the cost of the sum.
      update_norm: L2 norm of the released mean gradient.
      epsilon: spent so far at the delta of the algorithm's ledger; infinite if a round was released unaccounted, None if the caller's gate was charged.
      insiders: which corrupt sites were simulated, and their attack; empty for an honest run.
    """

    sum: SumInfo
    update_norm: float
    epsilon: float | None
    insiders: str = ""


class Algorithm(NamedTuple):
    """A federated algorithm as pure functions.

    Attributes:
      init: `(key) -> state`.
      apply: `(state, cohort, stream, gate=None) -> (state, info)`: one round, one release (below).
      parameters: `(state) -> params` to evaluate or ship (the average if there is one).
      rdp: `(orders) -> float64[orders]`, the Renyi curve of one round's release, sampling included.
      ledger: the ledger charged for rounds without a gate (`charging`); None without privacy.
      apply_rounds: several rounds in one compiled program (`fedavg`); None if the algorithm does not support it.
      price: the privacy cost of one round, for a ledger of the caller (`Ledger.gate`), of the dearest round if rounds differ; None without privacy.
      fidelity: whether every sender's message is made in a round, or one draw for their sum (`fidelity`).
      decision: `(state) -> Decision`, the noise of the next round and whether there is one (`control`); None where nothing steers.

    **Streams.** Give a run one stream and pass it to every round: `apply` folds the state's round number into it, so the same stream gives fresh noise in
    every round, and the same (stream, round) the same noise. Two different releases under one (stream, round), such as the same state applied to two
    cohorts, would share their noise and reveal the difference of the data; an algorithm refuses the second before it is charged or opened
    (`RoundRefused`), while the very same release may be computed again. This is remembered within one process only: two algorithms, or a program that
    was restarted, need separate streams (`randomness.stream()`, or a label such as the attempt's number folded in).

    **Charging.** `gate=None` charges `ledger` before the sum is released (before it is opened, but where a simulation opens it inside the round's program);
    a function without arguments replaces it and forbids the release by raising; `gate="unaccounted"` charges nothing, warns once, and makes `info.epsilon`
    infinite for good.
    """

    init: Callable[[Array], Any]
    apply: Callable[..., tuple[Any, Any]]
    parameters: Callable[[Any], Any]
    rdp: Callable[[np.ndarray], np.ndarray]
    ledger: accounting.Ledger | None
    apply_rounds: Callable[..., tuple[Any, Any]] | None = None
    price: accounting.Price | None = None
    decision: Callable[[Any], Decision] | None = None
    fidelity: Fidelity = "messages"


def fedsgd(
    model: Model,
    *,
    features: RecordShape,
    records: float,
    sampling_rate: float,
    mechanism: Mechanism,
    controller: Controller | None = None,
    aggregator: Aggregator | None = None,
    server_optimizer: ServerOptimizer,
    senders: int,
    honest_senders: int | None = None,
    unit: Literal["record", "patient"] = "record",
    adjacency: Adjacency = "zero_out",
    largest_unit: int = 1,
    average_from: AverageFrom = None,
    chunk: int | None = None,
    ledger: accounting.Ledger | None = None,
    delta: float | None = None,
    insiders: Insiders | None = None,
) -> Algorithm:
    """DP-SGD over sites with record- or patient-level privacy.

    Args:
      model: `init`, `apply` and per-record `loss`.
      features: F, width of one standardised record; the shape of a record, such as (28, 28, 1) for an image; or a dict of those for records that are dicts
        of arrays, such as `{"image": (28, 28, 1), "age": 1}` (with a `jax.ShapeDtypeStruct` for integers).
      records: number of training units over all sites as far as it is public (declared or published) or was privately estimated; it only
        scales the step.
      sampling_rate: q in (0, 1], each unit's probability of being in a round.
      mechanism: an integer mechanism with `total_bound` set to the clamp on one site's summed gradient; one of real numbers with the plain aggregator only.
      controller: decides from past releases how many of the mechanism's portions (`poisson_embedding(..., portions=...)`) the next round uses and when to
        stop (`control`); such as `controllers.schedule(tail_average_portions(...))` or `controllers.settle(...)`. The ledger is charged with each round's
        own cost. None uses all of the noise in every round.
      aggregator: encryption backend; None for rounds with a committee of five, all roles in this process.
      server_optimizer: optax transformation, or a `Server` of your own, fed with the estimated mean gradient.
      senders: number of sites; all of them send in every round.
      honest_senders: sites that do not collude with the server; default: senders - 1 (one may collude).
      unit: "record" or "patient" (records of a patient are summed before clipping).
      adjacency: "zero_out" or "replace_one"; amplification by sampling is proved for zero_out only.
      largest_unit: records of the largest unit (1 at record level).
      average_from: round after which parameters are averaged; "growing" for about the last half of the rounds, whenever a controller stops
        (`server.server_step`); None for no averaging.
      chunk: records vmapped at once; None chooses by the size of the model and of a record (`records.chunk_for`).
      ledger: the ledger charged for rounds without a gate; None creates one in memory that counts and refuses nothing (`accounting.memory_ledger`).
      delta: delta of the ledger created in that case; None for 1e-5.
      insiders: corrupt sites to be simulated (`insiders`); None where all are honest.

    With sampling_rate < 1 every announced site must send in every round: who sends must not depend on the secret sample, and the amplified privacy cost counts
    the dark noise of all. A cohort of fewer sites, or an aggregator that opens fewer, is refused; a site without a sampled record sends its noise.

    Raises:
      ValueError: a privacy claim would be unsound, or the parts do not fit, with the reason and the remedy.
      TypeError: the model is not a `Model`.
    """
    checks.check_model(model)
    participation = _everybody(senders, honest_senders, sampling_rate, adjacency)
    _check_unit(unit, largest_unit)
    spec = record_spec(features)
    checks.check_loss(model, spec)
    size = dimension_of(model, spec)
    summing = default_aggregator(mechanism, size, participation) if aggregator is None else aggregator
    if summing is None:
        raise ValueError(
            f"{mechanism.facts.name} does not send integers, so no exact encrypted sum exists; use an integer mechanism, or "
            "aggregator('plain', ...), which encrypts nothing."
        )
    checks.check_aggregator(summing, mechanism, size, senders, senders, reals=True)
    steering = control.checked(constant() if controller is None else controller, size, mechanism)
    account = make_round_account(
        mechanism=mechanism,
        participation=participation,
        dimension=size,
        unit=unit,
        ledger=ledger,
        delta=delta,
        overflow=records_lib.OVERFLOW if sampling_rate < 1 else 0.0,
    )
    at_once = records_lib.chunk_for(size, floats_in(spec)) if chunk is None else chunk
    opened, rate = openings(), sampling_rate
    check_possible(insiders, mechanism, several_devices=False, turns=False)
    corrupt = None if insiders is None else insider_numbers(insiders, senders)

    def init(key: Array) -> State:
        state = init_state(model.init(key, blank_batch(spec, 1)), server_optimizer)
        return state._replace(controller=steering.start(trees.flatten(state.params)))

    rule, factor = factor_apart(server_optimizer)
    programs = _programs(model.loss, rate, at_once, rule, average_from)

    def steered(state: State, before: State, total: Array, own: Mechanism) -> State:
        gradient = total / jnp.float32(rate * records)
        noise = jnp.float32(math.sqrt(own.variance(senders)) / (rate * records))
        flat = (trees.flatten(state.params), trees.flatten(final_parameters(state, average_from)))
        used = before.controller.next.portions
        released = Released(state.round, gradient, *flat, used, noise)
        return state._replace(controller=steering.after(before.controller, released))

    def apply(state: State, cohort: Records, stream: Stream, gate: Paying = None) -> tuple[State, Info]:
        checks.check_stream(stream)
        check_paying(gate)
        if gate is None and steering.adapts and math.isinf(account.budget):
            raise ValueError(_no_budget(steering.controller))
        if bool(state.controller.next.stop):
            raise ValueError(
                f"the controller {steering.controller.name!r} ended the training after round {int(state.round)} ({steering.controller.stopped}): ask "
                "algorithm.decision(state).stop before a round, as fit does."
            )
        own = control.mechanism_at(mechanism, int(state.controller.next.portions))
        _check_cohort(cohort, senders, spec)
        checks.check_labels(model, cohort.labels, cohort.mask)
        number = int(state.round)
        own_stream = round_stream(stream, number)
        lies = None
        if corrupt is not None:
            changed = poisoned_sites(corrupt, cohort.features, cohort.labels, cohort.mask, own_stream)
            cohort = cohort._replace(features=changed[0], labels=changed[1])
            lies = lying_sites(corrupt, own, state.params, own_stream)
        # The claim decides, not the caller's count: a patient is clipped as one, a record is sampled and clipped by itself.
        units = records_lib.units_of(np.asarray(cohort.unit), unit)
        slots = records_lib.record_slots(units, rate)
        # Waited for, so that the seconds of the embedding are its own.
        records_lib.check_sums_fit(mechanism, min(slots, cohort.labels.shape[1]))
        grids: Array | np.ndarray
        places = cohort.labels.shape[0] * cohort.labels.shape[1]
        if rate >= 1 and is_summed_on_host(mechanism, places, size):
            order = in_order(units, places)
            gradients = np.asarray(programs.gradients(state.params, cohort))
            grids = sums_of_sites(mechanism.clip, gradients[order.place], order, units, senders)
        else:
            clip = partial_of(mechanism.clip, size)
            grids = jax.block_until_ready(programs.contributions(clip, state.params, cohort, units, own_stream, slots))
        pay = payment(account, opened, stream, number, fingerprint(grids), gate, senders, own)
        estimate, sum_info = private_sum(own, summing, grids, own_stream, gate=pay, insiders=lies)
        after, norm = programs.finish(state._replace(controller=()), estimate, np.float32(rate * records), factor)
        state = steered(after, state, estimate, own)
        return state, Info(sum_info, float(norm), account.epsilon(gate), insiders_in_words(insiders))

    return Algorithm(
        init,
        apply,
        lambda state: final_parameters(state, average_from),
        account.rdp,
        account.ledger,
        price=account.price,
        decision=lambda state: state.controller.next,
    )


def _no_budget(controller: Controller) -> str:
    return (
        f"the controller {controller.name!r} adapts to releases, and the algorithm's ledger has no budget: what it reads is valid for schedules that were "
        "fixed beforehand only. Give a ledger that admits releases under a budget: fp.calibrate(...), or accounting.open_ledger(...)."
    )


class _Programs(NamedTuple):
    """The compiled programs of `fedsgd`, with all that is a number as an argument.

    Attributes:
      contributions: `(clip, params, cohort, units, stream, slots) -> grids`.
      gradients: `(params, cohort) -> float32 [S * n, D]`, of every place for a record, for a clip on the host.
      finish: `(state, total, records, factor) -> (state, norm)`, with the expected records of a sample and the optimiser's factor.
    """

    contributions: Callable[..., Array]
    gradients: Callable[..., Array]
    finish: Callable[..., tuple[State, Array]]


@built_once
def _programs(
    loss: Callable[..., Array], rate: float, chunk: int, rule: ServerOptimizer, average_from: AverageFrom
) -> _Programs:
    """The same programs for all algorithms of one structure: noise, bounds and step sizes may differ."""

    @traced_once(5)
    def contributions(
        clip: Partial, params: Any, cohort: Records, units: records_lib.Units, stream: Stream, slots: int
    ) -> Array:
        sampling = records_lib.Sampling(units, rate, slots, chunk)
        return records_lib.sampled_gradients(loss, params, clip, cohort, sampling, stream)

    @traced_once()
    def gradients(params: Any, cohort: Records) -> Array:
        contribution = records_lib.gradient_contribution(loss, params)
        return of_each_place(contribution, cohort.features, cohort.labels, chunk)

    @jax.jit
    def finish(state: State, total: Array, records: Array, factor: Array | None) -> tuple[State, Array]:
        gradient = total / records
        return server_step(state, gradient, with_factor(rule, factor), average_from), jnp.linalg.norm(gradient)

    return _Programs(contributions, gradients, finish)


def _everybody(
    senders: int, honest_senders: int | None, sampling_rate: float, adjacency: Adjacency
) -> accounting.Participation:
    """Every site sends in every round; one may collude where nothing else is said."""
    honest = senders - 1 if honest_senders is None else honest_senders
    check_honest(honest, senders)
    check_sampling(sampling_rate, adjacency)
    return accounting.Participation(
        senders=senders,
        minimum_senders=senders,
        honest_senders=honest,
        sampling_rate=sampling_rate,
        adjacency=adjacency,
    )


def _check_unit(unit: str, largest_unit: int) -> None:
    if unit == "record" and largest_unit != 1:
        raise ValueError(
            f"unit='record' but a unit has {largest_unit} records; use unit='patient' for grouped records."
        )
    if unit not in ("record", "patient"):
        raise ValueError(f"unit={unit!r}: fedsgd protects a 'record' or a 'patient'; for whole clients use fedavg.")


def _check_cohort(cohort: Records, senders: int, spec: Any) -> None:
    sites, room = leading_of(cohort.features, 2)
    if sites != senders:
        raise ValueError(
            f"{sites} sites in the cohort, but the guarantee was stated for senders={senders}: every site must send."
        )
    if not same_records(found := spec_of(cohort.features), spec):
        raise ValueError(
            f"A record of the cohort has shape {in_words(found)}; the algorithm was made for {in_words(spec)}."
        )
    if cohort.labels.shape[:2] != (sites, room):
        raise ValueError(f"the labels have shape {cohort.labels.shape}, the features start with {(sites, room)}.")


def check_sampling(sampling_rate: float, adjacency: str) -> None:
    """Refuse amplification claims that no theorem here supports."""
    check_adjacency(adjacency)
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"sampling_rate={sampling_rate} must be in (0, 1].")
    if sampling_rate < 1 and adjacency != "zero_out":
        raise ValueError(
            f"Amplification by Poisson sampling is proved for adjacency='zero_out' only, not {adjacency!r}; "
            "set sampling_rate=1 or adjacency='zero_out'."
        )


def dimension_of(model: Model, features: RecordShape) -> int:
    """D, the number of parameters of a model for records of a shape (as in `fedsgd`); nothing is computed."""
    example = batch_spec(record_spec(features), 1)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), example)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
