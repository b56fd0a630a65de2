"""A validation vote: every few rounds the senders say on records that they hold back whether the model got worse, and a worse one is rolled back.

One private, encrypted sum of one number decides (`vote_plan` has its law); it is charged before it is opened, as a release of its own ("vote" on the
ledger). A vote sees accuracy, never a targeted backdoor: a model that is right on every ordinary record and wrong on the attacker's passes it.

What a site that keeps to the software can say is cut at `plan.cut` of its records. A site that does not keep to it can send any counts up to the round's
bound (light rounds; `liar_bound`): one such site of a vote decides it, in either direction, so a vote is a defence against insiders that lie about
updates, and a tool to notice faults, not one against a site that lies in the vote itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import accounting
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated.algorithm import Algorithm
from fedjax_poisson.federated.charging import Paying, check_paying, make_round_account, payment
from fedjax_poisson.federated.default_rounds import default_aggregator
from fedjax_poisson.federated.federation import FedState
from fedjax_poisson.federated.private_sum import SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.reuse import fingerprint, openings, round_stream
from fedjax_poisson.federated.server import State
from fedjax_poisson.federated.vote_plan import VotePlan, vote_mechanism, vote_threshold
from fedjax_poisson.mechanisms.types import Mechanism, partial_of
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import Stream, fold_in


class VoteInfo(NamedTuple):
    """One vote.

    Attributes:
      score: the opened sum, newly right minus newly wrong, with noise.
      threshold: below it the candidate is rolled back.
      accepted: whether the candidate stays.
      sum: what it cost to sum.
    """

    score: float
    threshold: float
    accepted: bool
    sum: SumInfo


class VotedInfo(NamedTuple):
    """Diagnostics of a round that may have ended with a vote.

    Attributes:
      round: the algorithm's own info.
      vote: None where none was due.
      update_norm: of the round.
      epsilon: spent after the vote; as in the algorithm's info.
      insiders: as in the algorithm's info.
    """

    round: Any
    vote: VoteInfo | None
    update_norm: float
    epsilon: float | None
    insiders: str = ""


class VoteState(NamedTuple):
    """The state that the next round needs.

    Attributes:
      inner: the algorithm's.
      accepted: the algorithm's after the last vote that accepted, or the first.
      votes: int32 `[]`, votes so far.
      rollbacks: int32 `[]`, of them that rolled back.
    """

    inner: Any
    accepted: Any
    votes: Array
    rollbacks: Array


def newly_right(model: Model, current: Any, candidate: Any, held_back: Records) -> Array:
    """What each held-back record says: 1 newly right, -1 newly wrong, 0 otherwise; float32 `[S, n]`, 0 for padding.

    A decision is a logit above 0, or the largest of the class logits.
    """
    return _newly_right(model, current, candidate, held_back)


@functools.partial(jax.jit, static_argnums=0)
def _newly_right(model: Model, current: Any, candidate: Any, held_back: Records) -> Array:
    def right(params: Any, x: Any, y: Array) -> Array:
        logits = model.apply(params, x)
        if logits.ndim == 1:
            return (logits > 0) == (y > jnp.asarray(0.5, y.dtype) if y.dtype == jnp.float32 else y > 0)
        return jnp.argmax(logits, axis=-1) == y.astype(jnp.int32)

    def one(site: tuple[Any, Array, Array]) -> Array:
        x, y, mask = site
        change = right(candidate, x, y).astype(jnp.float32) - right(current, x, y).astype(jnp.float32)
        return jnp.where(mask, change, jnp.float32(0))

    return jax.lax.map(one, (held_back.features, held_back.labels, held_back.mask))


def vote_grids(plan: VotePlan, mechanism: Mechanism, change: Array, held_back: Records) -> Array:
    """What each sender embeds, int32 `[S, 1]` on the mechanism's grid.

    Args:
      plan: of the vote.
      mechanism: `vote_mechanism(plan)`.
      change: float32 `[S, n]`, from `newly_right`.
      held_back: the records. At record level a unit of several records contributes their mean; at client level the whole row is one unit.
    """
    records_lib.check_sums_fit(mechanism, change.shape[1])
    largest = records_lib.largest_unit(np.asarray(held_back.unit))
    return _vote_grids(plan.unit == "client", largest, partial_of(mechanism.clip, 1), change, held_back)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vote_grids(whole: bool, largest_unit: int, clip: Partial, change: Array, held_back: Records) -> Array:
    def client(own: Array, mask: Array) -> Array:
        count = jnp.maximum(jnp.sum(mask.astype(jnp.float32)), jnp.float32(1))
        return clip((jnp.sum(own) / count)[None])

    def site(own: Array, unit: Array) -> Array:
        everyone = jnp.ones(own.shape, bool)
        return records_lib.summed_contributions(
            lambda value, _: value[None], clip, own, own, unit, everyone, largest_unit=largest_unit, average=True
        )

    return jax.vmap(client)(change, held_back.mask) if whole else jax.vmap(site)(change, held_back.unit)


def with_vote(
    algorithm: Algorithm,
    model: Model,
    held_back: Records,
    plan: VotePlan,
    *,
    every: int = 10,
    aggregator: Aggregator | None = None,
    honest_senders: int | None = None,
    insiders: Callable[[Array, Array], Array] | None = None,
) -> Algorithm:
    """An algorithm whose senders vote after every few rounds, on the same ledger.

    A rollback restores parameters, optimiser and average of the last accepted state; the round's number goes on, so that no noise is used twice, and what was
    charged stays charged. A running average then weighs rounds unequally. A round whose vote the ledger could not pay is not begun.

    Args:
      algorithm: `fedsgd(...)` or `fedavg(...)` with a mechanism.
      model: the algorithm's.
      held_back: records `[S, n]` of the senders that are trained on by nobody (`data` splits them off).
      plan: public numbers of the vote.
      every: rounds between votes.
      aggregator: for sums of one value; None for rounds with a committee of five.
      honest_senders: senders that do not collude with the server; None for as many as the algorithm counts on. Where its noise comes from noise senders (norm
        rounds) it must be given: voters bring their own noise, so a vote rests on them.
      insiders: in a simulation, what corrupt senders send in a vote: `(counts [S, 1], grids [S, 1]) -> counts`.

    Returns:
      An `Algorithm` of `VoteState`; its `apply` gives `VotedInfo`. `price` and `rdp` stay those of a training round. A gate of the caller's pays for the round
      only, so with one the vote is refused; give the algorithm a ledger, or say "unaccounted".

    Raises:
      ValueError: the parts do not fit, with the remedy.
    """
    if algorithm.ledger is None or algorithm.price is None:
        raise ValueError(
            "with_vote: the algorithm has no mechanism, so there is no ledger to charge a vote to; a private vote on a training that is not protects nothing."
        )
    if every < 1:
        raise ValueError(f"every={every}: give a whole number of rounds of at least 1.")
    sites = held_back.mask.shape[0]
    if sites != plan.senders:
        raise ValueError(f"{sites} senders hold records back, the vote was planned for senders={plan.senders}.")
    if (most := int(np.asarray(held_back.mask).sum(axis=1).max())) > plan.records:
        raise ValueError(
            f"a sender holds back more than the planned records={plan.records} (seen: {most}): plan with the declared size of the largest."
        )
    ledger, mechanism = algorithm.ledger, vote_mechanism(plan)
    unit = ledger.unit
    if (unit == "client") != (plan.unit == "client"):
        raise ValueError(
            f"the vote protects a {plan.unit!r}, the algorithm's ledger a {unit!r}: plan the vote for that unit."
        )
    fewest = int(np.asarray(held_back.mask).sum(axis=1).min())
    if plan.unit == "client" and fewest < plan.fewest:
        raise ValueError(
            f"a client holds back {fewest} records, the vote was planned for {plan.fewest} or more (fewest_records): a smaller client's mean varies more, and "
            "more honest candidates than stated would be rolled back."
        )
    participation = accounting.Participation(
        senders=plan.senders,
        minimum_senders=plan.senders,
        honest_senders=_honest(algorithm.price, plan, honest_senders),
        sampling_rate=1.0,
        adjacency=ledger.adjacency,  # type: ignore[arg-type]
    )
    account = make_round_account(
        mechanism=mechanism, participation=participation, dimension=1, unit=unit, ledger=ledger, delta=None
    )
    summing = default_aggregator(mechanism, 1, participation) if aggregator is None else aggregator
    assert summing is not None and account.price is not None and algorithm.price is not None
    threshold, opened = vote_threshold(plan), openings()
    charges = [algorithm.price.charge(ledger.law), account.price.charge(ledger.law)]
    distance = ledger.distance_of(algorithm.price) + ledger.distance_of(account.price)

    def init(key: Array) -> VoteState:
        first = algorithm.init(key)
        _check_state(first)
        return VoteState(first, first, jnp.int32(0), jnp.int32(0))

    def take(state: VoteState, candidate: Any, stream: Stream, paying: Paying) -> VoteInfo:
        number = int(candidate.round)
        change = newly_right(model, algorithm.parameters(state.accepted), algorithm.parameters(candidate), held_back)
        grids = vote_grids(plan, mechanism, change, held_back)
        count = int(state.votes) + 1
        due = ledger.gate(account, f"vote {count} after round {number}", purpose="vote") if paying is None else paying
        own = fold_in(stream, "vote")
        pay = payment(account, opened, own, number, fingerprint(grids), due, plan.senders)
        total, info = private_sum(mechanism, summing, grids, round_stream(own, number), gate=pay, insiders=insiders)
        score = float(total[0])
        return VoteInfo(score, threshold, score >= threshold, info)

    def apply(state: VoteState, cohort: Any, stream: Stream, gate: Paying = None) -> tuple[VoteState, VotedInfo]:
        check_paying(gate)
        due = (int(state.inner.round) + 1) % every == 0
        if due and callable(gate):
            raise ValueError(
                "a vote is due, and the gate pays for the round only: leave the gate out, so that the algorithm's ledger is charged for both."
            )
        if due and gate is None and not ledger.fits(charges, distance):
            raise accounting.BudgetExhausted(
                f"the budget does not pay for round {int(state.inner.round) + 1} and its vote; nothing was opened. Plan fewer rounds, or rarer votes."
            )
        inner, info = algorithm.apply(state.inner, cohort, stream, gate)
        vote, after = None, state._replace(inner=inner)
        if due:
            vote = take(state, inner, stream, gate)
            kept = inner if vote.accepted else rolled_back(inner, state.accepted, algorithm.parameters(state.accepted))
            after = VoteState(kept, kept, state.votes + 1, state.rollbacks + jnp.int32(not vote.accepted))
        epsilon = info.epsilon
        if vote is not None and gate is None and epsilon is not None and math.isfinite(epsilon):
            epsilon = ledger.epsilon()
        return after, VotedInfo(info, vote, info.update_norm, epsilon, getattr(info, "insiders", ""))

    decision = algorithm.decision
    return Algorithm(
        init,
        apply,
        lambda state: algorithm.parameters(state.inner),
        algorithm.rdp,
        ledger,
        price=algorithm.price,
        decision=None if decision is None else lambda state: decision(state.inner),
    )


def _honest(price: accounting.Price, plan: VotePlan, asked: int | None) -> int:
    """Voters whose noise counts."""
    if asked is not None:
        return asked
    if price.screened:
        raise ValueError(
            "the algorithm's noise comes from noise senders, whoever its clients are, and a vote's noise from the voters: say how many of these do not collude "
            "(honest_senders=...); epsilon then rests on both."
        )
    return max(1, plan.senders - (price.senders - price.honest_senders))


def rolled_back(rejected: Any, accepted: Any, shipped: Any) -> Any:
    """The accepted state with the round's number, and what a controller remembers, of the rejected one: both are functions of releases.

    Args:
      rejected: the state after the round that was voted on.
      accepted: the last accepted one.
      shipped: the parameters that would have been shipped of it. They stand for an average that had not begun, since by the later number it has.
    """
    if isinstance(rejected, FedState):
        return accepted._replace(server=rolled_back(rejected.server, accepted.server, shipped))
    _check_state(rejected)
    average = accepted.average
    kept: Any = jax.tree.structure(average)
    if kept == jax.tree.structure(shipped):
        average = shipped
    return accepted._replace(round=rejected.round, controller=rejected.controller, average=average)


def _check_state(state: Any) -> None:
    if not isinstance(state, State | FedState):
        raise ValueError(
            f"with_vote can roll back fedsgd and fedavg without fixed cohorts; the algorithm's state is a {type(state).__name__}."
        )
