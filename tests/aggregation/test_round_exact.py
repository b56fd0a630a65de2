"""Every mechanism's counts come out of a round to the last integer: all sizes around a full row, up to 10,000 clients, at the ends of the stated range."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import mechanisms, poisson_embedding
from fedjax_poisson.aggregation.parameters import choose
from fedjax_poisson.aggregation.refusals import OpeningRefused
from fedjax_poisson.mechanisms import Mechanism, experimental
from fedjax_poisson.randomness import fold_in, stream
from tests.aggregation.sums import CHUNK, Sums, ends, shared_out, sums

pytestmark = pytest.mark.slow
BOUND = 5000
CLIENTS = (1, 2, 3, 10, 1000, 10_000)

MECHANISMS = {
    "poisson_embedding": lambda: poisson_embedding(clip_norm=1.0, coordinate_bound=0.4, dark_count=8.0, modulation=0.1),
    "records": lambda: poisson_embedding(
        clip_norm=1.0, coordinate_bound=0.4, dark_count=500.0, modulation=0.05, total_bound=6.0
    ),
    "single_channel": lambda: mechanisms.single_channel(
        clip_norm=1.0, coordinate_bound=0.4, dark_count=20.0, modulation=0.2
    ),
    "skellam": lambda: mechanisms.skellam(clip_norm=1.0, scale=60.0, noise_variance=400.0),
    "centred_poisson": lambda: experimental.centred_poisson(clip_norm=1.0, scale=40.0, dark_count=30.0),
    "data_embedding": lambda: experimental.data_embedding(gain=20.0, offset=0.5),
}


def made(name: str) -> Mechanism:
    return MECHANISMS[name]()


def counts_of(mechanism: Mechanism, size: int, clients: int) -> np.ndarray:
    """int32 [clients, size]: what so many clients send, half of them with the largest update that the mechanism takes."""
    draw = jax.jit(jax.vmap(mechanism.privatize))
    root, chunks = stream(), []
    folded = jax.jit(jax.vmap(lambda i: fold_in(root, i)))
    for first in range(0, clients, CHUNK):
        numbers = jnp.arange(first, first + CHUNK, dtype=jnp.uint32)
        updates = np.zeros((CHUNK, size), np.float32)
        updates[::2] = np.random.default_rng(first).choice([-1.0, 1.0], (CHUNK // 2, size))
        chunks.append(np.asarray(draw(folded(numbers), updates)))
    return np.concatenate(chunks)[:clients]


def count_bound(name: str, clients: int, size: int) -> int:
    return made(name).count_bound(clients, size)


def test_every_integer_mechanism_of_the_package_is_here():
    assert all(made(name).facts.integer for name in MECHANISMS)
    assert {made(name).facts.name for name in MECHANISMS} == {
        "poisson_embedding", "single_channel", "skellam", "centred_poisson", "data_embedding",
    }  # fmt: skip


# A few clients, row by row


SMALL, FEW = 3000, 10


@pytest.fixture(scope="module")
def small() -> Sums:
    """One ring for all mechanisms, as wide as the widest needs."""
    return sums(SMALL, FEW, max(count_bound(name, FEW, SMALL) for name in MECHANISMS))


@pytest.mark.parametrize("name", list(MECHANISMS))
def test_sums_of_a_mechanism_are_exact(small, name):
    counts = counts_of(made(name), SMALL, FEW)
    assert counts.dtype == np.int32 and np.abs(counts).max() > 5
    opened = small.opened(small.one_by_one(counts))
    np.testing.assert_array_equal(opened, counts.sum(axis=0, dtype=np.int64))
    assert np.abs(opened).max() <= count_bound(name, FEW, SMALL)


@pytest.mark.parametrize("clients", [1, 2, 3, 10])
def test_clients_at_the_ends_of_the_range_row_by_row(small, clients):
    for name, total in ends(small.params, small.bound).items():
        opened = small.opened(small.one_by_one(shared_out(total, clients)))
        np.testing.assert_array_equal(opened, total, err_msg=name)


def test_large_counts_that_cancel(small):
    """Single clients at the whole bound, of opposite signs: the sum is what must fit."""
    total = ends(small.params, small.bound)["random signs"]
    counts = np.stack([total, -total, total, -total, np.arange(SMALL) - 1500])
    np.testing.assert_array_equal(small.opened(small.one_by_one(counts)), np.arange(SMALL) - 1500)


def test_one_beyond_the_range_is_refused_and_the_twin_is_not(small):
    total = ends(small.params, small.bound)["random"]
    for value, good in ((small.bound, True), (small.bound + 1, False), (-small.bound, True), (-small.bound - 1, False)):
        total[77] = value
        sealed = small.one_by_one(shared_out(total, 3))
        if good:
            np.testing.assert_array_equal(small.opened(sealed), total)
        else:
            with pytest.raises(OpeningRefused, match="beyond count_bound"):
                small.opened(sealed)


def test_the_summed_program_and_single_rows_agree(small):
    total = ends(small.params, small.bound)["random"]
    for clients in (1, 7, 10):
        np.testing.assert_array_equal(small.opened(small.total(total, clients)), total)
    for lost, present in ((1, 0), (2, 5), (3, 6), (10, 9)):
        sealed = small.total(total, 10, lost)
        assert int(sealed.senders) == present
        if present:
            np.testing.assert_array_equal(small.opened(sealed), total)


# Many clients


def all_ends(world: Sums, clients: int, names: set[str] | None = None) -> None:
    for name, total in ends(world.params, world.bound).items():
        if names is None or name in names:
            np.testing.assert_array_equal(world.opened(world.total(total, clients)), total, err_msg=name)


def test_up_to_ten_thousand_clients_at_the_ends_of_the_range():
    world = sums(2049, 10_000, BOUND)
    assert world.params.ring.values_per_row == 2048 and world.params.rows == 2, "one value in the second row"
    for clients in CLIENTS[:-1]:
        all_ends(world, clients)
    all_ends(world, 10_000, {"fields of opposite signs", "random signs"})


def test_lost_clients_leave_an_exact_sum_of_the_others():
    world = sums(2049, 10_000, BOUND)
    total = ends(world.params, BOUND)["random signs"]
    for clients, lost in ((1000, 2), (1000, 3), (1000, 999), (3, 2)):
        sealed = world.total(total, clients, lost)
        assert int(sealed.senders) == clients - -(-clients // lost)
        np.testing.assert_array_equal(world.opened(sealed), total)


def test_more_clients_than_the_parameters_are_for_are_noticed_before_they_are_wrong():
    """Ten times as many as stated: noise stays within 7/16 of a step or the sum is refused; it is never wrong."""
    world = sums(SMALL, FEW, max(count_bound(name, FEW, SMALL) for name in MECHANISMS))
    total, refused = ends(world.params, world.bound)["random"], 0
    for clients in (20, 100, 1000, 5000):
        try:
            np.testing.assert_array_equal(world.opened(world.total(total, clients)), total)
        except OpeningRefused:
            refused += 1
    assert refused >= 1


# Long: every size, every number of clients with parameters of its own, every mechanism in large


def around_a_row(senders: int, bound: int) -> list[tuple[int, int]]:
    """(size, rows) around what a row of the ring for about a row holds."""
    row = choose(3000, bound, senders, 5, 4).ring.values_per_row
    return [(size, choose(size, bound, senders, 5, 4).rows) for size in (row - 1, row, row + 1)]


@pytest.mark.long
@pytest.mark.parametrize("where", [0, 1, 2])
def test_sizes_around_a_full_row(where):
    size, rows = around_a_row(3, 100)[where]
    world = sums(size, 3, 100)
    assert world.params.rows == rows
    for name, total in ends(world.params, world.bound).items():
        opened = world.opened(world.one_by_one(shared_out(total, 3)))
        np.testing.assert_array_equal(opened, total, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize(("size", "members"), [(1, 1), (2, 20), (2, 3)])
def test_the_shortest_vectors_and_other_committees(size, members):
    world = sums(size, 10, 2**31 - 1, members)
    for clients in (1, 2, 3, 10):
        for name, total in ends(world.params, world.bound).items():
            opened = world.opened(world.one_by_one(shared_out(total, clients)))
            np.testing.assert_array_equal(opened, total, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("clients", CLIENTS)
def test_a_hundred_thousand_values_with_parameters_for_so_many_clients(clients):
    world = sums(100_000, clients, made("poisson_embedding").count_bound(clients, 100_000))
    names = None if clients < 10_000 else {"fields of opposite signs"}
    all_ends(world, clients, names)


@pytest.mark.long
@pytest.mark.parametrize("name", list(MECHANISMS))
def test_a_thousand_clients_of_every_mechanism(name):
    clients, size = 1000, 20_000
    mechanism = made(name)
    world = sums(size, clients, mechanism.count_bound(clients, size))
    total = counts_of(mechanism, size, clients).sum(axis=0, dtype=np.int64)
    np.testing.assert_array_equal(world.opened(world.total(total, clients)), total)


@pytest.mark.long
def test_a_million_values_of_a_thousand_clients():
    world = sums(1 << 20, 1000, made("poisson_embedding").count_bound(1000, 1 << 20))
    all_ends(world, 1000, {"random signs", "fields of opposite signs"})


@pytest.mark.long
def test_twenty_five_million_values():
    world = sums(25_600_000, 10, made("poisson_embedding").count_bound(10, 25_600_000))
    all_ends(world, 10, {"random signs", "one value only"})
