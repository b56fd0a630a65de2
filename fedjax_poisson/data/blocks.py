"""Building the features of a data set column by column, each with its public bounds and what was done to it."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Block(NamedTuple):
    """Some features of all records.

    Attributes:
        names: k feature names.
        values: float64 `[n, k]`, finite.
        bounds: float64 `[k, 2]`.
        binary: bool `[k]`.
        notes: What was done.
        learned: What was taken from the data, as (argument of `from_csv` that would declare it, the declaration).
        warnings: What a user must hear.
    """

    names: tuple[str, ...]
    values: np.ndarray
    bounds: np.ndarray
    binary: np.ndarray
    notes: tuple[str, ...] = ()
    learned: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


class Quantity(NamedTuple):
    """A measured quantity and what is publicly known about it.

    Attributes:
        lower: Smallest plausible value.
        upper: Largest plausible value.
        normal: A value that is used if nothing was measured.
    """

    lower: float
    upper: float
    normal: float


def flags(names: Sequence[str], values: np.ndarray, notes: Sequence[str] = ()) -> Block:
    """0/1 features: `values` `[n, k]` of 0 and 1 (or bool)."""
    bounds = np.tile(np.array([[0.0, 1.0]]), (len(names), 1))
    return Block(tuple(names), values.astype(np.float64), bounds, np.ones(len(names), bool), tuple(notes))


def quantity(name: str, values: np.ndarray, known: Quantity, *, indicator: bool = True) -> Block:
    """One measured quantity; missing values become its normal one, and `<name>_measured` says which were there.

    Args:
        name: Feature name.
        values: float64 `[n]`, NaN where missing.
        known: Its public range and normal value.
        indicator: Whether to add the 0/1 feature.

    Returns:
        A block of one or two features.
    """
    gaps = np.isnan(values)
    notes = (
        [f"{name}: {int(gaps.sum())} missing values set to the public normal {known.normal:g}"] if gaps.any() else []
    )
    bounds = np.array([[known.lower, known.upper]])
    block = Block((name,), np.where(gaps, known.normal, values)[:, None], bounds, np.array([False]), tuple(notes))
    return join([block, flags([f"{name}_measured"], ~gaps[:, None])]) if indicator else block


def join(blocks: Sequence[Block]) -> Block:
    """Blocks of the same records side by side.

    Raises:
        ValueError: Two features have the same name.
    """
    names = tuple(name for block in blocks for name in block.names)
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"two features would be called {twice[0]!r}; rename a column")
    return Block(
        names,
        np.concatenate([block.values for block in blocks], axis=1),
        np.concatenate([block.bounds for block in blocks]),
        np.concatenate([block.binary for block in blocks]),
        tuple(note for block in blocks for note in block.notes),
        tuple(fact for block in blocks for fact in block.learned),
        tuple(warning for block in blocks for warning in block.warnings),
    )
