"""A client's rows: c_j = a_j s + e_j + encode(y)_j mod Q, in uint32 JAX; jit- and vmap-clean, no call to the host.

`a` is public and common to a round: uniform residues of ChaCha20 under a hash of the terms. s and e are fresh centred binomials of 42 pairs. Everything is
linear, so a program that simulates many clients may add up counts, errors and secrets, and transform once: the bits are those of the sum of their rows.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation.host_rows import is_small
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.ckks import device_layout, host_residues, modular, noise_bound, ntt, packing, rlwe_samplers
from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness import SamplingTables, Stream, fold_in, samplers
from fedjax_poisson.randomness.sum_tables import binomial_tables
from fedjax_poisson.traced_programs import traced_once

__all__ = [
    "Secrets",
    "common",
    "common_of",
    "draw",
    "draw_sum",
    "encrypt",
    "hash_words",
    "multiply_rows",
    "padded",
    "small_form",
    "sum_secret_tables",
    "words_stream",
]


class Secrets(NamedTuple):
    """What hides one client's counts, or sums of it over clients.

    Attributes:
      secret: int32 `[N]`, s.
      errors: int32 `[N, R]`, e.
    """

    secret: Array
    errors: Array

    def __repr__(self) -> str:
        """Nothing of the values."""
        return "Secrets(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("secrets of a round are not pickled")


def hash_words(label: str, *parts: bytes) -> np.ndarray:
    """uint32 `[8]`: SHA-256 over a label and parts, as the key of a public stream."""
    digest = hashlib.sha256(f"fedjax-poisson/1/{label}".encode() + b"\0" + b"".join(parts)).digest()
    return np.frombuffer(digest, "<u4").astype(np.uint32)


def words_stream(words: Array | np.ndarray) -> Stream:
    """The stream whose key is uint32 `[8]` words."""
    return Stream(jnp.asarray(words, jnp.uint32), jnp.uint32(0))


def common(params: RoundParameters, words: Array) -> Array:
    """The common `a`, uint32 `[R, L, N]` in NTT form, from the eight words of `hash_words("a", terms_hash)`."""
    shape, slack = _expansion(params)
    return rlwe_samplers.uniform_residues(words_stream(words), shape, params.ring.moduli, slack_bits=slack)


def _expansion(params: RoundParameters) -> tuple[tuple[int, int], int]:
    """Shape and slack bits of the common `a`: everybody who expands it must ask for the same."""
    return (params.rows, params.ring.degree), rlwe_samplers.public_slack_bits(params.rows * params.ring.degree)


_common = traced_once(0)(common)


def common_of(params: RoundParameters, terms_hash: bytes) -> Array:
    """The common `a` of a round: a small one by the host, and kept, since in one process all parties ask for it; else by a program of its own."""
    return (_kept_common if is_small(params) else _new_common)(params, terms_hash)


def _new_common(params: RoundParameters, terms_hash: bytes) -> Array:
    return _common(params, hash_words("a", terms_hash))


@functools.lru_cache(maxsize=2)
def _kept_common(params: RoundParameters, terms_hash: bytes) -> Array:  # public: the terms decide it
    shape, slack = _expansion(params)
    words = hash_words("a", terms_hash)
    numbers = host_residues.uniform_residues(words, shape, params.ring.moduli, slack_bits=slack)
    with jax.ensure_compile_time_eval():  # an array, also while a program is traced
        return jax.device_put(numbers)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def draw(params: RoundParameters, stream: Stream) -> Secrets:
    """A client's secret and errors from its stream."""
    drawn = rlwe_samplers.wide_binomial(fold_in(stream, "secrets"), (params.ring.degree, params.rows + 1))
    return Secrets(drawn[:, params.rows], drawn[:, : params.rows])


@functools.partial(jax.jit, static_argnums=0, inline=True)
def draw_sum(params: RoundParameters, stream: Stream, tables: SamplingTables) -> Secrets:
    """A secret and errors with the law of the sum of n clients': coefficients are independent, each Binomial(84 n, 1/2) - 42 n (*proved*: fair bits add).

    Args:
      params: of the round.
      stream: consumed by this call.
      tables: `sum_secret_tables(n)`.
    """
    drawn = samplers.binomial(fold_in(stream, "secrets"), (params.ring.degree, params.rows + 1), tables)
    return Secrets(drawn[:, params.rows], drawn[:, : params.rows])


def sum_secret_tables(senders: int) -> SamplingTables:
    """The law of one coefficient of the sum of so many clients' secrets, for `draw_sum`."""
    return binomial_tables(2 * noise_bound.ERROR_PAIRS * senders)


def padded(params: RoundParameters, counts: Array) -> Array:
    """int32 `[..., D]` with zeros behind, as many as the rows hold."""
    missing = params.padded - counts.shape[-1]
    return jnp.pad(counts, [(0, 0)] * (counts.ndim - 1) + [(0, missing)]) if missing else counts


@functools.partial(jax.jit, static_argnums=0, inline=True)
def small_form(params: RoundParameters, small: Array) -> Array:
    """The NTT form uint32 `[..., L, N]` of small polynomials int32 `[..., N]`, |x| below half the smallest prime."""
    q = modular.constants(params.ring.moduli).q
    return ntt.forward(modular.from_signed(small[..., None, :], q), params.ring.moduli)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def multiply_rows(params: RoundParameters, a: Array, polynomial: Array) -> Array:
    """Products uint32 `[R, L, N]` of rows by one polynomial `[L, N]`, all in NTT form.

    On a CPU the polynomial's Montgomery form goes through a loop, whose results are in memory: XLA would fuse it, and the end of the transform that made the
    polynomial, into the product and compute them again for each of the R rows, 17 times as slow at R = 64.
    """
    c = modular.constants(params.ring.moduli)

    def at_once(x: Array) -> Array:
        return modular.montgomery(x, jnp.asarray(c.r2), c.q, c.inverse)

    def by_limbs(x: Array) -> Array:
        one_limb = (x, *(jnp.asarray(constant) for constant in (c.r2, c.q, c.inverse)))
        return jax.lax.map(lambda limb: modular.montgomery(*limb), one_limb)

    form = by_platform(polynomial, cpu=by_limbs, default=at_once)
    return modular.montgomery(a, form, c.q, c.inverse)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def encrypt(params: RoundParameters, a: Array, counts: Array, secrets: Secrets) -> Array:
    """Rows of one client, or of a sum of clients.

    Args:
      params: of the round.
      a: uint32 `[R, L, N]` (`common`).
      counts: int32 `[D]`.
      secrets: of `draw`, or a sum of such.

    Returns:
      uint32 `[R, L, N]` in NTT form.
    """
    words = packing.pack_words(params.ring, padded(params, counts))
    (message,) = device_layout.transformed(params.ring, None, words, secrets.errors[None], carrier=0)
    product = multiply_rows(params, a, small_form(params, secrets.secret))
    return modular.add(message, product, modular.constants(params.ring.moduli).q)
