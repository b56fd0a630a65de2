"""One round of ten clients with a ResNet-50 (25.6 million parameters, group normalisation, 64x64 images), every client encrypted, its time split by phase.

    python experiments/benchmarks/resnet50_round.py [--clients 10] [--images 2] [--toy]

The phases of a compiled round cannot be timed from inside, so the round is built up: local training alone, with the embedding, with encryption; the
differences are the phases. Opening and the server's step are timed by the round itself. Every stage runs in a process of its own, so that its peak memory is
its own. Prints JSON lines and writes results/resnet50_round.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent.parent
STAGES = ("training", "training and embedding", "training, embedding and encryption")


def measure(stage: str, clients: int, images: int, toy: bool, rounds: int = 2) -> dict[str, Any]:
    """Median seconds of a round after the first, in this process."""
    import jax
    import optax

    import fedjax_poisson as fp
    from fedjax_poisson import federated, models, trees
    from fedjax_poisson.randomness import fold_in

    side = 16 if toy else 64
    model = models.resnet50(2, width=8, small_images=True) if toy else models.resnet50(1000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(clients, images, side, side, 3)).astype(np.float32)
    y = rng.integers(0, 2, size=(clients, images)).astype(np.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), np.float32))
    size = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    mechanism = aggregator = None
    if stage != STAGES[0]:
        # Noise of standard deviation 1 % of the clip norm on the sum: it measures time, it protects nobody.
        dark = clients * 0.05**2 / (2 * (0.1 * 0.01) ** 2)
        mechanism = fp.poisson_embedding(clip_norm=1.0, coordinate_bound=0.05, dark_count=dark, modulation=0.1)
    if stage == STAGES[2]:
        assert mechanism is not None
        bound = mechanism.count_bound(clients, size)
        aggregator = fp.aggregator("round", count_bound=bound, senders=clients, size=size)
    population = federated.make_population(x, y)
    algorithm = fp.fedavg(
        model,
        client=fp.local_sgd(0.01),
        population=population,
        senders=clients,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        aggregator=aggregator,
        layout=federated.Chunking(chunk=1),
        fidelity="messages",  # every client's are timed
    )
    state, root = algorithm.init(jax.random.key(0)), fp.randomness.stream()
    assert trees.layout(state.server.params).size == size
    infos = []
    for number in range(rounds + 1):
        cohort = federated.cohort_blocks(
            population, np.arange(clients), clients
        )  # blocks are opened apart, and timed so
        state, info = algorithm.apply(state, cohort, fold_in(root, number))
        infos.append(info)
    seconds = {name: float(np.median([i.seconds[name] for i in infos[1:]])) for name in infos[0].seconds}
    return {
        "stage": stage,
        "parameters": size,
        "clients": clients,
        "images_per_client": images,
        **{name.replace(" ", "_") + "_s": value for name, value in seconds.items()},
        "first_round_s": sum(infos[0].seconds.values()),
        "bytes_up_per_client": infos[-1].bytes_up_per_sender,
        "exact": infos[-1].exact,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": f"{jax.devices()[0].platform}:{jax.devices()[0].device_kind}",
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--toy", action="store_true", help="a narrow network, results to standard output only")
    parser.add_argument("--stage", choices=STAGES, help="(internal) one stage in this process")
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(measure(options.stage, options.clients, options.images, options.toy)))
        return
    rows = []
    for stage in STAGES:
        command = [sys.executable, __file__, "--stage", stage, "--clients", str(options.clients)]
        command += ["--images", str(options.images)] + (["--toy"] if options.toy else [])
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(json.dumps(rows[-1]), flush=True)
    work = [row["train_and_seal_s"] for row in rows]
    split = {
        "phase_s": {
            "training": work[0],
            "embedding": work[1] - work[0],
            "encryption": work[2] - work[1],
            "opening": rows[2]["open_s"],
            "server step": rows[2]["step_s"],
        }
    }
    print(json.dumps(split), flush=True)
    if not options.toy:
        lines = [json.dumps(row) for row in (*rows, split)]
        (HERE / "results" / "resnet50_round.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
