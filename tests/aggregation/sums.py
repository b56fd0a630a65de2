"""Sums of many simulated clients, as programs that simulate cohorts make them, and of a few, row by row."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import bare
from fedjax_poisson.aggregation.bare import DeviceFunctions, RoundSum
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import RoundParameters, choose, default_malicious, least_threshold
from fedjax_poisson.aggregation.rows import Secrets
from fedjax_poisson.randomness import Stream, fold_in, stream

CHUNK = 8
DIGEST = bytes(range(32))
FOLD = jax.jit(fold_in)


class Sums(NamedTuple):
    """One set of parameters with its programs.

    Attributes:
      params: of the rounds.
      bound: on |any coordinate of the sum|.
      use: the functions that simulate them.
      program: `(key, counts, root, clients, lost) -> RoundSum`.
    """

    params: RoundParameters
    bound: int
    use: DeviceFunctions
    program: Callable[..., RoundSum]

    def total(self, counts: np.ndarray, clients: int, lost: int = 0) -> RoundSum:
        """The sum of clients whose counts add up to these; every client whose number is a multiple of `lost` drew, and was lost."""
        numbers = (jnp.uint32(clients), jnp.uint32(lost))
        return self.program(self.use.key, jnp.asarray(counts, jnp.int32), stream(), *numbers)

    def one_by_one(self, counts: np.ndarray) -> RoundSum:
        """The sum of these clients' rows and shares, each encrypted by itself: int [clients, D]."""
        root = stream()
        made = (bare.encrypt_one(self.use, row, FOLD(root, jnp.uint32(i))) for i, row in enumerate(counts))
        return functools.reduce(functools.partial(bare.add_two, self.use), made)

    def opened(self, total: RoundSum) -> np.ndarray:
        """The exact counts, with every check."""
        return bare.open_one(self.use, total, Expected(int(total.senders), 0, self.bound))


@functools.cache
def sums(size: int, senders: int, bound: int, members: int = 5) -> Sums:
    """Programs for these rounds."""
    threshold = least_threshold(members, default_malicious(members))
    return with_parameters(choose(size, bound, senders, members, threshold), bound)


def with_parameters(params: RoundParameters, bound: int) -> Sums:
    """Programs for rounds with any parameters."""
    use = bare.device_functions(params, DIGEST, Expected(params.ring.senders, 0, bound))

    @jax.jit
    def program(key: bare.RoundKey, counts: jax.Array, root: Stream, clients: jax.Array, lost: jax.Array) -> RoundSum:
        def chunk(i: jax.Array, carry: tuple[Secrets, jax.Array]) -> tuple[Secrets, jax.Array]:
            numbers = i * jnp.uint32(CHUNK) + jnp.arange(CHUNK, dtype=jnp.uint32)
            away = (lost > jnp.uint32(0)) & (numbers % jnp.maximum(lost, jnp.uint32(1)) == jnp.uint32(0))
            present = (numbers < clients) & ~away
            streams = jax.vmap(lambda number: fold_in(root, number))(numbers)
            return use.add_up(carry[0], streams, present), carry[1] + jnp.sum(present, dtype=jnp.uint32)

        chunks = (clients + jnp.uint32(CHUNK - 1)) // jnp.uint32(CHUNK)
        drawn, senders = jax.lax.fori_loop(jnp.uint32(0), chunks, chunk, (use.none(), jnp.uint32(0)))
        return use.close(key, counts, drawn, senders, fold_in(root, "shares"))

    return Sums(params, bound, use, program)


def ends(params: RoundParameters, bound: int) -> dict[str, np.ndarray]:
    """Vectors of sums at the ends of the range, int64 [D]: every way in which neighbours, fields and rows can borrow from each other."""
    index = np.arange(params.size)
    field = index // (params.ring.degree * params.rows)
    signs = {
        "all at the top": np.ones(params.size),
        "all at the bottom": -np.ones(params.size),
        "neighbours of opposite signs": np.where(index % 2, 1, -1),
        "fields of opposite signs": np.where(field % 2, 1, -1),
        "random signs": np.random.default_rng(params.size).choice([-1, 1], params.size),
        "one value only": index == params.size - 1,
        "random": np.random.default_rng(1).uniform(-1, 1, params.size),
    }
    return {name: np.rint(sign * bound).astype(np.int64) for name, sign in signs.items()}


def shared_out(total: np.ndarray, clients: int) -> np.ndarray:
    """int64 [clients, D] that add up to a total, each as near to an equal part of it as integers are."""
    part, rest = np.divmod(np.abs(total), clients)
    extra = np.arange(clients)[:, None] < rest[None]
    return np.sign(total)[None] * (part[None] + extra)
