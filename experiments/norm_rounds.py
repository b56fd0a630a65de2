"""Norm rounds against light ones: noise that is paid, what long vectors pass the norm test, and the time of a round.

* *Noise*: variance of the noise in the sum over that of one trusted adder of Gaussian noise at the same (epsilon, delta), both by Renyi curves, for
  committees of several sizes; and of light rounds whose clients bring their own noise, for several shares of corrupt clients.
* *Detection*: shares of dishonest vectors that pass, by the simulation's own test (`federated.norm_check`), beside the chances that are stated.
* *Time*: rounds of workload W2 (50 clients, 421,642 parameters), nothing encrypted, norm against light in one process, and the norm test alone.

Run: ``python experiments/norm_rounds.py`` (five minutes on two cores). Writes results/norm_rounds.json beside this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
import warnings
from datetime import UTC, datetime
from typing import Any

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_poisson import accounting, federated, models
from fedjax_poisson.aggregation.norm_bound import dense_passes, refusal_bound, spike_passes
from fedjax_poisson.benchmarks import workloads
from fedjax_poisson.federated.charging import UnaccountedWarning
from fedjax_poisson.federated.norm_check import bound_of, draw_functionals, norm_check, passes
from fedjax_poisson.mechanisms import MECHANISMS, committee_noise, poisson_embedding
from fedjax_poisson.mechanisms.clipping import limit_limbs
from fedjax_poisson.mechanisms.dark_counts import Shape, Terms
from fedjax_poisson.randomness import ReproducibleStreamWarning, fold_in, stream

EPSILON, DELTA, ROUNDS = 3.0, 1e-5, 30
CLIENTS, SIZE, KAPPA = 50, 421_642, 0.05
COMMITTEES = ((6, 3), (6, 5), (5, 2), (20, 7), (20, 14), (10, 8))
"""Noise senders, and those of them that are counted on."""
SHIFTS = (1.0, 2.0, 2.5, 3.0, 5.0, 10.0, 30.0)


def calibrated(name: str, honest: int, noise: tuple[int, int] | None = None) -> float:
    """Variance of the sum of 50 clients at the budget."""
    participation = accounting.Participation(senders=CLIENTS, minimum_senders=CLIENTS, honest_senders=honest)
    terms = Terms(EPSILON, DELTA, participation, 1, 1, None, accounting.integer_orders(256), None, noise)
    made = MECHANISMS[name].calibrate(terms, Shape(1.0, KAPPA, KAPPA, SIZE), rounds=ROUNDS)
    return made.mechanism.variance(CLIENTS)


def noise_rows() -> list[dict[str, Any]]:
    trusted = calibrated("gaussian", CLIENTS)
    rows = [
        {
            "rounds": "norm",
            "noise_senders": senders,
            "honest_noise": honest,
            "over_trusted_gaussian": calibrated("committee_noise", CLIENTS, (senders, honest)) / trusted,
        }
        for senders, honest in COMMITTEES
    ]
    for corrupt in (0, 5, 25, 40):
        ratio = calibrated("poisson_embedding", CLIENTS - corrupt) / trusted
        rows.append({"rounds": "light", "clients": CLIENTS, "corrupt": corrupt, "over_trusted_gaussian": ratio})
    return rows


def vectors(kind: str, clients: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors float64 `[clients, size]`: dense, in an eighth of the coordinates, or in one."""
    found = np.zeros((clients, size))
    if kind == "dense":
        found = rng.normal(size=(clients, size))
    elif kind == "block":
        found[:, : size // 8] = rng.normal(size=(clients, size // 8))
    else:
        found[np.arange(clients), rng.choice(size, clients, replace=False)] = 1.0
    return found / np.linalg.norm(found, axis=1)[:, None]


def detection_rows(clients: int, size: int, drawings: int) -> list[dict[str, Any]]:
    """Of clients with long vectors, those that pass: a fresh Z each drawing, shared by the clients as in a round."""
    made = committee_noise(
        clip_norm=1.0, scale=2 * math.sqrt(size), noise_variance=1e4, noise_senders=6, honest_noise=3
    )
    squared, check, bound = (
        made.noise_senders.squared_norm(size),
        norm_check(made, size, None),
        bound_of(made, size, None),
    )
    draw, test = (jax.jit(functools.partial(each, check)) for each in (draw_functionals, passes))
    root, rng, rows = _stream(5), np.random.default_rng(5), []
    for kind in ("dense", "block", "spike"):
        for shift in SHIFTS:
            unit = vectors(kind, clients, size, rng)
            rounded = np.rint if shift > 1 else np.trunc  # an honest client is never above the bound
            counts = jnp.asarray(rounded(shift * math.sqrt(squared) * unit), jnp.int32)
            passed = sum(
                int(test(draw(fold_in(root, number)), limit_limbs(bound), counts).sum()) for number in range(drawings)
            )
            ratio = bound / squared
            stated = spike_passes(shift, ratio) if kind == "spike" else dense_passes(shift, ratio)
            rows.append(
                {
                    "vector": kind,
                    "clients": clients,
                    "size": size,
                    "length_in_delta": shift,
                    "tried": drawings * clients,
                    "passed": passed,
                    "share": passed / (drawings * clients),
                    "stated": stated if shift > 1 else 1 - refusal_bound(ratio),
                }
            )
            print(
                f"{kind:6} {shift:5.1f} Delta: {passed} of {drawings * clients} pass, stated {rows[-1]['stated']:.3g}"
            )
    return rows


def time_rows(toy: bool, repeats: int) -> dict[str, Any]:
    """Medians of whole rounds, the two kinds in turn in one process, and of the norm test of all clients alone."""
    config = workloads.find("W2")
    if toy:
        config = dataclasses.replace(config, clients=8, cohort=4, per_client=20, test=20)
    x, y, *_ = workloads.data(config)
    population = federated.make_population(x, y, np.ones(y.shape[:2], bool), on_device=True)
    size = workloads.n_params(config)
    variance = (0.01 * 4.0) ** 2  # of the sum, in both
    scale = 2 * math.sqrt(size) / 4.0
    norm = committee_noise(
        clip_norm=4.0,
        scale=scale,
        noise_variance=variance * scale**2 / 5,
        noise_senders=5,
        honest_noise=2,
        coordinate_bound=0.2,
    )
    dark = config.cohort * 0.2**2 / (2 * 0.1**2 * variance)
    light = poisson_embedding(clip_norm=4.0, coordinate_bound=0.2, dark_count=dark, modulation=0.1)
    root, ids = _stream(9), workloads.cohorts(config)
    states, algorithms, seconds = {}, {}, {"light": [], "norm": []}
    for name, mechanism in (("light", light), ("norm", norm)):
        algorithms[name] = federated.fedavg(
            models.cnn(),
            client=federated.local_sgd(config.local_lr, batch_size=config.batch),
            population=population,
            senders=config.cohort,
            server_optimizer=optax.sgd(1.0),
            mechanism=mechanism,
            encryption="off",
            fidelity="messages",  # what clients of both kinds of rounds do is compared
        )
        states[name] = algorithms[name].init(jax.random.key(0))
    for repeat in range(repeats + 1):  # the first compiles
        for name, algorithm in algorithms.items():
            began = time.perf_counter()
            state, info = algorithm.apply(states[name], ids[repeat % len(ids)], fold_in(root, name), "unaccounted")
            jax.block_until_ready(state.server.params)
            states[name] = state
            assert not info.refused
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    check, bound = norm_check(norm, size, None), limit_limbs(bound_of(norm, size, None))

    @jax.jit
    def alone(stream, rows):
        functionals = draw_functionals(check, stream)
        return jax.lax.map(lambda row: passes(check, functionals, bound, row[None])[0], rows)

    rows = jnp.asarray(np.random.default_rng(0).integers(-2, 3, (config.cohort, size)), jnp.int32)
    tests = []
    for repeat in range(6):
        began = time.perf_counter()
        jax.block_until_ready(alone(root, rows))
        tests += [time.perf_counter() - began] if repeat else []
    medians = {name: float(np.median(found)) for name, found in seconds.items()}
    print(
        f"a round: light {medians['light']:.3f} s, norm {medians['norm']:.3f} s, of it the norm test {np.median(tests):.3f} s"
    )
    return {
        "workload": "W2" if not toy else "W2, toy",
        "clients": config.cohort,
        "parameters": size,
        "light_seconds": medians["light"],
        "norm_seconds": medians["norm"],
        "norm_test_seconds": float(np.median(tests)),
        "norm_over_light": medians["norm"] / medians["light"],
        "norm_test_over_light": float(np.median(tests)) / medians["light"],
        "rounds": repeats,
    }


def _stream(seed: int):
    with warnings.catch_warnings():  # nobody is protected here
        warnings.simplefilter("ignore", ReproducibleStreamWarning)
        return stream(seed)


def main(argv: list[str] | None = None) -> None:
    parser = common.parser(__doc__)
    options: argparse.Namespace = parser.parse_args(argv)
    warnings.simplefilter("ignore", UnaccountedWarning)
    noise = noise_rows()
    for row in noise:
        print(
            " ".join(
                f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in row.items()
            )
        )
    sizes = ((40, 600, 5),) if options.toy else ((100, 600, 200), (40, 5000, 250))
    found = {
        "setting": {"epsilon": EPSILON, "delta": DELTA, "rounds": ROUNDS, "clients": CLIENTS, "parameters": SIZE},
        "noise": noise,
        "detection": [row for size in sizes for row in detection_rows(*size)],
        "time": time_rows(options.toy, 1 if options.toy else 5),
    }
    stated = {
        "toy": options.toy,
        "seeds": "5 (detection), 9 (times): nobody's data is in them",
        "machine": options.machine,
    }
    stated |= {"date": datetime.now(UTC).date().isoformat(), "commit": common.commit()}
    common.write("norm_rounds", options, found | stated)


if __name__ == "__main__":
    main()
