"""Keys, encryption, addition and decryption of packed integer vectors: a few uint32 operations a value, where the model trains.

All polynomials are in NTT form (`ntt`). With the secret s, the public key is a pair with pk0 + pk1 s = -e, a ciphertext a pair with c0 + c1 s = m + noise:

    public key:  c0 = pk0 u + e0 + m,   c1 = pk1 u + e1,         u ternary, e0 and e1 centred binomial
    seeded:      c0 = -a s + e0 + m,    c1 = a = expand(seed)    only the seed travels

Sums of ciphertexts are sums of residues. `open`ing is left to the key holder's side (`decrypt`, or `keys` for threshold keys).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp

from fedjax_poisson.ckks import modular, noise, ntt, packing, sampling
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.ckks.sampling import Stream, fold_in

__all__ = [
    "ACCELERATOR_PLAN",
    "CPU_PLAN",
    "Ciphertext",
    "Plan",
    "PublicKey",
    "SecretKey",
    "add",
    "decrypt",
    "decrypt_with_margin",
    "draw_masks",
    "encrypt",
    "encrypt_sum",
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

    __str__ = __repr__

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("a SecretKey cannot be pickled; write it with ckks.wire to a place of your choice, knowingly")


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


class Plan(NamedTuple):
    """How the encryption is laid out on a device. Speed only: every plan gives the same bits.

    Attributes:
        columns: Rows side by side behind the coefficient axis ([L, N, R]; long runs in every stage) rather than before it ([R, L, N]).
        radix: Butterfly stages fused into one pass over the data.
        row_block: Loop over blocks of at most this many rows, so that a block stays in cache; 0 for all at once.
        row_multiple: Pad the rows to a multiple of this, so that a vector register is filled.
    """

    columns: bool = True
    radix: int = 1
    row_block: int = 0
    row_multiple: int = 1


CPU_PLAN = Plan(row_block=8)
ACCELERATOR_PLAN = Plan(radix=4)


def _small_to_ntt(x: jax.Array, moduli: tuple[int, ...]) -> jax.Array:
    """Small signed coefficients int32 [..., N] to NTT form uint32 [..., L, N]."""
    return ntt.forward(modular.from_signed(x[..., None, :], modular.constants(moduli).q), moduli)


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
    secret = _small_to_ntt(sampling.ternary(fold_in(stream, "secret"), (degree,)), moduli)
    error = _small_to_ntt(sampling.centred_binomial(fold_in(stream, "error"), (degree,)), moduli)
    second = sampling.uniform_residues(fold_in(stream, "uniform"), (degree,), moduli)
    first = modular.negate(modular.add(modular.multiply(second, secret, c), error, c.q), c.q)
    return SecretKey(secret), PublicKey(jnp.stack([first, second]))


def expand(params: CkksParameters, ciphertext: Ciphertext) -> Ciphertext:
    """A seeded ciphertext with its second polynomials written out; others are returned as they are."""
    if ciphertext.seed is None:
        return ciphertext
    rows = ciphertext.data.shape[-4]

    def second(seed: jax.Array) -> jax.Array:
        words = _seed_words(params, seed, rows)
        table, weights = ntt.tables(params.degree, params.moduli), sampling.uniform_combination(params.moduli)
        residues = sampling.combine(words, weights, table, ntt.capacity(params.moduli))
        return jnp.moveaxis(residues, -1, 0)[:, None]

    expanded = jnp.vectorize(second, signature="(s)->(r,p,l,n)")(ciphertext.seed)
    return Ciphertext(jnp.concatenate([ciphertext.data, expanded], axis=-3), None, ciphertext.senders)


def _seed_words(params: CkksParameters, seed: jax.Array, rows: int) -> jax.Array:
    """The random words behind the uniform polynomials of a public seed: uint32 [8] to [W, N, R]."""
    public = fold_in(Stream(seed, jnp.uint32(0)), "ckks uniform")
    return sampling.bits(public, (sampling.uniform_words(params.modulus.bit_length()), params.degree, rows))


def encrypt(
    params: CkksParameters, key: PublicKey | SecretKey, counts: jax.Array, stream: Stream, *, plan: Plan | None = None
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
        ValueError: If the vector is longer than the parameters were made for, or counts is not an int32 vector.
        TypeError: If the key is of another kind.
    """
    if counts.ndim != 1 or counts.dtype != jnp.int32:
        raise ValueError(f"counts must be an int32 vector, seen {counts.dtype}{list(counts.shape)}; vmap over clients")
    if isinstance(key, PublicKey):
        masks = draw_masks(params, counts.shape[0], stream)
        return encrypt_with_masks(params, key, counts, masks, senders=jnp.uint32(1), plan=plan)
    if not isinstance(key, SecretKey):
        raise TypeError(f"key must be a PublicKey or a SecretKey, not {type(key).__name__}")
    seed = sampling.bits(fold_in(stream, "seed"), 8)
    data = _planned(_encrypt_seeded, params, plan, _seeded_inputs(params, key, counts, stream, seed))
    return Ciphertext(data, seed, jnp.uint32(1))


def draw_masks(params: CkksParameters, size: int, stream: Stream) -> jax.Array:
    """The secret polynomials of one public-key encryption of `size` values: u, e0, e1 as int32 [3, N, R].

    Encryption is linear in counts and masks together, so a program that simulates many senders may add up their counts and their masks and call
    `encrypt_with_masks` once: the bits are those of the sum of their ciphertexts (see `encrypt_sum`).
    """
    shape = (params.degree, params.rows(size))
    mask = sampling.ternary(fold_in(stream, "mask"), shape)
    return jnp.stack([mask, *sampling.error_pair(sampling.bits(fold_in(stream, "error"), (3, *shape)))])


def encrypt_with_masks(
    params: CkksParameters,
    key: PublicKey,
    counts: jax.Array,
    masks: jax.Array,
    *,
    senders: jax.Array,
    plan: Plan | None = None,
) -> Ciphertext:
    """Public-key encryption with given masks.

    Args:
        params: Parameters with packing.
        key: The public key.
        counts: int32 [D]; a sum over `senders` senders if masks is one.
        masks: int32 [3, N, R] from `draw_masks`, or a sum of such; entries below the smallest prime in size.
        senders: uint32 [], how many were added.
        plan: As in `encrypt`.
    """
    c = modular.constants(params.moduli)
    key_form = jnp.swapaxes(modular.montgomery(key.data, jnp.asarray(c.r2), c.q, c.inverse), 0, 1)
    inputs = jax.lax.optimization_barrier((key_form, packing.pack_words(params, counts), masks))
    return Ciphertext(_planned(_encrypt_public, params, plan, inputs), None, senders)


def encrypt_sum(
    params: CkksParameters, key: PublicKey, counts: jax.Array, streams: Stream, *, plan: Plan | None = None
) -> Ciphertext:
    """The sum of the ciphertexts of K simulated senders, bit for bit, for one transform instead of K.

    For simulation on one machine only: real senders each encrypt before anything is added. The transform is linear, so the masks of all
    senders, drawn from their own streams, are added first.

    Args:
        params: Parameters with packing.
        key: The public key.
        counts: int32 [K, D].
        streams: A batch of K streams.
        plan: As in `encrypt`.

    Returns:
        What adding up `encrypt(params, key, counts[i], streams[i])` gives.

    Raises:
        ValueError: If the summed errors could exceed the smallest prime.
    """
    clients, size = counts.shape
    if 2 * noise.ERROR_BOUND * clients >= min(params.moduli):
        raise ValueError(
            f"{clients} senders are too many to add before the transform at primes of {min(params.moduli)}; use parts"
        )

    def body(
        carry: tuple[jax.Array, jax.Array], xs: tuple[jax.Array, Stream]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        return (carry[0] + xs[0], carry[1] + draw_masks(params, size, xs[1])), None

    start = (jnp.zeros(size, jnp.int32), jnp.zeros((3, params.degree, params.rows(size)), jnp.int32))
    (total, masks), _ = jax.lax.scan(body, start, (counts, streams))
    return encrypt_with_masks(params, key, total, masks, senders=jnp.uint32(clients), plan=plan)


def zero(params: CkksParameters, size: int) -> Ciphertext:
    """The empty sum, to start an accumulation (for instance the carry of a `lax.scan`)."""
    shape = (params.rows(size), 2, params.limbs, params.degree)
    return Ciphertext(jnp.zeros(shape, jnp.uint32), None, jnp.uint32(0))


def _planned(
    encryptor: Callable[..., jax.Array], params: CkksParameters, plan: Plan | None, inputs: tuple[jax.Array, ...]
) -> jax.Array:
    """Run under the given plan, or under the one of the device the program is lowered for."""
    if plan is not None:
        return _by_blocks(encryptor, params, plan, *inputs)
    return jax.lax.platform_dependent(
        *inputs,
        cpu=functools.partial(_by_blocks, encryptor, params, CPU_PLAN),
        default=functools.partial(_by_blocks, encryptor, params, ACCELERATOR_PLAN),
    )


def _seeded_inputs(
    params: CkksParameters, key: SecretKey, counts: jax.Array, stream: Stream, seed: jax.Array
) -> tuple[jax.Array, ...]:
    """What one seeded encryption transforms: s in Montgomery form, packed words and the seed's words [W + W', N, R], e as int32 [1, N, R]."""
    rows = params.rows(counts.shape[0])
    c = modular.constants(params.moduli)
    error = sampling.centred_binomial(fold_in(stream, "error"), (1, params.degree, rows))
    key_form = modular.montgomery(key.data, jnp.asarray(c.r2), c.q, c.inverse)
    words = jnp.concatenate([packing.pack_words(params, counts), _seed_words(params, seed, rows)])
    return jax.lax.optimization_barrier((key_form[:, None], words, error))


def _transform(params: CkksParameters, plan: Plan, x: jax.Array) -> jax.Array:
    table, capacity = ntt.tables(params.degree, params.moduli), ntt.capacity(params.moduli)
    return ntt.forward_columns(x, table, capacity, radix=plan.radix)


def _combine(params: CkksParameters, words: jax.Array, weights: sampling.Combination) -> jax.Array:
    return sampling.combine(words, weights, ntt.tables(params.degree, params.moduli), ntt.capacity(params.moduli))


def _encrypt_public(
    params: CkksParameters, plan: Plan, key: jax.Array, words: jax.Array, small: jax.Array
) -> jax.Array:
    """Key [L, 2, N], words [W, ..., N, B], small [3, ..., N, B] (u, e0, e1) to ciphertext residues [2, ..., L, N, B]."""
    c = modular.constants(params.moduli)
    q, inverse = c.q[..., None], c.inverse[..., None]
    u, e0, e1 = modular.from_signed(small[..., None, :, :], q)
    message = modular.add(_combine(params, words, packing.word_combination(params)), e0, q)
    axis = -1 if plan.columns else 0
    joined = jnp.concatenate([u, message, e1], axis=axis)
    u, message, e1 = jnp.split(_transform(params, plan, joined), 3, axis=axis)
    pairs = enumerate((message, e1))
    return jnp.stack([modular.add(modular.montgomery(u, key[:, i, :, None], q, inverse), e, q) for i, e in pairs])


def _encrypt_seeded(
    params: CkksParameters, plan: Plan, key: jax.Array, words: jax.Array, small: jax.Array
) -> jax.Array:
    """Key [L, 1, N], words [W + W', ..., N, B], small [1, ..., N, B] (e) to the residues of c0 [1, ..., L, N, B]."""
    c = modular.constants(params.moduli)
    q, inverse = c.q[..., None], c.inverse[..., None]
    weights = packing.word_combination(params)
    split = weights.weights.shape[-1]
    message = modular.add(_combine(params, words[:split], weights), modular.from_signed(small[0][..., None, :, :], q), q)

    uniform = _combine(params, words[split:], sampling.uniform_combination(params.moduli))
    masked = modular.montgomery(uniform, key[:, 0, :, None], q, inverse)
    return modular.subtract(_transform(params, plan, message), masked, q)[None]


def _by_blocks(
    encryptor: Callable[..., jax.Array],
    params: CkksParameters,
    plan: Plan,
    key: jax.Array,
    words: jax.Array,
    small: jax.Array,
) -> jax.Array:
    """Run an encryptor over blocks of rows as the plan says: words [W, N, R], small [S, N, R] to ciphertext data [R, P, L, N]."""
    rows = words.shape[-1]
    block = min(plan.row_block or rows, -(-rows // plan.row_multiple) * plan.row_multiple)
    blocks = -(-rows // block)
    if blocks * block == rows == block:
        return _block(encryptor, params, plan, key, words, small)

    def split(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, [(0, 0), (0, 0), (0, blocks * block - rows)])
        return jnp.moveaxis(padded.reshape(*x.shape[:-1], blocks, block), -2, 0)

    result = jax.lax.map(lambda xs: _block(encryptor, params, plan, key, *xs), (split(words), split(small)))
    return result.reshape(blocks * block, *result.shape[2:])[:rows]


def _block(
    encryptor: Callable[..., jax.Array],
    params: CkksParameters,
    plan: Plan,
    key: jax.Array,
    words: jax.Array,
    small: jax.Array,
) -> jax.Array:
    if plan.columns:
        return jnp.transpose(encryptor(params, plan, key, words, small), (3, 0, 1, 2))  # from [P, L, N, R]
    rows_first = [jnp.swapaxes(x, -1, -2)[..., None] for x in (words, small)]  # [.., R, N, 1]
    return jnp.swapaxes(encryptor(params, plan, key, *rows_first)[..., 0], 0, 1)


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
        counts: int32 [..., D].
        distance: float32 [...], the largest distance to an integer in steps. Beyond `parameters.MARGIN` the counts mean nothing: the key is
            another one, the bytes were changed, or more senders were added than announced.
    """
    return packing.decode_columns(params, _phase_columns(params, secret, ciphertext), size)


def decrypt(params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext, size: int) -> jax.Array:
    """The exact counts, int32 [..., D], of a ciphertext or a sum; see `decrypt_with_margin` for the check that goes with it."""
    return decrypt_with_margin(params, secret, ciphertext, size)[0]
