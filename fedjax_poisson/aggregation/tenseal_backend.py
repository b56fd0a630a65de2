"""Exact integer sums through TenSEAL (Microsoft SEAL): the reference that the device backend is checked against.

Counts lie in CKKS slots. One data prime and one special prime at N = 4096 carry any |sum| < 2^31 with the rounding
error far below one half; `choose` picks the scale from the senders and the count bound and states the error bound. The
server and the senders are built from the public context's bytes alone; only the holder keeps the context with the
secret key.

TenSEAL draws its randomness from SEAL's own generator, seeded by the operating system, so the `stream` of a sender is
not used here and no encryption can be repeated from a seed.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from typing import Any

import numpy as np

from fedjax_poisson.aggregation.backend import AggregatorInfo, HolderPart, Parts, SenderPart, ServerPart
from fedjax_poisson.ckks.ciphertext_bytes import fingerprint
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.interop.seal_format import read_fields

CODE = 1
_DEGREE = 4096
_SLOTS = _DEGREE // 2
_SPECIAL_BITS = 30
_MAX_PRIME_BITS = 60  # SEAL's own limit
_LIMIT_BITS = 106  # of log2(data prime * special prime) at N = 4096, ternary secret, 128 bits classical: 2024 guideline
_FAILURE_BITS = 128
_VALUES_BITS = 40  # the bound holds for all of up to 2^40 opened values together
_AIM, _CEILING = 2.0**-7, 2.0**-3
_MARGIN = 0.25  # twice the largest error bound: a value farther from an integer is no sum of this key


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensealParameters:
    """A SEAL parameter set for exact integer sums in slots.

    Attributes:
      degree: ring degree N; N/2 counts per ciphertext.
      data_bits: bits of the one data prime.
      special_bits: bits of the special prime, which SEAL divides out at encryption.
      scale_bits: log2 of the CKKS scale.
      count_bound: largest |coordinate of the sum|.
      senders: most contributions in one sum.
      error_bound: largest distance of an opened value from its integer, except with probability 2^-128.
    """

    degree: int
    data_bits: int
    special_bits: int
    scale_bits: int
    count_bound: int
    senders: int
    error_bound: float


def error_bound(*, scale_bits: int, senders: int, count_bound: int, degree: int = _DEGREE) -> float:
    """Distance of an opened slot from its integer, exceeded by any of 2^40 values with probability below 2^-128.

    A fresh SEAL ciphertext carries, after the division by the special prime p, the noise v/p + r0 + r1 s, and the
    encoder rounds once more (r2). A slot is the real part of the noise polynomial at a root zeta of X^N + 1.
    1. s has uniform ternary coefficients, for which E exp(tX) <= exp(t^2/3), so Re s(zeta) and Im s(zeta) are
       sub-Gaussian with variance proxy (2/3)(N/2) = N/3, and |s(zeta)|^2 <= S^2 = (4N/3) ln(4 (N/2) 2^129) at all N/2
       roots except with probability 2^-129.
    2. Given s, Re(r0 + r1 s + r2)(zeta) is linear in 3N roundings, each uniform on [-1/2, 1/2] (c1 mod p is
       pseudo-random under RLWE), with variance proxy (N/24)(S^2 + 2). For n senders n times that; z = sqrt(2 ln(2 *
       2^40 * 2^129)) covers 2^40 values.
    3. |v| <= 21 (2N + 1) per coefficient because |e| <= 21 and |s|, |u| <= 1; its share of a slot is at most N 21 (2N +
       1) / p.
    4. The float64 transforms of encoder and decoder: at most 8 log2(N) rounding steps of 2^-53 relative to the largest
       value, per sender and once for the sum (Higham, Accuracy and Stability of Numerical Algorithms, section 24.1, for
       the FFT).
    """
    n = senders
    s_squared = (4 * degree / 3) * math.log(2 * degree * 2.0 ** (_FAILURE_BITS + 1))
    z = math.sqrt(2 * math.log(2.0 ** (1 + _VALUES_BITS + _FAILURE_BITS + 1)))
    rounding = z * math.sqrt(n * degree / 24 * (s_squared + 2))
    fresh = n * degree * 21 * (2 * degree + 1) / 2.0 ** (_SPECIAL_BITS - 1)
    transform = (n + 1) * count_bound * 8 * math.log2(degree) * 2.0**-53
    return (rounding + fresh) / 2.0**scale_bits + transform


def choose(*, count_bound: int, senders: int) -> TensealParameters:
    """The smallest data prime for exact sums: sign, one bit of headroom so that an overflow is seen, bound and scale.

    A coefficient of an encoded vector is at most the largest slot times the scale, because the inverse embedding is an
    average over the roots.

    Raises:
      ValueError: no data prime of at most 60 bits carries this bound for so many senders.
    """
    if not 1 <= count_bound < 2**31:
        raise ValueError(
            f"count_bound = {count_bound}; give 1 <= count_bound < 2^31, the bound on |any coordinate of the sum|."
        )
    if senders < 1:
        raise ValueError(f"senders = {senders}; at least one contribution is needed.")
    bound_bits = count_bound.bit_length()
    for scale_bits in range(_MAX_PRIME_BITS - 2 - bound_bits, 0, -1):
        if error_bound(scale_bits=scale_bits - 1, senders=senders, count_bound=count_bound) > _AIM:
            break
    error = error_bound(scale_bits=scale_bits, senders=senders, count_bound=count_bound)
    if error > _CEILING:
        raise ValueError(
            f"TenSEAL with one 60-bit prime opens sums of {senders} senders bounded by {count_bound} with an error of "
            f"up to {error:.3g}, above {_CEILING}. Lower count_bound or senders, or use the device backend."
        )
    data_bits = scale_bits + bound_bits + 2
    assert data_bits + _SPECIAL_BITS <= _LIMIT_BITS and data_bits <= _MAX_PRIME_BITS
    return TensealParameters(
        degree=_DEGREE,
        data_bits=data_bits,
        special_bits=_SPECIAL_BITS,
        scale_bits=scale_bits,
        count_bound=count_bound,
        senders=senders,
        error_bound=error,
    )


def parts(*, count_bound: int, senders: int, minimum_senders: int) -> Parts:
    """Fresh keys from the operating system's randomness and the three roles built from them.

    Raises:
      ValueError: the bound cannot be met (see `choose`).
    """
    params = choose(count_bound=count_bound, senders=senders)
    public, holder = make_keys(params)
    info = AggregatorInfo(
        backend="tenseal",
        mode="public_key",
        degree=params.degree,
        moduli_bits=(params.data_bits,),
        security_bits=128,
        scale_bits=params.scale_bits,
        count_bound=count_bound,
        senders=senders,
        minimum_senders=minimum_senders,
        key_holder="one key holder beside the server, who is handed sums only; senders and server hold the public key",
        protects=(
            "An honest-but-curious server, and anyone who sees the messages, learns nothing of one sender's counts "
            "(IND-CPA under ring-LWE). Not against a server that hands single messages to the key holder as sums, nor "
            "against side channels."
        ),
        error_bound=params.error_bound,
    )
    return Parts(
        code=CODE,
        mark=fingerprint(b"tenseal", public),
        sender=sender_part(public),
        server=server_part(public),
        holder=holder,
        info=info,
        body_bytes=lambda size: _body_ceiling(size, params.data_bits),
    )


def make_keys(params: TensealParameters) -> tuple[bytes, HolderPart]:
    """A fresh key pair: the public context as bytes, and the holder, the only object with the secret key."""
    ts = _tenseal()
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, params.degree, coeff_mod_bit_sizes=[params.data_bits, params.special_bits]
    )
    context.global_scale = 2.0**params.scale_bits
    public = context.copy()
    public.make_context_public()
    blob = public.serialize(save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
    return blob, holder_part(context)


def sender_part(public: bytes) -> SenderPart:
    """A sender's side from the public context's bytes; its payload is the body of its message."""
    context = _public_context(public)

    def seal(counts: np.ndarray, stream: Any) -> bytes:
        del stream
        vectors = _tenseal().ckks_vector
        rows = _rows(counts.size)
        padded = np.zeros(rows * _SLOTS, np.float64)
        padded[: counts.size] = counts
        return _join([vectors(context, row.tolist()).serialize() for row in padded.reshape(rows, _SLOTS)])

    return SenderPart(seal=seal)


def server_part(public: bytes) -> ServerPart:
    """The server's side from the public context's bytes; its sums are live TenSEAL vectors of that context."""
    context = _public_context(public)

    def live(payload: Any) -> tuple[Any, ...]:
        return _vectors(context, payload) if isinstance(payload, bytes) else payload

    def load(body: bytes, size: int) -> tuple[Any, ...]:
        found = _vectors(context, body)
        if len(found) != _rows(size):
            raise WireError(f"{size} values fill {_rows(size)} ciphertexts; the message holds {len(found)}.")
        return found

    def add(a: Any, b: Any) -> tuple[Any, ...]:
        return tuple(x + y for x, y in zip(live(a), live(b), strict=True))

    def measure(payload: Any, size: int) -> int:
        return len(dump_body(payload))

    return ServerPart(load=load, dump=dump_body, add=add, measure=measure)


def holder_part(context: Any) -> HolderPart:
    """The key holder's side; `context` has the secret key."""

    def read(payload: Any, size: int, senders: int, ids: frozenset[bytes]) -> tuple[np.ndarray, bool]:
        del senders, ids
        vectors = _vectors(context, dump_body(payload))  # what reaches the holder are bytes, whoever made them
        if len(vectors) != _rows(size):
            raise WireError(f"{size} values fill {_rows(size)} ciphertexts; the sum holds {len(vectors)}.")
        raw = np.concatenate([np.asarray(vector.decrypt(), np.float64) for vector in vectors])
        if not np.all(np.abs(raw) < 2.0**52):  # also false for a NaN
            return np.zeros(size, np.int64), False
        nearest = np.rint(raw)
        near = bool(np.max(np.abs(raw - nearest), initial=0.0) <= _MARGIN)
        empty = not np.any(nearest[size:])  # the padding of the last ciphertext is zero in every honest sum
        return nearest[:size].astype(np.int64), near and empty

    return HolderPart(read=read)


def dump_body(payload: Any) -> bytes:
    """A payload as the body of a message: u32 count, then each vector's u64 length and bytes, little-endian."""
    return payload if isinstance(payload, bytes) else _join([vector.serialize() for vector in payload])


def _public_context(public: bytes) -> Any:
    context = _tenseal().context_from(public)
    if context.is_private():
        raise ValueError(
            "The context holds a secret key; senders and server get the public context only (make_context_public)."
        )
    return context


def _rows(size: int) -> int:
    return max(1, -(-size // _SLOTS))


def _body_ceiling(size: int, data_bits: int) -> int:
    """Ceiling of a body's length: a residue takes 8 bytes, and zstd gets most of the empty bits back, never all."""
    packed = 2 * _DEGREE * min(8.0, (data_bits + 7) / 8)
    return 4 + _rows(size) * (8 + 512 + math.ceil(1.12 * packed))


def _join(vectors: list[bytes]) -> bytes:
    return b"".join([struct.pack("<I", len(vectors)), *(struct.pack("<Q", len(v)) + v for v in vectors)])


def _split(body: bytes) -> list[bytes]:
    if len(body) < 4:
        raise WireError(f"The body has {len(body)} bytes: it was truncated.")
    (count,) = struct.unpack_from("<I", body)
    at = 4
    found: list[bytes] = []
    for _ in range(count):
        if at + 8 > len(body):
            raise WireError(f"The body announces {count} ciphertexts and ends within number {len(found) + 1}.")
        (length,) = struct.unpack_from("<Q", body, at)
        at += 8
        if length > len(body) - at:
            raise WireError(f"Ciphertext {len(found) + 1} announces {length} bytes and {len(body) - at} are left.")
        found.append(body[at : at + length])
        at += length
    if at != len(body):
        raise WireError(f"{len(body) - at} bytes follow the last ciphertext.")
    return found


def _vectors(context: Any, body: bytes) -> tuple[Any, ...]:
    """Validated TenSEAL vectors: `sizes` is checked here because TenSEAL reads out of bounds when it lies."""
    ts = _tenseal()
    found: list[Any] = []
    for blob in _split(body):
        fields = read_fields(blob)
        sizes, ciphertexts = fields.get(1, []), fields.get(2, [])
        if sizes != [_slots_field()] or len(ciphertexts) != 1 or not set(fields) <= {1, 2, 3}:
            raise WireError(f"A TenSEAL vector must hold one ciphertext of {_SLOTS} values.")
        try:
            vector = ts.ckks_vector_from(context, blob)
        except Exception as reason:  # SEAL reports through several exception types
            raise WireError(f"SEAL does not accept a ciphertext of the message: {reason}") from None
        if vector.size() != _SLOTS:
            raise WireError(f"A ciphertext holds {vector.size()} values instead of {_SLOTS}.")
        scale = vector.ciphertext()[0].scale
        if scale != context.global_scale:
            raise WireError(
                f"A ciphertext has scale {scale!r} instead of {context.global_scale!r}; it was made under other "
                "parameters."
            )
        found.append(vector)
    return tuple(found)


def _slots_field() -> bytes:
    """The packed `sizes` field of a full vector: the varint of N/2."""
    return bytes([_SLOTS & 0x7F | 0x80, _SLOTS >> 7])


def _tenseal() -> Any:
    import tenseal  # imported on first use: it takes a while, and most programs do not need it

    return tenseal
