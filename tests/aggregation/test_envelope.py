"""Envelopes of the backends that send one message a sender."""

from __future__ import annotations

import pytest

from fedjax_poisson.aggregation.envelope import Envelope, new_channel_key, overhead, pack, unpack
from fedjax_poisson.ckks.errors import WireError


def envelope(**changes) -> Envelope:
    facts = {
        "backend": 1,
        "round": 5,
        "size": 9,
        "senders": 2,
        "ids": frozenset([b"a" * 16, b"b" * 16]),
        "fingerprint": b"f" * 16,
        "body": b"body",
    }
    return Envelope(**{**facts, **changes})


def test_envelopes_come_back_under_their_key_only():
    key = new_channel_key()
    blob = pack(envelope(), key)
    assert unpack(blob, key) == envelope() and len(blob) == overhead(2) + 4
    with pytest.raises(WireError, match="another channel key"):
        unpack(blob, new_channel_key())


@pytest.mark.parametrize("changes", [{"senders": 1}, {"senders": 0}, {"ids": frozenset()}])
def test_envelopes_with_inconsistent_heads_are_refused_even_if_the_tag_fits(changes):
    key = new_channel_key()
    with pytest.raises(WireError, match="ids for"):
        unpack(pack(envelope(**changes), key), key)
