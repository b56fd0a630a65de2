"""The noise senders' part of a round in a simulation: their vectors, drawn once, with secrets of their own where every sender has its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson.aggregation.bare import DeviceFunctions
from fedjax_poisson.federated.each_ciphertext import add_each
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.randomness import Stream, fold_in

Tree = Any


def with_noise(
    device: DeviceFunctions | None, carry: Tree, numbers: Numbers, senders: int, dimension: int, stream: Stream
) -> Tree:
    """The running sums of `cohort` with the noise senders' vectors added.

    Args:
      device: the encryption's functions; None without.
      carry: running sums of clients: "values", and "secrets" where those of each sender are added up; or "sealed", where rows are made one by one.
      numbers: the mechanism's functions with its noise, and the round's constants.
      senders: l.
      dimension: D.
      stream: the round's; each noise sender has a part of its own.
    """
    assert numbers.functions is not None and numbers.functions.noise is not None
    noise, here = numbers.functions.noise, jnp.ones(1, bool)

    def one(carry: Tree, sender: Array) -> tuple[Tree, None]:
        own, carry = fold_in(stream, "noise sender", sender), dict(carry)
        counts = noise(fold_in(own, "noise"), dimension)
        alone = jax.tree.map(lambda leaf: leaf[None], fold_in(own, "encrypt"))
        if "sealed" in carry:
            assert device is not None
            carry["sealed"] = add_each(device, numbers.key, carry["sealed"], counts[None], alone, here, noise=True)
            return carry, None
        carry["values"] = carry["values"] + counts
        if "secrets" in carry:
            assert device is not None
            carry["secrets"] = device.add_up(carry["secrets"], alone, here)
        return carry, None

    return jax.lax.scan(one, carry, jnp.arange(senders, dtype=jnp.uint32))[0]
