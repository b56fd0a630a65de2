"""What each dependency weighs once installed: the sizes in the README.

    python experiments/installed_sizes.py

Megabytes (10^6 bytes) of the files that each installed distribution lists.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

GROUPS = {
    "jax, numpy, scipy": ("jax", "jaxlib", "numpy", "scipy"),
    "optax, chex, flax": ("optax", "chex", "flax"),
    "tenseal": ("tenseal",),
    "cryptography": ("cryptography",),
    "matplotlib, rich, tyro": ("matplotlib", "rich", "tyro"),
}


def megabytes(name: str) -> float:
    """Size of one installed distribution."""
    paths = (Path(str(file.locate())) for file in metadata.files(name) or ())
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


if __name__ == "__main__":
    for group, names in GROUPS.items():
        print(f"{group:<24} {sum(map(megabytes, names)):6.0f} MB")
