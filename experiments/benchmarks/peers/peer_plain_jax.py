"""Plain JAX, as someone who knows it well would write the round by hand; what a library may cost is measured against this.

    python peer_plain_jax.py --workload W1 --variant chunk=20

Variants are written as `key=value` with commas between them:

* chunk: clients of one `vmap`; a `lax.scan` runs over the chunks. 1 is `lax.map`; the cohort's size is one `vmap`.
* devices: the cohort is spread over this many host devices with `shard_map` (XLA:CPU runs most of a loop on one core).
* fused: 1 runs all rounds in one call, a scan around the rounds.
* gather: `once` copies the cohort's records together before the scan, `chunk` takes a chunk's records inside it.
* convolution: `patches` (shifted slices and a matrix product) or `xla`.
* clip, noise: L2 clip of a client's update, and standard deviation of the Gaussian noise on the sum in units of it, where the workload states none (W2);
  `clip=4,noise=0.01` is what this package's own rows of W2 have.

A client's first step stands outside the loop over its steps: all clients share their weights there, so that under `vmap` its forward pass is one
product instead of one per client.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from typing import Any

import harness

Params = dict[str, Any]
DEFAULTS = {
    "chunk": "0",
    "devices": "1",
    "fused": "0",
    "gather": "chunk",
    "convolution": "patches",
    "clip": "",
    "noise": "",
}
DEFAULT_CHUNK = {"W1": 100, "W2": 1, "W3": 250}


def logits(params: Params, x: Any, convolution: str = "patches") -> Any:
    """[B, 30] to [B], or [B, 28, 28, 1] to [B, 10]."""
    import jax

    relu = jax.nn.relu
    if "c0" not in params:
        x = relu(x @ params["w0"] + params["b0"])
        return (relu(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"])[:, 0]
    for kernel, bias in (("c0", "d0"), ("c1", "d1")):
        x = pool(relu(convolve(x, params[kernel], convolution) + params[bias]))
    x = x.reshape(x.shape[0], -1)
    return relu(x @ params["w0"] + params["b0"]) @ params["w1"] + params["b1"]


def convolve(x: Any, kernel: Any, how: str) -> Any:
    """SAME convolution by XLA, or as shifted slices beside each other times a matrix (XLA's is slow inside a loop on a CPU)."""
    import jax.numpy as jnp
    from jax import lax

    if how == "xla":
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = jnp.concatenate([x[:, :, i : i + width] for i in range(3)], -1)
    rows = jnp.concatenate([rows[:, i : i + height] for i in range(3)], -1)
    return rows @ kernel.reshape(-1, kernel.shape[3])


def pool(x: Any) -> Any:
    """2x2 maximum by reshaping: the gradient of `reduce_window` is slow."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


def loss(params: Params, x: Any, y: Any, convolution: str = "patches") -> Any:
    """Mean cross entropy of a batch."""
    import jax
    import jax.numpy as jnp

    outputs = logits(params, x, convolution)
    if outputs.ndim == 1:
        return jnp.mean(jax.nn.softplus(outputs) - y * outputs)
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], 1))


def client_update(config: Any, convolution: str, params: Params, x: Any, y: Any) -> Params:
    """Weights after local training minus weights before."""
    import jax
    from jax import lax

    def step(weights: Params, batch: Any) -> tuple[Params, None]:
        slopes = jax.grad(loss)(weights, *batch, convolution)
        return jax.tree.map(lambda w, g: w - config.local_lr * g, weights, slopes), None

    x, y = (a.reshape(config.steps, config.batch, *a.shape[1:]) for a in (x, y))
    after, _ = step(params, (x[0], y[0]))
    if config.steps > 1:
        after, _ = lax.scan(step, after, (x[1:], y[1:]))
    return jax.tree.map(lambda a, b: a - b, after, params)


def clipped_sum(updates: Params, clip: float | None) -> Params:
    """Sum over the first axis of updates whose norms are at most `clip`: a product with the factors, faster than to scale and add, or only to add."""
    import jax
    import jax.numpy as jnp

    leaves = jax.tree.leaves(updates)
    factors = jnp.ones(leaves[0].shape[0])
    if clip is not None:
        squares = sum(jnp.sum(leaf * leaf, axis=range(1, leaf.ndim)) for leaf in leaves)
        factors = jnp.minimum(1.0, clip / jnp.sqrt(squares))
    return jax.tree.map(lambda leaf: jnp.tensordot(factors, leaf, 1), updates)


def build_round(config: Any, variant: dict[str, str], x: Any, y: Any) -> Any:
    """The function (params, ids, key) of one round."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    devices, chunk = int(variant["devices"]), int(variant["chunk"])

    def total(params: Params, ids: Any, x: Any, y: Any) -> Params:
        def one(x: Any, y: Any) -> Params:
            return client_update(config, variant["convolution"], params, x, y)

        def add(running: Params, chosen: Any) -> tuple[Params, None]:
            records = chosen if variant["gather"] == "once" else (x[chosen], y[chosen])
            if chunk == 1:
                updates = jax.tree.map(lambda u: u[None], one(*(a[0] for a in records)))
            else:
                updates = jax.vmap(one)(*records)
            return jax.tree.map(jnp.add, running, clipped_sum(updates, config.clip)), None

        if devices > 1:  # each device's own running sum
            params = lax.pcast(params, "clients", to="varying")
        zeros = jax.tree.map(jnp.zeros_like, params)
        chosen = (x[ids], y[ids]) if variant["gather"] == "once" else ids
        if ids.size == chunk:
            return add(zeros, chosen)[0]
        chunks = jax.tree.map(lambda a: a.reshape(-1, chunk, *a.shape[1:]), chosen)
        return lax.scan(add, zeros, chunks)[0]

    def spread(params: Params, ids: Any, x: Any, y: Any) -> Params:
        return lax.psum(total(params, ids, x, y), "clients")

    if devices > 1:
        mesh = Mesh(np.array(jax.devices()[:devices]), ("clients",))
        summed = jax.shard_map(spread, mesh=mesh, in_specs=(P(), P("clients"), P(), P()), out_specs=P())
    else:
        summed = total

    def one_round(params: Params, ids: Any, key: Any, x: Any, y: Any) -> Params:
        change = summed(params, ids, x, y)
        if config.clip is not None:
            leaves, form = jax.tree.flatten(change)
            keys = jax.random.split(key, len(leaves))
            scale = config.noise * config.clip
            noisy = [u + scale * jax.random.normal(k, u.shape) for u, k in zip(leaves, keys, strict=True)]
            change = jax.tree.unflatten(form, noisy)
        return jax.tree.map(lambda w, u: w + config.server_lr / config.cohort * u, params, change)

    return one_round


def accuracy(config: Any, params: Params, x_test: Any, y_test: Any) -> float:
    """Share of the test set that is right, with one call per 500 records."""
    import jax
    import jax.numpy as jnp

    predict = jax.jit(functools.partial(logits, convolution="xla"))
    outputs = jnp.concatenate([predict(params, x_test[i : i + 500]) for i in range(0, len(x_test), 500)])
    predicted = outputs > 0 if outputs.ndim == 1 else jnp.argmax(outputs, 1)
    return float(jnp.mean(predicted == y_test))


def run(task: harness.Task, variant: dict[str, str]) -> dict[str, Any]:
    """Time the rounds, one call each or all in one."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    config = task.config
    data = jnp.asarray(task.x), jnp.asarray(task.y)
    first = jax.tree.map(jnp.asarray, task.params)
    cohorts = jnp.asarray(task.cohorts, jnp.int32)
    keys = jax.random.split(jax.random.key(config.seed), config.rounds + 1)
    one_round = build_round(config, variant, *data)
    if variant["fused"] == "0":
        call = jax.jit(one_round)
        each = list(zip(cohorts, keys, strict=True))  # indexing an array between two rounds would cost 0.2 ms

        def advance(params: Params, number: int) -> Params:
            return jax.block_until_ready(call(params, *each[number], *data))

        return harness.rounds(task, lambda: first, advance, lambda p: accuracy(config, p, task.x_test, task.y_test))

    @jax.jit
    def everything(params: Params, cohorts: Any, keys: Any, x: Any, y: Any) -> Params:
        return lax.scan(lambda p, r: (one_round(p, *r, x, y), None), params, (cohorts, keys))[0]

    def timed() -> tuple[float, float, Params]:
        begin, processor = time.perf_counter(), time.process_time()
        params = jax.block_until_ready(everything(first, cohorts[1:], keys[1:], *data))
        return time.perf_counter() - begin, time.process_time() - processor, params

    begin = timed()[0]
    wall, busy, last = zip(*[timed() for _ in range(task.passes)], strict=True)
    reached = accuracy(config, last[-1], task.x_test, task.y_test)
    wall, busy = (list(np.asarray(seconds) / config.rounds) for seconds in (wall, busy))
    return harness.summary(wall, busy, begin - min(wall) * config.rounds, [reached])


def main() -> None:
    options = harness.arguments(__doc__, variant="")
    chosen = dict(part.split("=") for part in options.variant.split(",") if part)
    if unknown := set(chosen) - set(DEFAULTS):
        raise SystemExit(f"unknown in --variant: {', '.join(sorted(unknown))}; known are {', '.join(DEFAULTS)}")
    variant = DEFAULTS | {"chunk": str(DEFAULT_CHUNK[options.workload])} | chosen
    if variant["devices"] != "1":
        more = f" --xla_force_host_platform_device_count={variant['devices']}"
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + more
    task = harness.task(options)
    if variant["clip"]:
        own = {"clip": float(variant["clip"]), "noise": float(variant["noise"])}
        task = task._replace(config=dataclasses.replace(task.config, **own))
    name = ",".join(f"{key}={value}" for key, value in variant.items() if value != DEFAULTS[key])
    harness.report("plain_jax", name, task, run(task, variant), ("jax",))


if __name__ == "__main__":
    main()
