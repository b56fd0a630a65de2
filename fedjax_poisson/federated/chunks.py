"""Many clients, a few at a time: how wide a chunk is, and the scan over chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

Tree = Any

_CPU_VALUES = 1 << 20  # coordinates of a chunk on a CPU
_CPU_CLIENTS = 256  # of a chunk there, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunking:
    """How the cohort is laid out in the program; speed and memory only.

    Attributes:
      chunk: clients vmapped at once; None takes `default_chunk`.
      transforms: "summed" or "each" (`cohort`).
    """

    chunk: int | None = None
    transforms: Literal["summed", "each"] = "summed"

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk={self.chunk} must be at least 1.")
        if self.transforms not in ("summed", "each"):
            raise ValueError(f'transforms={self.transforms!r}; there are "summed" and "each".')


def default_chunk(dimension: int, clients: int) -> int:
    """Clients that are vmapped at once: all of them on an accelerator; on a CPU as many as make a few megabytes of updates, and one where few would.

    Less pays for the tasks of a chunk more often, more leaves the third-level cache. (W3 in chunks of 250 took .73 of the time that it took in chunks of 50,
    by hand .67 to .75: `experiments/benchmarks/round_ratio.py --chunk`, 2026-11-27.) Of the sizes near the best one that leaves the fewest places of the last
    chunk empty.
    """
    if jax.default_backend() != "cpu":
        return clients
    if 4 * dimension > _CPU_VALUES:
        return 1
    best = min(clients, _CPU_CLIENTS, _CPU_VALUES / dimension)
    near = range(max(1, round(0.7 * best)), max(1, round(1.3 * best)) + 1)
    return min(near, key=lambda width: (-clients % width, abs(width - best)))


def by_chunks(chunk: int, step: Callable[[Tree, Any], tuple[Tree, Tree]], carry: Tree, part: Any) -> tuple[Tree, Tree]:
    """`step` over a part chunk by chunk, `(carry, part) -> (carry, rows)`; the rows of all clients together.

    Args:
      chunk: clients of a step, at most.
      step: of some clients.
      carry: what the first step is given.
      part: what belongs to the clients, a NamedTuple with a leading axis whose `ids` count them and whose `present` is False where the last chunk is padded.
    """
    size = part.ids.shape[0]
    parts = -(-size // chunk)
    width = -(-size // parts)

    def split(leaf: Array, mode: str = "edge") -> Array:
        padded = jnp.pad(leaf, [(0, parts * width - size)] + [(0, 0)] * (leaf.ndim - 1), mode=mode)
        return padded.reshape(parts, width, *leaf.shape[1:])

    if parts == 1:
        return step(carry, part)
    # What is missing in the last chunk is its last client once more, absent: on records of nobody in the round training could break.
    chunks = jax.tree.map(split, part)._replace(present=split(part.present, "constant"))
    carry, rows = jax.lax.scan(step, carry, chunks)
    return carry, jax.tree.map(lambda leaf: leaf.reshape(parts * width, *leaf.shape[2:])[:size], rows)
