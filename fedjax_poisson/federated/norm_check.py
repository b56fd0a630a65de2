"""The norm test of norm rounds in a simulation: T of every client's clean counts, exactly, against the bound that its proof would be held to.

In a norm round a common seed draws G = 16 functionals after the clients are fixed, and a client proves on shares that T = sum of (Z_g x_b)^2 over the
functionals g and the k blocks b of its counts is at most B^2 (`aggregation.norm_bound`). Whoever fails is left out. A simulation has the counts, so it
computes T itself: the same functionals for all clients of a round, the same blocks (value d is in block d // (R N), `ckks.packing`), the same comparison.
*Not simulated*: the proof (that a client cannot claim another T is proved elsewhere), the seed's drawing by the members (here it comes from the round's
stream), and the signs that clients turn their counts with, which cancel in the opened sum exactly.

*Exactness.* A block is a product of float32 matrices, integers throughout. Where |x|_1 < 2^24 every partial sum of Z_g x is an integer below 2^24, so nothing
is rounded, in any order. Whether |x|_1 < 2^24 is decided without error by the float32 sum of |x_j|: partial sums are exact up to 2^24, and rounding is
monotone, so a computed sum is at least the smaller of the true one and 2^24. Whoever is beyond is refused. An honest client never is: |x|_1 of a block of n
values is at most min(sqrt(n) Delta, Delta^2), and blocks in which that reaches 2^24 are added up in parts, exactly each, and then as int32 (`norm_check`).
Of others, a vector beyond has passed with at most 2^-16 (one coordinate above 2^24, seen by none of the functionals): the simulation refuses a little more,
never less. Squares are compared in limbs (`mechanisms.limbs`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS, squared_bound
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.mechanisms import limbs
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import GRID_BITS, Stream, bits, fold_in

TESTED_IN_WORDS = (
    "NORMS TESTED BY THE SIMULATION: clients send clean counts, the noise senders' vectors are added once, and T of each client is computed and compared; no "
    "proofs are made and nothing is signed. Signs cancel in the sum and are left out"
)
"""What is simulated of a norm round's screening."""

_EXACT = 1 << 24  # float32 holds every integer up to here
_LARGEST_DIGIT = 1 << GRID_BITS  # what exact squares are made of; bounds are below its square
_MOST_PARTS = 64  # of a block: sums of so many parts stay below 2^30


class NormCheck(NamedTuple):
    """What the programs of a norm round are compiled for; the bound is a number and an argument.

    Attributes:
      noise_senders: l, parties that send noise.
      blocks: k.
      length: values of a block, R N.
      parts: pieces in which a block is added up.
    """

    noise_senders: int
    blocks: int
    length: int
    parts: int

    @property
    def width(self) -> int:
        """Values of one part."""
        return -(-self.length // self.parts)


def norm_check(mechanism: Mechanism, dimension: int, params: RoundParameters | None) -> NormCheck:
    """The check of a mechanism's clean counts.

    Args:
      mechanism: with noise senders (`mechanisms.committee_noise`).
      dimension: D.
      params: of the encrypted round; None where nothing is encrypted: all counts are then one block, which lets most through.

    Raises:
      ValueError: the round is not one of these counts.
    """
    by = mechanism.noise_senders
    assert by is not None
    squared = by.squared_norm(dimension)
    blocks, length = 1, dimension
    if params is not None:
        if params.proof is None:
            raise ValueError(
                f"{mechanism.facts.name} sends clean counts, and the aggregator makes light rounds, in which nobody bounds them and nobody adds the "
                "noise: make it with norm=NormScreening(...) and noise=mechanism.noise."
            )
        low, high = (squared_bound(squared, params.members, params.threshold, f) for f in (0, params.members))
        if not low <= params.proof.squared_bound <= high or params.noise_senders != by.senders:
            raise ValueError(
                f"the aggregator's norm rounds are for a bound of {params.proof.squared_bound} and {params.noise_senders} noise senders, the "
                f"mechanism's counts for {low} to {high} and {by.senders}: make it with "
                f"NormScreening(mechanism.noise_senders.squared_norm({dimension}), {by.senders}, {by.honest})."
            )
        blocks, length = params.proof.blocks, params.rows * params.ring.degree
    if bound_of(mechanism, dimension, params) >= _LARGEST_DIGIT**2:
        raise ValueError(f"counts of norm {math.sqrt(squared):.4g} are too long for a norm round: lower scale.")
    parts = 1
    while min(math.sqrt(-(-length // parts) * squared), squared) >= _EXACT:
        parts *= 2
    if parts > _MOST_PARTS:
        raise ValueError(f"counts of norm {math.sqrt(squared):.4g} in blocks of {length} are too many to be added up.")
    return NormCheck(by.senders, blocks, length, parts)


def bound_of(mechanism: Mechanism, dimension: int, params: RoundParameters | None) -> int:
    """B^2: the round's; without one that of a committee of one member, 42.0 Delta^2."""
    if params is not None and params.proof is not None:
        return params.proof.squared_bound
    assert mechanism.noise_senders is not None
    return squared_bound(mechanism.noise_senders.squared_norm(dimension), 1, 1, 0)


def draw_functionals(check: NormCheck, stream: Stream) -> Array:
    """Z of a round, float32 `[parts, width, 16]`: weights 0, 0, +1 and -1 with equal chances; one word of the stream gives a coefficient's sixteen.

    Args:
      check: sizes.
      stream: the round's; a part of its own is folded in.
    """
    words = bits(fold_in(stream, "functionals of counts"), (check.parts, check.width, 1))
    pairs = words >> (2 * jnp.arange(FUNCTIONALS_OF_COUNTS, dtype=jnp.uint32))[None, None]
    plus, minus = pairs & jnp.uint32(1), (pairs >> jnp.uint32(1)) & jnp.uint32(1)
    return plus.astype(jnp.float32) - minus.astype(jnp.float32)


def passes(check: NormCheck, functionals: Array, bound: Array, counts: Array) -> Array:
    """Whose counts pass: bool `[C]` (module docstring).

    Args:
      check: sizes.
      functionals: `draw_functionals`.
      bound: B^2 in limbs, uint32 `[7]` (`clipping.limit_limbs`).
      counts: int32 `[C, D]`.
    """
    clients = counts.shape[0]
    padded = jnp.pad(counts, ((0, 0), (0, check.blocks * check.length - counts.shape[1])))
    padded = padded.reshape(clients * check.blocks, check.length)
    padded = jnp.pad(padded, ((0, 0), (0, check.parts * check.width - check.length)))
    values = padded.astype(jnp.float32).reshape(-1, check.parts, check.width)
    reach = jnp.sum(jnp.abs(values), axis=-1)
    each = [  # on GPUs the default precision would cut counts to ten bits
        jnp.matmul(values[:, i], functionals[i], precision=jax.lax.Precision.HIGHEST) for i in range(check.parts)
    ]
    digits = sum((one.astype(jnp.int32) for one in each[1:]), each[0].astype(jnp.int32))
    digits = jnp.clip(digits, -_LARGEST_DIGIT, _LARGEST_DIGIT)  # one such square is beyond every bound
    small = jnp.all(reach.reshape(clients, -1) < jnp.float32(_EXACT), axis=-1)

    def fits(own: Array) -> Array:
        return limbs.at_most(limbs.squared_norm(own), bound)

    return small & jax.vmap(fits)(digits.reshape(clients, -1))
