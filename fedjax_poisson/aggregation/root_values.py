"""Polynomials over prime fields by their values on roots of unity: from P to 2P roots, and weights of the value at any other point. NumPy, exact, uint64.

All fields at once: arrays are `[L, ...]`, the primes below 2^31, so that products fit.
"""

from __future__ import annotations

import functools

import numpy as np

from fedjax_poisson.ckks.ntt import minimal_root

__all__ = ["doubled", "inverses", "roots_of_unity", "value_weights"]


@functools.lru_cache(maxsize=64)
def roots_of_unity(moduli: tuple[int, ...], count: int) -> np.ndarray:
    """The `count`-th roots of unity w^0, w^1, .. of each field, uint64 `[L, count]`; count, a power of two, divides every q - 1."""
    found = np.ones((len(moduli), count), np.uint64)
    for limb, q in enumerate(moduli):
        root = pow(minimal_root(q, count // 2), 1, q)
        power = 1
        while power < count:  # doubling: w^(power + i) = w^power w^i
            factor = np.uint64(pow(root, power, q))
            found[limb, power : 2 * power] = found[limb, :power] * factor % np.uint64(q)
            power *= 2
    found.setflags(write=False)
    return found


def _column(moduli: tuple[int, ...], rank: int) -> np.ndarray:
    return np.asarray(moduli, np.uint64).reshape(-1, *[1] * (rank - 1))


def _transform(values: np.ndarray, roots: np.ndarray, q: np.ndarray) -> np.ndarray:
    """sum_j values[j] roots[i j] for all i: uint64 `[L, P]` with the P-th roots `[L, P]`; radix 2, decimation in time."""
    limbs, size = values.shape
    order = np.zeros(1, np.int64)
    while order.size < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    x = values[:, order]
    width = 1
    while width < size:
        twiddles = roots[:, :: size // (2 * width)][:, None, :width]
        pairs = x.reshape(limbs, -1, 2, width)
        odd = pairs[:, :, 1] * twiddles % q[..., None]
        even = pairs[:, :, 0]
        x = np.stack([(even + odd) % q[..., None], (even + q[..., None] - odd) % q[..., None]], axis=2)
        x = x.reshape(limbs, size)
        width *= 2
    return x


def doubled(values: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """The values on the 2P-th roots of the polynomial of degree below P with these values on the P-th roots: uint64 `[L, P]` to `[L, 2 P]`."""
    size = values.shape[1]
    q = _column(moduli, 2)
    double = roots_of_unity(moduli, 2 * size)
    roots = double[:, ::2]
    backward = np.concatenate([roots[:, :1], roots[:, :0:-1]], axis=1)
    inverse_size = np.asarray([pow(size, -1, p) for p in moduli], np.uint64)[:, None]
    coefficients = _transform(values, backward, q) * inverse_size % q
    out = np.empty((values.shape[0], 2 * size), np.uint64)
    out[:, ::2] = values
    out[:, 1::2] = _transform(coefficients * double[:, :size] % q, roots, q)
    return out


def inverses(values: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """The inverses of uint64 `[L, ..., 2^i]` residues, none of them 0: one inversion a line, by a tree of products."""
    q = _column(moduli, values.ndim)
    levels = [values]
    while levels[-1].shape[-1] > 1:
        last = levels[-1]
        levels.append(last[..., ::2] * last[..., 1::2] % q)
    top = levels[-1]
    flat = top.reshape(len(moduli), -1)
    found = np.asarray(
        [[pow(int(v), -1, p) for v in line] for line, p in zip(flat, moduli, strict=True)], np.uint64
    ).reshape(top.shape)
    for below in reversed(levels[:-1]):
        out = np.empty_like(below)
        out[..., ::2] = found * below[..., 1::2] % q
        out[..., 1::2] = found * below[..., ::2] % q
        found = out
    return found


def value_weights(points: np.ndarray, size: int, moduli: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the values on the P-th and on the 2P-th roots in the value at points outside of them.

    (X^n - 1) / n sum_j w^j / (X - w^j) y_j for n roots w^j of unity (Lagrange).

    Args:
      points: uint64 `[L, r]`, none a 2P-th root of unity.
      size: P.
      moduli: the L primes.

    Returns:
      uint64 `[L, r, P]` and `[L, r, 2 P]`.
    """
    q = _column(moduli, 3)
    double = roots_of_unity(moduli, 2 * size)[:, None, :]
    quotients = inverses((points[..., None] + q - double) % q, moduli) * double % q
    out = []
    for count, part in ((size, quotients[..., ::2]), (2 * size, quotients)):
        scale = np.asarray(
            [
                [(pow(int(x), count, p) - 1) * pow(count, -1, p) % p for x in line]
                for line, p in zip(points, moduli, strict=True)
            ],
            np.uint64,
        )
        out.append(part * scale[..., None] % q)
    return out[0], out[1]
