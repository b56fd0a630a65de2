"""Bytes: what was written is read back, and lengths, orders and residues that are off by one are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_poisson.aggregation.refusals import DuplicateClient, Malformed, ResidueRange
from fedjax_poisson.aggregation.wire import Reader, prefixed, read_residues, residue_bytes, residues_size, u8, u32, u64

MODULI = (12289, 40961, 257)


def test_integers_and_prefixed_bytes_come_back_and_nothing_is_left():
    reader = Reader(u8(200) + u32(2**32 - 1) + u64(2**64 - 1) + prefixed(b"abc") + prefixed(b"") + b"rest")
    assert (reader.u8(), reader.u32(), reader.u64()) == (200, 2**32 - 1, 2**64 - 1)
    assert (reader.prefixed(), reader.prefixed()) == (b"abc", b"")
    with pytest.raises(Malformed, match="4 bytes are left over"):
        reader.done()
    assert reader.rest() == b"rest"
    reader.done()


def test_what_is_truncated_is_refused_before_it_is_allocated():
    assert Reader(b"abc").take(3) == b"abc"
    for blob in (b"", b"\1", u32(2**32 - 1) + b"abc", u32(4) + b"abc"):
        with pytest.raises(Malformed, match="truncated"):
            Reader(blob).prefixed()


def test_lists_increase_strictly_by_key():
    a, b = bytes(31) + b"\1" + b"tail", bytes(31) + b"\2" + b"tail"
    assert Reader(a + b).increasing(2, 36) == [a, b]
    with pytest.raises(Malformed, match="not increasing"):
        Reader(b + a).increasing(2, 36)
    with pytest.raises(DuplicateClient):
        Reader(a + a[:32] + b"more").increasing(2, 36)


@given(st.integers(0, 2), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_residues_come_back_at_the_bits_of_their_primes(lead, size, seed):
    rng = np.random.default_rng(seed)
    q = np.asarray(MODULI)[:, None]
    values = rng.integers(0, q, (lead, len(MODULI), size)).astype(np.uint32)
    values[:, :, 0] = q[:, 0] - 1
    blob = residue_bytes(values, MODULI)
    assert len(blob) == residues_size(lead * size, MODULI)
    np.testing.assert_array_equal(read_residues(blob, (lead,), size, MODULI), values)


def test_a_residue_at_its_prime_a_filling_bit_and_another_length_are_refused():
    values = np.asarray([[12288, 0, 5]], np.uint32)  # 42 bits: six of the last byte fill it up
    blob = residue_bytes(values, (12289,))
    np.testing.assert_array_equal(read_residues(blob, (), 3, (12289,)), values)
    with pytest.raises(ResidueRange, match="not below 12289"):
        read_residues(residue_bytes(values + np.asarray([[1, 0, 0]], np.uint32), (12289,)), (), 3, (12289,))
    with pytest.raises(ResidueRange):
        read_residues(blob[:-1] + bytes([blob[-1] | 0x80]), (), 3, (12289,))
    for other in (blob[:-1], blob + b"\0"):
        with pytest.raises(Malformed, match=f"{len(other)} bytes of residues"):
            read_residues(other, (), 3, (12289,))
