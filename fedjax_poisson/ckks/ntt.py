"""Negacyclic number-theoretic transform over several 31-bit primes at once, in SEAL's convention.

A polynomial a(X) modulo (X^N + 1, q) with q = 1 mod 2N is stored in *NTT form* as its values at the odd powers of psi, the smallest
primitive 2N-th root of unity modulo q: natural order in, bit-reversed order out,

    forward(a)[k] = a(psi^(2 bitrev(k) + 1)),

so that products of polynomials are products of values. Cooley-Tukey butterflies forward, Gentleman-Sande backward, both with constant
factors in Shoup form (Harvey 2014, "Faster arithmetic for number-theoretic transforms"; Longa and Naehrig 2016).

Reductions are lazy and planned on the host. A butterfly (x, y) -> (x + w y, x - w y) computes w y in [0, 2q) from any uint32 y, so a stage
that starts with x < B q ends below (B + 2) q: for 28-bit primes seven stages pass before a reduction is needed. `forward` can fuse several
stages into one pass over the data (radix 2^r), or be a loop over stages (`rolled_ntt`), which an accelerator's compiler is through with in a tenth of the time.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import modular, rolled_ntt
from fedjax_poisson.platforms import by_platform

__all__ = [
    "ROLLED",
    "NttTables",
    "capacity",
    "forward",
    "forward_columns",
    "inverse",
    "inverse_columns",
    "is_prime",
    "minimal_root",
    "primes_below",
    "tables",
]


ROLLED = 0
"""The radix that means a loop over stages."""


def is_prime(n: int) -> bool:
    """Deterministic Miller-Rabin for n < 2^64 (bases of Jaeschke 1993 and Sorenson-Webster 2015)."""
    if n < 2:
        return False
    small = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    for p in small:
        if n % p == 0:
            return n == p
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for base in small:
        x = pow(base, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def primes_below(limit: int, degree: int, count: int) -> tuple[int, ...]:
    """The `count` largest primes q < limit with q = 1 mod 2 `degree`, descending; fewer if there are no more above limit / 2."""
    found: list[int] = []
    q = (limit - 2) // (2 * degree) * (2 * degree) + 1
    while len(found) < count and q > max(limit // 2, 2):
        if is_prime(q):
            found.append(q)
        q -= 2 * degree
    return tuple(found)


@functools.lru_cache(maxsize=1024)
def minimal_root(q: int, degree: int) -> int:
    """The smallest primitive 2 `degree`-th root of unity modulo the prime q (degree a power of two).

    Raises:
        ValueError: If q is not a prime that is 1 modulo 2 `degree`.
    """
    order = 2 * degree
    if not is_prime(q) or q % order != 1:
        raise ValueError(f"{q} is not a prime that is 1 modulo {order}: it has no {order}-th root; choose such a prime")
    for g in range(2, q):
        root = pow(g, (q - 1) // order, q)
        if pow(root, degree, q) == q - 1:
            break
    square = root * root % q
    best = current = root
    for _ in range(degree - 1):
        current = current * square % q
        best = min(best, current)
    return best


class NttTables(NamedTuple):
    """Constants of one (degree, moduli): host uint32 arrays.

    Attributes:
        roots: psi^bitrev(i), [L, N]; stage with m groups uses entries m .. 2m-1.
        roots_quotient: Their Shoup companions, [L, N].
        inverse_roots: psi^-bitrev(i), [L, N], same order.
        inverse_roots_quotient: Their Shoup companions, [L, N].
        degree_inverse: N^-1 mod q, [L, 1].
        degree_inverse_quotient: Its Shoup companion, [L, 1].
        q: The moduli, [L, 1].
        ratio: floor(2^32 / q), [L, 1].
    """

    roots: np.ndarray
    roots_quotient: np.ndarray
    inverse_roots: np.ndarray
    inverse_roots_quotient: np.ndarray
    degree_inverse: np.ndarray
    degree_inverse_quotient: np.ndarray
    q: np.ndarray
    ratio: np.ndarray


def _bit_reversal(n: int) -> np.ndarray:
    """The permutation of 0 .. n-1 that reverses the bits of each index."""
    bits = n.bit_length() - 1
    index = np.arange(n)
    result = np.zeros(n, np.int64)
    for b in range(bits):
        result |= ((index >> b) & 1) << (bits - 1 - b)
    return result


@functools.lru_cache(maxsize=64)
def tables(degree: int, moduli: tuple[int, ...]) -> NttTables:
    """Build (once) the tables for ring degree N and primes `moduli`.

    Raises:
        ValueError: If the degree is not a power of two of at least 2, or a modulus has no primitive 2N-th root or exceeds 31 bits.
    """
    if degree < 2 or degree & (degree - 1):
        raise ValueError(f"the ring degree must be a power of two of at least 2, not {degree}")
    q = modular.constants(moduli).q.astype(np.uint64)
    reversal = _bit_reversal(degree)

    def powers(bases: list[int]) -> np.ndarray:
        result = np.ones((len(moduli), degree), np.uint64)
        base = np.asarray(bases, np.uint64)[:, None]
        filled = 1
        while filled < degree:  # doubling: psi^(filled + i) = psi^filled psi^i
            result[:, filled : 2 * filled] = result[:, :filled] * base % q
            base, filled = base * base % q, 2 * filled
        return result[:, reversal].astype(np.uint32)

    roots = [minimal_root(p, degree) for p in moduli]
    forward_powers = powers(roots)
    inverse_powers = powers([pow(root, -1, p) for root, p in zip(roots, moduli, strict=True)])
    degree_inverse = np.asarray([pow(degree, -1, p) for p in moduli], np.uint32)[:, None]
    result = NttTables(
        forward_powers,
        modular.shoup_quotient(forward_powers, q),
        inverse_powers,
        modular.shoup_quotient(inverse_powers, q),
        degree_inverse,
        modular.shoup_quotient(degree_inverse, q),
        modular.constants(moduli).q,
        modular.constants(moduli).ratio,
    )
    for array in result:
        array.setflags(write=False)
    return result


def _stage_groups(stages: int, radix: int) -> list[int]:
    """Split `stages` into nearly equal groups of at most `radix`."""
    groups = -(-stages // radix)
    return [stages // groups + (i < stages % groups) for i in range(groups)]


def _check_shape(x: jax.Array, moduli: tuple[int, ...], limb_axis: int) -> None:
    if x.shape[limb_axis] != len(moduli):
        raise ValueError(
            f"the input has {x.shape[limb_axis]} limbs on axis {limb_axis} but {len(moduli)} moduli were given"
        )


@functools.partial(jax.jit, inline=True, static_argnames=("moduli", "radix"))
def forward(x: jax.Array, moduli: tuple[int, ...], *, radix: int | None = None) -> jax.Array:
    """Coefficients to NTT form.

    Args:
        x: Residues uint32 [..., L, N] in [0, q), natural order.
        moduli: The L primes.
        radix: How many butterfly stages are fused into one pass over the data, `ROLLED` for a loop over them, None for what suits the device that the program
            is lowered for; the result does not depend on it.

    Returns:
        uint32 [..., L, N] in [0, q), bit-reversed order.

    Raises:
        ValueError: If the shape does not fit the moduli.
    """
    _check_shape(x, moduli, -2)
    return forward_columns(x[..., None], tables(x.shape[-1], moduli), capacity(moduli), radix=radix)[..., 0]


def capacity(moduli: tuple[int, ...]) -> int:
    """Multiples of the largest modulus that fit in a uint32: how lazy sums may be."""
    return (1 << 32) // max(moduli)


def forward_columns(x: jax.Array, table: NttTables, capacity: int, *, radix: int | None = None) -> jax.Array:
    """The forward transform of B polynomials side by side: the layout in which every stage reads and writes long runs.

    Args:
        x: Residues uint32 [..., L, N, B] in [0, q); the transform runs over N.
        table: Tables of the L primes (`tables`).
        capacity: `capacity` of the moduli (static: it fixes where reductions are).
        radix: As in `forward`.

    Returns:
        uint32 [..., L, N, B] in [0, q), bit-reversed order along N.
    """
    if radix is None:
        run = functools.partial(forward_columns, table=table, capacity=capacity)
        return by_platform(x, cpu=functools.partial(run, radix=1), default=functools.partial(run, radix=ROLLED))
    if radix == ROLLED:
        return rolled_ntt.forward_stages(x, table.roots, table.roots_quotient, table.q)
    *_, limbs, degree, columns = x.shape
    lead = (1,) * (x.ndim - 3)
    shape = x.shape
    bound, stage = 1, 0
    q = jnp.asarray(table.q).reshape(*lead, limbs, 1, 1)
    ratio = jnp.asarray(table.ratio).reshape(*lead, limbs, 1, 1)
    for group in _stage_groups(degree.bit_length() - 1, radix):
        blocks, width = 1 << stage, 1 << group
        split = x.reshape(*shape[:-3], limbs, blocks, width, degree // (blocks * width) * columns)
        parts = [split[..., i, :] for i in range(width)]  # each [..., L, blocks, t B]
        for s in range(group):
            m = blocks << s
            w = jnp.asarray(table.roots[:, m : 2 * m]).reshape(*lead, limbs, blocks, 1 << s, 1)
            wq = jnp.asarray(table.roots_quotient[:, m : 2 * m]).reshape(*lead, limbs, blocks, 1 << s, 1)
            half = width >> (s + 1)
            twiddles = [(w[..., b, :], wq[..., b, :]) for b in range(1 << s)]
            parts, bound = _butterflies(parts, twiddles, q, ratio, half, bound, capacity)
        x = jnp.stack(parts, axis=-2).reshape(shape)
        stage += group
    if bound > 4:
        x, bound = modular.barrett(x, q, ratio), 2
    if bound > 2:
        x = modular.reduce_once(x, q + q)
    return modular.reduce_once(x, q)


def _butterflies(
    parts: list[jax.Array],
    twiddles: list[tuple[jax.Array, jax.Array]],
    q: jax.Array,
    ratio: jax.Array,
    half: int,
    bound: int,
    capacity: int,
) -> tuple[list[jax.Array], int]:
    """One Cooley-Tukey stage between parts i and i + half, values below bound * q; returns the parts and their new bound."""
    strict = capacity < 4  # 31-bit primes: every operand is brought below q, so that sums stay below 2q
    reduce_x = not strict and bound + 2 > capacity
    result = list(parts)
    for i in range(len(parts)):
        if i & half:
            continue
        w, wq = twiddles[i // (2 * half)]
        x, y = parts[i], modular.multiply_shoup(parts[i + half], w, wq, q)
        if strict:
            y = modular.reduce_once(y, q)
            x = modular.reduce_once(x, q) if bound == 2 else x
            result[i], result[i + half] = x + y, x + (q - y)
            continue
        if reduce_x:
            x = modular.reduce_once(x, q + q) if bound <= 4 else modular.barrett(x, q, ratio)
        result[i], result[i + half] = x + y, x + (q + q - y)
    return result, 2 if strict else (2 if reduce_x else bound) + 2


@functools.partial(jax.jit, inline=True, static_argnames=("moduli", "radix"))
def inverse(x: jax.Array, moduli: tuple[int, ...], *, radix: int | None = None) -> jax.Array:
    """NTT form back to coefficients: `inverse(forward(a)) == a`.

    Args:
        x: Residues uint32 [..., L, N] in [0, q), bit-reversed order.
        moduli: The L primes.
        radix: As in `forward`.

    Returns:
        uint32 [..., L, N] in [0, q), natural order.

    Raises:
        ValueError: If the shape does not fit the moduli.
    """
    _check_shape(x, moduli, -2)
    return inverse_columns(x[..., None], tables(x.shape[-1], moduli), radix=radix)[..., 0]


def inverse_columns(x: jax.Array, table: NttTables, *, radix: int | None = None) -> jax.Array:
    """The inverse transform of B polynomials side by side, [..., L, N, B]; see `forward_columns`."""
    if radix is None:
        run = functools.partial(inverse_columns, table=table)
        return by_platform(x, cpu=functools.partial(run, radix=1), default=functools.partial(run, radix=ROLLED))
    *_, limbs, degree, columns = x.shape
    lead = (1,) * (x.ndim - 3)
    shape = x.shape
    if radix == ROLLED:
        x = rolled_ntt.inverse_stages(x, table.inverse_roots, table.inverse_roots_quotient, table.q)
    q = jnp.asarray(table.q).reshape(*lead, limbs, 1, 1)
    done = 0
    for group in [] if radix == ROLLED else _stage_groups(degree.bit_length() - 1, radix):
        width = 1 << group
        blocks = degree >> (done + group)
        split = x.reshape(*shape[:-3], limbs, blocks, width, degree // (blocks * width) * columns)
        parts = [split[..., i, :] for i in range(width)]
        for s in reversed(range(group)):
            m, half = blocks << s, width >> (s + 1)
            w = jnp.asarray(table.inverse_roots[:, m : 2 * m]).reshape(*lead, limbs, blocks, 1 << s, 1)
            wq = jnp.asarray(table.inverse_roots_quotient[:, m : 2 * m]).reshape(*lead, limbs, blocks, 1 << s, 1)
            for i in range(width):
                if not i & half:
                    b = i // (2 * half)
                    a, c = parts[i], parts[i + half]
                    product = modular.multiply_shoup(a + (q - c), w[..., b, :], wq[..., b, :], q)
                    parts[i], parts[i + half] = modular.add(a, c, q), modular.reduce_once(product, q)
        x = jnp.stack(parts, axis=-2).reshape(shape)
        done += group
    inverse_n = jnp.asarray(table.degree_inverse).reshape(*lead, limbs, 1, 1)
    inverse_n_quotient = jnp.asarray(table.degree_inverse_quotient).reshape(*lead, limbs, 1, 1)
    return modular.reduce_once(modular.multiply_shoup(x, inverse_n, inverse_n_quotient, q), q)
