"""Programs of few values: which of the two is taken, and that a round's integers are the same from both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import mechanisms, small_programs
from fedjax_poisson.mechanisms.types import partial_of
from fedjax_poisson.small_programs import MOST_VALUES, few_values
from tests.aggregation import rounds
from tests.federated import helpers

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("mechanism", ["poisson_embedding", "skellam"])
def test_both_compilations_of_an_embedding_give_the_same_integers(mechanism):
    program = pytest.importorskip("fedjax_poisson.federated").private_sum.__globals__["_embed_rows"]
    made = {
        "poisson_embedding": lambda: mechanisms.poisson_embedding(
            clip_norm=1.0, coordinate_bound=0.5, dark_count=1000.0, modulation=0.05
        ),
        "skellam": lambda: mechanisms.skellam(clip_norm=1.0, scale=100.0, noise_variance=1000.0),
    }[mechanism]()
    grids = RNG.integers(-(1 << 12), 1 << 12, (4, 14)).astype(np.int32)
    arguments = partial_of(made.embed, 14), grids, helpers.seeded(1)
    found, wanted = program.quick(*arguments), program.whole(*arguments)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_both_compilations_of_the_programs_of_norm_proofs_give_the_same_integers(monkeypatch):
    """A whole norm round in which every such program runs twice."""
    compared: set[str] = set()

    def both(program, *arguments):
        if small_programs.is_traced(arguments):
            return program.whole(*arguments)
        found, wanted = program.quick(*arguments), program.whole(*arguments)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert one.dtype in (jnp.int32, jnp.uint32, jnp.bool_)
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        compared.add(program.whole._function.__name__)
        return found

    monkeypatch.setattr(small_programs.FewValues, "__call__", both)
    world = rounds.opened(norm=True, clients=3)
    assert world.exact()
    assert compared >= {"_weighings", "_expand", "_made_corrections", "_member_scalars"}, compared


def test_the_size_decides_and_a_tracer_takes_the_whole_program():
    double = few_values(lambda x: x.size)(lambda x: x * 2)
    double(np.ones(MOST_VALUES, np.int32))
    assert (double.quick.jitted._cache_size(), double.whole.jitted._cache_size()) == (1, 0)
    double(np.ones(MOST_VALUES + 1, np.int32))
    assert (double.quick.jitted._cache_size(), double.whole.jitted._cache_size()) == (1, 1)
    # Options of a program inside another one would be refused by jax.
    np.testing.assert_array_equal(jax.jit(lambda x: double(x) + 1)(np.arange(3)), [1, 3, 5])
    np.testing.assert_array_equal(jax.vmap(double)(np.arange(6).reshape(2, 3)), 2 * np.arange(6).reshape(2, 3))


def test_an_xla_that_does_not_know_the_options_compiles_as_always(monkeypatch):
    monkeypatch.setitem(small_programs.OPTIONS, "xla_cpu_of_no_version", True)
    small_programs.__dict__["_understood"].cache_clear()
    try:
        double = few_values(lambda x: x.size)(lambda x: x * 2)
        np.testing.assert_array_equal(double(np.arange(3)), [0, 2, 4])
        assert (double.quick.jitted._cache_size(), double.whole.jitted._cache_size()) == (0, 1)
    finally:
        small_programs.__dict__["_understood"].cache_clear()
