"""The training of a run: the model's part that is trained, its records, the encryption of its sums, and the algorithm made of all that."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.aggregation import aggregator as make_aggregator
from fedjax_poisson.aggregation.terms import mechanism_facts
from fedjax_poisson.data.one_site import columns_hash
from fedjax_poisson.federated import Records, standardize
from fedjax_poisson.federated.default_rounds import norm_arguments
from fedjax_poisson.federated.evaluator import map_records
from fedjax_poisson.federated.server import Paced, ServerOptimizer
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import fold_in
from fedjax_poisson.runs.algorithm_entry import Parts, Training
from fedjax_poisson.runs.build import Prepared, RunSetup
from fedjax_poisson.runs.steering import controller_for
from fedjax_poisson.runs.training_recipe import step_size
from fedjax_poisson.runs.transcripts import keeping

_NO_COUNTS = 2**31 - 1  # the bound of an aggregator that adds real numbers in the clear


def optimizer_for(setting: RunSetup, rate: float) -> Paced:
    """The server's optimiser at a step size, which is no constant of the programs: runs with other budgets take other steps."""
    return Paced(_unit_optimizer(setting.config.optimizer, setting.recipe.momentum), rate)


@functools.cache
def _unit_optimizer(name: str, momentum: float) -> optax.GradientTransformation:
    return optax.adam(1.0) if name == "adam" else optax.sgd(1.0, momentum=momentum or None)


def optimizer_of(setting: RunSetup, scaler: standardize.Scaler) -> Paced:
    """The server's optimiser of the run, whose step may follow from the released number of units."""
    return optimizer_for(setting, step_size(setting.recipe, float(scaler.records)))


def initial_parameters(setting: RunSetup) -> Any:
    """The parameters before the first round. They are public: nothing private is drawn here."""
    example = jnp.zeros((1, *setting.sites.features.shape[1:]), jnp.float32)
    return setting.model.init(jax.random.key(0), example)


def learned_model(setting: RunSetup) -> Model:
    """The part of the model that a run trains: all of it, or the part on top of fixed features."""
    return setting.model.head or setting.model


def learned_records(setting: RunSetup, scaler: standardize.Scaler, records: Records) -> Records:
    """Records as the trained part of the model sees them: standardised, labels that are numbers too, or the fixed features of that, computed once."""
    records = records._replace(
        features=standardize.standardize(scaler, records.features),
        labels=standardize.standardize_labels(scaler, records.labels),
    )
    if (fixed := setting.model.fixed) is None:
        return records
    mask = np.asarray(records.mask)
    rows = map_records(jax.jit(fixed), np.asarray(records.features)[mask])
    features = np.zeros((*mask.shape, *rows.shape[1:]), np.float32)
    features[mask] = rows
    return records._replace(features=jnp.asarray(features))


def _count_bound(mechanism: Mechanism, senders: int, size: int) -> int:
    return mechanism.count_bound(senders, size) if mechanism.facts.integer else _NO_COUNTS


def aggregator_for(
    run: RunSetup | Prepared,
    mechanism: Mechanism,
    size: int,
    purpose: str,
    *,
    out: Path | None = None,
    authenticate: bool | None = None,
) -> Aggregator:
    """The encryption of one kind of release, with its own fresh keys; opened rounds leave their transcripts in the run folder, if one is given."""
    plan = run.plan
    facts = mechanism_facts(mechanism.facts.name, mechanism.facts.parameters, purpose=purpose)
    if (network := run.network) is not None:
        facts |= {} if run.sites is None else {"columns": columns_hash(run.sites)}
        return make_aggregator(
            network.backend,
            count_bound=_count_bound(mechanism, plan.senders, size),
            senders=plan.senders,
            minimum_senders=network.minimum,
            size=size,
            members=network.members,
            threshold=network.threshold,
            malicious=network.malicious,
            corrupt=network.corrupt,
            mechanism=facts,
        )
    if purpose == "train" and not run.kind.signed:
        authenticate = False
    made = make_aggregator(
        run.config.aggregator,
        count_bound=_count_bound(mechanism, plan.senders, size),
        senders=plan.senders,
        minimum_senders=plan.senders,
        size=size,
        members=run.config.members,
        authenticate=authenticate,
        corrupt=plan.senders - plan.honest_senders,
        mechanism=facts,
        stream=fold_in(run.root, "run name", purpose),
        **(norm_arguments(mechanism, size, plan.senders) if run.config.aggregator == "round" else {}),
    )
    return made if out is None else keeping(made, out, purpose)


def training_for(
    setting: RunSetup,
    scaler: standardize.Scaler,
    cohort: Records,
    aggregator: Aggregator,
    optimizer: ServerOptimizer | None = None,
) -> Training:
    """The training algorithm with its data.

    Args:
      setting: the run.
      scaler: its count of records (private, or public) scales the step.
      cohort: training records, as `learned_records` gives them.
      aggregator: how training sums are encrypted.
      optimizer: another optimiser of the server, if given.
    """
    return setting.kind.make(parts_for(setting, scaler, cohort, aggregator, optimizer or optimizer_of(setting, scaler)))


def parts_for(
    setting: RunSetup,
    scaler: standardize.Scaler,
    cohort: Records,
    aggregator: Aggregator | None,
    optimizer: ServerOptimizer,
) -> Parts:
    """What the training is made of; arguments as in `training_for`."""
    plan = setting.plan
    return Parts(
        config=setting.config,
        recipe=setting.recipe,
        model=learned_model(setting),
        cohort=cohort,
        records=float(scaler.records),
        mechanism=plan.train.mechanism,
        controller=controller_for(setting.recipe, plan, float(scaler.records)) if setting.kind.steered else None,
        aggregator=aggregator,
        server_optimizer=optimizer,
        participation=plan.terms.participation,
        unit=setting.unit,
        largest_unit=setting.largest_unit,
        average_from=setting.average_from,
    )


def blank_records(setting: RunSetup) -> Records:
    """The training records as `learned_records` gives them, with features that are zeros."""
    example = jax.ShapeDtypeStruct((1, *setting.sites.features.shape[1:]), jnp.float32)
    shape = jax.eval_shape(setting.model.fixed or (lambda x: x), example).shape[1:]
    rows = setting.train.mask.shape
    return setting.train._replace(features=jax.device_put(np.zeros((*rows, *shape), np.float32)))


def blank_training(setting: RunSetup) -> Training:
    """The training on records of zeros and without encryption: what its state looks like, and what the first one is."""
    cohort = blank_records(setting)
    scaler = standardize.bounds_scaler(setting.sites.feature_bounds, 1.0)
    mechanism = setting.plan.train.mechanism
    plain = make_aggregator(
        "plain",
        count_bound=_count_bound(mechanism, setting.plan.senders, setting.dimension),
        senders=setting.plan.senders,
    )
    return training_for(setting, scaler, cohort, plain)
