"""The sampling rate that is really drawn is never above the one that was accounted."""

from __future__ import annotations

import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.federated import records
from tests.federated import helpers


@pytest.mark.parametrize("rate", [2.0**-33, 2.0**-32, 1e-9, 0.1, 1 / 3, 0.5, 0.7, 1 - 2.0**-32, 1 - 2.0**-40])
def test_as_many_words_sample_a_unit_as_the_rate_allows_and_not_one_more(monkeypatch, rate):
    """Of the 2^32 words exactly the floor(rate 2^32) smallest sample a unit: rounding up would be one word too many."""
    most = math.floor(Fraction(rate) * 2**32)
    words = sorted({0, max(most - 1, 0), min(most, 2**32 - 1), min(most + 1, 2**32 - 1), 2**32 - 1})
    monkeypatch.setattr(records, "bits", lambda stream, units: jnp.asarray(np.array(words, np.uint32)))
    drawn = np.asarray(records.sample_units(helpers.seeded(3), len(words), rate))
    assert drawn.tolist() == [word < most for word in words]
    assert Fraction(most, 2**32) <= Fraction(rate)
