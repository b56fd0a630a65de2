"""What a training is defended by: light or norm rounds, with or without votes, and robust rules that read every update in the clear."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson import aggregation, federated, randomness, trees
from fedjax_poisson.attacks.insiders import attack
from fedjax_poisson.federated import evaluation, robust_rules
from fedjax_poisson.federated.cohort import cohort_sum
from fedjax_poisson.federated.insiders import Insiders, insider_numbers
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.federated.validation_vote import with_vote
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.mechanisms.types import functions_of
from insider_campaign.task import Corrupt, Task

ABSENT = "the corrupt stay away"
"""No attack: what is lost where clients that a norm proof would keep out are not there at all."""


class Outcome(NamedTuple):
    """What a defence left of a training.

    Attributes:
      params: the model.
      rounds: that were released.
      refused: why the training ended early.
      epsilon: spent; None in the clear.
      bytes_up: of one sender, all rounds.
      excluded_right: share of corrupt updates that were left out; of votes, the share that rolled back while insiders were at work.
      excluded_wrong: share of honest updates that were left out; of votes, the share that rolled back an honest candidate.
      detection_auc: how well the distance to a rule's result tells who is corrupt.
      total: float64 `[D]`, the sum released in the first round, unit of the update; None where nothing was, or in the clear.
    """

    params: Any
    rounds: int
    refused: str | None
    epsilon: float | None = None
    bytes_up: int = 0
    excluded_right: float | None = None
    excluded_wrong: float | None = None
    detection_auc: float | None = None
    total: np.ndarray | None = None


class Defence(NamedTuple):
    """A way to train; `run(task, who is corrupt, name of the attack or None, stream)`. Those in the clear are not private.

    Attributes:
      words: what it does.
      private: whether training is private and encrypted.
      norm: whether clients prove their norm.
      run: trains.
    """

    words: str
    private: bool
    norm: bool
    run: Callable[[Task, Corrupt, str | None, randomness.Stream], Outcome]


def encrypted(
    vote: bool, norm: bool, task: Task, corrupt: Corrupt, name: str | None, root: randomness.Stream
) -> Outcome:
    """Private, encrypted rounds, light or norm, with or without votes."""
    insiders = None
    if name not in (None, ABSENT):
        insiders = Insiders(who=corrupt.who, attack=attack(name, corrupt.norm_setting if norm else corrupt.setting))
    algorithm = task.make(insiders)
    if norm:
        assert task.clients is not None
        algorithm = task.clients.norm(insiders)
    if vote:
        honest = corrupt.setting.senders - 1  # of voters, who bring their own noise
        algorithm = with_vote(algorithm, task.model, task.held, task.plan, every=task.every, honest_senders=honest)
    state = algorithm.init(jax.random.key(0))
    first, total, done, refused, sent = algorithm.parameters(state), None, 0, None, 0
    out: dict[str, list[float]] = {"right": [], "wrong": []}
    for number in range(1, task.rounds + 1):
        try:
            cohort = task.cohort(number)
            if name == ABSENT:
                cohort = cohort[~np.isin(cohort, corrupt.who)]
            state, info = algorithm.apply(state, cohort, root)
        except (aggregation.RoundRefused, ValueError) as error:
            if "count_bound" not in str(error):
                raise
            refused = str(error).split(".")[0]
            break
        done, inner = number, getattr(info, "round", info)
        sent += inner.sum.bytes_up_per_sender
        if number == 1 and not (vote and task.every == 1):  # a vote may have taken the first round back
            total = task.released(first, algorithm.parameters(state), inner.sum.senders)
        if norm:
            ids = np.asarray(cohort)
            gone, bad = np.isin(ids, inner.refused), np.isin(ids, corrupt.who if insiders is not None else ())
            out["wrong"].append(float(gone[~bad].mean()))
            if bad.any():
                out["right"].append(float(gone[bad].mean()))
        if vote and info.vote is not None:
            sent += info.vote.sum.bytes_up_per_sender
    right = wrong = None
    if vote and int(state.votes):
        share = int(state.rollbacks) / int(state.votes)
        right, wrong = (None, share) if insiders is None else (share, None)
    if norm and not vote:
        right, wrong = (float(np.mean(out[key])) if out[key] else None for key in ("right", "wrong"))
    assert algorithm.ledger is not None
    return Outcome(
        algorithm.parameters(state), done, refused, algorithm.ledger.epsilon(), sent, right, wrong, None, total
    )


def in_the_clear(rule: str, task: Task, corrupt: Corrupt, name: str | None, root: randomness.Stream) -> Outcome:
    """Every update read in the clear and given to a robust rule: no clip at the client, no noise, no encryption."""
    assert task.clients is not None
    insiders = None if name is None else Insiders(who=corrupt.who, attack=attack(name, corrupt.setting))
    loose = 100 * task.bounds.clip  # no honest update is clipped
    wide = poisson_embedding(clip_norm=loose, coordinate_bound=loose, dark_count=50.0, modulation=0.05)
    step = np.float32(wide.bounds.grid_step or 1.0)
    bare = wide._replace(embed=lambda stream, grid: grid, estimate=lambda total, n: total.astype(jnp.float32) * step)
    population, model = task.clients.population, task.model
    first = model.init(jax.random.key(0), jnp.asarray(population.host.x[:1, 0]))
    size = sum(leaf.size for leaf in jax.tree.leaves(first))
    numbers_of = None if insiders is None else insider_numbers(insiders, population.size, population.host)
    programs = cohort_sum(task.clients.client(model), first, "counts", clients=corrupt.setting.senders)
    counts_of = jax.jit(programs.counts)
    apply = jax.jit(robust_rules.RULES[rule].apply, static_argnums=(1, 2))
    numbers = Numbers(None, functions_of(bare, size), insiders=numbers_of)
    params, found = first, {"right": [], "wrong": [], "auc": []}
    for number in range(1, task.rounds + 1):
        ids = task.cohort(number)
        cohort = federated.make_cohort(population, ids)._replace(numbers=())
        counts, _, _ = counts_of(params, (), (), cohort, randomness.fold_in(root, number), numbers)
        updates = counts.astype(jnp.float32) * step
        bad = np.isin(ids, corrupt.who) if insiders is not None else np.zeros(len(ids), bool)
        told = max(1, int(np.isin(ids, corrupt.who).sum()))  # rules are told how many to expect, in honest runs too
        chosen = apply(updates, told, task.bounds.clip)
        params = jax.tree.map(jnp.add, params, trees.layout(params).unflatten(chosen))
        if bad.any() and not bad.all():
            away = np.asarray(jnp.linalg.norm(updates - chosen, axis=1))
            found["auc"].append(evaluation.auc(bad, away))
        if "krum" in rule:
            keep = 1 if rule == "krum" else len(ids) - told
            out = np.ones(len(ids), bool)
            out[np.argsort(np.asarray(robust_rules.krum_scores(updates, told)))[:keep]] = False
            found["wrong"].append(out[~bad].mean())
            if bad.any():
                found["right"].append(out[bad].mean())
    right, wrong, area = (float(np.mean(each)) if each else None for each in found.values())
    return Outcome(params, task.rounds, None, None, 4 * size * task.rounds, right, wrong, area)


DEFENCES: dict[str, Defence] = {
    "light": Defence("none: private, encrypted light rounds", True, False, functools.partial(encrypted, False, False)),
    "vote": Defence("light rounds and a validation vote", True, False, functools.partial(encrypted, True, False)),
    "norm": Defence("norm rounds: clean counts, proved short", True, True, functools.partial(encrypted, False, True)),
    "norm_vote": Defence("norm rounds and a validation vote", True, True, functools.partial(encrypted, True, True)),
    **{
        name: Defence(f"{rule.words}; {robust_rules.IN_THE_CLEAR}", False, False, functools.partial(in_the_clear, name))
        for name, rule in robust_rules.RULES.items()
    },
}
"""By name: another is a function of a task and its insiders, and a line here."""
