"""Exact integer arithmetic of norms in 16-bit limbs: the squared norm of a grid vector, comparisons, and the largest factor that keeps to a bound.

Limbs are uint32, so products and short sums never overflow, and the same on every device. The numbers have up to 112 bits: squared norms below 2**80, bounds
below 2**98.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_WORD = 16  # limbs of 16 bits in uint32: products and short sums never overflow
_WIDTH = 2048  # of a row of a norm: each part of a square is at most 2**20, so a row has at most 2**31 of it
_BLOCK = 1 << 15  # sums of 2**15 halves of 2**16 - 1 stay below 2**32
_SCALE = -64  # float32 weights of limbs are 2**(16 i - 64): that of a ninth limb would be infinite
NOT_ASKED = 1 << 31
"""No factor: those are smaller."""
_FURTHEST = 4096  # how far the factor may lie from its first guess, which is off by 2**31 2**-21 at most


class Wide(NamedTuple):
    """A non-negative integer as 16-bit limbs, least significant first: uint32 `[limbs]`, each below 2**16."""

    limbs: Array


def squared_norm(grid: Array) -> Wide:
    """Exact `sum_j m_j**2` of int32 `[D]` with `|m_j| <= 2**20`, D < 2**40, in 16-bit limbs; independent of summation order.

    The three parts of the squares are summed in one reduction, which compilers for CPUs turn into one vectorised loop: a tenth of the time of three.
    """
    magnitude = jnp.abs(grid).astype(jnp.uint32)
    size = magnitude.shape[0]
    full = size // _WIDTH * _WIDTH
    rows = _sums_of_parts(magnitude[:full].reshape(-1, _WIDTH)) if full else jnp.zeros((3, 0), jnp.uint32)
    if full < size:
        rows = jnp.concatenate([rows, _sums_of_parts(magnitude[None, full:])], axis=1)
    sums = _sum_to_limbs(rows)  # [3, limbs]
    # m**2 = high**2 * 2**20 + high low * 2**11 + low**2
    wide = [sums[0], *(_shift_left(s, bits) for s, bits in ((sums[1], 11), (sums[2], 20)))]
    length = max(w.shape[0] for w in wide)
    total = sum((jnp.pad(w, (0, length - w.shape[0])) for w in wide), jnp.zeros(length, jnp.uint32))
    largest = 4 if size < 1 << 24 else 5  # the sum is below 2**(40 + 24) or 2**(40 + 40): the limbs above are 0
    return Wide(_carry(total)[:largest])


def _sums_of_parts(magnitude: Array) -> Array:
    """uint32 `[rows, at most 2048]`, |m| <= 2**20, to uint32 `[3, rows]`: sums of low**2, high low and high**2, with m = high 2**10 + low."""
    high, low = magnitude >> jnp.uint32(10), magnitude & jnp.uint32(1023)
    zero = jnp.uint32(0)
    sums = jax.lax.reduce(
        (low * low, high * low, high * high),
        (zero, zero, zero),
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        (1,),
    )
    return jnp.stack(sums)


def largest_factor(squared: Wide, limit: Array, skip: Array | None = None) -> Array:
    """Largest uint32 `s < 2**31` with `s**2 * squared <= limit`, a limit in 16-bit limbs; `NOT_ASKED` where `skip`, bool `[]`, holds.

    The choice is part of the last step, a reduction, which a program makes once: by itself XLA for CPUs would make it again for every coordinate.

    A float32 guess g of sqrt(limit / squared), a step of Newton's from the exact residual `limit - g**2 squared`, and of the three integers around that, each
    compared exactly, the largest that fits; 0 if none does. So `s**2 * squared <= limit` whatever floats do (*proved*: nothing else is returned). That no
    larger s fits is *checked numerically*, against integer square roots; it holds if the guess is within 2**-20 of its value and the step within 1.
    """
    length = max(limit.shape[0], squared.limbs.shape[0] + 4)
    padded = jnp.pad(limit, (0, length - limit.shape[0]))

    def product(s: Array) -> Array:
        limbs = jnp.stack([s & jnp.uint32(0xFFFF), s >> jnp.uint32(16)])
        found = _multiply(_multiply(limbs, limbs), squared.limbs)
        return jnp.pad(found, (0, length - found.shape[0]))

    length_squared = _as_float(squared.limbs)
    guess = jnp.minimum(jnp.sqrt(_as_float(limit) / length_squared), jnp.float32(2**31 - 128))
    first = guess.astype(jnp.uint32)
    # Limbs of both signs are exact; carried, each limb would be computed again for every later one.
    residual = _as_float(padded.astype(jnp.int32) - product(first).astype(jnp.int32))
    step = jnp.floor(residual / (jnp.float32(2) * jnp.maximum(guess, jnp.float32(1)) * length_squared))
    moved = jnp.clip(step, -_FURTHEST, _FURTHEST).astype(jnp.int32)
    # At least 1 and at most 2**31 - 2, so that neither neighbour leaves the range.
    moved = jnp.maximum(moved, jnp.int32(1) - first.astype(jnp.int32)).astype(jnp.uint32)
    middle = jnp.minimum(first + moved, jnp.uint32(2**31 - 2))
    candidates = jnp.stack([middle - jnp.uint32(1), middle, middle + jnp.uint32(1)])
    fits = jax.vmap(lambda s: _least_first(product(s), padded))(candidates)
    found = jnp.where(fits, candidates, jnp.uint32(0))
    return jnp.max(found if skip is None else jnp.where(skip, jnp.uint32(NOT_ASKED), found))


def _as_float(limbs: Array) -> Array:
    """Limbs, signed ones too, as a float32 times 2**-64, within a few roundings.

    From the top: while limbs cancel, partial sums are small multiples of their limb and exact. From two such units on they cannot cancel any more, as a limb is
    below one unit of the limb above.
    """
    total = jnp.zeros_like(limbs[0], jnp.float32)
    for i in range(limbs.shape[0] - 1, -1, -1):
        total = total + limbs[i].astype(jnp.float32) * jnp.float32(2.0 ** (_WORD * i + _SCALE))
    return total


def at_most(squared: Wide, limit: Array) -> Array:
    """bool `[]`: `squared <= limit`, exactly, for a limit in normalised 16-bit limbs."""
    length = max(limit.shape[0], squared.limbs.shape[0])
    padded = [jnp.pad(limbs, (0, length - limbs.shape[0])) for limbs in (squared.limbs, limit)]
    return _least_first(padded[0], padded[1])


def limbs_of(value: int, width: int) -> np.ndarray:
    """An integer of the host as uint32 `[width]`.

    Raises:
      ValueError: it has more limbs.
    """
    if value >> (_WORD * width):
        raise ValueError(
            f"a bound of {value.bit_length()} bits exceeds {width} limbs; bring clip_norm and bounds nearer together."
        )
    return np.asarray([(value >> (_WORD * i)) & 0xFFFF for i in range(width)], np.uint32)


def _sum_to_limbs(values: Array) -> Array:
    """Sum uint32 `[P, G]`, any values, over G into normalised 16-bit limbs `[P, limbs]`, exactly."""
    parts = values.shape[0]
    limbs = jnp.stack([values & jnp.uint32(0xFFFF), values >> jnp.uint32(_WORD)], axis=-1)  # [P, G, 2]
    while limbs.shape[2] == 2 or limbs.shape[1] > 1:
        groups = -(-limbs.shape[1] // _BLOCK)
        if groups > 1:
            limbs = jnp.pad(limbs, ((0, 0), (0, groups * _BLOCK - limbs.shape[1]), (0, 0)))
        limbs = jnp.sum(limbs.reshape(parts, groups, -1, limbs.shape[2]), axis=2, dtype=jnp.uint32)
        limbs = jax.vmap(jax.vmap(_carry))(limbs)
    return limbs[:, 0]


def _shift_left(limbs: Array, bits: int) -> Array:
    """Normalised limbs times 2**bits, normalised; two limbs longer."""
    words, rest = divmod(bits, _WORD)
    return _carry(jnp.pad(limbs << jnp.uint32(rest), (words, 2 - words)))


def _carry(limbs: Array) -> Array:
    """Propagate carries of uint32 limbs `[L]` (each < 2**32 - 2**16) into 16-bit limbs `[L + 1]`."""
    out, carry = [], jnp.zeros_like(limbs[0])
    for i in range(limbs.shape[0]):
        value = limbs[i] + carry
        out.append(value & jnp.uint32(0xFFFF))
        carry = value >> jnp.uint32(_WORD)
    return jnp.stack([*out, carry])


def _multiply(a: Array, b: Array) -> Array:
    """Schoolbook product of normalised 16-bit limbs, `[La]` x `[Lb]` to `[La + Lb]` normalised limbs."""
    columns = [jnp.zeros_like(a[0])] * (a.shape[0] + b.shape[0])
    first, second = _apart(a), _apart(b)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            product = one * other
            columns[i + j] = columns[i + j] + (product & jnp.uint32(0xFFFF))
            columns[i + j + 1] = columns[i + j + 1] + (product >> jnp.uint32(_WORD))
    return _carry(jnp.stack(columns))[: a.shape[0] + b.shape[0]]


def _least_first(a: Array, b: Array) -> Array:
    """`a <= b` for normalised limbs of equal length: decided by the most significant limb that differs."""
    less = jnp.bool_(True)
    for one, other in zip(_apart(a), _apart(b), strict=True):  # least significant first, so that later limbs overrule
        less = jnp.where(one == other, less, one < other)
    return less


def _apart(limbs: Array) -> list[Array]:
    """Each limb by itself: taken out once, not at every use, which a compiler would have to find out."""
    return [limbs[i] for i in range(limbs.shape[0])]
