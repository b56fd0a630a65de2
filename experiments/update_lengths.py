"""How long honest updates of W2 are, round by round: what a clip must leave, and what an insider may send unseen.

    python experiments/update_lengths.py [--toy]

The campaign against malicious insiders (`insiders.py`, "w2_near") takes its second clip from here. Training records only, no noise and no clip; the quantiles
are over the clients of a round.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import parser, save

from fedjax_poisson import federated, models, randomness, trees
from fedjax_poisson.benchmarks import workloads
from fedjax_poisson.federated.client import Examples, run_client

QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__).parse_args(argv)
    toy = arguments.toy
    config, x, y, *_ = workloads.make("W2")
    kept = config.per_client * 4 // 5  # as in the campaign, which holds back the others for votes
    cohorts = workloads.cohorts(config)[: 2 if toy else config.rounds, : 3 if toy else config.cohort]
    model = models.cnn()
    client = federated.local_sgd(config.local_lr, batch_size=config.batch)(model)
    params: Any = model.init(jax.random.key(0), jnp.asarray(x[0, :1]))

    @jax.jit
    def update_of(params: Any, x: jax.Array, y: jax.Array, stream: randomness.Stream) -> Any:
        return run_client(client, params, (), (), Examples(x, y, jnp.ones(y.shape, bool)), stream)[0]

    rounds = []
    for number, cohort in enumerate(cohorts, 1):
        updates = [
            update_of(params, jnp.asarray(x[who, :kept]), jnp.asarray(y[who, :kept]), randomness.stream())
            for who in cohort
        ]
        lengths = [float(np.linalg.norm(np.asarray(each, np.float64))) for each in updates]
        rounds.append(dict(zip(map(str, QUANTILES), np.quantile(lengths, QUANTILES).round(3).tolist(), strict=True)))
        print(f"round {number}: " + ", ".join(f"{q}: {at:.3f}" for q, at in rounds[-1].items()), flush=True)
        step = trees.layout(params).unflatten(sum(updates) / len(updates))
        params = jax.tree.map(jnp.add, params, step)
    save("update_lengths", arguments, {"workload": "W2", "clients": int(cohorts.shape[1]), "rounds": rounds})


if __name__ == "__main__":
    main()
