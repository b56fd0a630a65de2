"""A small table of two hospitals, and all that can be declared of it."""

from __future__ import annotations

import numpy as np

HEADER = "hospital,pid,age,sex,smoker,stage,sick"


def rows(count=60, seed=0):
    generator = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        hospital = ("Mercy", "St. John")[i % 2]
        age, sex = generator.integers(20, 90), generator.choice(["F", "M"])
        smoker, stage = generator.choice(["yes", "no"]), generator.choice(["I", "II", "III"])
        lines.append(f"{hospital},p{i // 3},{age},{sex},{smoker},{stage},{generator.integers(0, 2)}")
    return lines


DECLARED = {
    "label": "sick",
    "site": "hospital",
    "drop": ["pid"],
    "bounds": {"age": (0, 110)},
    "categorical": {"sex": ["F", "M"], "stage": ["I", "II", "III"]},
}
