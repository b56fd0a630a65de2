"""Malicious insiders: what each attack does to a model, and what each defence makes of it.

    python experiments/insiders.py --tasks thyroid w2 [--eicu eicu_demo_apache.csv.gz] [--attacks ...] [--toy]

Five tasks: thyroid records at five sites and synthetic chest radiographs (the record or patient is protected, one site is corrupt); images of 50 clients a
round, tables of 2,000 clients a round, and mortality in 186 hospitals (the client is protected, a few are corrupt). Training is private and encrypted,
and every opened number is on a ledger, except for the robust rules: those read every update in the clear, without privacy, and are there for comparison.

Accuracy is that on test records; an attack's success is the accuracy it costs, or for a backdoor the share of triggered test records of other labels that
the model decides as the attacker wants. A round that is refused (a count beyond the bound) ends the training, as the insider would come again.
Exclusions: rollbacks of a vote, or updates that a rule left out; right where insiders were at work. One run each: differences of a few points are noise.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import load, parser, save

from fedjax_poisson import aggregation, data, federated, models, randomness, trees
from fedjax_poisson.attacks.insiders import ATTACKS, Setting, attack
from fedjax_poisson.benchmarks import workloads
from fedjax_poisson.federated import evaluation, liar_bound, robust_rules
from fedjax_poisson.federated.client import Examples, run_client
from fedjax_poisson.federated.cohort import cohort_sum
from fedjax_poisson.federated.insiders import Insiders, insider_numbers
from fedjax_poisson.federated.records import Records
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.federated.standardize import bounds_scaler
from fedjax_poisson.federated.validation_vote import with_vote
from fedjax_poisson.federated.vote_plan import VotePlan, planned
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.committee_noise import committee_noise
from fedjax_poisson.mechanisms.types import functions_of
from fedjax_poisson.reports.plotting import EPSILON, PLAIN, PRIVATE, PUBLISHED, PUBLISHED_LIGHT, grid, percent, title

DELTA = 1e-5
TABLES = (
    *(
        "label_flip",
        "sign_flip",
        "scale_10",
        "scale_50",
        "inner_product",
        "little_is_enough",
        "colluding_pair",
        "spike",
    ),
    *("free_rider_zero", "free_rider_noise", "free_rider_stale", "nan", "count_bound", "count_wrap"),
    *("faulty_units", "faulty_labels", "backdoor_rare_value", "model_replacement"),
)
IMAGES = (
    *(name for name in TABLES if name not in ("faulty_units", "backdoor_rare_value", "model_replacement")),
    *("backdoor_patch", "model_replacement_patch"),
)
NONE = "nobody is corrupt"


class Clients(NamedTuple):
    """Of tasks with many clients: what robust rules read in the clear, and the same training by norm rounds.

    Attributes:
      client: one client's work.
      population: all of them.
      norm: `(insiders) -> Algorithm` whose clients send clean counts and prove their norm; noise as large as in light rounds.
      norm_setting: what insiders of norm rounds know.
      norm_bound: by how much one may move a round, in words.
    """

    client: federated.client.ClientOf
    population: federated.Population
    norm: Callable[[Insiders | None], federated.Algorithm]
    norm_setting: Setting
    norm_bound: str


class Task(NamedTuple):
    """A training that can be attacked; `make(insiders)` gives its algorithm."""

    name: str
    unit: str
    rounds: int
    corrupt: tuple[int, ...]
    setting: Setting
    attacks: Sequence[str]
    model: models.Model
    mechanism: Mechanism
    make: Callable[[Insiders | None], federated.Algorithm]
    cohort: Callable[[int], Any]
    held: Records
    plan: VotePlan
    every: int
    test: tuple[np.ndarray, np.ndarray]
    bound: str
    clients: Clients | None = None


# ---- tasks ----------------------------------------------------------------------------------------------------------


def _apart(records: Records, share: int = 5) -> tuple[Records, Records]:
    """Records that are trained on, and every fifth unit of a site, which is held back for votes."""

    def part(held: bool) -> Records:
        mask = records.mask & ((records.unit % share == 0) == held)
        return records._replace(mask=mask, unit=jnp.where(mask, records.unit, -1))

    return part(False), part(True)


def _sites(name: str, unit: str, sites: data.Sites, model: models.Model, options: dict[str, Any], toy: bool) -> Task:
    """Sites with many records: one of middling size is corrupt."""
    scaler = options.pop("scaler")(sites)
    records, test = (federated.records_of(sites, split, scaler) for split in (True, False))
    shape = options.pop("shape", None)
    if shape is not None:
        records, test = (each._replace(features=shape(each.features)) for each in (records, test))
    train, held = _apart(records)
    count = train.mask.shape[0]
    features = tuple(train.features.shape[2:])
    size = federated.dimension_of(model, features[0] if len(features) == 1 else features)
    rounds = 3 if toy else options["rounds"]
    total = int(train.mask.sum())
    largest_unit = int(max(np.bincount(row[row >= 0]).max(initial=1) for row in np.asarray(train.unit)))
    mechanism, _ = federated.calibrate(
        epsilon=3.0, delta=DELTA, rounds=rounds, senders=count, dimension=size, unit=unit, clip_norm=1.0,
        largest_site=int(train.mask.sum(axis=1).max()),
    )  # fmt: skip
    bound = mechanism.count_bound(count, size)
    summing = aggregation.aggregator(
        "round", count_bound=bound, senders=count, size=size, authenticate=False
    )  # unsigned: the opened sums are the same

    def make(insiders: Insiders | None) -> federated.Algorithm:
        return federated.fedsgd(
            model, features=features[0] if len(features) == 1 else features, records=total, sampling_rate=1.0,
            mechanism=mechanism, aggregator=summing, server_optimizer=optax.sgd(options["rate"]), senders=count,
            unit=unit, largest_unit=largest_unit, average_from=rounds // 2, delta=DELTA, insiders=insiders,
        )  # fmt: skip

    most = int(held.mask.sum(axis=1).max())
    setting = Setting(
        senders=count, corrupt=1, clip_norm=1.0, classes=options.get("classes", 2), goal=0, column=options.get("column", 0),
        value=options.get("value", 4.0), count_bound=bound, half_modulus=2**30,
    )  # fmt: skip
    mask = np.asarray(test.mask)
    sizes = [int(each) for each in np.asarray(train.mask.sum(axis=1))]
    liar = int(np.argsort(sizes)[count // 2])
    line = liar_bound.in_words(
        liar_bound.site_of_records(mechanism, sizes, liar), f"site {sites.site_names[liar]!r}, one of {count},"
    )
    return Task(
        name, unit, rounds, (liar,), setting, options["attacks"], model, mechanism, make, lambda number: train, held,
        VotePlan(senders=count, records=most, noise=5.0), 1 if toy else options.get("every", 3),
        (np.asarray(test.features)[mask], np.asarray(test.labels)[mask]), line,
    )  # fmt: skip


def thyroid(arguments: Any) -> Task:
    """Thyroid records, any comment of the laboratory: 5 sites, the record is protected."""
    sites = data.load("thyroid")
    scaler = functools.partial(_bounds)
    column = sites.feature_names.index("log_TSH")
    options = {"scaler": scaler, "rounds": 12, "rate": 6.0, "attacks": TABLES, "column": column, "value": 2.0}
    return _sites("Thyroid, 5 sites", "record", sites, models.logistic(), options, arguments.toy)


def xray(arguments: Any) -> Task:
    """Synthetic chest radiographs, any disease: 6 sites, the patient is protected; a linear model of 16 x 16 pixels."""
    sites = data.load("xray", patients=20 if arguments.toy else 400, size=32, binary=True)

    def shape(images: jax.Array) -> jax.Array:
        small = images.reshape(*images.shape[:2], 16, 2, 16, 2, 1).mean(axis=(3, 5))
        return 4 * (small - 0.4)

    options = {"scaler": lambda sites: None, "shape": shape, "rounds": 12, "rate": 0.5, "attacks": IMAGES}
    return _sites("Chest phantoms, 6 sites", "patient", sites, _on_pixels(), options, arguments.toy)


def _bounds(sites: data.Sites) -> Any:
    return bounds_scaler(sites.feature_bounds, int(sites.train.sum()))


@functools.cache
def _on_pixels() -> models.Model:
    inner = models.logistic()

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0], -1)

    return models.with_loss(
        lambda key, x: inner.init(key, flat(x)), lambda p, x: inner.apply(p, flat(x)), loss="binary"
    )


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
        clip_norm=clip, coordinate_bound=mechanism.bounds.coordinate_bound, scale=scale,
        noise_variance=variance / 5, noise_senders=5, honest_noise=2,
    )  # fmt: skip


def _clients(
    name: str, model: models.Model, client: Any, arrays: Any, mechanism: Mechanism, senders: int, corrupt: Sequence[int],
    rounds: int, attacks: Sequence[str], cohort: Callable[[int], Any], held: Records, plan: VotePlan, every: int,
    test: Any, rate: float, start: Any = None, **facts: Any,
) -> Task:  # fmt: skip
    """Many clients, some corrupt."""
    population = federated.make_population(*arrays)
    first = model.init(jax.random.key(0), jnp.asarray(arrays[0][0, :1])) if start is None else start
    size = sum(leaf.size for leaf in jax.tree.leaves(first))
    bound = mechanism.count_bound(senders, size)
    if start is not None:
        model = model._replace(init=lambda key, x: start)
    in_round = round(len(corrupt) * senders / population.size) or 1
    one = Examples(*(jnp.asarray(np.asarray(each[corrupt[0]])) for each in arrays))
    old, _ = run_client(client(model), first, (), (), one, randomness.stream())
    setting = Setting(
        senders=senders, corrupt=min(in_round, len(corrupt)), clip_norm=mechanism.bounds.clip_norm or 1.0, old_update=old,
        count_bound=bound, half_modulus=2**30, **facts,
    )  # fmt: skip

    def make(insiders: Insiders | None) -> federated.Algorithm:
        return federated.fedavg(
            model, client=client, population=population, senders=senders, server_optimizer=optax.sgd(rate),
            mechanism=mechanism, delta=DELTA, insiders=insiders, fidelity="messages",
        )  # fmt: skip

    clean = _clean(mechanism, senders, size)

    def norm(insiders: Insiders | None) -> federated.Algorithm:
        return federated.fedavg(
            model, client=client, population=population, senders=senders, server_optimizer=optax.sgd(rate),
            mechanism=clean, delta=DELTA, insiders=insiders, minimum_senders=senders // 2, fidelity="messages",
        )  # fmt: skip

    line = liar_bound.in_words(liar_bound.light_round(mechanism, senders, size), f"one client of {senders}")
    clients = Clients(
        client,
        population,
        norm,
        dataclasses.replace(setting, count_bound=clean.count_bound(senders, size)),
        liar_bound.in_words(liar_bound.norm_round(senders), f"one client of {senders}"),
    )
    return Task(
        name, "client", rounds, tuple(corrupt), setting, attacks, model, mechanism, make, cohort, held, plan, every, test,
        line, clients,
    )  # fmt: skip


def _held_of(x: np.ndarray, y: np.ndarray) -> Records:
    """Records that voting clients hold back."""
    unit = np.broadcast_to(np.arange(y.shape[1], dtype=np.int32), y.shape)
    return Records(jnp.asarray(x), jnp.asarray(y), jnp.ones(y.shape, bool), jnp.asarray(unit))


def _workload(name: str, arguments: Any, noise: float, share: float) -> Task:
    config, x, y, x_test, y_test = workloads.make(name)
    model = models.cnn() if name == "W2" else models.mlp((64, 32))
    rounds, senders = config.rounds, config.cohort
    if arguments.toy:
        rounds, senders = 2, 10
        config = dataclasses.replace(config, cohort=10, rounds=2)
    kept = config.per_client * 4 // 5  # the last fifth of the first clients' records is held back
    table = workloads.cohorts(config)
    corrupt = np.arange(0, config.clients, 10)  # one client of ten
    mechanism = _embedding(noise, senders, config.clip or 1.0, share)
    held = _held_of(x[:senders, kept:], y[:senders, kept:])
    plan = VotePlan(
        senders=senders, records=config.per_client - kept, noise=max(2.0, senders / 100), unit="client", cut=1.0
    )
    client = federated.local_sgd(config.local_lr, batch_size=config.batch)
    facts = {"classes": 10} if name == "W2" else {}
    return _clients(
        f"{name}, {senders} of {config.clients} clients", model, client, (x[:, :kept], y[:, :kept]), mechanism, senders,
        corrupt.tolist(), rounds, IMAGES if name == "W2" else TABLES, lambda number: table[number], held, plan,
        max(1, rounds // 5), (x_test, y_test), 1.0, **facts,
    )  # fmt: skip


def w2(arguments: Any) -> Task:
    """Images, 50 clients a round. Nobody's idea of privacy: with 421,642 weights and 50 clients the noise must be tiny for anything to be learned."""
    return _workload("W2", arguments, 0.02, 0.1)


def w3(arguments: Any) -> Task:
    """Tables, 2,000 clients a round."""
    return _workload("W3", arguments, 1.0, 0.25)


def eicu(arguments: Any) -> Task | None:
    """Mortality in 186 hospitals; the hospital is protected."""
    if arguments.eicu is None or not Path(arguments.eicu).exists():
        print(
            f"skipped: eICU is not here ({arguments.eicu or 'no --eicu given'}); it may not be shipped with the package"
        )
        return None
    sites = data.from_eicu(arguments.eicu, min_site_records=2, sites_per_patient=2)
    scaler = bounds_scaler(sites.feature_bounds, 1.0)
    train, test = (federated.records_of(sites, split, scaler) for split in (True, False))
    train, held = _apart(train)
    clients, size = train.mask.shape[0], train.features.shape[2] + 1
    recipe = federated.client_recipe(clients=clients, features=size - 1, epsilon=8.0, delta=1e-3)
    rounds = 2 if arguments.toy else recipe.rounds
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
    return _clients(
        f"eICU, {clients} hospitals", models.logistic(),
        federated.local_sgd(recipe.learning_rate, epochs=recipe.epochs),
        tuple(np.asarray(each) for each in (train.features, train.labels, train.mask)), mechanism, clients,
        list(range(0, clients, 20)), rounds, TABLES, lambda number: np.arange(clients), held, plan, max(1, rounds // 3),
        (np.asarray(test.features)[mask], np.asarray(test.labels)[mask]), 1.0, value=2.0,
    )  # fmt: skip


TASKS: dict[str, Callable[[Any], Task | None]] = {"thyroid": thyroid, "xray": xray, "w2": w2, "w3": w3, "eicu": eicu}


# ---- defences -------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a defence left of a training."""

    params: Any
    rounds: int
    refused: str | None
    epsilon: float | None
    bytes_up: int
    excluded_right: float | None
    excluded_wrong: float | None
    detection_auc: float | None


class Defence(NamedTuple):
    """A way to train; `run(task, attack's insiders)`. Clear ones are not private."""

    words: str
    private: bool
    run: Callable[[Task, Insiders | None], Outcome]


def encrypted(vote: bool, norm: bool, task: Task, insiders: Insiders | None) -> Outcome:
    """Private, encrypted rounds, light or norm, with or without votes."""
    algorithm = task.make(insiders)
    if norm:
        assert task.clients is not None
        algorithm = task.clients.norm(insiders)
    out = {"right": [], "wrong": []}
    if vote:
        honest = task.setting.senders - 1  # of voters, who bring their own noise
        algorithm = with_vote(algorithm, task.model, task.held, task.plan, every=task.every, honest_senders=honest)
    root, state = randomness.stream(), algorithm.init(jax.random.key(0))
    done, refused, sent = 0, None, 0
    for number in range(1, task.rounds + 1):
        try:
            state, info = algorithm.apply(state, task.cohort(number), root)
        except (aggregation.RoundRefused, ValueError) as error:
            if "count_bound" not in str(error):
                raise
            refused = str(error).split(".")[0]
            break
        done, inner = number, getattr(info, "round", info)
        sent += inner.sum.bytes_up_per_sender
        if norm:
            ids = np.asarray(task.cohort(number))
            gone, bad = np.isin(ids, inner.refused), np.isin(ids, task.corrupt if insiders is not None else ())
            out["wrong"].append(gone[~bad].mean())
            if bad.any():
                out["right"].append(gone[bad].mean())
        if vote and info.vote is not None:
            sent += info.vote.sum.bytes_up_per_sender
    right = wrong = None
    if vote and int(state.votes):
        share = int(state.rollbacks) / int(state.votes)
        right, wrong = (None, share) if insiders is None else (share, None)
    if norm:
        right, wrong = (float(np.mean(out[key])) if out[key] else None for key in ("right", "wrong"))
    assert algorithm.ledger is not None
    return Outcome(algorithm.parameters(state), done, refused, algorithm.ledger.epsilon(), sent, right, wrong, None)


def in_the_clear(rule: str, task: Task, insiders: Insiders | None) -> Outcome:
    """Every update read in the clear and given to a robust rule: no clip at the client, no noise, no encryption."""
    assert task.clients is not None
    loose = 100 * (task.mechanism.bounds.clip_norm or 1.0)  # no honest update is clipped
    wide = poisson_embedding(clip_norm=loose, coordinate_bound=loose, dark_count=50.0, modulation=0.05)
    step = np.float32(wide.bounds.grid_step or 1.0)
    bare = wide._replace(embed=lambda stream, grid: grid, estimate=lambda total, n: total.astype(jnp.float32) * step)
    population, model = task.clients.population, task.model
    first = model.init(jax.random.key(0), jnp.asarray(population.host.x[:1, 0]))
    size, root = sum(leaf.size for leaf in jax.tree.leaves(first)), randomness.stream()
    corrupt = None if insiders is None else insider_numbers(insiders, population.size, population.host)
    programs = cohort_sum(task.clients.client(model), first, "counts", clients=task.setting.senders)
    counts_of = jax.jit(programs.counts)
    numbers = Numbers(None, functions_of(bare, size), insiders=corrupt)
    params, found = first, {"right": [], "wrong": [], "auc": []}
    for number in range(1, task.rounds + 1):
        ids = task.cohort(number)
        cohort = federated.make_cohort(population, ids)._replace(numbers=())
        counts, _, _ = counts_of(params, (), (), cohort, randomness.fold_in(root, number), numbers)
        updates = counts.astype(jnp.float32) * step
        bad = np.isin(ids, task.corrupt) if insiders is not None else np.zeros(len(ids), bool)
        chosen = robust_rules.RULES[rule].apply(updates, max(1, int(bad.sum())), task.setting.clip_norm)
        params = jax.tree.map(jnp.add, params, trees.layout(params).unflatten(chosen))
        if bad.any() and not bad.all():
            away = np.asarray(jnp.linalg.norm(updates - chosen, axis=1))
            found["auc"].append(evaluation.auc(bad, away))
        if "krum" in rule:
            keep = 1 if rule == "krum" else len(ids) - max(1, int(bad.sum()))
            out = np.ones(len(ids), bool)
            out[np.argsort(np.asarray(robust_rules.krum_scores(updates, max(1, int(bad.sum())))))[:keep]] = False
            found["wrong"].append(out[~bad].mean())
            if bad.any():
                found["right"].append(out[bad].mean())
    right, wrong, area = (float(np.mean(each)) if each else None for each in found.values())
    return Outcome(params, task.rounds, None, None, 4 * size * task.rounds, right, wrong, area)


DEFENCES: dict[str, Defence] = {
    "light": Defence("none: private, encrypted light rounds", True, functools.partial(encrypted, False, False)),
    "vote": Defence("light rounds and a validation vote", True, functools.partial(encrypted, True, False)),
    "norm": Defence("norm rounds: clean counts, proved short", True, functools.partial(encrypted, False, True)),
    "norm_vote": Defence("norm rounds and a validation vote", True, functools.partial(encrypted, True, True)),
    **{
        name: Defence(f"{rule.words}; {robust_rules.IN_THE_CLEAR}", False, functools.partial(in_the_clear, name))
        for name, rule in robust_rules.RULES.items()
    },
}
"""By name: another is a function of a task and its insiders, and a line here."""


# ---- measuring ------------------------------------------------------------------------------------------------------


def _logits(task: Task, params: Any, x: np.ndarray) -> np.ndarray:
    parts = [np.asarray(task.model.apply(params, jnp.asarray(part))) for part in np.array_split(x, -(-len(x) // 500))]
    return np.nan_to_num(np.concatenate(parts))


def measure(task: Task, name: str, defence: str) -> dict[str, Any]:
    """One training under one attack and one defence."""
    facts: dict[str, Any] = {"task": task.name, "unit": task.unit, "attack": name, "defence": defence}
    facts |= {"defence_words": DEFENCES[defence].words, "private": DEFENCES[defence].private}
    facts |= {"corrupt": task.setting.corrupt, "senders": task.setting.senders, "planned_rounds": task.rounds}
    began, insiders = time.perf_counter(), None
    if name != NONE:
        try:
            setting = task.clients.norm_setting if "norm" in defence and task.clients else task.setting
            insiders = Insiders(who=task.corrupt, attack=attack(name, setting))
        except ValueError as error:
            return facts | {"not_applicable": str(error)}
    out = DEFENCES[defence].run(task, insiders)
    x, y = task.test
    logits = _logits(task, out.params, x)
    decided = evaluation.decide(logits)
    success = None
    if name != NONE and (trigger := ATTACKS[name].trigger) is not None:
        others = y != task.setting.goal
        triggered = np.asarray(trigger(task.setting, jnp.asarray(x[others])))
        success = float(np.mean(evaluation.decide(_logits(task, out.params, triggered)) == task.setting.goal))
    return facts | {
        "accuracy": float(np.mean(decided == y)),
        "balanced_accuracy": evaluation.balanced_accuracy(y, decided),
        "auc": evaluation.auc(y, logits if logits.ndim == 1 else evaluation.probabilities(logits)),
        "attack_success": success,
        "rounds": out.rounds,
        "refused": out.refused,
        "excluded_right": out.excluded_right,
        "excluded_wrong": out.excluded_wrong,
        "detection_auc": out.detection_auc,
        "epsilon": out.epsilon,
        "bytes_up_per_sender": out.bytes_up,
        "seconds": time.perf_counter() - began,
    }


def say(row: dict[str, Any]) -> None:
    """Print one line."""
    where = f"{row['task']}  {row['attack']:24s} {row['defence']:16s}"
    if "not_applicable" in row:
        print(f"{where} not applicable: {row['not_applicable']}", flush=True)
        return
    found = f"accuracy {row['accuracy']:.3f} AUC {row['auc'] or float('nan'):.3f}"
    more = "" if row["attack_success"] is None else f"  backdoor {row['attack_success']:.2f}"
    more += "" if row["refused"] is None else f"  stopped after {row['rounds']} rounds"
    print(f"{where} {found}{more}  {row['seconds']:.0f} s", flush=True)


# ---- the figure -----------------------------------------------------------------------------------------------------

SHOWN = {
    "light": ("encrypted, no defence", PUBLISHED, "o"),
    "vote": ("encrypted, with vote", PRIVATE, "D"),
    "norm": ("encrypted, with norm proof", EPSILON, "s"),
    "norm_vote": ("encrypted, with norm proof and vote", EPSILON, "^"),
    "multi_krum": ("multi-Krum (every update in the clear)", PLAIN, "x"),
    "trimmed_mean": ("trimmed mean (every update in the clear)", PUBLISHED_LIGHT, "+"),
}


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """One panel a task: how well the model decides after each attack, one mark a defence; and how often a backdoor works."""
    names = list(dict.fromkeys(row["task"] for row in rows))
    attacks = {name: [a for a in dict.fromkeys(r["attack"] for r in _of(rows, name)) if a != NONE] for name in names}
    figure, axes = grid(1.6 + 0.27 * max(map(len, attacks.values())) * len(names), len(names), 2)
    for i, name in enumerate(names):
        left, right = axes[2 * i], axes[2 * i + 1]
        _panel(left, _of(rows, name), attacks[name], "auc")
        backdoors = [each for each in attacks[name] if ATTACKS[each].targeted]
        _panel(right, _of(rows, name), backdoors, "attack_success", slots=len(attacks[name]))
        title(left, name, pad=8)
        left.set_xlabel("AUC (50 %: no better than a coin)")
        right.set_xlabel("records with the attacker's mark decided as it wants")
    handles = [
        axes[0].plot([], [], mark, color=colour, markersize=7, markeredgewidth=1.8, linestyle="none", label=label)[0]
        for key, (label, colour, mark) in SHOWN.items()
        if any(row["defence"] == key for row in rows)
    ]
    handles.append(
        axes[0].plot([], [], color=PLAIN, linestyle="--", linewidth=1.2, label="nobody is corrupt (encrypted)")[0]
    )
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False, fontsize=9.5)
    figure.savefig(path)


def _of(rows: list[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["task"] == task]


def _panel(axes: Any, rows: list[dict[str, Any]], attacks: list[str], score: str, slots: int = 0) -> None:
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x", color="#E6E6E6", linewidth=0.8)
    for place, name in enumerate(attacks):
        axes.axhline(place, color="#F0F0F0", linewidth=0.8, zorder=0)
        for j, (key, (_, colour, mark)) in enumerate(SHOWN.items()):
            for row in rows:
                if (row["attack"], row["defence"]) == (name, key) and row.get(score) is not None:
                    axes.plot(
                        row[score], place + 0.1 * (j - 2.5), mark, color=colour, markersize=6, markeredgewidth=1.6
                    )
                    if row["refused"] is not None and key == "light":
                        axes.annotate("stopped", (row[score], place), (6, -3), textcoords="offset points", fontsize=8.5)
    for row in rows:
        if (row["attack"], row["defence"]) == (NONE, "light") and row.get(score) is not None:
            axes.axvline(row[score], color=PLAIN, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(attacks)), [name.replace("_", " ") for name in attacks])
    axes.set_ylim(max(len(attacks), slots, 1) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    percent(axes.xaxis)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["thyroid"])
    options.add_argument("--attacks", nargs="+", choices=list(ATTACKS), help="default: all that fit the task")
    options.add_argument("--defences", nargs="+", choices=list(DEFENCES), help="default: all that fit the task")
    options.add_argument("--eicu", help="one CSV that joins the demo's APACHE tables, or its folder")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        for key in arguments.tasks:
            task = TASKS[key](arguments)
            if task is None:
                continue
            print(f"{task.name}: {task.bound}\n{planned(task.plan, delta=DELTA)}", flush=True)
            attacks = [name for name in arguments.attacks or task.attacks if name in task.attacks]
            if arguments.toy and not arguments.attacks:
                attacks = attacks[:: max(1, len(attacks) // 3)]
            chosen = arguments.defences or list(DEFENCES)
            rows = []
            at_sites = (
                "light",
                "vote",
            )  # a site's honest sum reaches its cap: there is no norm to prove, and no single update to read
            for defence in [each for each in chosen if each in at_sites or task.clients is not None]:
                for name in [NONE, *attacks]:
                    rows.append(measure(task, name, defence))
                    say(rows[-1])
            facts = {
                "bound": task.bound,
                "norm_bound": task.clients.norm_bound if task.clients else None,
                "vote": planned(task.plan, delta=DELTA),
                "delta": DELTA,
                "rows": rows,
            }
            save(f"insiders_{key}", arguments, facts)
    found = [key for key in TASKS if (arguments.out / "results" / f"insiders_{key}.json").exists()]
    rows = [row for key in found for row in load(f"insiders_{key}", arguments)["rows"]]
    if rows:
        draw(arguments.out / "figures" / "insiders.png", rows)


if __name__ == "__main__":
    main()
