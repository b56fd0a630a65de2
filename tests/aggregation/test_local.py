"""Rounds of one process: with messages and bare the same counts, and one set a round."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from fedjax_poisson.ckks.errors import RoundRefused
from tests.aggregation.test_aggregator import STREAM, draw, make, seal_all


def test_bare_rounds_open_the_same_counts():
    counts, streams = draw(4, 300), [STREAM(i) for i in range(4)]
    opened = []
    for backend in ("round", "bare"):
        agg = make(backend)
        sealed = [agg.encrypt(row, one) for row, one in zip(counts, streams, strict=True)]
        opened.append(agg.open(functools.reduce(agg.add, sealed), 300))
    np.testing.assert_array_equal(opened[0].counts, opened[1].counts)
    assert opened[0].transcript is not None and opened[1].transcript is None


def test_a_round_that_was_dropped_is_not_opened():
    agg = make("round")
    sealed = seal_all(agg, draw(3, 8))
    agg.begin()
    with pytest.raises(RoundRefused, match="is over"):
        agg.open(functools.reduce(agg.add, sealed), 8)
