"""Everything a run needs, built once from its configuration: data on the device, the plan of releases, model, optimiser, random root."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_poisson import data, trees
from fedjax_poisson.ckks import Aggregator
from fedjax_poisson.ckks import aggregator as make_aggregator
from fedjax_poisson.experiment.config import Config
from fedjax_poisson.experiment.plan import Plan, make_plan
from fedjax_poisson.federated import Algorithm, Records, fedsgd, standardize
from fedjax_poisson.federated.records import largest_unit
from fedjax_poisson.federated.server import State, init_state
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.models import Model, logistic
from fedjax_poisson.randomness import ReproducibleStreamWarning, Stream, fold_in, stream


class Setting(NamedTuple):
    """What a run is made of.

    Attributes:
      config: the settings.
      sites: the data on the host.
      train: raw training records on the device.
      test: raw test records on the device.
      model: the model.
      plan: the releases and what they cost.
      optimizer: the server's optimiser.
      average_from: round after which parameters are averaged, or None.
      largest_unit: records of the largest privacy unit.
      largest_site: the bound on a site's training units that sets the clamps.
      dimension: D, parameters of the model.
      root: the root of all randomness of this process.
    """

    config: Config
    sites: data.Sites
    train: Records
    test: Records
    model: Model
    plan: Plan
    optimizer: optax.GradientTransformation
    average_from: int | None
    largest_unit: int
    largest_site: int
    dimension: int
    root: Stream


def load_sites(config: Config) -> data.Sites:
    """The data a configuration names."""
    if config.csv is None:
        return data.load(config.dataset)
    assert config.label is not None and config.site is not None  # Config checks it
    bounds = config.bounds
    categorical: Any = config.categorical  # Config has checked it
    return data.from_csv(
        config.csv,
        label=config.label,
        site=config.site,
        patient=config.patient,
        positive=[value.strip() for value in config.positive.split(",")] if config.positive else None,
        categorical=categorical,
        bounds={name: (low, high) for name, (low, high) in bounds.items()} if isinstance(bounds, dict) else "from_data",
        drop=tuple(name.strip() for name in config.drop.split(",")) if config.drop else (),
        min_site_records=config.min_site_records,
    )


def records_of(sites: data.Sites, train: bool) -> Records:
    """A split as padded device arrays."""
    padded = data.padded(sites, train=train)
    return Records(
        jnp.asarray(padded.features),
        jnp.asarray(padded.labels, jnp.float32),
        jnp.asarray(padded.mask),
        jnp.asarray(data.padded_groups(sites, train=train), jnp.int32),
    )


def build(config: Config) -> Setting:
    """Load the data, check what will be claimed, and plan the releases; nothing is released here.

    Raises:
      ValueError: the data or a claim is unsound, with the reason.
    """
    sites = load_sites(config)
    if sites.labels.ndim != 1 or len(sites.class_names) != 2 or sites.features.ndim != 2:
        raise ValueError(f"{sites.provenance.name} is not a table with one binary label; the logistic run needs one.")
    senders = len(sites.site_names)
    if senders < 2:
        raise ValueError(
            f"{sites.provenance.name} has {senders} site: a sum over one site hides nothing; at least 2 are needed."
        )
    train, test = records_of(sites, True), records_of(sites, False)
    bound = site_bound(config, train)
    model = logistic()
    width = sites.features.shape[1]
    dimension = trees.layout(model.init(jax.random.key(0), jnp.zeros((1, width), jnp.float32))).size
    plan = make_plan(
        config,
        senders=senders,
        dimension=dimension,
        moment_dimension=standardize.moment_dimension(sites.binary),
        largest_site=bound,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)  # said in every output instead
        root = stream(config.seed)
    return Setting(
        config=config,
        sites=sites,
        train=train,
        test=test,
        model=model,
        plan=plan,
        optimizer=optax.sgd(config.learning_rate, momentum=config.momentum or None),
        average_from=math.floor(config.rounds * (1 - config.average_share)) if config.average_share else None,
        largest_unit=largest_unit(np.asarray(train.unit)),
        largest_site=bound,
        dimension=dimension,
        root=root,
    )


def site_bound(config: Config, train: Records) -> int:
    """The declared public bound on a site's units, or the next power of two above the largest site (said in the warnings)."""
    if config.largest_site is not None:
        return config.largest_site
    most = int(np.asarray(train.unit).max()) + 1
    return 1 << max(most - 1, 1).bit_length()


def initial_state(setting: Setting) -> State:
    """The state before the first round. Initial weights are public: nothing private is drawn here."""
    width = setting.sites.features.shape[1]
    params = setting.model.init(jax.random.key(0), jnp.zeros((1, width), jnp.float32))
    return init_state(params, setting.optimizer)


def aggregator_for(setting: Setting, mechanism: Mechanism, size: int, purpose: str) -> Aggregator:
    """The encryption of one kind of release, with fresh keys of its own."""
    plan = setting.plan
    return make_aggregator(
        setting.config.aggregator,
        count_bound=mechanism.count_bound(plan.senders, size),
        senders=plan.senders,
        minimum_senders=plan.senders,
        size=size,
        stream=fold_in(setting.root, "keys", purpose),
    )


def algorithm_for(setting: Setting, scaler: standardize.Scaler, aggregator: Aggregator) -> Algorithm:
    """The training algorithm; the privately estimated count of records scales its step."""
    config, plan = setting.config, setting.plan
    return fedsgd(
        setting.model,
        features=setting.sites.features.shape[1],
        records=float(scaler.records),
        sampling_rate=config.sampling_rate,
        mechanism=plan.train,
        aggregator=aggregator,
        server_optimizer=setting.optimizer,
        senders=plan.senders,
        honest_senders=plan.honest_senders,
        unit=setting.sites.unit,
        adjacency=config.adjacency,
        largest_unit=setting.largest_unit,
        average_from=setting.average_from,
    )
