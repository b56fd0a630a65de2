"""What relay and coordinator say: it reads as written, and nonsense is named."""

from __future__ import annotations

import pytest

from fedjax_poisson.deployment.transport.relay_messages import (
    Call,
    Errand,
    Orders,
    Return,
    read_call,
    read_orders,
    write_call,
    write_orders,
)

CALL = Call({"ulm": (3,), "bonn": (4, 5)}, (Return(1, b"abc"), Return(2, "why not"), Return(3, b"")), 1.5)
ORDERS = Orders((Errand(1, 2**63, 4.5, b"xyz"), Errand(2, 7, 1.0, b"")), False)


def test_they_read_as_written() -> None:
    assert read_call(write_call(CALL)) == CALL
    assert read_orders(write_orders(ORDERS)) == ORDERS
    assert read_orders(write_orders(Orders((), True))) == Orders((), True)


@pytest.mark.parametrize("blob", [b"", b"abc", b"\xff\xff\xff\xff{}", b"\2\0\0\0[]", b"\2\0\0\0{}", b"\2\0\0\0{x"])
def test_nonsense_is_a_value_error(blob: bytes) -> None:
    with pytest.raises(ValueError):
        read_call(blob)
    with pytest.raises(ValueError):
        read_orders(blob)


def test_blobs_that_are_cut_are_noticed() -> None:
    with pytest.raises(ValueError, match="blob of 3 bytes is announced, 2 are there"):
        read_call(write_call(CALL)[:-1])
    with pytest.raises(ValueError, match="announced"):
        read_orders(write_orders(ORDERS)[:-1])
