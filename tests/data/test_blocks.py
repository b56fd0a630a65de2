"""Blocks of features: quantities filled and flagged, names that stay one."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.data.blocks import Quantity, flags, join, quantity


def test_quantities_are_filled_and_flagged():
    block = quantity("sodium", np.array([131.0, np.nan]), Quantity(110, 170, 140))
    assert block.names == ("sodium", "sodium_measured")
    np.testing.assert_array_equal(block.values, [[131, 1], [140, 0]])
    np.testing.assert_array_equal(block.bounds, [[110, 170], [0, 1]])
    np.testing.assert_array_equal(block.binary, [False, True])
    assert block.notes == ("sodium: 1 missing values set to the public normal 140",)


def test_blocks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two features would be called 'x'"):
        join([flags(["x"], np.zeros((3, 1))), flags(["x"], np.ones((3, 1)))])
