"""The sum of ciphertexts that clients make each by itself, inside a compiled program: what a deployment does, for measuring and comparing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson.ckks import encryption
from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.randomness import Stream


def add_each(params: Any, key: Any, total: Ciphertext, sent: Array, streams: Stream, present: Array) -> Ciphertext:
    """The ciphertexts of a chunk's clients, each made by itself and added."""

    def one(total: Ciphertext, xs: tuple[Array, Stream, Array]) -> tuple[Ciphertext, None]:
        counts, stream, here = xs
        added = encryption.add(params, total, encryption.encrypt(params, key, counts, stream))
        return jax.tree.map(lambda new, old: jnp.where(here, new, old), added, total), None

    return jax.lax.scan(one, total, (sent, streams, present))[0]
