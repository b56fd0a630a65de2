"""How a cohort is laid out in a round's program: how many clients are vmapped at once, and where ciphertexts are summed. Speed and memory only."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax

_CPU_VALUES = 1 << 18  # coordinates of a chunk on a CPU


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunking:
    """How the cohort is laid out in the program; speed and memory only.

    Attributes:
      chunk: clients vmapped at once; None takes `default_chunk`.
      transforms: "summed" or "each" (module docstring).
    """

    chunk: int | None = None
    transforms: Literal["summed", "each"] = "summed"

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk={self.chunk} must be at least 1.")
        if self.transforms not in ("summed", "each"):
            raise ValueError(f'transforms={self.transforms!r}; there are "summed" and "each".')


def default_chunk(dimension: int, clients: int) -> int:
    """Clients that are vmapped at once: all of them on an accelerator; on a CPU about as many as keep a chunk within a core's cache.

    Measured by `experiments/benchmarks/scaling.py`, section chunk. Of the sizes near the best one that leaves the fewest places of the last chunk empty.
    """
    if jax.default_backend() != "cpu":
        return clients
    best = max(1.0, min(clients, 100, _CPU_VALUES / dimension))
    near = range(max(1, round(0.7 * best)), max(1, round(1.3 * best)) + 1)
    return min(near, key=lambda width: (-clients % width, abs(width - best)))
