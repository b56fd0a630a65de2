"""Stores: what is erased is gone, what was said stays said, and one process at a time speaks for a party."""

from __future__ import annotations

import errno
import shutil
import sqlite3

import pytest

from fedjax_poisson.aggregation import store as store_module
from fedjax_poisson.aggregation.store import StoreBusy, StoreDamaged, StoreUnwritable, memory_store, sqlite_store
from fedjax_poisson.aggregation.store_mark import Mark, mark_file
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


RUN = b"r" * 16


@pytest.fixture
def spoken(tmp_path):
    """A store with four records, one of which is erased; a copy from when it held two."""
    path, older = tmp_path / "store.sqlite", tmp_path / "older.sqlite"
    store = sqlite_store(path)
    for number, step in enumerate(["secrets", "terms"], 1):
        store.put(RUN, number, step, step.encode() * 50)
    store.erase(RUN, 1, "secrets")
    store.close()
    shutil.copy(path, older)
    store = sqlite_store(path)
    store.put(RUN, 2, "commit", b"c" * 50)
    store.put(RUN, 2, "answer", b"a" * 50)
    store.close()
    return path, older


def changed(path, statement, *values):
    with sqlite3.connect(path) as raw:
        raw.execute(statement, values)
    raw.close()


HARM = {
    "an older copy": lambda path, older: shutil.copy(older, path),
    "lost": lambda path, older: path.unlink(),
    "emptied": lambda path, older: path.write_bytes(b""),
    "no database": lambda path, older: path.write_bytes(b"text"),
    "a record changed": lambda path, older: changed(path, "UPDATE taken SET bytes = ? WHERE step = 'answer'", b"x"),
    "a record moved": lambda path, older: changed(path, "UPDATE taken SET round = 3 WHERE step = 'answer'"),
    "a record removed": lambda path, older: changed(path, "DELETE FROM taken WHERE step = 'terms'"),
    "the last removed": lambda path, older: changed(path, "DELETE FROM taken WHERE step = 'answer'"),
    "another kind": lambda path, older: changed(path, "ALTER TABLE taken ADD COLUMN more TEXT"),
}


@pytest.mark.parametrize("accident", HARM)
def test_a_store_that_is_not_what_the_party_spoke_from_is_refused(spoken, accident):
    path, older = spoken
    HARM[accident](path, older)
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(StoreDamaged, match="must not speak again under its key"):
            sqlite_store(path)


def test_another_store_of_the_same_length_is_refused(spoken, tmp_path):
    path, _ = spoken
    other = sqlite_store(tmp_path / "other.sqlite")
    for number in range(5):
        other.put(RUN, number, "terms", b"other")
    other.close()
    shutil.copy(tmp_path / "other.sqlite", path)
    with pytest.raises(StoreDamaged, match="another or an older copy"):
        sqlite_store(path)


def test_a_store_that_is_ahead_of_its_mark_goes_on(spoken):
    """A process that ends between the record and the mark, or in the middle of the mark, has said nothing of the record."""
    path, _ = spoken
    mark = path.with_name(path.name + ".mark")
    whole = mark.read_bytes()
    marked = mark_file(path)
    assert marked.read().records == 4
    marked.close()
    mark.write_bytes(whole[:10] + b"torn" + whole[14:])  # the newest slot, of an even number: the one before is left
    marked = mark_file(path)
    assert marked.read().records == 3
    marked.close()
    store = sqlite_store(path)
    assert store.get(RUN, 2, "answer") == b"a" * 50
    store.close()
    assert mark.read_bytes() == whole
    mark.unlink()
    sqlite_store(path).close()
    assert mark.exists()


def test_a_mark_is_written_in_turns(tmp_path):
    marked = mark_file(tmp_path / "store")
    assert marked.read() is None
    for number in range(5):
        marked.write(Mark(number, bytes([number]) * 32))
        assert marked.read() == Mark(number, bytes([number]) * 32)
    marked.close()


def test_nothing_is_said_where_the_mark_cannot_be_written(tmp_path, monkeypatch):
    real = store_module.mark_file

    def full(path):
        def write(mark):
            if full.now:
                raise OSError(errno.ENOSPC, "No space left on device")
            made.write(mark)

        made = real(path)
        return made._replace(write=write)

    full.now = False
    monkeypatch.setattr(store_module, "mark_file", full)
    store = sqlite_store(tmp_path / "store.sqlite")
    full.now = True
    with pytest.raises(StoreUnwritable, match="nothing was said"):
        store.put(RUN, 1, "answer", b"a")
    with pytest.raises(StoreUnwritable):  # the record is there, and still may not be said
        store.put(RUN, 1, "answer", b"a")
    full.now = False
    assert store.put(RUN, 1, "answer", b"a") == b"a"
    store.close()
    marked = real(tmp_path / "store.sqlite")
    assert marked.read().records == 1
    marked.close()
