"""Spools: what was put in comes out, a round kept on disk is the round kept in memory, and a full disk refuses one upload and not the round."""

from __future__ import annotations

import errno
import gc
import os
import statistics
import tracemalloc

import numpy as np
import pytest

from fedjax_poisson.aggregation import bodies, keys, server, server_state
from fedjax_poisson.aggregation.refusals import NoRoom
from fedjax_poisson.aggregation.spool import file_spool, memory_spool
from tests.aggregation.rounds import World


@pytest.mark.parametrize("make", [memory_spool, file_spool])
def test_what_was_put_in_comes_out(make):
    keep = make()
    blobs = [b"", b"a" * 5, os.urandom(70_000), b"z"]
    given = [keep(blob) for blob in blobs]
    for read, blob in [*zip(given, blobs, strict=True)] * 2:
        assert read() == blob


def on_disk(folder) -> World:
    world = World()
    world.begin()
    world.server, world.out = server.start(world.draft(), world.roster, file_spool(folder))
    return world


def test_a_round_that_is_kept_on_disk(tmp_path):
    world = on_disk(tmp_path).go()
    assert world.exact() and len(world.inside()) == 5 and not world.refused
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_full_disk_refuses_one_upload_and_not_the_round(tmp_path, monkeypatch):
    world, real = on_disk(tmp_path), os.pwrite
    world.go("contribution")
    calls = []

    def full(descriptor, blob, place):
        calls.append(len(blob))
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, blob[: len(blob) // 2] if len(calls) == 4 else blob, place)

    monkeypatch.setattr(os, "pwrite", full)
    world.phase()
    assert world.names() == ["NoRoom", "NoRoom"]
    world.go()
    assert world.exact() and world.inside() == [0, 2, 4]


def test_a_spool_that_lost_bytes_is_told(tmp_path, monkeypatch):
    keep = file_spool(tmp_path)
    read = keep(b"a" * 100)
    monkeypatch.setattr(os, "pread", lambda *_: b"a" * 60)
    with pytest.raises(NoRoom, match="60 of 100"):
        read()


def test_an_upload_on_disk_costs_the_server_a_kilobyte_or_two(tmp_path, monkeypatch):
    """And the sum is made from what was kept: of the included clients only, whoever else had sent."""
    gc.freeze()  # what other tests left need not be looked through at each upload
    monkeypatch.setattr(keys, "_hold", {})  # signatures of tests before: their table may be made larger just now
    costs = {}
    for kept in ("disk", "memory"):
        world = on_disk(tmp_path) if kept == "disk" else World()
        if kept == "memory":
            world.begin()
        world.go("contribution")
        blobs = [world.contribute(i, world.out[0].blob) for i in range(5)]
        world.hear(blobs[0])
        gc.collect()
        tracemalloc.start()
        held = [tracemalloc.get_traced_memory()[0]]
        for blob in blobs[1:]:
            world.hear(bytes(bytearray(blob)))  # bytes of its own, as they come from a network
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        costs[kept] = statistics.median_low(
            np.diff(held).tolist()
        )  # a table of Python's grows at one upload, not at each
        entries = tuple(sorted((key, one.digest) for key, one in world.server.clients.items()))
        rows = {key: world.server.clients[key].rows.astype(np.uint64) for key, _ in entries}
        q = np.asarray(world.params.ring.moduli, np.uint64)[:, None]
        for chosen in (entries, entries[:3]):
            total = server_state.sum_of_rows(world.server, bodies.Include(chosen, (), ()))
            assert (total == sum(rows[key] for key, _ in chosen) % q).all()
    assert costs["disk"] < 3_000 < costs["memory"]
