"""The negacyclic transform of a few polynomials on the host, in NumPy: the numbers of `ntt`, without a program to compile.

A party of a round transforms a handful of polynomials, and the program for it takes longer to compile than it runs in all. Everything is exact in uint64:
residues are below 2^31, so a product is below 2^62 (*proved*).
"""

from __future__ import annotations

import numpy as np

from fedjax_poisson.ckks import ntt

__all__ = ["forward", "inverse", "primes", "residues"]


def primes(moduli: tuple[int, ...]) -> np.ndarray:
    """The primes as uint64 `[L, 1]`."""
    return np.asarray(moduli, np.uint64)[:, None]


def residues(small: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """Small integers int `[..., N]` modulo each prime: uint64 `[..., L, N]`."""
    return np.mod(np.asarray(small, np.int64)[..., None, :], np.asarray(moduli, np.int64)[:, None]).astype(np.uint64)


def forward(x: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """As `ntt.forward`: residues `[..., L, N]` in natural order to uint32 `[..., L, N]`, bit-reversed."""
    degree, table, q = x.shape[-1], ntt.tables(x.shape[-1], moduli), primes(moduli)[..., None]
    values, groups = np.asarray(x, np.uint64), 1
    while groups < degree:
        parts = values.reshape(*x.shape[:-1], groups, 2, -1)
        root = table.roots[:, groups : 2 * groups, None].astype(np.uint64)
        first, second = parts[..., 0, :], parts[..., 1, :] * root % q
        both = np.stack([first + second, first + (q - second)], axis=-2)
        values, groups = (
            np.minimum(both, both - q[..., None]).reshape(x.shape),
            2 * groups,
        )  # below zero wraps to the top
    return values.astype(np.uint32)


def inverse(x: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """As `ntt.inverse`: bit-reversed `[..., L, N]` to uint32 `[..., L, N]` in natural order."""
    degree, table, q = x.shape[-1], ntt.tables(x.shape[-1], moduli), primes(moduli)[..., None]
    values, groups = np.asarray(x, np.uint64), degree // 2
    while groups:
        parts = values.reshape(*x.shape[:-1], groups, 2, -1)
        root = table.inverse_roots[:, groups : 2 * groups, None].astype(np.uint64)
        first, second = parts[..., 0, :], parts[..., 1, :]
        total, difference = first + second, (first + (q - second)) * root % q
        values = np.stack([np.minimum(total, total - q), difference], axis=-2).reshape(x.shape)
        groups //= 2
    return (values * table.degree_inverse.astype(np.uint64) % primes(moduli)).astype(np.uint32)
