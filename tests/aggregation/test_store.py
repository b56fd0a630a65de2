"""Stores: what is erased is gone, what was said stays said, and one process at a time speaks for a party."""

from __future__ import annotations

import pytest

from fedjax_poisson.aggregation.store import StoreBusy, memory_store, sqlite_store
from tests.aggregation.rounds import World


def test_33_what_is_erased_is_not_in_the_file(tmp_path):
    world = World(stores=lambda k: sqlite_store(tmp_path / f"{k}.sqlite"))
    world.begin()
    world.go("answer")
    secrets = [one.store.get(world.run, 1, "secrets") for one in world.members]
    assert all(s[:40] in (tmp_path / f"{k}.sqlite").read_bytes() for k, s in enumerate(secrets, 1))
    world.go()
    for path in tmp_path.iterdir():
        assert not any(s[at_ : at_ + 32] in path.read_bytes() for s in secrets for at_ in (0, 32, 64))


def test_one_process_at_a_time_speaks_for_a_party(tmp_path):
    first = sqlite_store(tmp_path / "store.sqlite")
    first.put(b"r" * 16, 1, "step", b"x")
    with pytest.raises(StoreBusy, match="one process at a time"):
        sqlite_store(tmp_path / "store.sqlite")


def test_a_store_that_forgets_old_rounds_still_refuses_them():
    store = memory_store(keep=2)
    for number in range(1, 6):
        store.put(b"r", number, "terms", bytes([number]))
    assert store.get(b"r", 3, "terms") is None and store.get(b"r", 5, "terms") == b"\5"
    assert store.last(b"r", "terms") == 5
