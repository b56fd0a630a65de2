"""How message and mask polynomials are laid out and transformed on a device: the inner part of every encryption.

A CPU and a GPU want different memory layouts and different amounts of fusion. A `DeviceLayout` says which; the bits do not depend on it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_poisson.ckks import modular, ntt, packing, rlwe_samplers
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.platforms import by_platform

__all__ = ["ACCELERATOR_PLAN", "CPU_PLAN", "CPU_SEEDED_PLAN", "DeviceLayout", "transformed"]


class DeviceLayout(NamedTuple):
    """How the encryption is laid out on a device. Speed only: every plan gives the same bits.

    Attributes:
        columns: Rows side by side behind the coefficient axis ([L, N, R]; long runs in every stage) rather than before it ([R, L, N]).
        radix: Butterfly stages fused into one pass over the data; `ntt.ROLLED` for a loop over them.
        join: Transform the polynomials of a block together rather than one after the other.
        row_block: Loop over blocks of at most this many rows, so that a block stays in cache; 0 for all at once.
        whole: Residues of one polynomial (rows, primes and coefficients) up to which there are no blocks: cutting and joining them costs more then.
        limb_loops: Loop over the primes before and after the transform (columns only). A loop's results are kept in memory, where XLA for CPUs would compute
            them again for each of their uses.
    """

    columns: bool = True
    radix: int = 1
    join: bool = False
    row_block: int = 0
    whole: int = 0
    limb_loops: bool = False


# Measured: three polynomials are transformed fastest together and without the loops, one alone (seeded encryption) with them.
CPU_PLAN = DeviceLayout(join=True, row_block=16)
CPU_SEEDED_PLAN = DeviceLayout(limb_loops=True, row_block=16, whole=1 << 21)
ACCELERATOR_PLAN = DeviceLayout(columns=False, radix=ntt.ROLLED, join=True)


def transformed(
    params: CkksParameters, plan: DeviceLayout | None, words: jax.Array, small: jax.Array, *, carrier: int
) -> tuple[jax.Array, ...]:
    """The NTT forms of small polynomials, one of which carries the message.

    Args:
        params: Parameters with packing.
        plan: How, or None for the plan of the device the program is lowered for.
        words: Packed counts uint32 [W, N, R].
        small: Signed polynomials int32 [S, N, R].
        carrier: Index of the polynomial to which the message is added.

    Returns:
        S arrays uint32 [R, L, N] in [0, q).
    """
    words, small = jax.lax.optimization_barrier((words, small))
    run = functools.partial(_by_blocks, params, carrier)
    if plan is not None:
        return run(plan, words, small)
    cpu_plan = CPU_SEEDED_PLAN if len(small) == 1 else CPU_PLAN
    cpu, default = functools.partial(run, cpu_plan), functools.partial(run, ACCELERATOR_PLAN)
    return by_platform(words, small, cpu=cpu, default=default)


def _by_blocks(
    params: CkksParameters, carrier: int, plan: DeviceLayout, words: jax.Array, small: jax.Array
) -> tuple[jax.Array, ...]:
    rows = words.shape[-1]
    blocks = -(-rows // (plan.row_block or rows))
    if blocks == 1 or rows * params.limbs * params.degree <= plan.whole:
        return _block(params, carrier, plan, words, small)
    block = -(-rows // blocks)

    def split(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, [(0, 0), (0, 0), (0, blocks * block - rows)])
        return jnp.moveaxis(padded.reshape(*x.shape[:-1], blocks, block), -2, 0)

    results = jax.lax.map(lambda xs: _block(params, carrier, plan, *xs), (split(words), split(small)))
    return tuple(result.reshape(blocks * block, *result.shape[2:])[:rows] for result in results)


def _block(
    params: CkksParameters, carrier: int, plan: DeviceLayout, words: jax.Array, small: jax.Array
) -> tuple[jax.Array, ...]:
    """One block: words [W, N, B], small [S, N, B] to S arrays [B, L, N]."""
    limbs = (ntt.tables(params.degree, params.moduli), packing.word_combination(params))
    capacity, axis = ntt.capacity(params.moduli), -1 if plan.columns else 0
    if not plan.columns:
        words, small = (jnp.swapaxes(x, -1, -2)[..., None] for x in (words, small))  # [.., B, N, 1]

    def prepare(limbs: tuple[ntt.NttTables, rlwe_samplers.Combination]) -> list[jax.Array]:
        table, weights = limbs
        q = jnp.asarray(table.q)[..., None]
        polynomials = [modular.from_signed(polynomial[..., None, :, :], q) for polynomial in small]
        message = rlwe_samplers.combine(words, weights, table, capacity)
        polynomials[carrier] = modular.add(message, polynomials[carrier], q)
        return polynomials

    def one_limb(limb: tuple[ntt.NttTables, rlwe_samplers.Combination]) -> list[jax.Array]:
        return [polynomial[0] for polynomial in prepare(jax.tree.map(lambda leaf: leaf[None], limb))]

    polynomials = jax.lax.map(one_limb, jax.tree.map(jnp.asarray, limbs)) if plan.limb_loops else prepare(limbs)
    if plan.join:
        polynomials = [jnp.concatenate(polynomials, axis=axis)]
    values = [ntt.forward_columns(x, limbs[0], capacity, radix=plan.radix) for x in polynomials]
    if plan.join:
        values = jnp.split(values[0], len(small), axis=axis)
    if plan.limb_loops:
        return tuple(jnp.swapaxes(jax.lax.map(jnp.transpose, x), 0, 1) for x in values)
    return tuple(jnp.moveaxis(x, -1, 0) if plan.columns else x[..., 0] for x in values)
