"""Many clients of which a few are corrupt; the client is protected."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import optimize

from fedjax_poisson import data, federated, models, randomness
from fedjax_poisson.aggregation.norm_bound import dense_passes, squared_bound
from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
from fedjax_poisson.attacks.insiders import Setting
from fedjax_poisson.benchmarks import workloads
from fedjax_poisson.federated import liar_bound
from fedjax_poisson.federated.client import Examples, run_client
from fedjax_poisson.federated.insiders import Insiders
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.standardize import bounds_scaler
from fedjax_poisson.federated.vote_plan import VotePlan
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.committee_noise import committee_noise
from insider_campaign.site_tasks import apart
from insider_campaign.task import DELTA, IMAGES, TABLES, Bounds, Clients, Corrupt, Task, flat

SHARES = (0.1, 0.2, 0.05)
"""Of clients that are corrupt; the first is that of the whole list of attacks."""
MEMBERS = 5


def w2(toy: bool) -> Task:
    """Images, 50 clients a round. Nobody's idea of privacy: with 421,642 weights and 50 clients the noise must be tiny for anything to be learned."""
    return _workload("W2", toy, 0.02, 0.1)


def w2_near(toy: bool) -> Task:
    """The same with a clip as long as nine honest updates of ten after the first round (.25 to .34, measured on training records), and twice the rounds."""
    return _workload("W2", toy, 0.02, 0.1, clip=0.35, rounds=20)


def w3(toy: bool) -> Task:
    """Tables, 2,000 clients a round."""
    return _workload("W3", toy, 1.0, 0.25)


def eicu(toy: bool, path: str | None) -> Task | None:
    """Mortality in 186 hospitals; the hospital is protected."""
    if path is None or not Path(path).exists():
        print(f"skipped: eICU is not here ({path or 'no --eicu given'}); it may not be shipped with the package")
        return None
    sites = data.from_eicu(path, min_site_records=2, sites_per_patient=2)
    scaler = bounds_scaler(sites.feature_bounds, 1.0)
    train, test = (federated.records_of(sites, split, scaler) for split in (True, False))
    train, held = apart(train)
    clients, size = train.mask.shape[0], train.features.shape[2] + 1
    recipe = federated.client_recipe(clients=clients, features=size - 1, epsilon=8.0, delta=1e-3)
    rounds = 2 if toy else recipe.rounds
    mechanism, _ = federated.calibrate(
        epsilon=8.0,
        delta=1e-3,
        rounds=rounds,
        senders=clients,
        dimension=size,
        unit="client",
        clip_norm=recipe.clip_norm,
    )
    mask = np.asarray(test.mask)
    plan = VotePlan(
        senders=clients, records=int(held.mask.sum(axis=1).max()), noise=8.0, unit="client", cut=1.0,
        fewest_records=max(1, int(held.mask.sum(axis=1).min())),
    )  # fmt: skip
    return _task(
        f"eICU, {clients} hospitals", models.logistic(),
        federated.local_sgd(recipe.learning_rate, epochs=recipe.epochs),
        tuple(np.asarray(each) for each in (train.features, train.labels, train.mask)), mechanism, clients, rounds, TABLES,
        lambda number: np.arange(clients), held, plan, max(1, rounds // 3),
        (np.asarray(test.features)[mask], np.asarray(test.labels)[mask]), delta=1e-3, value=2.0,
    )  # fmt: skip


def _workload(
    name: str, toy: bool, noise: float, share: float, *, clip: float | None = None, rounds: int | None = None
) -> Task:
    config, x, y, x_test, y_test = workloads.make(name)
    model = models.cnn() if name == "W2" else models.mlp((64, 32))
    named = f"{name}, clip {clip}" if clip else name
    clip = clip or config.clip or 1.0
    config = dataclasses.replace(config, rounds=rounds or config.rounds)
    if toy:
        config = dataclasses.replace(config, cohort=20, rounds=2)
    rounds, senders = config.rounds, config.cohort
    kept = config.per_client * 4 // 5  # the last fifth of the first clients' records is held back
    table = workloads.cohorts(config)
    mechanism = _embedding(noise, senders, clip, share)
    held = _held_of(x[:senders, kept:], y[:senders, kept:])
    plan = VotePlan(
        senders=senders, records=config.per_client - kept, noise=max(2.0, senders / 100), unit="client", cut=1.0
    )
    client = federated.local_sgd(config.local_lr, batch_size=config.batch)
    facts = {"classes": 10} if name == "W2" else {}
    return _task(
        f"{named}, {senders} of {config.clients} clients", model, client, (x[:, :kept], y[:, :kept]), mechanism, senders,
        rounds, IMAGES if name == "W2" else TABLES, lambda number: table[number], held, plan, max(1, rounds // 5),
        (x_test, y_test), delta=DELTA, **facts,
    )  # fmt: skip


def _embedding(noise: float, senders: int, clip: float, share: float) -> Mechanism:
    """Client level: noise of standard deviation noise * clip on every coordinate of the sum."""
    bound, modulation = clip * share, 0.05
    dark = senders * bound**2 / (2 * modulation**2 * (noise * clip) ** 2)
    return poisson_embedding(clip_norm=clip, coordinate_bound=bound, dark_count=dark, modulation=modulation)


def _clean(mechanism: Mechanism, senders: int, size: int) -> Mechanism:
    """Clean counts whose sum has the noise of light rounds by `mechanism`, from five members of whom two are counted on."""
    clip = mechanism.bounds.clip_norm or 1.0
    scale = 2 * np.sqrt(size) / clip
    variance = mechanism.variance(senders) * scale**2
    return committee_noise(
        clip_norm=clip, coordinate_bound=mechanism.bounds.coordinate_bound, scale=scale, noise_variance=variance / MEMBERS,
        noise_senders=MEMBERS, honest_noise=2,
    )  # fmt: skip


def _held_of(x: np.ndarray, y: np.ndarray) -> Records:
    """Records that voting clients hold back."""
    unit = np.broadcast_to(np.arange(y.shape[1], dtype=np.int32), y.shape)
    return Records(jnp.asarray(x), jnp.asarray(y), jnp.ones(y.shape, bool), jnp.asarray(unit))


def _gets_through() -> float:
    """Length in clips of the dense vector that passes a norm round with 1e-6."""
    faulty = default_malicious(MEMBERS)
    ratio = squared_bound(10**6, MEMBERS, least_threshold(MEMBERS, faulty), faulty) / 10**6
    return float(optimize.brentq(lambda length: dense_passes(length, ratio) - 1e-6, 1.0, 100.0))


def _task(
    name: str, model: models.Model, client: Any, arrays: Any, mechanism: Mechanism, senders: int, rounds: int,
    attacks: Sequence[str], cohort: Callable[[int], Any], held: Records, plan: VotePlan, every: int, test: Any, *,
    delta: float, **facts: Any,
) -> Task:  # fmt: skip
    population = federated.make_population(*arrays)
    first = model.init(jax.random.key(0), jnp.asarray(arrays[0][0, :1]))
    size = sum(leaf.size for leaf in jax.tree.leaves(first))
    clip = mechanism.bounds.clip_norm or 1.0
    one = Examples(*(jnp.asarray(np.asarray(each[0])) for each in arrays))
    old, _ = run_client(client(model), first, (), (), one, randomness.stream())
    clean = _clean(mechanism, senders, size)

    def corrupt(share: float) -> Corrupt:
        who = tuple(range(0, population.size, round(1 / share)))
        setting = Setting(
            senders=senders, corrupt=max(1, round(len(who) * senders / population.size)), clip_norm=clip, old_update=old,
            count_bound=mechanism.count_bound(senders, size), half_modulus=2**30, **facts,
        )  # fmt: skip
        return Corrupt(who, setting, dataclasses.replace(setting, count_bound=clean.count_bound(senders, size)))

    def trained(by: Mechanism, insiders: Insiders | None, fewest: int | None) -> federated.Algorithm:
        return federated.fedavg(
            model, client=client, population=population, senders=senders, server_optimizer=optax.sgd(1.0), mechanism=by,
            delta=delta, insiders=insiders, minimum_senders=fewest, fidelity="messages",
        )  # fmt: skip

    light = liar_bound.light_round(mechanism, senders, size)
    return Task(
        name=name, unit="client", rounds=rounds, shares=SHARES, corrupt=corrupt, attacks=attacks, model=model,
        mechanism=mechanism, make=lambda insiders: trained(mechanism, insiders, None), cohort=cohort,
        released=lambda before, after, summed: (flat(after) - flat(before)) * summed, held=held, plan=plan, every=every,
        test=test, delta=delta,
        bounds=Bounds(light.clips * clip, clip, mechanism.variance(1), size, _gets_through(), clip),
        bound=liar_bound.in_words(light, f"one client of {senders}"),
        clients=Clients(
            client, population, lambda insiders: trained(clean, insiders, senders // 2),
            liar_bound.in_words(liar_bound.norm_round(senders), f"one client of {senders}"),
        ),
    )  # fmt: skip
