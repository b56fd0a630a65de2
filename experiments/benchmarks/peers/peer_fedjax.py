"""FedJAX: `for_each_client` with its three functions of a client, as `fedjax.algorithms.fed_avg` is written.

    python peer_fedjax.py --workload W1

A client's records are a `ClientDataset`, cut into batches in their order by its `batch`; the clip is in `client_final`, the noise on the sum. The
network, its convolution and its loss are those of the plain JAX peer. The backend is FedJAX's default, `jit`: one call a step of each client. Its
`pmap` and its ready-made `fed_avg` call functions that newer JAX no longer has, and `fed_avg` has no clip.
"""

from __future__ import annotations

from typing import Any

import fedjax
import harness
import jax
import jax.numpy as jnp
from peer_plain_jax import accuracy, loss

Params = dict[str, Any]


def main() -> None:
    options = harness.arguments(__doc__)
    task = harness.task(options)
    config = task.config
    data = fedjax.InMemoryFederatedData(
        {i: {"x": x, "y": y} for i, (x, y) in enumerate(zip(task.x, task.y, strict=True))}
    )
    optimizer = fedjax.optimizers.sgd(config.local_lr)
    first = jax.tree.map(jnp.asarray, task.params)
    keys = list(jax.random.split(jax.random.key(config.seed), config.rounds + 1))

    def client_init(params: Params, _: Any) -> dict[str, Any]:
        return {"params": params, "state": optimizer.init(params)}

    def client_step(client: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        slopes = jax.grad(loss)(client["params"], batch["x"], batch["y"])
        state, params = optimizer.apply(slopes, client["state"], client["params"])
        return {"params": params, "state": state}

    def client_final(before: Params, client: dict[str, Any]) -> Params:
        change = jax.tree.map(lambda a, b: a - b, client["params"], before)
        return change if config.clip is None else fedjax.tree_util.tree_clip_by_global_norm(change, config.clip)

    @jax.jit
    def server_update(params: Params, total: Params, key: jax.Array) -> Params:
        if config.clip is not None:
            leaves, form = jax.tree.flatten(total)
            scale = config.noise * config.clip
            each = zip(leaves, jax.random.split(key, len(leaves)), strict=True)
            total = jax.tree.unflatten(form, [u + scale * jax.random.normal(k, u.shape) for u, k in each])
        return jax.tree.map(lambda w, u: w + config.server_lr / config.cohort * u, params, total)

    train = fedjax.for_each_client(client_init, client_step, client_final)

    def advance(params: Params, number: int) -> Params:
        chosen = data.get_clients(task.cohorts[number].tolist())
        clients = [(i, records.batch(batch_size=config.batch), jnp.zeros(())) for i, records in chosen]
        total = fedjax.tree_util.tree_sum(change for _, change in train(params, clients))
        return jax.block_until_ready(server_update(params, total, keys[number]))

    result = harness.rounds(
        task, lambda: first, advance, lambda params: accuracy(config, params, task.x_test, task.y_test)
    )
    harness.report("fedjax", "", task, result, ("fedjax", "jax"))


if __name__ == "__main__":
    main()
