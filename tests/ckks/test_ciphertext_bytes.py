"""The compact format: the bytes that the parameters state, back bit for bit, and nothing unsound accepted."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson.ckks import ciphertext_bytes
from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.parameters import choose_parameters


@functools.cache
def ring(mode: str):
    return choose_parameters(count_bound=1000, senders=10, mode=mode, values=4000)


def random_ciphertext(mode: str, rows: int = 2, seed: int = 0) -> Ciphertext:
    """Residues at both ends of their range and uniform between: the format does not depend on what they mean."""
    params, rng = ring(mode), np.random.default_rng(seed)
    polynomials = 1 if mode == "seeded" else 2
    q = np.asarray(params.moduli, np.uint64)[:, None]
    data = rng.integers(0, q, (rows, polynomials, params.limbs, params.degree), dtype=np.uint64)
    data[..., 0], data[..., -1] = 0, q[:, 0] - 1
    words = jnp.asarray(rng.integers(0, 2**32, 8, dtype=np.uint64).astype(np.uint32)) if mode == "seeded" else None
    return Ciphertext(jnp.asarray(data.astype(np.uint32)), words, jnp.uint32(3))


@pytest.mark.parametrize("mode", ["public_key", "seeded"])
@pytest.mark.parametrize("rows", [1, 3])
def test_bytes_come_back_bit_for_bit(mode, rows):
    params, ciphertext = ring(mode), random_ciphertext(mode, rows)
    blob = ciphertext_bytes.to_bytes(params, ciphertext)
    again = ciphertext_bytes.from_bytes(params, blob, rows=rows)
    assert jax.tree.structure(again) == jax.tree.structure(ciphertext)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(ciphertext), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert len(blob) == ciphertext_bytes.compact_bytes(params, rows, seeded=mode == "seeded")


@pytest.mark.parametrize("mode", ["public_key", "seeded"])
@pytest.mark.parametrize("values", [4000, None])
def test_bytes_on_the_wire_are_those_of_the_parameters(mode, values):
    params = choose_parameters(count_bound=128 * 1000, senders=1000, mode=mode, values=values)
    body = (
        ciphertext_bytes.compact_bytes(params, params.rows(params.values), seeded=mode == "seeded")
        - ciphertext_bytes.COMPACT_HEAD_BYTES
    )
    assert body == pytest.approx(params.bytes_per_value * params.values, abs=params.limbs)


@given(st.integers(1, 32), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_bit_packing_round_trip(bits, count, seed):
    values = np.random.default_rng(seed).integers(0, 1 << bits, count, dtype=np.uint64).astype(np.uint32)
    blob = ciphertext_bytes.pack_bits(values, bits)
    assert len(blob) == -(-count * bits // 8)
    np.testing.assert_array_equal(ciphertext_bytes.unpack_bits(blob, count, bits), values)
    stream = sum(int(v) << (i * bits) for i, v in enumerate(values))  # the definition: one little-endian bit stream
    assert int.from_bytes(blob, "little") == stream


def test_other_parameters_are_refused():
    blob = ciphertext_bytes.to_bytes(ring("public_key"), random_ciphertext("public_key"))
    for changes in ({"senders": 11}, {"count_bound": 999}, {"mode": "round"}):
        with pytest.raises(WireError, match="other parameters"):
            ciphertext_bytes.from_bytes(dataclasses.replace(ring("public_key"), **changes), blob)
    explained = dataclasses.replace(ring("public_key"), explanation="the same ring in other words")
    ciphertext_bytes.from_bytes(explained, blob)


def test_rows_senders_and_lengths_are_checked():
    params, ciphertext = ring("public_key"), random_ciphertext("public_key")
    blob = ciphertext_bytes.to_bytes(params, ciphertext)
    with pytest.raises(WireError, match="where 1 are needed"):
        ciphertext_bytes.from_bytes(params, blob, rows=1)
    for senders in (0, 11):
        with pytest.raises(WireError, match="senders"):
            ciphertext_bytes.from_bytes(
                params, ciphertext_bytes.to_bytes(params, ciphertext._replace(senders=jnp.uint32(senders)))
            )
    for bad in (blob + b"\0", blob[:-1], blob[:63], b""):
        with pytest.raises(WireError):
            ciphertext_bytes.from_bytes(params, bad)
    rows = blob[:8] + (2**32 - 1).to_bytes(4, "little") + blob[12:]
    with pytest.raises(WireError, match="needs"):  # 2^32 rows are announced and nothing of their size is made
        ciphertext_bytes.from_bytes(params, rows)


def test_residues_must_be_below_their_primes():
    params, ciphertext = ring("public_key"), random_ciphertext("public_key")
    for limb, q in enumerate(params.moduli):
        data = np.array(ciphertext.data)
        data[1, 0, limb, 7] = q
        with pytest.raises(WireError, match=f"below its prime {q}"):
            ciphertext_bytes.from_bytes(params, ciphertext_bytes.to_bytes(params, ciphertext._replace(data=data)))


def test_batches_are_not_messages():
    ciphertext = random_ciphertext("public_key")
    with pytest.raises(ValueError, match="no batch axes"):
        ciphertext_bytes.to_bytes(ring("public_key"), ciphertext._replace(data=ciphertext.data[None]))


@pytest.mark.parametrize("mode", ["public_key", "seeded"])
@settings(max_examples=100)
@given(data=st.data())
def test_random_changes_raise_nothing_but_wire_errors(mode, data):
    params = ring(mode)
    blob = bytearray(ciphertext_bytes.to_bytes(params, random_ciphertext(mode, 1)))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.one_of(st.integers(0, 63), st.integers(0, len(blob) - 1)))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del blob[data.draw(st.integers(0, len(blob))) :]
    try:
        ciphertext_bytes.from_bytes(params, bytes(blob))
    except WireError:
        pass


# -- protocol buffers and envelopes -----------------------------------------------------------------------------------
