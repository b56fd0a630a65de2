"""The package's compact ciphertext format: each residue in the bits of its prime.

The compact format packs each residue into the bits of its prime, so that a message has the bytes that
`choose_parameters` states, and a head of 64 bytes. Foreign bytes are validated completely before use; anything unsound
raises `WireError`.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.parameters import CkksParameters

_COMPACT = struct.Struct(
    "<4sBBHIIQ16s24s"
)  # magic, version, seeded, zero, rows, senders, body bytes, parameters, zeros
_COMPACT_MAGIC = b"FJPC"
COMPACT_HEAD_BYTES = _COMPACT.size
FINGERPRINT_BYTES = 16
_SEED_WORDS = 8
_LANES = 32
_FEW = 4096  # values up to which one array of single bits is quicker than 32 passes


def fingerprint(*parts: bytes) -> bytes:
    """16 bytes that name public parameters: BLAKE2b-128 over the length-prefixed parts."""
    state = hashlib.blake2b(digest_size=FINGERPRINT_BYTES, person=b"fedjax-poisson")
    for part in parts:
        state.update(struct.pack("<Q", len(part)))
        state.update(part)
    return state.digest()


def parameters_fingerprint(params: CkksParameters) -> bytes:
    """16 bytes that name everything about parameters that changes the meaning of a ciphertext."""
    facts: tuple[Any, ...] = (
        params.degree,
        params.moduli,
        params.special_modulus,
        params.mode,
        params.count_bound,
        params.senders,
        params.values_per_coefficient,
        params.field_bits,
        params.scale,
    )
    return fingerprint(b"ckks", repr(facts).encode())


def compact_bytes(params: CkksParameters, rows: int, *, seeded: bool) -> int:
    """Bytes of a compact message of `rows` ciphertexts: the head, the packed residues, the seed."""
    return COMPACT_HEAD_BYTES + _body_bytes(params, rows, seeded)


def to_bytes(params: CkksParameters, ciphertext: Ciphertext) -> bytes:
    """A ciphertext in the compact format.

    Args:
      params: its parameters.
      ciphertext: data uint32 `[R, 2, L, N]`, or seeded, `[R, 1, L, N]` with seed uint32 `[8]`.

    Raises:
      ValueError: a wrong shape.
    """
    seeded = ciphertext.seed is not None
    data = np.asarray(ciphertext.data)
    rows = data.shape[0]
    if data.shape != (rows, 1 if seeded else 2, params.limbs, params.degree):
        raise ValueError(
            f"The ciphertext has shape {data.shape}; these parameters need [R, {1 if seeded else 2}, {params.limbs}, "
            f"{params.degree}] (no batch axes)."
        )
    parts = [pack_bits(data[:, :, limb], bits) for limb, bits in enumerate(params.residue_bits)]
    seed = np.asarray(ciphertext.seed, "<u4").tobytes() if seeded else b""
    length = sum(map(len, parts)) + len(seed)
    head = _COMPACT.pack(
        _COMPACT_MAGIC, 1, seeded, 0, rows, int(ciphertext.senders), length, parameters_fingerprint(params), bytes(24)
    )
    return b"".join([head, seed, *parts])


def from_bytes(params: CkksParameters, blob: bytes, *, rows: int | None = None) -> Ciphertext:
    """Read the compact format.

    Args:
      params: the parameters it was made under.
      blob: the bytes.
      rows: ciphertexts that must be in it; None takes any number that the bytes really hold.

    Raises:
      WireError: truncated, altered, oversized, or of other parameters.
    """
    if len(blob) < COMPACT_HEAD_BYTES:
        raise WireError(
            f"The ciphertext has {len(blob)} bytes, fewer than its head of {COMPACT_HEAD_BYTES}: truncated."
        )
    magic, version, seeded, zero, stated, senders, length, mark, zeros = _COMPACT.unpack_from(blob)
    if magic != _COMPACT_MAGIC or version != 1 or seeded > 1 or zero or any(zeros):
        raise WireError("The bytes do not begin with the head of a compact ciphertext of version 1.")
    if mark != parameters_fingerprint(params):
        raise WireError("The ciphertext was made under other parameters; give all senders the same ones.")
    if stated < 1 or (rows is not None and stated != rows):
        raise WireError(f"The message holds {stated} ciphertexts where {rows or 'at least one'} are needed.")
    if not 1 <= senders <= params.senders:
        raise WireError(f"The message states {senders} senders; these parameters add 1 to {params.senders}.")
    expected = _body_bytes(params, stated, bool(seeded))
    if length != expected or len(blob) - COMPACT_HEAD_BYTES != expected:
        raise WireError(
            f"The message has {len(blob) - COMPACT_HEAD_BYTES} body bytes, states {length}, and needs {expected}."
        )
    at = COMPACT_HEAD_BYTES
    seed = None
    if seeded:
        seed = jnp.asarray(np.frombuffer(blob, "<u4", _SEED_WORDS, at).astype(np.uint32))
        at += 4 * _SEED_WORDS
    polynomials = 1 if seeded else 2
    data = np.empty((stated, polynomials, params.limbs, params.degree), np.uint32)
    for limb, (bits, q) in enumerate(zip(params.residue_bits, params.moduli, strict=True)):
        count = stated * polynomials * params.degree
        length = _packed_bytes(count, bits)
        values = unpack_bits(blob[at : at + length], count, bits)
        at += length
        if np.any(values >= q):
            raise WireError(f"A residue is not below its prime {q}: altered.")
        data[:, :, limb] = values.reshape(stated, polynomials, params.degree)
    return Ciphertext(jnp.asarray(data), seed, jnp.uint32(senders))


def pack_bits(values: np.ndarray, bits: int) -> bytes:
    """Unsigned integers below 2^bits as one little-endian bit stream, value after value.

    Args:
      values: uint32, any shape, taken in C order.
      bits: 1 to 32.
    """
    flat = np.ascontiguousarray(values, np.uint32).reshape(-1)
    if flat.size <= _FEW:
        single = np.unpackbits(flat.astype("<u4").view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
        return np.packbits(single[:, :bits].reshape(-1), bitorder="little").tobytes()
    groups = -(-flat.size // _LANES)
    if flat.size % _LANES:
        flat = np.concatenate([flat, np.zeros(groups * _LANES - flat.size, np.uint32)])
    lanes = np.ascontiguousarray(flat.reshape(groups, _LANES).T)
    words = np.zeros((bits, groups), np.uint32)  # 32 values of b bits fill b words
    for lane in range(_LANES):
        index, shift = divmod(lane * bits, 32)
        words[index] |= lanes[lane] << np.uint32(shift)
        if shift + bits > 32:
            words[index + 1] |= lanes[lane] >> np.uint32(32 - shift)
    return np.ascontiguousarray(words.T).astype("<u4").tobytes()[: _packed_bytes(values.size, bits)]


def unpack_bits(blob: bytes, count: int, bits: int) -> np.ndarray:
    """The inverse of `pack_bits`: uint32 `[count]`."""
    if count <= _FEW:
        single = np.unpackbits(np.frombuffer(blob, np.uint8), count=count * bits, bitorder="little").reshape(-1, bits)
        wide = np.zeros((count, 32), np.uint8)
        wide[:, :bits] = single
        return np.packbits(wide, axis=1, bitorder="little").view("<u4").reshape(-1).astype(np.uint32)
    groups = -(-count // _LANES)
    padded = blob + bytes(4 * bits * groups - len(blob))
    words = np.ascontiguousarray(np.frombuffer(padded, "<u4").reshape(groups, bits).T).astype(np.uint32)
    mask = np.uint32((1 << bits) - 1)
    lanes = np.empty((_LANES, groups), np.uint32)
    for lane in range(_LANES):
        index, shift = divmod(lane * bits, 32)
        value = words[index] >> np.uint32(shift)
        if shift + bits > 32:
            value = value | words[index + 1] << np.uint32(32 - shift)
        lanes[lane] = value & mask
    return np.ascontiguousarray(lanes.T).reshape(-1)[:count]


def _packed_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def _body_bytes(params: CkksParameters, rows: int, seeded: bool) -> int:
    count = rows * (1 if seeded else 2) * params.degree
    return sum(_packed_bytes(count, bits) for bits in params.residue_bits) + (4 * _SEED_WORDS if seeded else 0)
