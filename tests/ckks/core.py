"""Small rings and big-integer references for the tests of the lattice core."""

from __future__ import annotations

import warnings

import numpy as np

from fedjax_poisson.ckks import ntt
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.randomness import chacha


def seeded_stream(seed: int = 7) -> chacha.Stream:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return chacha.stream(seed)


def tiny(*, degree=64, bits=28, limbs=3, fields=2, width=20, senders=1000, mode="public_key", **more) -> CkksParameters:
    """A ring far too small to be secure, for quick arithmetic tests."""
    facts = {
        "degree": degree,
        "moduli": ntt.primes_below(1 << bits, degree, limbs),
        "values_per_coefficient": fields,
        "field_bits": width,
        "count_bound": (1 << (width - 1)) - 1,
        "senders": senders,
        "mode": mode,
        "security_bits": 0,
        "guideline": "none",
    }
    return CkksParameters(**{**facts, **more})


def random_residues(rng: np.random.Generator, moduli: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Uniform residues uint32 [*shape[:-1], L, shape[-1]], with the ends of the range among them."""
    rows = []
    for q in moduli:
        row = rng.integers(0, q, size=shape, dtype=np.uint64)
        row[..., 0], row[..., -1] = 0, q - 1
        rows.append(row)
    return np.stack(rows, axis=-2).astype(np.uint32)


def negacyclic(a: list[int], b: list[int], q: int) -> list[int]:
    """a b mod (X^N + 1, q) with Python integers."""
    n = len(a)
    result = [0] * n
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            k = i + j
            result[k % n] = (result[k % n] + (x * y if k < n else -x * y)) % q
    return result


def evaluations(a: list[int], q: int) -> list[int]:
    """a(psi^(2 bitrev(k) + 1)) for all k, psi the smallest primitive 2N-th root, by definition."""
    n = len(a)
    bits = n.bit_length() - 1
    psi = min(x for x in range(2, q) if pow(x, n, q) == q - 1) if q < 1 << 16 else ntt.minimal_root(q, n)
    points = [pow(psi, 2 * int(format(k, f"0{bits}b")[::-1], 2) + 1, q) for k in range(n)]
    return [sum(c * pow(point, i, q) for i, c in enumerate(a)) % q for point in points]


def combine_crt(residues: np.ndarray, moduli: tuple[int, ...]) -> list[int]:
    """Centred big integers of residues [L, N]."""
    big_q = int(np.prod([1], dtype=object) * np.prod(np.asarray(moduli, dtype=object)))
    result = []
    for column in residues.T:
        x = sum(int(r) * (big_q // q) * pow(big_q // q, -1, q) for r, q in zip(column, moduli, strict=True)) % big_q
        result.append(x - big_q if x > big_q // 2 else x)
    return result
