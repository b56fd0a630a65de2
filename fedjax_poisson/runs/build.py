"""Everything a run needs, built once from its configuration: data on the device, the plan of releases, model, random root."""

from __future__ import annotations

import contextlib
import math
import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fedjax_poisson import accounting, data
from fedjax_poisson.data.placement import Placement
from fedjax_poisson.data.tables.open_table import OpenTable
from fedjax_poisson.data.tables.schema import most_features
from fedjax_poisson.data.tables.tabular import table_identity
from fedjax_poisson.federated import Records, standardize
from fedjax_poisson.federated.algorithm import dimension_of
from fedjax_poisson.federated.device_records import records_of
from fedjax_poisson.federated.records import largest_unit, units_of
from fedjax_poisson.federated.server import AverageFrom
from fedjax_poisson.federated.subgroups import subgroups_of
from fedjax_poisson.mechanisms.registry import Law
from fedjax_poisson.models import Model
from fedjax_poisson.randomness import ReproducibleStreamWarning, Stream, stream
from fedjax_poisson.runs.algorithm_entry import AlgorithmEntry
from fedjax_poisson.runs.algorithm_registry import algorithm_entry
from fedjax_poisson.runs.budget_plan import BudgetPlan, make_plan, narrowed
from fedjax_poisson.runs.config import Config, records_are_public
from fedjax_poisson.runs.load_data import has_open_columns, load_open_table, load_sites, wanted_subgroups
from fedjax_poisson.runs.named_models import FIXED_NORMS, Target, check_model, model_for, target_of
from fedjax_poisson.runs.network import Network, check_network
from fedjax_poisson.runs.training_recipe import PublicSizes, TrainingRecipe


class RunSetup(NamedTuple):
    """The components of a run.

    Attributes:
      config: the settings.
      sites: the data on the host.
      train: raw training records on the device.
      test: raw test records on the device.
      model: the model.
      recipe: the settings of the training.
      plan: the releases and their cost.
      target: what there is to learn.
      largest_unit: records of the largest privacy unit.
      largest_site: the bound on a site's training units that sets the clamps.
      dimension: D, parameters of the model.
      unit: "record", "patient" or "client": who is protected.
      kind: the algorithm.
      root: the root of all randomness of this process.
      network: the other sites, where they are in other processes; None where all are here.
    """

    config: Config
    sites: data.Sites
    train: Records
    test: Records
    model: Model
    recipe: TrainingRecipe
    plan: BudgetPlan
    target: Target
    largest_unit: int
    largest_site: int
    dimension: int
    unit: Literal["record", "patient", "client"]
    kind: AlgorithmEntry
    root: Stream
    network: Network | None = None

    @property
    def average_from(self) -> AverageFrom:
        """Which parameters are averaged, as in `server_step`."""
        return self.recipe.average_from


class Prepared(NamedTuple):
    """A run before its first release: what was read, what will be released, and its cost.

    Attributes:
      config: the settings.
      sites: the data; None where ranges or levels are still to be released.
      opened: the table then; else None.
      sizes: the public numbers that the training's settings follow from; a bound on the features where columns are open.
      recipe: the settings of its training.
      plan: the releases.
      target: what there is to learn.
      unit: "record", "patient" or "client".
      kind: the algorithm.
      identity: what names the data set on a ledger.
      site_names: S names.
      largest_site: the bound on a site's training units that sets the clamps; 1 where the site is the unit.
      root: the root of all randomness of this process.
      network: as in `RunSetup`.
    """

    config: Config
    sites: data.Sites | None
    opened: OpenTable | None
    sizes: PublicSizes
    recipe: TrainingRecipe
    plan: BudgetPlan
    target: Target
    unit: Literal["record", "patient", "client"]
    kind: AlgorithmEntry
    identity: str
    site_names: tuple[str, ...]
    largest_site: int
    root: Stream
    network: Network | None = None


def prepare(config: Config, sites: data.Sites | None = None, network: Network | None = None) -> Prepared:
    """Load the data, check what will be claimed, and plan the releases; nothing is released here.

    Args:
      config: the settings.
      sites: the data instead of what the settings name, for example a fold.
      network: the other sites, where they are in other processes.

    Raises:
      ValueError: the data or a claim is unsound, with the reason.
    """
    if sites is None and config.sites is not None and (network is None or config.here is None):
        raise ValueError(
            "sites are listed, so each has its own table and its own process: start `fedjax-poisson site serve` at every one, and `consortium run`."
        )
    kind = algorithm_entry(config.algorithm).entry
    if config.yardstick and kind.without_privacy is None:
        raise ValueError(
            f"algorithm={config.algorithm!r} has no training without privacy to compare with: leave --yardstick out."
        )
    opened = load_open_table(config) if sites is None and has_open_columns(config) else None
    if opened is not None:
        placement: Placement | data.Sites = opened.placement
        identity = table_identity(opened.table)
        target = target_of(opened.label)
        check_model(config, identity, target, pictures=False)
        features = most_features(opened.schema)
        shape: tuple[int, ...] = (
            features,
        )  # a public bound on what the released levels make of them, as are the moments
        moments = standardize.moment_dimension(np.zeros(features, bool), target.label_bounds)
        numbers, texts = (len(opened.schema.named(kind)) for kind in ("open_number", "open_text"))
    else:
        sites = load_sites(config) if sites is None else sites
        target = target_of(sites)
        check_model(config, sites.provenance.name, target, pictures=sites.features.ndim == 4)
        placement, identity = sites, sites.provenance.identity or sites.provenance.name
        moments, shape = standardize.moment_dimension(sites.binary, sites.label_bounds), sites.features.shape[1:]
        numbers = texts = 0
    kind.check(config, placement)
    if sites is not None:
        subgroups_of(sites, wanted_subgroups(config, sites))  # refuses what is no column before anything is released
    senders = len(placement.site_names)
    if senders < 2:
        raise ValueError(
            f"{identity} has {senders} site: a sum over one site hides nothing; at least 2 are needed"
            + (" (cut some with --clients)." if len(shape) == 3 else ".")
        )
    whole = kind.unit == "client"
    bound = 1 if whole else site_bound(config, _most_units(placement))
    sites_per_unit = 1 if whole else placement.sites_per_unit
    model = model_for(config, target, shape)
    sizes = PublicSizes(
        features=math.prod(shape),
        senders=senders,
        honest_senders=senders - 1 if config.honest_senders is None else config.honest_senders,
        largest_site=bound,
        units=_public_units(config, placement),
        sites_per_unit=sites_per_unit,
        task=target.task,
        outputs=target.outputs,
        fixed_norm=FIXED_NORMS.get(config.model),
    )
    recipe = kind.recipe(config, sizes)
    plan = make_plan(
        config,
        recipe,
        senders=senders,
        dimension=dimension_of(model, shape),
        moment_dimension=0 if config.standardize == "bounds" else moments,
        moment_blocks=senders if config.standardize == "site" else 1,
        largest_site=bound,
        sites_per_unit=sites_per_unit,
        open_numbers=numbers,
        open_texts=texts,
        law=_law_of_shared(config),
        level=kind.unit,
        steered=kind.steered,
    )
    if network is not None:
        check_network(network, config, plan.honest_senders, recipe.sampling_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReproducibleStreamWarning)  # said in every output instead
        root = stream(config.seed)
    return Prepared(
        config=config,
        sites=sites,
        opened=opened,
        sizes=sizes,
        recipe=recipe,
        plan=plan,
        target=target,
        unit="client" if whole else placement.unit,
        kind=kind,
        identity=identity,
        site_names=placement.site_names,
        largest_site=bound,
        root=root,
        network=network,
    )


def build(config: Config, sites: data.Sites | None = None) -> RunSetup:
    """`prepare` and `complete` in one, where nothing has to be released to know the features.

    Raises:
      ValueError: the data or a claim is unsound, or ranges or levels are still to be released.
    """
    prepared = prepare(config, sites)
    if prepared.sites is None:
        raise ValueError(
            "ranges or levels of this table are released by a run (bounds or categorical = private); pass the `Sites` that they were encoded into."
        )
    return complete(prepared, prepared.sites)


def complete(prepared: Prepared, sites: data.Sites) -> RunSetup:
    """Everything a run needs, once its features are known.

    Args:
      prepared: the run.
      sites: its data; encoded by what was released where columns were open.
    """
    config = prepared.config
    train, test = records_of(sites, True), records_of(sites, False)
    model = model_for(config, prepared.target, sites.features.shape[1:])
    recipe, plan = prepared.recipe, prepared.plan
    dimension = dimension_of(model, sites.features.shape[1:])
    if prepared.sites is None:
        recipe = prepared.kind.recipe(config, prepared.sizes._replace(features=sites.features.shape[1]))
        moments = standardize.moment_dimension(sites.binary, sites.label_bounds)
        plan = narrowed(plan, config, recipe, dimension=dimension, moment_dimension=moments)
    return RunSetup(
        config=config,
        sites=sites,
        train=train,
        test=test,
        model=model,
        recipe=recipe,
        plan=plan,
        target=prepared.target,
        largest_unit=largest_unit(np.asarray(train.unit)),
        largest_site=prepared.largest_site,
        dimension=dimension,
        unit=prepared.unit,
        kind=prepared.kind,
        root=prepared.root,
        network=prepared.network,
    )


def _public_units(config: Config, placement: Placement | data.Sites) -> int | None:
    """The number of training units, if it is declared, if the records are public, or where it scales the step of a model on fixed features."""
    if config.training_units is not None:
        return config.training_units
    # Without moments the step is scaled by the same count, which the verdict names as a condition.
    if not records_are_public(config) and config.model not in FIXED_NORMS:
        return None
    fit = placement.train
    return len(np.unique(np.stack([placement.site[fit], placement.group[fit]]), axis=1).T)


def _law_of_shared(config: Config) -> Law | None:
    """What a shared ledger that exists already accounts by."""
    if config.ledger is None or not Path(config.ledger).is_file():
        return None
    with contextlib.closing(accounting.read_ledger(config.ledger)) as ledger:
        return "tight" if isinstance(ledger.law, accounting.TightLaw) else "renyi"


def _most_units(placement: Placement | data.Sites) -> int:
    """Training units of the largest site."""
    fit = placement.train
    return max(len(np.unique(placement.group[fit & (placement.site == s)])) for s in range(len(placement.site_names)))


def training_units(config: Config, train: Records) -> int:
    """The public number of training units: declared, or counted in the data (said in the warnings)."""
    return config.training_units or len(units_of(np.asarray(train.unit)).coin)


def site_bound(config: Config, most: int) -> int:
    """The declared public bound on a site's units, or the next power of two above the largest site (a condition of the verdict)."""
    return config.largest_site if config.largest_site is not None else 1 << max(most - 1, 1).bit_length()
