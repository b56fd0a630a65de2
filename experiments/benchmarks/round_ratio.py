"""Rounds of a workload here and written by hand in plain JAX, taking turns in one process: `python experiments/benchmarks/round_ratio.py --workload W1`.

On a shared machine two processes see different loads; turns of a few milliseconds see the same. Appends a row to results/round_ratio.jsonl: of each kind wall
and processor milliseconds (least, first quartile and median), and the ratios of the private, encrypted round and of the plain one to their twins by hand.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
RESULTS, MACHINE = HERE.parent / "results" / "round_ratio.jsonl", "2 cores of a shared AMD EPYC"


def by_hand(workload: str, privacy: str, chunk: int | None = None) -> Callable[[], None]:
    """One more round of the peer in plain JAX at each call, its clients in chunks of the size that suits it best (or this one)."""
    import harness
    import jax
    import jax.numpy as jnp
    import peer_plain_jax as peer

    task = harness.task(argparse.Namespace(workload=workload, privacy=privacy, passes=1))
    config, data = task.config, (jnp.asarray(task.x), jnp.asarray(task.y))
    variant = peer.DEFAULTS | {"chunk": str(chunk or peer.DEFAULT_CHUNK[workload])}
    call = jax.jit(peer.build_round(config, variant, *data))
    keys = jax.random.split(jax.random.key(config.seed), config.rounds)
    rounds = list(zip(jnp.asarray(task.cohorts, jnp.int32), keys, strict=False))
    params, number = jax.tree.map(jnp.asarray, task.params), 0

    def go() -> None:
        nonlocal params, number
        params = jax.block_until_ready(call(params, *rounds[number % config.rounds], *data))
        number += 1

    return go


def here(workload: str, fidelity: str | None, encryption: str = "on", chunk: int | None = None) -> Callable[[], None]:
    """One more round of this package at each call; private, and encrypted unless "off", with a fidelity, plain with None."""
    import jax

    from fedjax_poisson import randomness
    from fedjax_poisson.benchmarks import simulation

    private = fidelity is not None
    bench = simulation._prepare(workload, private, encryption if private else "off", fidelity, chunk, "summed", 1)
    state, number, root = bench.state, 0, randomness.stream()

    def go() -> None:
        nonlocal state, number
        state = bench.algorithm.apply(state, bench.cohorts[number % bench.config.rounds], root, "unaccounted")[0]
        jax.block_until_ready(state)
        number += 1

    return go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=["W1", "W2", "W3"], default="W1")
    parser.add_argument("--turns", type=int, default=70)
    parser.add_argument("--chunk", type=int, help="clients at once here; none for the default")
    parser.add_argument("--hand-chunk", type=int, help="clients at once by hand; none for the best one that is known")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    name = options.workload
    kinds = {
        "private by hand": by_hand(name, "as_stated", options.hand_chunk),
        "private, encrypted": here(name, "release", chunk=options.chunk),
        "plain by hand": by_hand(name, "off", options.hand_chunk),
        "plain": here(name, None, chunk=options.chunk),
    }
    for go in kinds.values():
        go(), go()
    spent: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(options.turns):
        for kind, go in kinds.items():
            for _ in range(2):
                wall, busy = time.perf_counter(), time.process_time()
                go()
                spent[kind].append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - busy)))
    found = {
        kind: {
            word: [round(float(np.quantile(values, q)), 3) for q in (0, 0.25, 0.5)]
            for word, values in zip(("wall_ms", "cpu_ms"), np.asarray(spent[kind]).T, strict=True)
        }
        for kind in kinds
    }
    ratios = {
        kind: {
            word: [round(a / b, 3) for a, b in zip(found[kind][word], found[twin][word], strict=True)]
            for word in found[kind]
        }
        for kind, twin in (("private, encrypted", "private by hand"), ("plain", "plain by hand"))
    }
    row = {
        "workload": name,
        "of_least_quarter_median": found,
        "ratios": ratios,
        "turns": options.turns,
        "chunk": options.chunk,
        "hand_chunk": options.hand_chunk,
        "load": os.getloadavg()[0],
    }
    line = json.dumps(row | {"machine": MACHINE, "date": datetime.date.today().isoformat()})
    print(line)
    with RESULTS.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    main()
