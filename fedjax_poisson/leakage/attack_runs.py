"""Membership, the audits and site attribution, each with the settings of a finished run."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson import accounting, attacks
from fedjax_poisson.attacks import membership as membership_lib
from fedjax_poisson.attacks.shadow import Trainer
from fedjax_poisson.federated import Records, records
from fedjax_poisson.leakage.finished_run import Attacked, OnProgress, Sizes, Unattackable, box
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.registry import from_ledger, mechanism_entry
from fedjax_poisson.mechanisms.types import one_grid_step
from fedjax_poisson.randomness import Stream, fold_in, stream
from fedjax_poisson.runs.build import RunSetup
from fedjax_poisson.runs.training import (
    aggregator_for,
    initial_parameters,
    learned_model,
    optimizer_for,
    optimizer_of,
    training_for,
)
from fedjax_poisson.runs.training_recipe import step_size

_BATCH = 256  # pictures evaluated at once
_FLOATS = 2**25  # floats of gradients that shadows hold at once: 128 MB


class Shadows(NamedTuple):
    """Shadow trainings of the run's recipe.

    Attributes:
      confidence: float64 `[M, V]`, logit-scaled confidence in each unit (mean over its records).
      member: bool `[M, V]`.
      accuracy: pooled accuracy of each shadow on the run's test records, `[M]`.
    """

    confidence: np.ndarray
    member: np.ndarray
    accuracy: np.ndarray


def shadows(run: Attacked, count: int, trainer: Trainer | None = None, *, seed: int = 0) -> Shadows:
    """Train on random halves of the units, with the run's recipe or another trainer.

    Args:
      run: the run.
      count: M.
      trainer: of member vectors `[S * n]` over coins (`attacks.private_trainer`); None for the run's recipe.
      seed: of the halves and of the trainings' keys; the noise comes from the operating system.
    """
    setting = run.setting
    units = records.units_of(np.asarray(run.cohort.unit), setting.sites.unit)
    member = attacks.balanced_memberships(count, len(units.coin), seed)
    everybody = np.zeros((count, run.cohort.labels.size), bool)
    everybody[:, units.coin] = member
    chunk = records.chunk_for(setting.dimension, math.prod(run.cohort.features.shape[2:]))
    trainer = trainer or attacks.private_trainer(
        # A shadow has half of the units: the same mean step.
        _training(run, rounds=run.rounds, records=float(run.scaler.records) / 2),
        run.cohort,
        stream=stream(),
        start=initial_parameters(setting),
        chunk=chunk,
    )
    at_once = int(np.clip(_FLOATS // (chunk * setting.dimension), 4, 64))
    params = attacks.train_shadows(trainer, everybody, jax.random.key(seed), at_once=at_once)
    return Shadows(unit_confidences(run, params, run.cohort), member, _accuracy(run, params))


def _training(run: Attacked, rounds: int, records: float) -> attacks.AttackedTraining:
    """The run's recipe."""
    setting = run.setting
    return attacks.AttackedTraining(
        model=learned_model(setting),
        mechanism=setting.plan.train.mechanism,
        portions=run.portions,
        rounds=rounds,
        records=records,
        server_optimizer=optimizer_for(setting, step_size(setting.recipe, records)),
        sampling_rate=setting.recipe.sampling_rate,
        unit=setting.sites.unit,
        average_from=setting.average_from,
    )


def unit_confidences(run: Attacked, params: Any, of: Records) -> np.ndarray:
    """Confidence of stacked parameters in every unit of some records, the mean over its records: float64 `[M, V]`."""
    mask = np.asarray(of.mask)
    each = _confidences(run.setting, params, of)
    units = records.units_of(np.asarray(of.unit), run.setting.sites.unit)
    place = np.full(mask.size + 1, -1)
    place[np.flatnonzero(mask)] = np.arange(each.shape[1])
    rows = place[units.members]  # [V, L], -1 where a unit has fewer records
    values = np.where(rows >= 0, each[:, rows], 0.0)
    return values.sum(axis=2) / (rows >= 0).sum(axis=1)


def _confidences(setting: RunSetup, params: Any, of: Records) -> np.ndarray:
    """Of every real record, in the order of the mask."""
    mask = np.asarray(of.mask)
    x, y = np.asarray(of.features)[mask], np.asarray(of.labels)[mask]
    labels = np.concatenate([y, y[:1].repeat(-len(y) % _BATCH)])
    parts, at = [], 0
    for part in _batches(x):
        own = labels[at : at + len(part)]
        parts.append(attacks.confidences(learned_model(setting), params, jnp.asarray(part), jnp.asarray(own)))
        at += len(part)
    return np.concatenate(parts, axis=1)[:, : len(x)]


def _accuracy(run: Attacked, params: Any) -> np.ndarray:
    """Share of the test records that each of the stacked parameters classifies rightly, `[M]`."""
    mask = np.asarray(run.held_out.mask)
    x, y = np.asarray(run.held_out.features)[mask], np.asarray(run.held_out.labels)[mask]
    apply = jax.jit(jax.vmap(learned_model(run.setting).apply, in_axes=(0, None)))
    logits = np.concatenate([np.asarray(apply(params, jnp.asarray(part))) for part in _batches(x)], axis=1)[:, : len(x)]
    found = (logits > 0) if logits.ndim == 2 else logits.argmax(axis=2)
    return (found == y).mean(axis=1)


def _batches(x: np.ndarray) -> list[np.ndarray]:
    """Tables whole; pictures in batches of one size, the last filled up, so that one program serves them."""
    if x.ndim == 2:
        return [x]
    filled = np.concatenate([x, x[:1].repeat(-len(x) % _BATCH, 0)])
    return [filled[i : i + _BATCH] for i in range(0, len(filled), _BATCH)]


def membership(run: Attacked, sizes: Sizes, report: OnProgress) -> dict[str, Any]:
    """LiRA on shadows of the run's recipe, and the loss threshold on them and on the run's final model."""
    found = shadows(run, sizes.shadows)
    stacked = jax.tree.map(lambda leaf: leaf[None], run.params)
    own = [unit_confidences(run, stacked, part)[0] for part in (run.cohort, run.held_out)]
    inside = np.arange(own[0].size + own[1].size) < own[0].size
    return {
        "shadows": sizes.shadows,
        "shadow_accuracy": float(found.accuracy.mean()),
        "lira_online": attacks.lira(found.confidence, found.member),
        "lira_offline": attacks.lira(found.confidence, found.member, mode="offline"),
        "loss_threshold": attacks.loss_threshold(found.confidence, found.member),
        "own_model": membership_lib.evaluate(np.concatenate(own), inside, "loss_threshold"),
    }


def audit(run: Attacked, sizes: Sizes, report: OnProgress) -> dict[str, Any]:
    """Audit the run's training mechanism as its code draws it, against what the ledger says was announced.

    Two audits: two unsampled releases, where an error of the noise shows most, and one sampled release as the run made them.
    """
    setting, plan = run.setting, run.setting.plan
    claim, honest = plan.train.mechanism, plan.honest_senders
    if run.claim is not None:
        claim, honest = _announced(run, run.claim), run.claim.honest_senders
    system = attacks.AuditedSystem(plan.train.mechanism, plan.honest_senders)
    twice = attacks.PrivacyClaim(claim, setting.dimension, honest, rounds=2, delta=setting.config.delta)
    result: dict[str, Any] = {"honest_senders": honest, "senders": plan.senders, "from_ledger": run.claim is not None}
    result["mechanism"] = attacks.audit_mechanism(system, twice, stream(), draws=sizes.draws)
    if (rate := setting.recipe.sampling_rate) < 1:
        report("audit", 1, 2)
        once = twice._replace(rounds=1, sampling_rate=rate)
        result["sampled_round"] = attacks.audit_mechanism(system, once, stream(), draws=sizes.draws)
    return result


def _announced(run: Attacked, row: accounting.Release) -> Mechanism:
    config, used = run.setting.config, run.setting.plan.train.mechanism.facts.name
    if row.mechanism != used:
        raise Unattackable(f"the ledger announces {row.mechanism!r}, and the run's settings give {used!r}.")
    return from_ledger(mechanism_entry(config.mechanism).entry, row.parameters)


def one_run(run: Attacked, sizes: Sizes, report: OnProgress) -> dict[str, Any]:
    """The run once more with canary records among the real ones, encrypted and opened as in the run."""
    setting, config, plan = run.setting, run.setting.config, run.setting.plan
    shape, rounds = setting.sites.features.shape[1:], min(run.rounds, sizes.canary_rounds)
    start = initial_parameters(setting)
    x, _ = attacks.craft_records(setting.model, start, shape, sizes.canaries, jax.random.key(1))
    # Nothing outside the public bounds reaches a gradient of the run.
    x = jnp.clip(x, *(jnp.float32(edge) for edge in box(run)))
    y = attacks.canaries.labels_against(setting.model, start, x)
    if setting.model.fixed is not None:
        x = jax.jit(setting.model.fixed)(x)
    included = attacks.coins(sizes.canaries, int(np.random.default_rng().integers(2**31)))
    algorithm, _ = training_for(
        setting,
        run.scaler,
        run.cohort,
        aggregator_for(setting, plan.train.mechanism, setting.dimension, "canaries"),
        attacks.recording(optimizer_of(setting, run.scaler)),
    )
    played = attacks.run_with_canary_records(
        algorithm,
        _training(run, rounds=rounds, records=float(run.scaler.records)),
        run.cohort,
        attacks.CanaryRecords(x, y, included),
        jax.random.key(0),
        stream(),
        report=lambda done: report("one_run", done, rounds),
    )
    trained = [plan.of_round(number) for number in range(1, rounds + 1)]
    law = accounting.TightLaw(budget=plan.terms.variance) if plan.terms.variance else None
    curve = sum((each.rdp(plan.terms) for each in trained), np.zeros(len(plan.terms.orders)))
    claimed = accounting.epsilon(plan.terms.orders, curve, plan.accounted_delta)
    if law is not None:
        claimed = min(
            claimed, accounting.scheduled_epsilon(law, [(each.charge, 1) for each in trained], plan.accounted_delta)
        )
    weights = sum(1 / each.mechanism.variance(plan.senders) for each in trained)
    signal = setting.recipe.sampling_rate * setting.recipe.clip_norm * math.sqrt(weights)
    guesses = attacks.choose_guesses(sizes.canaries, signal, config.delta)
    result: dict[str, Any] = {"rounds": rounds, "aggregator": config.aggregator}
    for name, scores, needs in (
        ("white_box", played.white_box, attacks.canaries.WHITE_BOX),
        ("black_box", played.black_box, attacks.canaries.BLACK_BOX),
    ):
        assert scores is not None
        result[name] = attacks.one_run_audit(
            scores, included, epsilon_claimed=claimed, delta=config.delta, guesses=guesses, attack=name, needs=needs
        )
    return result


def site_property(run: Attacked, sizes: Sizes, report: OnProgress) -> dict[str, Any]:
    """Which site an update came from, in each of the four views, over rounds of secret samples at the final parameters."""
    setting, mechanism = run.setting, run.setting.plan.train.mechanism
    sites = run.cohort.labels.shape[0]
    rate, root = setting.recipe.sampling_rate, stream()
    units = records.units_of(np.asarray(run.cohort.unit), setting.sites.unit)
    chunk = records.chunk_for(setting.dimension, math.prod(run.cohort.features.shape[2:]))
    sampling = records.Sampling(units, rate, records.record_slots(units, rate), chunk)
    records.check_sums_fit(mechanism, min(sampling.slots, run.cohort.labels.shape[1]))
    step, loss = one_grid_step(mechanism), learned_model(setting).loss

    @jax.jit
    def sums(of_round: Stream) -> jax.Array:
        return records.sampled_gradients(loss, run.params, mechanism.clip, run.cohort, sampling, of_round)

    seen: dict[str, list[np.ndarray]] = {view: [] for view in attacks.VIEWS}
    for number in range(sizes.site_rounds):
        of_round = fold_in(root, number)
        grids = sums(of_round)
        updates = grids.astype(jnp.float32) * jnp.float32(step)
        whole = attacks.four_views(mechanism, updates, fold_in(of_round, "whole"), grids)
        seen["clear"].append(np.asarray(whole.clear))
        seen["noisy"].append(np.asarray(whole.noisy))
        seen["summed"].append(attacks.leave_one_out(np.asarray(updates)[None])[0])
        without = [
            attacks.four_views(mechanism, updates, fold_in(of_round, "without", s), grids.at[s].set(0)).noisy_sum
            for s in range(sites)
        ]
        seen["noisy_sum"].append(np.stack([np.asarray(each) for each in without]))
        report("property", number + 1, sizes.site_rounds)
    return {view: attacks.attribute_sites(np.stack(vectors)) for view, vectors in seen.items()}
