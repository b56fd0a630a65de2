"""The transform of `ntt` as one loop over its stages: a compiler sees one stage where it would see log2 N, and a stage is a kernel or two.

All stages have to look alike for that, so the coefficients move (Pease 1968, "An adaptation of the fast Fourier transform for parallel processing"). Before
stage s coefficient j lies at j with its log2 N bits turned left by s. The two partners of a butterfly differ in bit log2 N - 1 - s of j, which is then the
topmost bit of the place: they lie in the two halves. Turning by one more bit puts the results side by side, and after log2 N turns each is at its own place.
The butterfly at place k < N / 2 belongs to group k mod 2^s, whose factor is root number 2^s + (k mod 2^s). Backwards everything is undone in turn.

Every result is reduced at once, so nothing has to be planned: a few operations more a value, which a device that waits for memory does not notice.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_poisson.ckks import modular
from fedjax_poisson.platforms import by_platform

__all__ = ["forward_stages", "inverse_stages"]


Stage = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _by_stage(roots: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Roots uint32 [L, N] in bit-reversed order as the factors of every stage, [log2 N, L, N / 2] with the axes of `shape` for the others."""
    limbs, degree = roots.shape
    places = np.arange(degree // 2)
    stages = [roots[:, (1 << s) + (places & ((1 << s) - 1))] for s in range(degree.bit_length() - 1)]
    return np.stack(stages).reshape(len(stages), *(1,) * (len(shape) - 3), limbs, degree // 2, 1)


def _in_turn(stage: Stage, x: jax.Array, factors: tuple[np.ndarray, np.ndarray]) -> jax.Array:
    """All stages. Two make a turn of a GPU's loop: it takes them from one array to another and back, and would copy after each if there were one.

    The barrier keeps the two apart, so that the compiler finds the same kernel twice. A TPU's does not find it, and compiles twice as long.
    """

    def by_one(x: jax.Array) -> jax.Array:
        return lax.scan(lambda x, own: (stage(x, *own), None), x, tuple(map(jnp.asarray, factors)))[0]

    def by_two(x: jax.Array) -> jax.Array:
        odd = len(factors[0]) % 2
        if odd:
            x = stage(x, *(jnp.asarray(each[0]) for each in factors))
        pairs = tuple(jnp.asarray(each[odd:].reshape(-1, 2, *each.shape[1:])) for each in factors)

        def two(x: jax.Array, pair: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            first, second = ([each[i] for each in pair] for i in range(2))
            return stage(lax.optimization_barrier(stage(x, *first)), *second), None

        return lax.scan(two, x, pairs)[0]

    return by_platform(x, tpu=by_one, default=by_two)


def forward_stages(x: jax.Array, roots: np.ndarray, quotients: np.ndarray, q: np.ndarray) -> jax.Array:
    """The forward transform.

    Args:
        x: Residues uint32 [..., L, N, B] in [0, q).
        roots: uint32 [L, N], as in `ntt.NttTables`.
        quotients: Their Shoup companions.
        q: uint32 [L, 1].

    Returns:
        uint32 [..., L, N, B] in [0, q), bit-reversed order along N.
    """
    shape, half = x.shape, x.shape[-2] // 2
    modulus = q.reshape(*(1,) * (x.ndim - 3), -1, 1, 1)

    def stage(x: jax.Array, w: jax.Array, quotient: jax.Array) -> jax.Array:
        upper, lower = x[..., :half, :], x[..., half:, :]
        product = modular.reduce_once(modular.multiply_shoup(lower, w, quotient, modulus), modulus)
        results = modular.add(upper, product, modulus), modular.subtract(upper, product, modulus)
        return jnp.stack(results, axis=-2).reshape(shape)

    return _in_turn(stage, x, (_by_stage(roots, shape), _by_stage(quotients, shape)))


def inverse_stages(x: jax.Array, roots: np.ndarray, quotients: np.ndarray, q: np.ndarray) -> jax.Array:
    """The inverse transform but for the factor 1 / N; `roots` are the inverse ones (see `forward_stages`)."""
    shape, half = x.shape, x.shape[-2] // 2
    modulus = q.reshape(*(1,) * (x.ndim - 3), -1, 1, 1)

    def stage(x: jax.Array, w: jax.Array, quotient: jax.Array) -> jax.Array:
        pairs = x.reshape(*shape[:-2], half, 2, shape[-1])
        one, other = pairs[..., 0, :], pairs[..., 1, :]
        product = modular.multiply_shoup(one + (modulus - other), w, quotient, modulus)
        results = modular.add(one, other, modulus), modular.reduce_once(product, modulus)
        return jnp.concatenate(results, axis=-2)

    return _in_turn(stage, x, (_by_stage(roots, shape)[::-1], _by_stage(quotients, shape)[::-1]))
