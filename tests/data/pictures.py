"""Pictures on disk for the tests of image folders."""

from __future__ import annotations

import numpy as np
from PIL import Image


def paint(path, value=None, size=(20, 20), mode="L"):
    """A picture of one value, or of noise of its own if none is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(abs(hash(str(path))) % 2**32)
    shape = size if mode == "L" else (*size, 3)
    pixels = generator.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root, sites=("north", "south"), count=12):
    for site in sites:
        for label in ("ill", "well"):
            for i in range(count):
                paint(root / site / label / f"P{i // 2}x{site}_{i}.png")
    return root
