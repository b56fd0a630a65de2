from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson.ckks import modular, ntt, packing
from fedjax_poisson.ckks.parameters import CkksParameters, choose_parameters, sum_bound
from tests.ckks.core import combine_crt, random_residues, tiny


def reference(params: CkksParameters, counts: np.ndarray) -> np.ndarray:
    """round(Q V / t) with Python integers, as residues [R, L, N]."""
    fields, width, degree = params.values_per_coefficient, params.field_bits, params.degree
    rows = params.rows(counts.size)
    padded = np.zeros(rows * params.values_per_row, dtype=object)
    padded[: counts.size] = counts
    table = padded.reshape(fields, degree, rows)
    t, big_q = 1 << fields * width, params.modulus
    result = np.zeros((rows, params.limbs, degree), np.uint32)
    for n in range(degree):
        for r in range(rows):
            m = sum(int(table[j, n, r]) << (j * width) for j in range(fields))
            v = m * pow(big_q, -1, t) % t
            x = (big_q * v - m) // t
            assert (big_q * v - m) % t == 0
            assert abs(x - big_q * v / t) <= 0.5 + abs(x) * 2.0**-40
            result[r, :, n] = [x % q for q in params.moduli]
    return result


# Outside jit every operation is a program of its own.
encode = jax.jit(packing.encode, static_argnums=0)
decode = jax.jit(packing.decode, static_argnums=(0, 2))
open_rows = jax.jit(packing.open_rows, static_argnums=(0, 3))
digits = jax.jit(packing._digits, static_argnums=0, static_argnames="written_out")
forward = jax.jit(ntt.forward, static_argnums=1)


@pytest.mark.parametrize(
    ("bits", "limbs", "fields", "width"),
    [(28, 3, 2, 20), (31, 2, 1, 32), (30, 3, 7, 10), (20, 7, 5, 18), (29, 4, 33, 3), (30, 2, 1, 2)],
)
@pytest.mark.parametrize("size", [1, 70, 16 * 3])
def test_encoding_is_the_rounded_scaled_integer_and_decodes(bits, limbs, fields, width, size):
    params = tiny(degree=16, bits=bits, limbs=limbs, fields=fields, width=width)
    top = (1 << (width - 1)) - 1
    counts = np.random.default_rng(size).integers(-top, top + 1, size=size)
    counts[0] = top
    counts[-1] = -top
    encoded = encode(params, jnp.asarray(counts, jnp.int32))
    assert np.array_equal(np.asarray(encoded), reference(params, counts))
    decoded, distance = decode(params, encoded, size)
    assert decoded.dtype == jnp.int32
    assert np.array_equal(np.asarray(decoded), counts)
    assert float(distance) < 1e-3


@pytest.mark.parametrize(
    ("bits", "limbs", "fields", "width"),
    [(26, 1, 1, 12), (27, 2, 2, 12), (30, 2, 3, 12), (29, 4, 7, 12), (30, 6, 13, 12), (30, 7, 16, 12), (31, 3, 2, 32)],
)
def test_any_residues_decode_as_integers_say(bits, limbs, fields, width):
    """Uniform residues against Python integers: V the nearest integer to t X / Q, M = V Q mod t, and the distances."""
    params = tiny(degree=16, bits=bits, limbs=limbs, fields=fields, width=width)
    rows, t, big_q = 5, 1 << fields * width, params.modulus
    size = rows * params.values_per_row - 3
    residues = random_residues(np.random.default_rng(limbs), params.moduli, (rows, 16))
    expected, distances = np.zeros((fields, 16, rows), np.int64), []
    for r, row in enumerate(residues):
        for n, x in enumerate(combine_crt(row, params.moduli)):
            v, rest = divmod((x % big_q) * t * 2 + big_q, 2 * big_q)
            distances.append(rest / (2 * big_q) - 0.5)
            m = (v * big_q + sum(1 << (j * width + width - 1) for j in range(fields))) % t
            for j in range(fields):
                expected[j, n, r] = (m >> j * width) % (1 << width) - (1 << (width - 1))
    values, transformed = jnp.asarray(residues), forward(jnp.asarray(residues), params.moduli)
    masks = jnp.asarray(random_residues(np.random.default_rng(9), params.moduli, (rows, 16)))
    total = modular.add(transformed, masks, modular.constants(params.moduli).q)
    counts, largest, rms = open_rows(params, total, masks, size)
    assert counts.dtype == jnp.int32 and largest.dtype == rms.dtype == jnp.float32
    assert np.array_equal(np.asarray(counts), expected.ravel()[:size])
    assert float(largest) == pytest.approx(np.abs(distances).max(), abs=2.0**-24)
    assert float(rms) == pytest.approx(np.sqrt(np.mean(np.square(distances))), rel=1e-6)
    plain = decode(params, values, size)
    assert np.array_equal(np.asarray(plain[0]), np.asarray(counts)) and float(plain[1]) == float(largest)
    flat = jnp.moveaxis(values, 0, -1).reshape(limbs, -1)
    loops, written = (digits(params, flat, written_out=w) for w in (False, True))
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(loops, written, strict=True))


@pytest.mark.parametrize("rows", [1, 3, 70])
def test_opened_rows_are_exact_and_the_noise_is_measured(rows):
    """Message plus noise under a mask, in batches and one by one; the twin leaves a mask on and sees pure chance."""
    params = tiny(degree=128, bits=29, limbs=2, fields=2, width=12)
    q = modular.constants(params.moduli).q
    rng = np.random.default_rng(rows)
    size = rows * params.values_per_row
    counts = jnp.asarray(rng.integers(-2047, 2048, (2, size)), jnp.int32)
    noise = jnp.asarray(rng.integers(-(1 << 20), 1 << 20, (2, rows, 1, 128)), jnp.int32)
    plain = modular.add(encode(params, counts), modular.from_signed(noise, q), q)
    masks = jnp.asarray(random_residues(rng, params.moduli, (2, rows, 128)))
    total = modular.add(forward(plain, params.moduli), masks, q)
    opened = [open_rows(params, total[i], masks[i], size) for i in range(2)]
    batched = jax.jit(jax.vmap(lambda t, m: packing.open_rows(params, t, m, size)))(total, masks)
    for i in range(2):
        assert np.array_equal(np.asarray(opened[i][0]), np.asarray(counts[i]))
        assert np.array_equal(np.asarray(batched[0][i]), np.asarray(counts[i]))
        steps = np.asarray(noise[i], np.float64) / params.step
        assert float(opened[i][1]) == float(batched[1][i]) == pytest.approx(np.abs(steps).max(), rel=1e-5)
        assert float(opened[i][2]) == pytest.approx(np.sqrt(np.mean(steps**2)), rel=1e-5)
        assert float(batched[2][i]) == pytest.approx(float(opened[i][2]), rel=1e-6)
    _, largest, rms = open_rows(params, total[0], masks[1], size)
    assert float(largest) > 0.4375 and float(rms) == pytest.approx(12**-0.5, rel=0.2)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_sums_of_encodings_are_encodings_of_sums(seed, senders):
    params = tiny(degree=16, bits=28, limbs=3, fields=3, width=19)
    rng = np.random.default_rng(seed)
    top = params.count_bound // senders
    counts = rng.integers(-top, top + 1, size=(senders, 40))
    counts[:, 0], counts[:, 1] = top, -top
    q = modular.constants(params.moduli).q
    total = encode(params, jnp.zeros(40, jnp.int32))
    for row in counts:
        total = modular.add(total, encode(params, jnp.asarray(row, jnp.int32)), q)
    decoded, _ = decode(params, total, 40)
    assert np.array_equal(np.asarray(decoded), counts.sum(axis=0))


def test_a_count_beyond_its_field_wraps_alone():
    params = tiny(degree=16, fields=3, width=12, bits=28)
    counts = np.zeros(48, np.int64)
    counts[20] = 5000
    decoded, _ = packing.decode(params, packing.encode(params, jnp.asarray(counts, jnp.int32)), 48)
    counts[20] = (5000 + 2048) % 4096 - 2048
    assert np.array_equal(np.asarray(decoded), counts)


def test_chosen_parameters_round_trip_under_jit_and_vmap():
    params = choose_parameters(count_bound=sum_bound(8, 1000), senders=1000, values=3000)
    counts = jnp.asarray(np.random.default_rng(0).integers(-128_000, 128_001, size=(3, 3000)), jnp.int32)
    encode = jax.jit(jax.vmap(lambda c: packing.encode(params, c)))
    encoded = encode(counts)
    assert np.array_equal(np.asarray(encoded[1]), np.asarray(packing.encode(params, counts[1])))
    batched = packing.encode(params, counts)
    assert np.array_equal(np.asarray(batched), np.asarray(encoded))
    decoded, distance = jax.jit(lambda x: packing.decode(params, x, 3000))(encoded)
    assert np.array_equal(np.asarray(decoded), np.asarray(counts))
    assert distance.shape == (3,)


def test_the_step_uses_the_whole_modulus():
    params = choose_parameters(count_bound=sum_bound(8, 1000), senders=1000)
    fields = params.values_per_coefficient * params.field_bits
    assert math.log2(params.step) + fields > math.log2(params.modulus) - 1e-3


def test_a_prime_chain_of_another_ring_decodes_to_something_else():
    """The twin of every exactness test: one prime exchanged and the sums are wrong and the distance says so."""
    params = tiny(degree=64, fields=2, width=20)
    other = dataclasses.replace(params, moduli=(*params.moduli[:2], tiny(degree=64, limbs=4).moduli[3]))
    counts = jnp.arange(-64, 64, dtype=jnp.int32)
    decoded, distance = decode(other, encode(params, counts), 128)
    assert not np.array_equal(np.asarray(decoded), np.asarray(counts))
    assert float(distance) > 0.4375
