"""Real values in CKKS slots, in TenSEAL's (SEAL's) order: for interchange, not for private rounds.

A vector z of N/2 reals is the polynomial m with m(zeta^(3^j)) = scale z_j, zeta = exp(i pi / N), rounded to integer
coefficients (Cheon, Kim, Kim, Song 2017, "Homomorphic encryption for arithmetic of approximate numbers", section 3.2,
with SEAL's generator 3). The transform runs on the host in float64.

Decrypted slots are approximate: they carry the encryption noise, and publishing them can leak the secret key (Li and
Micciancio 2021). Private rounds use packed integers, which are opened exactly; slots serve peers that hold the key
anyway.

Slot parameters pack no integers (`values_per_coefficient == 0`) and say by what factor reals are scaled up before they
are rounded (`scale`, TenSEAL's `global_scale`). The scale travels in every ciphertext of SEAL, and sums need scales that
are equal to the last bit.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import encryption, modular, ntt
from fedjax_poisson.ckks.encryption import Ciphertext, PublicKey, SecretKey
from fedjax_poisson.ckks.parameters import LIMITS, CkksParameters
from fedjax_poisson.ckks.rlwe_samplers import Stream

_MAX_COEFFICIENT_BITS = 62  # coefficients pass through int64 on the host


def slot_parameters(
    *, degree: int, moduli: tuple[int, ...], scale: float, special_modulus: int | None = None, mode: str = "public_key"
) -> CkksParameters:
    """Parameters of a slot-encoded ring, as in a TenSEAL context.

    Args:
      degree: ring degree N; N/2 reals per ciphertext.
      moduli: data primes below 2^31.
      scale: at least 1 and below the modulus; a power of two loses nothing.
      special_modulus: last prime of SEAL's key chain, if any; counted for security.
      mode: "public_key" or "seeded".

    Raises:
      ValueError: a scale that is too small or too large, or primes that the ring does not take.
    """
    if not 1 <= scale < math.inf:
        raise ValueError(
            f"scale = {scale!r}; give a finite scale of at least 1 (TenSEAL: context.global_scale = 2**33)."
        )
    modulus = math.prod(moduli)
    if scale >= modulus:
        raise ValueError(
            f"scale = 2^{math.log2(scale):.1f} does not fit below the modulus of {modulus.bit_length()} bits; lower the scale "
            "or add primes."
        )
    total = math.log2(modulus * (special_modulus or 1))
    guideline = next((name for name, limits in LIMITS.items() if total <= limits.get(degree, 0)), "none")
    return CkksParameters(
        degree=degree,
        moduli=moduli,
        special_modulus=special_modulus,
        mode=mode,  # type: ignore[arg-type]
        scale=float(scale),
        security_bits=128 if guideline != "none" else 0,
        bytes_per_value=2 * 2 * sum((q - 1).bit_length() for q in moduli) / 8,
        guideline=guideline,
        explanation=f"slots of N = {degree}, scale 2^{math.log2(scale):.4g}, {total:.1f} bits of modulus in all",
    )


def slot_scale(params: CkksParameters) -> float:
    """The scale of slot parameters.

    Raises:
      ValueError: parameters without one (they pack integers).
    """
    if not params.scale:
        raise ValueError(
            "These parameters pack integers and have no slot scale; make some with slot_parameters or "
            "read_tenseal_context."
        )
    return params.scale


def encode_slots(params: CkksParameters, values: np.ndarray) -> np.ndarray:
    """Reals to the residues of their encoding polynomials, coefficients in natural order.

    Args:
      params: slot parameters.
      values: float `[D]`; the last ciphertext is filled up with zeros.

    Returns:
      uint32 `[R, L, N]`, R = ceil(D / (N/2)).

    Raises:
      ValueError: not a vector of finite reals, or a value too large for scale and modulus.
    """
    scale, degree = slot_scale(params), params.degree
    reals = np.asarray(values, np.float64)
    if reals.ndim != 1 or not reals.size or not np.all(np.isfinite(reals)):
        raise ValueError(f"values has shape {list(reals.shape)}; give a vector of at least one finite real.")
    largest = float(np.max(np.abs(reals)))
    if largest * scale >= min(params.modulus / 2, 2.0**_MAX_COEFFICIENT_BITS):
        room = min(params.modulus.bit_length() - 1, _MAX_COEFFICIENT_BITS)
        raise ValueError(
            f"A value of {largest:.3g} at scale {scale:.3g} does not fit below 2^{room}; lower the scale or add primes."
        )
    half = degree // 2
    rows = -(-reals.size // half)
    z = np.zeros((rows, half))
    z.reshape(-1)[: reals.size] = reals
    at, conjugate, twist = _embedding(degree)
    evaluations = np.zeros((rows, degree), np.complex128)
    evaluations[:, at] = z
    evaluations[:, conjugate] = z
    coefficients = np.rint(np.real(np.fft.fft(evaluations, axis=-1) * np.conj(twist)) * (scale / degree)).astype(
        np.int64
    )
    moduli = np.asarray(params.moduli, np.int64)[None, :, None]
    return np.mod(coefficients[:, None, :], moduli).astype(np.uint32)


def decode_slots(params: CkksParameters, residues: np.ndarray, size: int) -> np.ndarray:
    """Residues of decrypted polynomials to reals; the inverse of `encode_slots` up to noise.

    Args:
      params: slot parameters.
      residues: uint32 `[R, L, N]` in [0, q), coefficients in natural order.
      size: D.

    Returns:
      float64 `[D]`.

    Raises:
      ValueError: more values are asked for than there are slots.
    """
    degree = params.degree
    rows = residues.shape[0]
    if not 0 < size <= rows * degree // 2:
        raise ValueError(
            f"{size} values are asked for; {rows} ciphertexts of N = {degree} hold 1 to {rows * degree // 2}."
        )
    at, _, twist = _embedding(degree)
    coefficients = centred_float(residues, params.moduli)
    values = np.fft.ifft(coefficients * twist, axis=-1) * degree
    return np.real(values[:, at]).reshape(-1)[:size] / slot_scale(params)


def encrypt_slots(params: CkksParameters, key: PublicKey | SecretKey, values: np.ndarray, stream: Stream) -> Ciphertext:
    """Encode and encrypt reals; TenSEAL reads the result through `interop.tenseal_vector`.

    Args:
      params: slot parameters.
      key: a public key, or the secret key (symmetric; the second polynomial is a seed until it is written for TenSEAL).
      values: float `[D]`.
      stream: randomness, consumed.

    Returns:
      A ciphertext of R = ceil(D / (N/2)) rows.

    Raises:
      ValueError: see `encode_slots`.
    """
    return _add_plain(params, key, jnp.asarray(encode_slots(params, values)), stream)


def decrypt_slots(params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext, size: int) -> np.ndarray:
    """Decrypt to reals.

    Args:
      params: slot parameters.
      secret: the secret key.
      ciphertext: one ciphertext or sum, data uint32 `[R, 2, L, N]` or seeded.
      size: D.

    Returns:
      float64 `[D]`, approximate; see the module's warning.

    Raises:
      ValueError: see `decode_slots`.
    """
    return decode_slots(params, np.asarray(_phase(params, secret, ciphertext)), size)


@functools.partial(jax.jit, static_argnums=0)
def _phase(params: CkksParameters, secret: SecretKey, ciphertext: Ciphertext) -> jax.Array:
    return encryption.phase(params, secret, ciphertext)


@functools.partial(jax.jit, static_argnums=0)
def _add_plain(params: CkksParameters, key: PublicKey | SecretKey, residues: jax.Array, stream: Stream) -> Ciphertext:
    """An encryption of zero plus the polynomials `[R, L, N]`: what encryption is, with the message added last.

    The zeros are packed integers under a twin of the parameters that differs in the packing only.
    """
    packed = dataclasses.replace(params, count_bound=1, values_per_coefficient=1, field_bits=2, scale=0.0)
    zeros = jnp.zeros(residues.shape[0] * params.degree, jnp.int32)
    empty = encryption.encrypt(packed, key, zeros, stream)
    c = modular.constants(params.moduli)
    first = modular.add(empty.data[:, 0], ntt.forward(residues, params.moduli), c.q)
    return empty._replace(data=empty.data.at[:, 0].set(first))


def centred_float(residues: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """Residues `[..., L, N]` to the float64 `[..., N]` nearest to their representative in (-Q/2, Q/2).

    Mixed-radix digits (Garner; Knuth, The Art of Computer Programming 2, section 4.3.2) are complemented where the
    number is above Q/2, so that small
    negative numbers lose nothing to cancellation: Q - 1 - x has the digits q_i - 1 - v_i.
    """
    digits: list[np.ndarray] = []
    for i, q in enumerate(moduli):
        rest: np.ndarray = residues[..., i, :].astype(np.uint64)
        for j in range(i):  # (x - v_0 - v_1 q_0 - ...) / (q_0 ... q_{i-1}) mod q_i, one factor at a time
            rest = (rest + np.uint64(q) - digits[j] % np.uint64(q)) % np.uint64(q)
            rest = rest * np.uint64(pow(moduli[j], -1, q)) % np.uint64(q)
        digits.append(rest)
    middle, bound = [], math.prod(moduli) // 2
    for q in moduli:
        middle.append(bound % q)
        bound //= q
    negative = np.zeros(digits[0].shape, bool)
    for digit, limit in zip(digits, middle, strict=True):  # the last digit decides, earlier ones break ties
        negative = np.where(digit == np.uint64(limit), negative, digit > np.uint64(limit))
    total = np.zeros(digits[0].shape)
    for i in reversed(range(len(moduli))):
        digit, q, weight = digits[i], moduli[i], float(math.prod(moduli[:i]))
        total = total + np.where(negative, np.uint64(q - 1) - digit, digit).astype(np.float64) * weight
    return np.where(negative, -(total + 1), total)


@functools.lru_cache(maxsize=16)
def _embedding(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of slots and of their conjugates among zeta^(2k+1), k = 0 .. N-1, and zeta^i."""
    powers = np.ones(degree // 2, np.int64)
    for j in range(1, degree // 2):
        powers[j] = powers[j - 1] * 3 % (2 * degree)
    twist = np.exp(1j * np.pi * np.arange(degree) / degree)
    return (powers - 1) // 2, (2 * degree - powers - 1) // 2, twist
