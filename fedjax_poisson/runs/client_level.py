"""`fedavg` as the algorithm of a run: every site is a client, protected as a whole with everything it holds.

The noise that hides a client is as large as one client's clipped update, whatever the client's size, so it averages out over clients, not over records: with
the ten hospitals of a consortium nothing is left of the signal. Fewer than `LEAST_CLIENTS` are therefore refused. The clients are the sites of the data;
for a table that is whatever column --site names: hospital, practice, ward, physician.

What would be wrong at this level is refused too: releases about records (moments, private scores, ranges and levels of columns) are charged for a record and
not for a client, and a small client that was merged with others is not protected by itself.

The settings left open follow from public numbers for logistic regression (`federated.client_recipe`). For other models they are those that
`experiments/client_level.py` found by a search on folds of training records.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fedjax_poisson.data import Sites
from fedjax_poisson.data.placement import Placement
from fedjax_poisson.federated import fedavg, local_sgd, make_population
from fedjax_poisson.federated.client_recipe import client_recipe
from fedjax_poisson.randomness import Stream
from fedjax_poisson.runs.algorithm_entry import AlgorithmEntry, Parts, Training
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.load_data import has_open_columns
from fedjax_poisson.runs.training_recipe import PublicSizes, TrainingRecipe

LEAST_CLIENTS = 50
_ROUNDS, _CLIP, _AVERAGE_SHARE = 15, 0.5, 0.5
_LOCAL_RATE, _LOCAL_EPOCHS = 0.3, 5


def make(parts: Parts) -> Training:
    """Federated averaging of local SGD, all clients in every round."""
    local, who = parts.recipe, parts.participation
    assert local.local_rate is not None and local.local_epochs is not None
    population = make_population(*(np.asarray(part) for part in parts.cohort[:3]))
    assert parts.average_from != "growing"  # of controllers that stop, and this algorithm takes none
    clear = parts.mechanism is None or not parts.mechanism.facts.integer
    if parts.mechanism is not None and parts.mechanism.noise_senders is not None and parts.aggregator is not None:
        clear = parts.aggregator.info.backend == "plain"  # noise is added in the program; backends on the host add none
    algorithm = fedavg(
        parts.model,
        client=local_sgd(
            local.local_rate,
            batch_size=parts.config.batch_size,
            epochs=local.local_epochs,
        ),
        population=population,
        senders=who.senders,
        minimum_senders=who.minimum_senders,
        honest_senders=who.honest_senders,
        sampling_rate=who.sampling_rate,
        adjacency=who.adjacency,
        mechanism=parts.mechanism,
        aggregator=None if clear else parts.aggregator,
        encryption="off" if clear else None,
        server_optimizer=parts.server_optimizer,
        average_from=parts.average_from,
    )
    everyone = np.arange(population.size)
    return Training(algorithm, lambda number: everyone)


def recipe(config: Config, sizes: PublicSizes) -> TrainingRecipe:
    """The settings of the training, from public numbers: `client_recipe` for logistic regression, else fixed ones."""
    rule = None
    if config.recipe == "auto" and config.model == "logistic" and sizes.task == "binary":
        rule = client_recipe(
            clients=sizes.senders,
            features=sizes.features,
            epsilon=config.epsilon,
            delta=config.delta,
            honest_senders=sizes.honest_senders,
            rounds=config.rounds,
        )
    clip = config.clip_norm or (rule.clip_norm if rule else _CLIP)
    coordinate = config.coordinate_bound or clip
    if coordinate > clip:
        raise ValueError(
            f"coordinate_bound={coordinate:g} exceeds clip_norm={clip:g}, so it would bound nothing; lower it or raise --clip-norm."
        )
    epochs = config.local_epochs or (rule.epochs if rule else _LOCAL_EPOCHS)
    said = f"fedavg: a whole client is the privacy unit; updates clipped to {clip:.3g}, {epochs} local epochs a round"
    return TrainingRecipe(
        rounds=config.rounds or (rule.rounds if rule else _ROUNDS),
        sampling_rate=config.sampling_rate or 1.0,
        clip_norm=clip,
        coordinate_bound=coordinate,
        total_bound=coordinate,  # a client sends one update
        learning_rate=config.learning_rate or 1.0,
        momentum=config.momentum or 0.0,
        average_share=_AVERAGE_SHARE if config.average_share is None else config.average_share,
        standardize_share=0.5,  # nothing is released for it
        standardize_norm=1.0,
        controller="constant",
        local_rate=config.local_rate or (rule.learning_rate if rule else _LOCAL_RATE),
        local_epochs=epochs,
        reasons=(said, *(rule.reasons if rule else ())),
    )


def check(config: Config, data: Placement | Sites) -> None:
    """Refuse data with few clients, and releases and settings about records."""
    if config.csv is not None and config.min_site_records > 1:
        raise ValueError(
            f"min_site_records={config.min_site_records} merges clients with fewer records into one, and a client that was merged is not protected by itself: "
            "set --min-site-records 1."
        )
    count = len(data.site_names)
    if count < LEAST_CLIENTS:
        raise ValueError(
            f"algorithm='fedavg' protects a client as a whole, and there are {count} clients: the noise that hides one is as large as its whole update, so a "
            f"mean over fewer than {LEAST_CLIENTS} shows noise alone. Use --algorithm fedsgd, which protects records or patients; or name a column with more "
            "values as the client (--site COLUMN), or cut one source into clients (--clients N)."
        )
    if config.standardize != "bounds":
        raise ValueError(
            f"standardize={config.standardize!r} releases moments of records, whose noise hides a record and not a client: set --standardize bounds, which "
            "scales by public ranges."
        )
    if has_open_columns(config):
        raise ValueError(
            "ranges or levels that are 'private' are released with noise that hides a record and not a client: declare them (bounds, categorical)."
        )
    if config.evaluation == "private":
        raise ValueError(
            "evaluation='private' releases scores with noise that hides a record and not a client: choose 'clear' or 'none'."
        )
    names = ("total_bound", "largest_site", "training_units")
    if given := [name for name in names if getattr(config, name) is not None]:
        raise ValueError(
            f"--{', --'.join(name.replace('_', '-') for name in given)}: bounds a sum over the records of a site, and a client sends one update of its own; "
            "leave it out."
        )


def without_privacy(parts: Parts, rounds: int, sampling_rate: float, stream: Stream) -> Any:
    """The same rounds without clip, noise and encryption."""
    training = make(parts._replace(mechanism=None, aggregator=None))
    state = training.algorithm.init(jax.random.key(0))
    for number in range(1, rounds + 1):
        state, _ = training.algorithm.apply(state, training.cohort(number), stream)
    return training.algorithm.parameters(state)


ENTRY = AlgorithmEntry(make, unit="client", recipe=recipe, check=check, signed=False, without_privacy=without_privacy)
