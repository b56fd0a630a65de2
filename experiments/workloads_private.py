"""What a simulation learns on W1-W3: the same in both fidelities, and at a budget that protects every client.

    python experiments/workloads_private.py [--workloads W1 W3 W2] [--runs 10] [--toy]

Two questions, asked on the three workloads that other libraries run too (`fedjax-poisson bench simulation` times them):

* "peers": the cohorts, clip and noise of the peers. Is the accuracy after all rounds the same whether every client's message is made or the
  sum is drawn once (`fidelity`)? Answered by the difference of the two, run by run, with its interval.
* "epsilon 8": every client in every round, noise for client-level epsilon 8 at delta 1e-5 over all rounds, one client may collude. What does
  privacy cost beside the same federation without it?

A run has its own first weights and cohorts, the same for every kind; noise and keys come from the operating system. Data and settings are those of
the workload, the clip is 1 (W2 at the peers' cohorts: 4, as in the bench), nothing was tuned. Everything private is encrypted. A call continues
where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import time
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import kept, load, parser, save

from fedjax_poisson import accounting, aggregation, federated, models, randomness
from fedjax_poisson.benchmarks import simulation, workloads
from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.charging import UnaccountedWarning
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.reports.plotting import EPSILON, PLAIN, PRIVATE, grid

NAME = "workloads_private"
EPSILON_TARGET, DELTA = 8.0, 1e-5
PEERS, EVERYBODY = "peers", "epsilon 8"
OFF, RELEASE, MESSAGES = "no privacy", "release", "messages"
KINDS = (OFF, RELEASE, MESSAGES)
# All messages of W2's 500 clients are 2 billion draws: that its fidelities agree is asked at the peers' cohorts.
LEFT_OUT = {("W2", EVERYBODY, MESSAGES)}
FEWER = {("W2", EVERYBODY): 3}  # runs of several minutes each


def cases(names: list[str], runs: int) -> list[tuple[str, str, int, str]]:
    """(workload, setting, run, kind), cheap ones first."""
    found = []
    for name, setting in itertools.product(names, (PEERS, EVERYBODY)):
        for run in range(min(runs, FEWER.get((name, setting), runs))):
            found += [(name, setting, run, kind) for kind in KINDS if (name, setting, kind) not in LEFT_OUT]
    return found


def mechanism_of(config: workloads.Workload, setting: str, rounds: int) -> Any:
    """The embedding of a setting: the noise of the peers, or that of the budget."""
    noise = simulation.NOISE[config.name]
    facts = {"coordinate_bound": noise.coordinate_bound, "modulation": noise.modulation}
    if setting == PEERS:
        return poisson_embedding(
            clip_norm=noise.clip_norm, dark_count=simulation.dark_count(noise, config.cohort), **facts
        )
    dark_count = accounting.calibrate_dark_count(
        epsilon=EPSILON_TARGET,
        delta=DELTA,
        rounds=rounds,
        modulation=noise.modulation,
        honest_senders=config.cohort - 1,
        norm_ratio=1.0 / noise.coordinate_bound,
        dimension=workloads.n_params(config),
    )
    return poisson_embedding(clip_norm=1.0, dark_count=dark_count, **facts)


class Federation:
    """What does not change from run to run of one (workload, setting): data on the device and programs that are compiled once."""

    def __init__(self, name: str, setting: str, toy: bool):
        config, x, y, self.x_test, self.y_test = workloads.make(name)
        if setting == EVERYBODY:
            config = dataclasses.replace(config, cohort=200 if toy else config.clients)
        self.config, self.setting, self.rounds = config, setting, 2 if toy else config.rounds
        self.population = federated.make_population(x, y)
        self.model = models.cnn() if config.model == "cnn" else models.mlp((64, 32))
        self.mechanism = mechanism_of(config, setting, self.rounds)
        self.algorithms: dict[str, Any] = {}

    def algorithm(self, kind: str) -> Any:
        """The federated algorithm of a kind."""
        if kind not in self.algorithms:
            size, private = workloads.n_params(self.config), kind != OFF
            bound = self.mechanism.count_bound(self.config.cohort, size)
            self.algorithms[kind] = federated.fedavg(
                self.model,
                client=federated.local_sgd(self.config.local_lr, batch_size=self.config.batch),
                population=self.population,
                senders=self.config.cohort,
                server_optimizer=optax.sgd(self.config.server_lr),
                mechanism=self.mechanism if private else None,
                aggregator=aggregation.aggregator("round", count_bound=bound, senders=self.config.cohort, size=size)
                if private
                else None,
                encryption="on" if private else "off",
                fidelity=kind if private else None,  # type: ignore[arg-type]
            )
        return self.algorithms[kind]

    def row(self, run: int, kind: str) -> dict[str, Any]:
        """One run of all rounds."""
        algorithm, seeded = self.algorithm(kind), dataclasses.replace(self.config, seed=run)
        params = jax.tree.map(jnp.asarray, simulation.as_parameters(self.config.name, workloads.init_params(seeded)))
        state = algorithm.init(jax.random.key(run))
        state = state._replace(server=state.server._replace(params=params))
        cohorts, stream = workloads.cohorts(seeded), randomness.stream()
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UnaccountedWarning
            )  # the whole run's epsilon is below, and the data is made up
            for number in range(1, self.rounds + 1):
                state, _ = algorithm.apply(state, cohorts[number], stream, "unaccounted")
        found = algorithm.parameters(state)
        return {
            "workload": self.config.name,
            "setting": self.setting,
            "run": run,
            "kind": kind,
            "accuracy": simulation.accuracy(self.model, found, self.x_test, self.y_test),
            "seconds": time.perf_counter() - started,
            "cohort": self.config.cohort,
            "rounds": self.rounds,
            "epsilon": self.epsilon(algorithm) if kind != OFF else None,
            "noise_multiplier": self.noise_multiplier() if kind != OFF else None,
            "date": datetime.date.today().isoformat(),
        }

    def epsilon(self, algorithm: Any) -> float:
        """Client level, one client colluding, all rounds; every client is in every round or, at the peers' cohorts, counted as if."""
        orders = np.asarray(accounting.DEFAULT_ORDERS)
        return float(accounting.epsilon(orders, self.rounds * algorithm.rdp(orders), DELTA))

    def noise_multiplier(self) -> float:
        """Standard deviation of a coordinate of the sum over the clip."""
        return float(np.sqrt(self.mechanism.variance(self.config.cohort)) / self.mechanism.bounds.clip_norm)


def interval(values: np.ndarray) -> tuple[float, float]:
    """Mean, and half of its 95 % interval; one run has none."""
    if len(values) < 2:
        return float(values.mean()), float("nan")
    found = evaluation.interval(values)
    return found.estimate, found.high - found.estimate


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each workload and setting: accuracy by kind, and the difference of the fidelities run by run."""
    found = []
    measured = {(row["workload"], row["setting"]) for row in rows}
    for name, setting in sorted(measured, key=lambda pair: (pair[0], pair[1] != PEERS)):  # however calls were ordered
        own = [row for row in rows if (row["workload"], row["setting"]) == (name, setting)]
        by_kind = {kind: {row["run"]: row["accuracy"] for row in own if row["kind"] == kind} for kind in KINDS}
        entry: dict[str, Any] = {"workload": name, "setting": setting, "runs": max(map(len, by_kind.values()))}
        entry["epsilon"] = next((row["epsilon"] for row in own if row["kind"] != OFF), None)
        entry["noise_multiplier"] = next((row["noise_multiplier"] for row in own if row["kind"] != OFF), None)
        for kind, values in by_kind.items():
            if values:
                entry[kind], entry[f"{kind}, half interval"] = interval(np.array(list(values.values())))
        both = [by_kind[RELEASE][run] - by_kind[MESSAGES][run] for run in by_kind[RELEASE] if run in by_kind[MESSAGES]]
        if both:
            entry["release minus messages"], entry["release minus messages, half interval"] = interval(np.array(both))
        found.append(entry)
    return found


def draw(path: Any, entries: list[dict[str, Any]]) -> None:
    """Accuracy of each kind with its interval, one panel a setting."""
    settings = list(dict.fromkeys(entry["setting"] for entry in entries))
    figure, panels = grid(3.6, 1, len(settings))
    for panel, setting in zip(np.atleast_1d(panels), settings, strict=True):
        own = [entry for entry in entries if entry["setting"] == setting]
        for shift, (kind, colour) in enumerate(zip(KINDS, (PLAIN, PRIVATE, EPSILON), strict=True)):
            shown = [(i, entry) for i, entry in enumerate(own) if kind in entry]
            panel.errorbar(
                [i + 0.18 * (shift - 1) for i, _ in shown],
                [entry[kind] for _, entry in shown],
                yerr=[entry[f"{kind}, half interval"] for _, entry in shown],
                fmt="o",
                color=colour,
                capsize=4,
                label=kind,
            )
        panel.set_xticks(range(len(own)), [entry["workload"] for entry in own])
        panel.set_title("The peers' cohorts and noise" if setting == PEERS else "Every client, epsilon 8", fontsize=11)
        panel.set_ylabel("accuracy after all rounds")
        panel.margins(x=0.15)
    np.atleast_1d(panels)[0].legend(frameon=False, fontsize=9.5)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, then write the results and the figure."""
    options = parser(__doc__, runs=10)
    options.add_argument("--workloads", nargs="+", default=["W1", "W3", "W2"], choices=sorted(workloads.CONFIGS))
    asked: argparse.Namespace = options.parse_args(arguments)
    if asked.draw:
        whole = load(NAME, asked)
        draw(asked.out / "figures" / f"{NAME}.png", whole["summary"])
        return
    rows = kept(asked, NAME)
    done = {(row["workload"], row["setting"], row["run"], row["kind"]) for row in rows}
    federation: Federation | None = None
    for name, setting, run, kind in cases(asked.workloads, asked.runs):
        if (name, setting, run, kind) in done:
            continue
        if federation is None or (federation.config.name, federation.setting) != (name, setting):
            federation = Federation(name, setting, asked.toy)
        rows.append(federation.row(run, kind))
        last = rows[-1]
        print(
            f"{name} {setting} run {run} {kind}: accuracy {last['accuracy']:.4f}, {last['seconds']:.1f} s", flush=True
        )
        save(NAME, asked, {"rows": rows, "summary": summary(rows)})
    place = save(NAME, asked, {"rows": rows, "summary": summary(rows)})
    draw(place, summary(rows))


if __name__ == "__main__":
    main()
