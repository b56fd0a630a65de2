"""TenSEAL's (SEAL's) bytes in both directions: contexts, keys and vectors. The package's own format is in `ciphertext_bytes`.

Foreign bytes are data, never trusted: every length is compared with what is there, the parameters' hash (parms_id),
sizes, scale and each residue are checked, and nothing is allocated on the word of a header. Anything unsound raises
`WireError` and nothing else.

SEAL's layout, integers little-endian: an object is a 16-byte header and a body (`seal_format`); a ciphertext's body is
parms_id (32 bytes), u8 NTT form, u64 polynomials, u64 N, u64 L, f64 scale, u64 correction factor (not before version
4), and the residues as 64-bit words [2][L][N] in a nested object. parms_id is BLAKE2b-256 over the u64 words scheme, N,
primes, plain modulus. Keys lie at key level (all primes), ciphertexts at data level (without the special prime).
"""

from __future__ import annotations

import hashlib
import math
import struct

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import encryption, ntt
from fedjax_poisson.ckks.encryption import Ciphertext, PublicKey, SecretKey
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.interop.seal_format import (
    Reader,
    read_fields,
    read_object,
    read_varint,
    write_double,
    write_field,
    write_object,
    write_varint,
    write_words,
)
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.ckks.slots import slot_parameters, slot_scale

__all__ = ["from_tenseal_vector", "read_tenseal_context", "tenseal_vector"]

_CKKS_SCHEME = 2
_MAX_DEGREE = 1 << 15
_MAX_PRIMES = 64
_MAX_ROWS = 1 << 20
_SYMMETRIC = 1
_inverse = jax.jit(ntt.inverse, static_argnums=1)


def read_tenseal_context(blob: bytes) -> tuple[CkksParameters, PublicKey | None, SecretKey | None]:
    """Read what `tenseal.Context.serialize()` wrote.

    Args:
      blob: a CKKS context whose primes are all below 2^31, e.g. `coeff_mod_bit_sizes=[30, 30, 30]`, with a global scale.

    Returns:
      Slot parameters at data level (`params.scale` is the context's global scale), the public key or None, the secret key
      or None. A key restricted to the data primes is a key of that ring.

    Raises:
      WireError: not a sound context, or one that 32-bit arithmetic does not reach; the message says which.
      ImportError: no Zstandard reader (`pip install zstandard`; Python 3.14 has one).
    """
    fields = read_fields(blob)
    chain, degree = _read_seal_parameters(_single(fields, 1, "parameters"))
    public_fields = read_fields(_single(fields, 2, "public part"))
    scale = _double(public_fields, 3, "global scale")
    symmetric = _varint(fields, 4) == _SYMMETRIC
    data, special = (chain[:-1], chain[-1]) if len(chain) > 1 else (chain, None)
    too_large = [q for q in data if q >= 1 << 31]
    if too_large:
        raise WireError(
            f"The context's data primes have up to {max(q.bit_length() for q in too_large)} bits; the device computes "
            "with primes below 2^31. Make the context with e.g. poly_modulus_degree=4096, coeff_mod_bit_sizes=[30, "
            "30, 30]."
        )
    try:
        params = slot_parameters(
            degree=degree,
            moduli=data,
            scale=scale,
            special_modulus=special,
            mode="seeded" if symmetric else "public_key",
        )
    except ValueError as reason:
        raise WireError(f"The context's parameters are not usable: {reason}") from None
    public = _read_public_key(public_fields[1][0], degree, chain) if _has(public_fields, 1) else None
    secret = None
    if _has(fields, 3):
        private = read_fields(_single(fields, 3, "private part"))
        secret = _read_secret_key(private[1][0], degree, chain) if _has(private, 1) else None
    return params, public, secret


def tenseal_vector(params: CkksParameters, ciphertext: Ciphertext, size: int | None = None) -> bytes:
    """A slot ciphertext as `tenseal.CKKSVector` bytes: `tenseal.ckks_vector_from(context, blob)` reads them.

    Args:
      params: slot parameters (`read_tenseal_context`).
      ciphertext: data uint32 `[R, 2, L, N]`, or seeded (expanded here: TenSEAL keeps no seeds).
      size: values in the vector; None means all R N/2 slots.

    Returns:
      Uncompressed bytes of format 3.6, which SEAL 3.6 to 4.4 all read.

    Raises:
      ValueError: parameters without a scale, a wrong shape, or a size beyond the slots.
    """
    scale, half = slot_scale(params), params.degree // 2
    data = np.asarray(encryption.expand(params, ciphertext).data)
    rows = data.shape[0]
    if data.shape != (rows, 2, params.limbs, params.degree):
        raise ValueError(
            f"The ciphertext has shape {data.shape}; these parameters need [R, 2, {params.limbs}, {params.degree}]."
        )
    count = rows * half if size is None else size
    if not (rows - 1) * half < count <= rows * half:
        raise ValueError(f"{count} values do not need exactly {rows} ciphertexts of {half} slots.")
    sizes = b"".join(write_varint(min(half, count - row * half)) for row in range(rows))
    mark = _parms_id(params.degree, params.moduli)
    head = mark + b"\x01" + struct.pack("<QQQd", 2, params.degree, params.limbs, scale)
    bodies = [write_field(2, write_object(head + write_words(row.reshape(-1).astype(np.uint64)))) for row in data]
    return b"".join([write_field(1, sizes), *bodies, write_double(3, scale)])


def from_tenseal_vector(params: CkksParameters, blob: bytes) -> Ciphertext:
    """Read what `tenseal.CKKSVector.serialize()` or `tenseal_vector` wrote.

    Args:
      params: slot parameters of the context it was made under.
      blob: the bytes.

    Returns:
      A ciphertext that counts as one sender.

    Raises:
      WireError: truncated, altered, oversized, of other parameters or another scale; the message says which.
      ImportError: compressed bytes and no Zstandard reader.
    """
    scale, half = slot_scale(params), params.degree // 2
    fields = read_fields(blob)
    if not set(fields) <= {1, 2, 3}:
        raise WireError(f"A TenSEAL vector has the fields 1, 2 and 3; these bytes have {sorted(fields)}.")
    rows = fields.get(2, [])
    if not 1 <= len(rows) <= _MAX_ROWS:
        raise WireError(f"The vector holds {len(rows)} ciphertexts; 1 to {_MAX_ROWS} are taken.")
    sizes = _packed(b"".join(fields.get(1, [])), len(rows))
    if len(sizes) != len(rows) or any(s != half for s in sizes[:-1]) or not 1 <= sizes[-1] <= half:
        raise WireError(f"The vector states {sizes[:4]} values for {len(rows)} ciphertexts of {half} slots each.")
    mark = _parms_id(params.degree, params.moduli)
    data = np.stack([_read_ciphertext(row, params.degree, params.moduli, mark, scale, "ciphertext") for row in rows])
    return Ciphertext(jnp.asarray(data), None, jnp.uint32(1))


def _read_seal_parameters(blob: bytes) -> tuple[tuple[int, ...], int]:
    reader = Reader(read_object(blob, limit=64 * (_MAX_PRIMES + 2), what="parameter set").body, "parameter set")
    scheme, degree, count = reader.u8(), reader.u64(), reader.u64()
    if scheme != _CKKS_SCHEME:
        raise WireError(f"The context's scheme is number {scheme}; only CKKS (2) is read.")
    if degree & (degree - 1) or not 2 <= degree <= _MAX_DEGREE:
        raise WireError(f"The context's degree is {degree}; a power of two up to {_MAX_DEGREE} is needed.")
    if not 1 <= count <= _MAX_PRIMES:
        raise WireError(f"The context has {count} primes; 1 to {_MAX_PRIMES} are possible.")
    values = []
    for _ in range(count + 1):
        body = read_object(reader.take(24), limit=8, what="prime of the parameter set").body
        if len(body) != 8:
            raise WireError("A prime of the parameter set is not 8 bytes long.")
        values.append(int.from_bytes(body, "little"))
    reader.end()
    *chain, plain = values
    if plain != 0:
        raise WireError("The context has a plain modulus, which CKKS has not.")
    for q in chain:
        if not 2 < q < 1 << 61 or q % (2 * degree) != 1 or not ntt.is_prime(q):
            raise WireError(f"{q} is not a prime that is 1 modulo 2N = {2 * degree}.")
    if len(set(chain)) != len(chain):
        raise WireError(f"The primes of the context are not distinct: {chain}.")
    return tuple(chain), degree


def _read_public_key(blob: bytes, degree: int, chain: tuple[int, ...]) -> PublicKey:
    data = _read_ciphertext(blob, degree, chain, _parms_id(degree, chain), 1.0, "public key")
    return PublicKey(jnp.asarray(_data_level(data)))


def _read_secret_key(blob: bytes, degree: int, chain: tuple[int, ...]) -> SecretKey:
    words = len(chain) * degree
    reader = Reader(read_object(blob, limit=128 + 8 * words, what="secret key").body, "secret key")
    if reader.take(32) != _parms_id(degree, chain):
        raise WireError("The secret key belongs to other parameters.")
    if reader.u64() != words or reader.f64() != 1.0:
        raise WireError("The secret key's head does not fit its parameters.")
    data = _residues(reader.words(words), (len(chain), degree), chain, "secret key")
    reader.end()
    secret = _data_level(data)
    coefficients = np.asarray(_inverse(jnp.asarray(secret), _data_chain(chain))).astype(np.int64)
    q = np.asarray(_data_chain(chain), np.int64)[:, None]
    signed = np.where(coefficients > q // 2, coefficients - q, coefficients)
    if np.any(np.abs(signed) > 1) or np.any(signed != signed[:1]):
        raise WireError(
            "The secret key is not the same ternary polynomial modulo every prime: altered, or not a secret key."
        )
    return SecretKey(jnp.asarray(secret))


def _data_chain(chain: tuple[int, ...]) -> tuple[int, ...]:
    return chain[:-1] if len(chain) > 1 else chain


def _data_level(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data[..., :-1, :]) if data.shape[-2] > 1 else data


def _read_ciphertext(
    blob: bytes, degree: int, moduli: tuple[int, ...], mark: bytes, scale: float, what: str
) -> np.ndarray:
    words = 2 * len(moduli) * degree
    found = read_object(blob, limit=256 + 8 * words, what=what)
    reader = Reader(found.body, what)
    if reader.take(32) != mark:
        raise WireError(f"The {what} belongs to other parameters (its parms_id differs).")
    form, polynomials, n, limbs = reader.u8(), reader.u64(), reader.u64(), reader.u64()
    if form != 1 or (polynomials, n, limbs) != (2, degree, len(moduli)):
        raise WireError(
            f"The {what} has NTT flag {form}, {polynomials} polynomials, N = {n} and {limbs} primes; needed are 1, 2, "
            f"{degree} and {len(moduli)}."
        )
    stated = reader.f64()
    if stated != scale:
        raise WireError(f"The {what} has scale {stated!r} where {scale!r} is needed; sums need equal scales.")
    if found.major >= 4 and reader.u64() != 1:
        raise WireError(f"The {what} has a correction factor, which CKKS has not.")
    data = _residues(reader.words(words), (2, len(moduli), degree), moduli, what)
    reader.end()
    return data


def _residues(words: np.ndarray, shape: tuple[int, ...], moduli: tuple[int, ...], what: str) -> np.ndarray:
    data = words.reshape(shape)
    if np.any(data >= np.asarray(moduli, np.uint64)[:, None]):
        raise WireError(f"A residue of the {what} is not below its prime: altered.")
    return data.astype(np.uint32) if max(moduli) < 1 << 32 else np.where(data < 1 << 32, data, 0).astype(np.uint32)


def _parms_id(degree: int, moduli: tuple[int, ...]) -> bytes:
    words = struct.pack(f"<{len(moduli) + 3}Q", _CKKS_SCHEME, degree, *moduli, 0)
    return hashlib.blake2b(words, digest_size=32).digest()


def _has(fields: dict[int, list[bytes]], number: int) -> bool:
    return bool(fields.get(number)) and bool(fields[number][0])


def _single(fields: dict[int, list[bytes]], number: int, what: str) -> bytes:
    found = fields.get(number, [])
    if len(found) != 1:
        raise WireError(
            f"The context has {len(found)} fields for its {what} instead of one: it is not a TenSEAL context."
        )
    return found[0]


def _double(fields: dict[int, list[bytes]], number: int, what: str) -> float:
    found = fields.get(number, [])
    if len(found) != 1 or len(found[0]) != 8:
        raise WireError(f"The context has no {what}; set context.global_scale before serializing it.")
    value = struct.unpack("<d", found[0])[0]
    if not 1 <= value < math.inf:
        raise WireError(f"The context's {what} is {value!r}; it must be at least 1.")
    return value


def _varint(fields: dict[int, list[bytes]], number: int) -> int:
    found = fields.get(number, [])
    return read_varint(found[-1], 0)[0] if found else 0


def _packed(content: bytes, most: int) -> list[int]:
    values: list[int] = []
    at = 0
    while at < len(content):
        if len(values) == most:
            raise WireError(f"The vector states more sizes than it has ciphertexts ({most}).")
        value, at = read_varint(content, at)
        values.append(value)
    return values
