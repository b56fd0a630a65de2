"""Protocol buffers as TenSEAL writes them: they come back, and malformed ones are refused by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.interop.seal_format import read_fields, read_varint, write_double, write_field, write_varint


@given(st.integers(0, 2**64 - 1))
def test_varints_come_back(value):
    encoded = write_varint(value)
    assert read_varint(encoded, 0) == (value, len(encoded)) and len(encoded) <= 10


def test_fields_come_back():
    blob = (
        write_field(1, b"abc") + write_double(3, 2.5) + write_field(1, b"") + write_varint(4 << 3) + write_varint(300)
    )
    fields = read_fields(blob)
    assert fields[1] == [b"abc", b""] and len(fields[3][0]) == 8 and read_varint(fields[4][0], 0)[0] == 300


@pytest.mark.parametrize(
    "blob",
    [
        b"\x0a\x05abc",
        b"\x0a",
        b"\xff" * 11,
        b"\x00\x01",
        b"\x0b\x00",
        b"\x09\x01",
        b"\x80",
        b"\xff" * 9 + b"\x02",
        b"\x0a\xff\xff\xff\xff\x0f",
    ],
)
def test_malformed_messages_are_refused(blob):
    with pytest.raises(WireError):
        read_fields(blob)


@given(st.binary(max_size=200))
def test_random_bytes_as_protocol_buffers(blob):
    try:
        read_fields(blob)
    except WireError:
        pass
