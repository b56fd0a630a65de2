"""jax-privacy: `clipping.clipped_fun` clips and sums what a client returns, `noise_addition.gaussian_privatizer` adds the noise.

    python peer_jax_privacy.py --workload W1 --microbatch 0

The client's local training, the network and its convolution are those of the plain JAX peer. `--microbatch` is clipped_fun's `microbatch_size`;
0 stands for none. Without privacy the clipping norm is infinite and no noise is added; the library still computes every norm.
"""

from __future__ import annotations

import functools
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np
from jax_privacy import clipping, noise_addition
from peer_plain_jax import accuracy, client_update

DEFAULT_MICROBATCH = {"W1": 0, "W2": 1, "W3": 50}


def main() -> None:
    options = harness.arguments(__doc__, microbatch=-1, convolution="patches")
    size = DEFAULT_MICROBATCH[options.workload] if options.microbatch < 0 else options.microbatch
    task = harness.task(options)
    config = task.config
    data = jnp.asarray(task.x), jnp.asarray(task.y)
    cohorts = list(jnp.asarray(task.cohorts, jnp.int32))
    first = jax.tree.map(jnp.asarray, task.params)
    clipped_sum = clipping.clipped_fun(
        functools.partial(client_update, config, options.convolution),
        batch_argnums=(1, 2),
        keep_batch_dim=False,
        l2_clip_norm=np.inf if config.clip is None else config.clip,
        microbatch_size=size or None,
    )
    privatizer = None
    if config.clip is not None:
        privatizer = noise_addition.gaussian_privatizer(
            stddev=config.noise * clipped_sum.sensitivity(), prng_key=jax.random.key(config.seed)
        )

    @jax.jit
    def one_round(params: Any, noise_state: Any, ids: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        change = clipped_sum(params, x[ids], y[ids])
        if privatizer is not None:
            change, noise_state = privatizer.update(change, noise_state)
        return jax.tree.map(lambda w, u: w + config.server_lr / config.cohort * u, params, change), noise_state

    def start() -> tuple[Any, Any]:
        return first, () if privatizer is None else privatizer.init(first)

    def advance(state: tuple[Any, Any], number: int) -> tuple[Any, Any]:
        return jax.block_until_ready(one_round(*state, cohorts[number], *data))

    result = harness.rounds(task, start, advance, lambda s: accuracy(config, s[0], task.x_test, task.y_test))
    variant = [f"microbatch={size}"] if size else []
    if options.convolution != "patches":
        variant.append(f"convolution={options.convolution}")
    harness.report("jax_privacy", ",".join(variant), task, result, ("jax_privacy", "jax"))


if __name__ == "__main__":
    main()
