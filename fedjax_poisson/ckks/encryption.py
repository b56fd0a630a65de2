"""Keys, encryption, addition and decryption of packed integer vectors: a few uint32 operations a value, where the model trains.

All polynomials are in NTT form (`ntt`). With the secret s, the public key is a pair with pk0 + pk1 s = -e, a ciphertext a pair with c0 + c1 s = m + noise:

    public key:  c0 = pk0 u + e0 + m,   c1 = pk1 u + e1,         u ternary, e0 and e1 centred binomial
    seeded:      c0 = -a s + e0 + m,    c1 = a = expand(seed)    only the seed travels

Sums of ciphertexts are sums of residues. The public functions are compiled with the parameters (and sizes) as static arguments, and are inlined
where they are called under jit, vmap or scan. Opening is left to the key holder's side (`decrypt`).
"""

from __future__ import annotations

import functools
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from fedjax_poisson.ckks import device_layout, modular, ntt, packing, rlwe_samplers
from fedjax_poisson.ckks.device_layout import DeviceLayout
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.ckks.rlwe_samplers import Stream, fold_in

__all__ = [
    "Ciphertext",
    "PublicKey",
    "SecretKey",
    "add",
    "decrypt",
    "decrypt_with_margin",
    "draw_masks",
    "encrypt",
    "encrypt_with_masks",
    "expand",
    "generate_keys",
    "phase",
    "zero",
]


class SecretKey(NamedTuple):
    """The secret s, uint32 [L, N] in NTT form. Not shown by repr, not pickled."""

    data: jax.Array

    def __repr__(self) -> str:
        """Say that it is a key and nothing of it."""
        return f"SecretKey(<hidden>, shape={tuple(getattr(self.data, 'shape', ()))})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            "a SecretKey cannot be pickled; write it with ckks.interop to a place of your choice, knowingly"
        )


class PublicKey(NamedTuple):
    """The pair (pk0, pk1), uint32 [2, L, N] in NTT form, pk0 + pk1 s = -e."""

    data: jax.Array


class Ciphertext(NamedTuple):
    """One vector, encrypted: R rows of ring elements.

    Attributes:
        data: uint32 [..., R, 2, L, N], residues in [0, q), NTT form; [..., R, 1, L, N] where the second polynomial is a seed.
        seed: uint32 [..., 8] from which the second polynomials are expanded, or None.
        senders: uint32 [...]: how many encryptions were added.
    """

    data: jax.Array
    seed: jax.Array | None
    senders: jax.Array


def _small_to_ntt(x: jax.Array, moduli: tuple[int, ...]) -> jax.Array:
    """Small signed coefficients int32 [..., N] to NTT form uint32 [..., L, N]."""
    return ntt.forward(modular.from_signed(x[..., None, :], modular.constants(moduli).q), moduli)


@functools.partial(jax.jit, inline=True, static_argnames="params")
def generate_keys(params: CkksParameters, stream: Stream) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair.

    Args:
        params: The ring.
        stream: Secret randomness, consumed by this call.

    Returns:
        The secret key and its public key.
    """
    degree, moduli = params.degree, params.moduli
    c = modular.constants(moduli)
    secret = _small_to_ntt(rlwe_samplers.ternary(fold_in(stream, "secret"), (degree,)), moduli)
    error = _small_to_ntt(rlwe_samplers.centred_binomial(fold_in(stream, "error"), (degree,)), moduli)
    second = rlwe_samplers.uniform_residues(fold_in(stream, "uniform"), (degree,), moduli)
    first = modular.negate(modular.add(modular.multiply(second, secret, c), error, c.q), c.q)
    return SecretKey(secret), PublicKey(jnp.stack([first, second]))


@functools.partial(jax.jit, inline=True, static_argnames="params")
def expand(params: CkksParameters, ciphertext: Ciphertext) -> Ciphertext:
    """A seeded ciphertext with its second polynomials written out; others are returned as they are."""
    if ciphertext.seed is None:
        return ciphertext
    rows = ciphertext.data.shape[-4]

    expanded = jnp.vectorize(lambda seed: _expand_seed(params, seed, rows)[:, None], signature="(s)->(r,p,l,n)")(
        ciphertext.seed
    )
    return Ciphertext(jnp.concatenate([ciphertext.data, expanded], axis=-3), None, ciphertext.senders)


def _expand_seed(params: CkksParameters, seed: jax.Array, rows: int) -> jax.Array:
    """The uniform polynomials of a public seed: uint32 [8] to [R, L, N]."""
    public = fold_in(Stream(seed, jnp.uint32(0)), "ckks uniform")
    return rlwe_samplers.uniform_residues(public, (rows, params.degree), params.moduli)


@functools.partial(jax.jit, inline=True, static_argnames=("params", "plan"))
def encrypt(
    params: CkksParameters,
    key: PublicKey | SecretKey,
    counts: jax.Array,
    stream: Stream,
    *,
    plan: DeviceLayout | None = None,
) -> Ciphertext:
    """Encrypt one vector of signed counts.

    Args:
        params: Parameters with packing.
        key: A `PublicKey`, or the `SecretKey` for a seeded ciphertext (half the size).
        counts: int32 [D], each |count| <= params.count_bound. vmap over clients and streams for [K, D].
        stream: Secret randomness, consumed by this call; never the same for two vectors.
        plan: Layout of the computation; by default the one of the device the program is lowered for. The bits do not depend on it.

    Returns:
        A `Ciphertext` of R = params.rows(D) rows.

    Raises:
        ValueError: If the vector is longer than the parameters were made for, counts is not an int32 vector, or the parameters were
            chosen for seeded encryption (less noise) and the key is a public one.
        TypeError: If the key is of another kind.
    """
    if counts.ndim != 1 or counts.dtype != jnp.int32:
        raise ValueError(f"counts must be an int32 vector, seen {counts.dtype}{list(counts.shape)}; vmap over clients")
    if isinstance(key, PublicKey):
        masks = draw_masks(params, counts.shape[0], stream)
        return encrypt_with_masks(params, key, counts, masks, senders=jnp.uint32(1), plan=plan)
    if not isinstance(key, SecretKey):
        raise TypeError(f"key must be a PublicKey or a SecretKey, not {type(key).__name__}")
    return _encrypt_seeded(params, key, counts, stream, plan)


@functools.partial(jax.jit, inline=True, static_argnames=("params", "size"))
def draw_masks(params: CkksParameters, size: int, stream: Stream) -> jax.Array:
    """The secret polynomials of one public-key encryption of `size` values: u, e0, e1 as int32 [3, N, R].

    Encryption is linear in counts and masks together, so a program that simulates many senders may add up their counts and their masks and call
    `encrypt_with_masks` once: the bits are those of the sum of their ciphertexts.
    """
    shape = (params.degree, params.rows(size))
    mask = rlwe_samplers.ternary(fold_in(stream, "mask"), shape)
    return jnp.stack(
        [mask, *rlwe_samplers.error_pair(rlwe_samplers.random_words(fold_in(stream, "error"), (3, *shape)))]
    )


@functools.partial(jax.jit, inline=True, static_argnames=("params", "plan"))
def encrypt_with_masks(
    params: CkksParameters,
    key: PublicKey,
    counts: jax.Array,
    masks: jax.Array,
    *,
    senders: jax.Array,
    plan: DeviceLayout | None = None,
) -> Ciphertext:
    """Public-key encryption with given masks.

    Args:
        params: Parameters with packing.
        key: The public key.
        counts: int32 [D]; a sum over `senders` senders if masks is one.
        masks: int32 [3, N, R] from `draw_masks`, or a sum of such; entries below the smallest prime in size.
        senders: uint32 [], how many were added.
        plan: As in `encrypt`.

    Raises:
        ValueError: If the parameters were chosen for seeded encryption.
    """
    if params.mode == "seeded":
        raise ValueError("these parameters leave no room for public-key noise; choose_parameters(mode='public_key')")
    c = modular.constants(params.moduli)
    u, message, e1 = device_layout.transformed(params, plan, packing.pack_words(params, counts), masks, carrier=1)
    # In Montgomery form, so that the Montgomery products below are plain ones.
    key_form = modular.montgomery(key.data, jnp.asarray(c.r2), c.q, c.inverse)
    halves = [
        modular.add(modular.montgomery(u, key_form[i], c.q, c.inverse), e, c.q) for i, e in enumerate((message, e1))
    ]
    return Ciphertext(jnp.stack(halves, axis=1), None, senders)


def _encrypt_seeded(
    params: CkksParameters, key: SecretKey, counts: jax.Array, stream: Stream, plan: DeviceLayout | None
) -> Ciphertext:
    c = modular.constants(params.moduli)
    rows = params.rows(counts.shape[0])
    seed = rlwe_samplers.bits(fold_in(stream, "seed"), 8)
    error = rlwe_samplers.centred_binomial(fold_in(stream, "error"), (1, params.degree, rows))
    (message,) = device_layout.transformed(params, plan, packing.pack_words(params, counts), error, carrier=0)
    key_form = modular.montgomery(key.data, jnp.asarray(c.r2), c.q, c.inverse)
    masked = modular.montgomery(_expand_seed(params, seed, rows), key_form, c.q, c.inverse)
    return Ciphertext(modular.subtract(message, masked, c.q)[:, None], seed, jnp.uint32(1))


def zero(params: CkksParameters, size: int) -> Ciphertext:
    """The empty sum, to start an accumulation (for instance the carry of a `lax.scan`)."""
    shape = (params.rows(size), 2, params.limbs, params.degree)
    return Ciphertext(jnp.zeros(shape, jnp.uint32), None, jnp.uint32(0))


@functools.partial(jax.jit, inline=True, static_argnames="params")
def add(params: CkksParameters, a: Ciphertext, b: Ciphertext) -> Ciphertext:
    """The encryption of the sum: residues added, sender counts added.

    Args:
        params: The parameters of both.
        a: A ciphertext, seeded or not.
        b: Another of the same shape.

    Returns:
        Data uint32 [..., R, 2, L, N] in [0, q).
    """
    a, b = expand(params, a), expand(params, b)
    return Ciphertext(modular.add(a.data, b.data, modular.constants(params.moduli).q), None, a.senders + b.senders)


@functools.partial(jax.jit, inline=True, static_argnames="params")
def phase(params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext) -> jax.Array:
    """C0 + c1 s in coefficients: message plus noise, uint32 [..., R, L, N] in [0, q). For the key holder's eyes only."""
    return jnp.moveaxis(_phase_columns(params, secret, ciphertext), -1, -3)


def _phase_columns(params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext) -> jax.Array:
    """`phase` with the rows side by side, [..., L, N, R]."""
    data = expand(params, ciphertext).data
    c = modular.constants(params.moduli)
    key_form = modular.montgomery(secret.data, jnp.asarray(c.r2), c.q, c.inverse)
    total = modular.add(modular.montgomery(data[..., 1, :, :], key_form, c.q, c.inverse), data[..., 0, :, :], c.q)
    return ntt.inverse_columns(jnp.moveaxis(total, -3, -1), ntt.tables(params.degree, params.moduli))


@functools.partial(jax.jit, inline=True, static_argnames=("params", "size"))
def decrypt_with_margin(
    params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext, size: int
) -> tuple[jax.Array, jax.Array]:
    """Decrypt a sum and say how far it was from integers.

    Args:
        params: The parameters of the ciphertext.
        secret: The secret key.
        ciphertext: A ciphertext or a sum of at most params.senders of them.
        size: Number D of values.

    Returns:
        The counts, int32 [..., D], and float32 [...], the largest distance to an integer in steps. Beyond `parameters.MARGIN` the counts mean
        nothing: the key is another one, the bytes were changed, or more senders were added than announced.
    """
    return packing.decode_columns(params, _phase_columns(params, secret, ciphertext), size)


def decrypt(params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext, size: int) -> jax.Array:
    """The exact counts, int32 [..., D], of a ciphertext or a sum; see `decrypt_with_margin` for the check that goes with it."""
    return decrypt_with_margin(params, secret, ciphertext, size)[0]
