"""Sites with many records, where a record or a patient is protected and one site of middling size is corrupt."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_poisson import aggregation, data, federated, models
from fedjax_poisson.attacks.insiders import Setting
from fedjax_poisson.federated import liar_bound
from fedjax_poisson.federated.insiders import Insiders
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.standardize import bounds_scaler
from fedjax_poisson.federated.vote_plan import VotePlan
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.runs.build import build
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.training import aggregator_for, learned_records, optimizer_of, parts_for
from fedjax_poisson.runs.training_recipe import step_size
from insider_campaign.task import DELTA, IMAGES, TABLES, Bounds, Corrupt, Task, flat

_HELD_SHARE = 5  # every fifth unit of a site is held back for votes


class Sides(NamedTuple):
    """What a task of sites is made of.

    Attributes:
      sites: the data.
      train: records `[S, n]` that are trained on, as the model sees them.
      held: those that are held back for votes.
      test: test records.
      model: what is trained.
      mechanism: of the sums.
      make: `(insiders) -> Algorithm`.
      rounds: of the training.
      scale: a round's sum over the move of the parameters.
    """

    sites: data.Sites
    train: Records
    held: Records
    test: Records
    model: models.Model
    mechanism: Mechanism
    make: Callable[[Insiders | None], federated.Algorithm]
    rounds: int
    scale: float


def thyroid(toy: bool) -> Task:
    """Thyroid records, any comment of the laboratory: 5 sites, the record is protected; all settings are those that `run` takes for this table."""
    every = data.load("thyroid")
    kept = np.flatnonzero(~every.train | (every.group % _HELD_SHARE != 0))
    held_back = np.flatnonzero(every.train & (every.group % _HELD_SHARE == 0))
    config = Config(dataset="thyroid", epsilon=3.0, delta=DELTA, standardize="bounds", rounds=3 if toy else None)
    setting = build(config, _only(every, kept))
    scaler = bounds_scaler(setting.sites.feature_bounds, int(setting.sites.train.sum()))
    held = federated.records_of(_only(every, held_back), True)
    train, held, test = (learned_records(setting, scaler, each) for each in (setting.train, held, setting.test))
    mechanism = setting.plan.train.mechanism
    summing = aggregator_for(setting, mechanism, setting.dimension, "train", authenticate=False)
    parts = parts_for(setting, scaler, train, summing, optimizer_of(setting, scaler))

    def make(insiders: Insiders | None) -> federated.Algorithm:
        return federated.fedsgd(
            parts.model, features=train.features.shape[2:], records=parts.records, sampling_rate=1.0, mechanism=mechanism,
            aggregator=summing, server_optimizer=parts.server_optimizer, senders=parts.participation.senders,
            honest_senders=parts.participation.honest_senders, unit="record", average_from=parts.average_from, delta=DELTA,
            insiders=insiders,
        )  # fmt: skip

    scale = parts.records / step_size(setting.recipe, parts.records)
    sides = Sides(every, train, held, test, parts.model, mechanism, make, setting.plan.rounds, scale)
    return _task("Thyroid, 5 sites", "record", sides, TABLES, column=every.feature_names.index("log_TSH"), value=2.0)


def xray(toy: bool) -> Task:
    """Synthetic chest radiographs, any disease: 6 sites, the patient is protected; a linear model of 16 x 16 pixels."""
    sites = data.load("xray", patients=20 if toy else 400, size=32, binary=True)
    records, test = (federated.records_of(sites, split) for split in (True, False))
    records, test = (each._replace(features=_smaller(each.features)) for each in (records, test))
    train, held = apart(records)
    count, total = train.mask.shape[0], int(train.mask.sum())
    model, rounds, rate, features = _on_pixels(), 3 if toy else 12, 0.5, tuple(train.features.shape[2:])
    size = federated.dimension_of(model, features)
    most = int(max(np.bincount(row[row >= 0]).max(initial=1) for row in np.asarray(train.unit)))
    mechanism, _ = federated.calibrate(
        epsilon=3.0, delta=DELTA, rounds=rounds, senders=count, dimension=size, unit="patient", clip_norm=1.0,
        largest_site=int(train.mask.sum(axis=1).max()),
    )  # fmt: skip
    summing = aggregation.aggregator(
        "round", count_bound=mechanism.count_bound(count, size), senders=count, size=size, authenticate=False
    )  # unsigned: the opened sums are the same

    def make(insiders: Insiders | None) -> federated.Algorithm:
        return federated.fedsgd(
            model, features=features, records=total, sampling_rate=1.0, mechanism=mechanism, aggregator=summing,
            server_optimizer=optax.sgd(rate), senders=count, unit="patient", largest_unit=most, average_from=rounds // 2,
            delta=DELTA, insiders=insiders,
        )  # fmt: skip

    sides = Sides(sites, train, held, test, model, mechanism, make, rounds, total / rate)
    return _task("Chest phantoms, 6 sites", "patient", sides, IMAGES)


def apart(records: Records) -> tuple[Records, Records]:
    """Records that are trained on, and every fifth unit of a site, which is held back for votes."""

    def part(held: bool) -> Records:
        mask = records.mask & ((records.unit % _HELD_SHARE == 0) == held)
        return records._replace(mask=mask, unit=jnp.where(mask, records.unit, -1))

    return part(False), part(True)


def _only(sites: data.Sites, kept: np.ndarray) -> data.Sites:
    names = ("features", "labels", "site", "train", "group")
    return dataclasses.replace(sites, **{name: getattr(sites, name)[kept] for name in names})


def _smaller(images: jax.Array) -> jax.Array:
    small = images.reshape(*images.shape[:2], 16, 2, 16, 2, 1).mean(axis=(3, 5))
    return 4 * (small - 0.4)


@functools.cache
def _on_pixels() -> models.Model:
    inner = models.logistic()

    def row(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1)

    return models.with_loss(lambda key, x: inner.init(key, row(x)), lambda p, x: inner.apply(p, row(x)), loss="binary")


def _task(name: str, unit: str, sides: Sides, attacks: tuple[str, ...], **facts: Any) -> Task:
    mechanism, count = sides.mechanism, sides.train.mask.shape[0]
    size = federated.dimension_of(sides.model, tuple(sides.train.features.shape[2:]))
    sizes = [int(each) for each in np.asarray(sides.train.mask.sum(axis=1))]
    liar = int(np.argsort(sizes)[count // 2])
    clip = mechanism.bounds.clip_norm or 1.0
    setting = Setting(
        senders=count, corrupt=1, clip_norm=clip, count_bound=mechanism.count_bound(count, size), half_modulus=2**30, **facts
    )  # fmt: skip
    weight = liar_bound.site_of_records(mechanism, sizes, liar, pinned=False)
    light = liar_bound.light_round(mechanism, count, size)
    light = light._replace(share=light.clips / sum(sizes))  # a site sends a clip for each of its records
    bounds = Bounds(light.clips * clip, weight.clips * clip, mechanism.variance(1), size, None, clip)
    who = f"site {sides.sites.site_names[liar]!r}, one of {count},"
    records = liar_bound.in_words(weight, f"{who} with other records")
    mask = np.asarray(sides.test.mask)
    return Task(
        name=name, unit=unit, rounds=sides.rounds, shares=(1 / count,), corrupt=lambda share: Corrupt((liar,), setting, setting),
        attacks=attacks, model=sides.model, mechanism=mechanism, make=sides.make, cohort=lambda number: sides.train,
        released=lambda before, after, senders: (flat(after) - flat(before)) * sides.scale, held=sides.held,
        plan=VotePlan(senders=count, records=int(sides.held.mask.sum(axis=1).max()), noise=5.0),
        every=max(1, sides.rounds // 4), test=(np.asarray(sides.test.features)[mask], np.asarray(sides.test.labels)[mask]),
        delta=DELTA, bounds=bounds, bound=f"{records} {liar_bound.in_words(light, f'{who} with other software')}",
    )  # fmt: skip
