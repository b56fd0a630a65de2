"""A vector split among insiders arrives whole; a pair's masks cancel, and each message alone does not show the direction."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.attacks.insiders import colluding
from tests.attacks.insiders.helpers import NOISE, SIZE, sent, updates

CLOSE = 8 * NOISE * SIZE**0.5


@pytest.mark.parametrize("who", [(0, 1), (0, 1, 2)])
def test_the_parts_add_up_to_the_vector_and_masks_cancel(who):
    honest = sent(None)
    mean = updates()[list(who)].mean(axis=0)
    wanted = -6.0 * mean / np.linalg.norm(mean)
    for mask in (0.0, 40.0):
        found = sent(colluding.split(6.0, len(who), mask), who)
        np.testing.assert_allclose(found[list(who)].sum(axis=0), wanted, atol=3 * CLOSE)
        np.testing.assert_array_equal(found[len(who) :], honest[len(who) :])
        assert abs(np.linalg.norm(found[0]) - (mask or 6.0 / len(who))) < 6.0 / len(who) + CLOSE
    if len(who) == 3:
        assert abs(np.linalg.norm(found[2]) - 2.0) < CLOSE  # nobody is left to cancel a third mask


def test_one_insider_cannot_split():
    with pytest.raises(ValueError, match="at least two"):
        colluding.split(6.0, 1)
