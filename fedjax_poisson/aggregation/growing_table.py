"""A table that grows by one entry at a time without being copied, and whose earlier versions stay as they were.

All versions that follow one another share one store, in which every entry has the number of the version that brought it; a version sees the entries below
its own length. Only the first successor of a version may write the next number; a second one (two different next states of one state) begins with a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

__all__ = ["GrowingTable", "with_entry"]

V = TypeVar("V")


class GrowingTable(Mapping[bytes, V]):
    """An immutable mapping, in the order of its entries; the memory of all versions together is that of the longest.

    Args:
      entries: what it holds.
    """

    def __init__(self, entries: Mapping[bytes, V] | None = None) -> None:
        held = {} if entries is None else entries
        self._entries: dict[int, tuple[bytes, V]] = dict(enumerate(held.items()))
        self._places = {key: place for place, key in enumerate(held)}
        self._length = len(held)

    def __getitem__(self, key: bytes) -> V:
        """The value of a key of this version."""
        place = self._places[key]
        if place >= self._length:
            raise KeyError(key)
        return self._entries[place][1]

    def __iter__(self) -> Iterator[bytes]:
        """Keys, oldest first."""
        return (self._entries[place][0] for place in range(self._length))

    def __len__(self) -> int:
        """Entries of this version."""
        return self._length

    def with_entry(self, key: bytes, value: V) -> GrowingTable[V]:
        """The next version; see the function."""
        entry = (key, value)
        # One step decides which successor is the first. The store holds no key above this length then, so the key is new to it.
        if key in self or self._entries.setdefault(self._length, entry) is not entry:
            return GrowingTable({**self, key: value})
        self._places[key] = self._length
        after: GrowingTable[V] = GrowingTable()
        after._entries, after._places, after._length = self._entries, self._places, self._length + 1
        return after


def with_entry(table: Mapping[bytes, V], key: bytes, value: V) -> GrowingTable[V]:
    """The table with one entry more: in constant time for the newest version of a `GrowingTable`, else by a copy.

    Args:
      table: stays as it is.
      key: of the entry; one that is there already gets the new value.
      value: of the entry.
    """
    grown = table if isinstance(table, GrowingTable) else GrowingTable(table)
    return grown.with_entry(key, value)
