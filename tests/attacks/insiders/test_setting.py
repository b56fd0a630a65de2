"""A setting refuses what no run can be, and takes the nearest that one can."""

from __future__ import annotations

import pytest

from fedjax_poisson.attacks.insiders import Setting
from fedjax_poisson.attacks.insiders.setting import needed


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ({"corrupt": 10}, {"corrupt": 9}, "at least one insider"),
        ({"corrupt": 0}, {"corrupt": 1}, "at least one insider"),
        ({"share": 0.0}, {"share": 1.0}, "share in"),
        ({"clip_norm": 0.0}, {"clip_norm": 0.1}, "norm is positive"),
        ({"patch": 0}, {"patch": 1}, "at least 1 pixel"),
        ({"goal": 2}, {"goal": 1}, "the goal among"),
        ({"classes": 1}, {"classes": 3, "goal": 2}, "two classes"),
    ],
)
def test_ranges(wrong, right, words):
    Setting(**{"senders": 10, "corrupt": 2, **right})
    with pytest.raises(ValueError, match=words):
        Setting(**{"senders": 10, "corrupt": 2, **wrong})


def test_what_was_left_out_is_named():
    assert needed(Setting(senders=2, corrupt=1, count_bound=9), "count_bound") == 9
    with pytest.raises(ValueError, match="needs half_modulus"):
        needed(Setting(senders=2, corrupt=1), "half_modulus")
