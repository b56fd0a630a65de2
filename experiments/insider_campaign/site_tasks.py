"""Sites with many records, where a record or a patient is protected and one site of middling size is corrupt."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from insider_campaign.task import DELTA, IMAGES, TABLES, Bounds, Corrupt, Task, flat

from fedjax_poisson import aggregation, data, federated, models
from fedjax_poisson.attacks.insiders import Setting
from fedjax_poisson.federated import liar_bound
from fedjax_poisson.federated.insiders import Insiders
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.standardize import bounds_scaler
from fedjax_poisson.federated.vote_plan import VotePlan


def thyroid(toy: bool) -> Task:
    """Thyroid records, any comment of the laboratory: 5 sites, the record is protected."""
    sites = data.load("thyroid")
    column = sites.feature_names.index("log_TSH")
    scaler = bounds_scaler(sites.feature_bounds, int(sites.train.sum()))
    return _task(
        "Thyroid, 5 sites", "record", sites, scaler, models.logistic(), 3 if toy else 12, 6.0, TABLES, column=column, value=2.0
    )  # fmt: skip


def xray(toy: bool) -> Task:
    """Synthetic chest radiographs, any disease: 6 sites, the patient is protected; a linear model of 16 x 16 pixels."""
    sites = data.load("xray", patients=20 if toy else 400, size=32, binary=True)
    return _task(
        "Chest phantoms, 6 sites", "patient", sites, None, _on_pixels(), 3 if toy else 12, 0.5, IMAGES, shape=_smaller
    )


def _smaller(images: jax.Array) -> jax.Array:
    small = images.reshape(*images.shape[:2], 16, 2, 16, 2, 1).mean(axis=(3, 5))
    return 4 * (small - 0.4)


@functools.cache
def _on_pixels() -> models.Model:
    inner = models.logistic()

    def row(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1)

    return models.with_loss(lambda key, x: inner.init(key, row(x)), lambda p, x: inner.apply(p, row(x)), loss="binary")


def apart(records: Records, share: int = 5) -> tuple[Records, Records]:
    """Records that are trained on, and every fifth unit of a site, which is held back for votes."""

    def part(held: bool) -> Records:
        mask = records.mask & ((records.unit % share == 0) == held)
        return records._replace(mask=mask, unit=jnp.where(mask, records.unit, -1))

    return part(False), part(True)


def _task(
    name: str, unit: str, sites: data.Sites, scaler: Any, model: models.Model, rounds: int, rate: float,
    attacks: tuple[str, ...], *, shape: Callable[[jax.Array], jax.Array] | None = None, **facts: Any,
) -> Task:  # fmt: skip
    records, test = (federated.records_of(sites, split, scaler) for split in (True, False))
    if shape is not None:
        records, test = (each._replace(features=shape(each.features)) for each in (records, test))
    train, held = apart(records)
    count, total = train.mask.shape[0], int(train.mask.sum())
    width = tuple(train.features.shape[2:])
    features = width[0] if len(width) == 1 else width
    size = federated.dimension_of(model, features)
    largest_unit = int(max(np.bincount(row[row >= 0]).max(initial=1) for row in np.asarray(train.unit)))
    mechanism, _ = federated.calibrate(
        epsilon=3.0, delta=DELTA, rounds=rounds, senders=count, dimension=size, unit=unit, clip_norm=1.0,
        largest_site=int(train.mask.sum(axis=1).max()),
    )  # fmt: skip
    highest = mechanism.count_bound(count, size)
    summing = aggregation.aggregator(
        "round", count_bound=highest, senders=count, size=size, authenticate=False
    )  # unsigned: the opened sums are the same

    def make(insiders: Insiders | None) -> federated.Algorithm:
        return federated.fedsgd(
            model, features=features, records=total, sampling_rate=1.0, mechanism=mechanism, aggregator=summing,
            server_optimizer=optax.sgd(rate), senders=count, unit=unit, largest_unit=largest_unit, average_from=rounds // 2,
            delta=DELTA, insiders=insiders,
        )  # fmt: skip

    sizes = [int(each) for each in np.asarray(train.mask.sum(axis=1))]
    liar = int(np.argsort(sizes)[count // 2])
    setting = Setting(senders=count, corrupt=1, clip_norm=1.0, count_bound=highest, half_modulus=2**30, **facts)
    weight = liar_bound.site_of_records(mechanism, sizes, liar, pinned=False)
    light = liar_bound.light_round(mechanism, count, size)
    bounds = Bounds(light.clips, weight.clips, mechanism.variance(1), size, None, 1.0)
    who = f"site {sites.site_names[liar]!r}, one of {count},"
    words = "; ".join(
        (liar_bound.in_words(weight, who + " with other records"), liar_bound.in_words(light, who + " with other software"))
    )  # fmt: skip
    mask = np.asarray(test.mask)
    return Task(
        name=name, unit=unit, rounds=rounds, shares=(1 / count,), corrupt=lambda share: Corrupt((liar,), setting, setting),
        attacks=attacks, model=model, mechanism=mechanism, make=make, cohort=lambda number: train,
        released=lambda before, after, senders: (flat(after) - flat(before)) * (total / rate), held=held,
        plan=VotePlan(senders=count, records=int(held.mask.sum(axis=1).max()), noise=5.0),
        every=1 if rounds < 12 else 3, test=(np.asarray(test.features)[mask], np.asarray(test.labels)[mask]), delta=DELTA,
        bounds=bounds, bound=words,
    )  # fmt: skip
