"""Slot encoding against its definition, and encryption of slots at the edges of the range."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_poisson.ckks import ciphertext_bytes, encryption, ntt, slots
from fedjax_poisson.randomness.chacha import fold_in, stream

GENERATE = jax.jit(encryption.generate_keys, static_argnums=0)
ADD = jax.jit(encryption.add, static_argnums=0)
DEGREE, MODULI = 64, ntt.primes_below(1 << 30, 64, 3)


def ring(scale: float = 2.0**30, **changes):
    return slots.slot_parameters(**{"degree": DEGREE, "moduli": MODULI, "scale": scale, **changes})


def test_encoding_is_the_canonical_embedding():
    """Evaluate the encoded polynomial at zeta^(3^j) by its definition, in complex arithmetic on exact integers."""
    params = ring()
    values = np.random.default_rng(0).normal(size=DEGREE // 2)
    coefficients = slots.centred_float(slots.encode_slots(params, values), MODULI)[0]
    zeta = np.exp(1j * np.pi / DEGREE)
    for j in range(DEGREE // 2):
        at = zeta ** (pow(3, j, 2 * DEGREE) * np.arange(DEGREE) % (2 * DEGREE))
        assert abs(np.sum(coefficients * at) / 2.0**30 - values[j]) < 1e-7
        assert abs(np.sum(coefficients * np.conj(at)) / 2.0**30 - values[j]) < 1e-7


@pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
def test_encode_decode_round_trip(size):
    values = np.random.default_rng(size).normal(size=size) * 100
    residues = slots.encode_slots(ring(), values)
    assert residues.shape == (-(-size // 32), 3, DEGREE) and residues.dtype == np.uint32
    np.testing.assert_allclose(slots.decode_slots(ring(), residues, size), values, atol=1e-7)


@given(st.lists(st.integers(-(2**88), 2**88), min_size=1, max_size=8), st.integers(1, 3))
def test_centred_float_is_the_nearest_double(numbers, limbs):
    moduli = MODULI[:limbs]
    modulus = int(np.prod([int(q) for q in moduli], dtype=object))
    edge = modulus // 2
    numbers = [(n + edge) % modulus - edge for n in numbers] + [0, 1, -1, edge, -edge]
    residues = np.array([[n % q for n in numbers] for q in moduli], np.uint32)
    found = slots.centred_float(residues, moduli)
    for n, value in zip(numbers, found, strict=True):
        assert abs(value - n) <= abs(n) * 2.0**-51


def test_encrypt_and_decrypt_with_both_keys_and_add():
    params = ring(2.0**40)
    root = stream()
    secret, public = GENERATE(params, fold_in(root, "key"))
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 40))
    first = slots.encrypt_slots(params, public, a, fold_in(root, 1))
    second = slots.encrypt_slots(params, secret, b, fold_in(root, 2))
    assert second.seed is not None
    np.testing.assert_allclose(slots.decrypt_slots(params, secret, first, 40), a, atol=1e-6)
    np.testing.assert_allclose(slots.decrypt_slots(params, secret, second, 40), b, atol=1e-8)
    both = ADD(params, first, second)
    np.testing.assert_allclose(slots.decrypt_slots(params, secret, both, 40), a + b, atol=1e-6)
    other, _ = GENERATE(params, fold_in(root, "other key"))
    assert np.max(np.abs(slots.decrypt_slots(params, other, first, 40) - a)) > 1e6


def test_largest_values_that_fit():
    params = ring(2.0**20)
    top = 2.0**62 / 2.0**20 * 0.999
    values = np.array([top, -top, 0.0, 1.0])
    decoded = slots.decode_slots(params, slots.encode_slots(params, values), 4)
    np.testing.assert_allclose(decoded, values, rtol=1e-12, atol=1e-3)
    with pytest.raises(ValueError, match="does not fit"):
        slots.encode_slots(params, np.array([top * 1.01]))


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.array([np.inf]), np.zeros((2, 2)), np.array([])])
def test_values_must_be_a_finite_vector(bad):
    with pytest.raises(ValueError, match="finite real"):
        slots.encode_slots(ring(), bad)


@pytest.mark.parametrize("scale", [0.5, 0.0, -4.0, 2.0**95, float("nan"), float("inf")])
def test_an_unusable_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        ring(scale)


def test_the_scale_is_part_of_the_parameters_and_of_what_values_mean():
    values = np.array([1.0, -2.5])
    for scale in (2.0**30, 3.0 * 2**28, 1e9):
        params = ring(scale)
        assert params.scale == slots.slot_scale(params) == scale and params.values_per_coefficient == 0
        np.testing.assert_allclose(slots.decode_slots(params, slots.encode_slots(params, values), 2), values, atol=1e-6)
    twice = slots.decode_slots(ring(2.0**29), slots.encode_slots(ring(2.0**30), values), 2)
    np.testing.assert_allclose(twice, 2 * values, atol=1e-6)
    assert ciphertext_bytes.parameters_fingerprint(ring(2.0**29)) != ciphertext_bytes.parameters_fingerprint(
        ring(2.0**30)
    )
    with pytest.raises(ValueError, match="where integers are packed"):
        dataclasses.replace(ring(), values_per_coefficient=1, field_bits=8, count_bound=1)
    with pytest.raises(ValueError, match="below the modulus"):
        dataclasses.replace(ring(), scale=0.5)


def test_more_values_than_slots_are_refused():
    residues = slots.encode_slots(ring(), np.ones(5))
    for size in (0, 33):
        with pytest.raises(ValueError, match="hold 1 to 32"):
            slots.decode_slots(ring(), residues, size)


def test_integer_parameters_have_no_scale():
    from fedjax_poisson.ckks.parameters import choose_parameters

    with pytest.raises(ValueError, match="pack integers"):
        slots.slot_scale(choose_parameters(count_bound=100, senders=2, values=1000))


def test_the_guideline_counts_the_special_prime():
    chain = ntt.primes_below(1 << 27, 4096, 3)
    special = ntt.primes_below(1 << 28, 4096, 1)[0]
    within = {"degree": 4096, "scale": 2.0**20}
    assert slots.slot_parameters(moduli=chain, **within).guideline == "2024"
    assert slots.slot_parameters(moduli=chain, special_modulus=special, **within).guideline == "seal"
    beyond = slots.slot_parameters(moduli=(*chain, *ntt.primes_below(1 << 30, 4096, 2)), **within)
    assert beyond.guideline == "none" and beyond.security_bits == 0
