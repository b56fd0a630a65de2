"""The parts of a round that run in compiled programs lower for GPUs and TPUs, batched over clients too. Running them there is another matter."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from fedjax_poisson.aggregation import bare, rows, screening, sharing
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import choose
from fedjax_poisson.randomness import stream

PARAMS = choose(3000, 2000, 10, 5, 4, corrupt=1)


@functools.cache
def parts():
    use = bare.device_functions(PARAMS, bytes(32), Expected(10, 1, 2000))
    counts, own, words = jnp.zeros(3000, jnp.int32), stream(), jnp.zeros(8, jnp.uint32)
    total = jax.eval_shape(use.encrypt, use.key, counts, own)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), total)
    share = zeros.shares[0]
    drawn = screening.functionals(PARAMS, bytes(32))
    many = jnp.zeros((3, 3000), jnp.int32)
    return {
        "expand a": (functools.partial(rows.common, PARAMS), (words,)),
        "encrypt and deal": (use.encrypt, (use.key, counts, own)),
        "the same for several clients": (lambda k, c, s: jax.vmap(lambda x: use.encrypt(k, x, s))(c), (use.key, many, own)),
        "a share": (functools.partial(sharing.expand_share, PARAMS), (words,)),
        "project": (functools.partial(screening.project, PARAMS), (drawn.signs, drawn.uniform, share)),
        "open": (use.open, (use.key, zeros)),
    }  # fmt: skip


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
    "name", ["expand a", "encrypt and deal", "the same for several clients", "a share", "project", "open"]
)
def test_every_part_lowers(name, platform):
    function, arguments = parts()[name]
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
    assert "stablehlo" in lowered.as_text()
