"""Noise in equal portions: a round may use fewer, with the law, the cost and the estimate of the smaller dark count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import accounting, poisson_embedding, randomness
from fedjax_poisson.federated import private_sum
from fedjax_poisson.mechanisms.poisson import in_portions
from fedjax_poisson.mechanisms.types import at_portions

UNIT = 250.0
FACTS = {"clip_norm": 2.0, "coordinate_bound": 2.0, "modulation": 0.2, "total_bound": 40.0}
WHOLE = poisson_embedding(dark_count=8 * UNIT, portions=8, **FACTS)
GRID = jnp.full((5000,), 1 << 19, jnp.int32)  # v = 1/2


def _draws(mechanism, seed):
    return np.asarray(mechanism.embed(randomness.stream(seed=seed), GRID), float)


@pytest.mark.parametrize("used", [1, 3, 8])
def test_a_round_with_fewer_portions_has_the_law_of_the_smaller_dark_count(used):
    some = at_portions(WHOLE, used)
    found = _draws(some, 1)
    mean, variance = used * UNIT * 0.2, 2 * used * UNIT
    for wrong, right in ((used + 0.25, False), (used, True)):
        deviation = (found.mean() - wrong * UNIT * 0.2) / np.sqrt(variance / found.size)
        assert (abs(deviation) < 5) == right
        ratio = found.var() / (2 * wrong * UNIT)
        assert abs(ratio - 1) < 5 * np.sqrt(2 / found.size) if right else True
    assert found.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / found.size))


@pytest.mark.parametrize("used", [1, 3, 8])
def test_its_facts_are_those_of_the_mechanism_in_one_piece(used):
    some, piece = at_portions(WHOLE, used), poisson_embedding(dark_count=used * UNIT, **FACTS)
    orders = accounting.integer_orders(32)
    np.testing.assert_array_equal(some.rdp(orders, 3, 10), piece.rdp(orders, 3, 10))
    assert some.cost(3, 10) == piece.cost(3, 10)
    assert some.variance(4) == piece.variance(4) and some.count_bound(4, 10) == piece.count_bound(4, 10)
    assert some.facts.sampler_distance == pytest.approx(used * at_portions(WHOLE, 1).facts.sampler_distance)
    counts = jnp.arange(-50, 50, dtype=jnp.int32)
    np.testing.assert_array_equal(some.estimate(counts, 4), piece.estimate(counts, 4))


def test_a_traced_number_of_portions_gives_the_same_counts():
    stream = randomness.stream(seed=3)
    embed = jax.jit(WHOLE.portions.embed)
    for used in (1, 5, 8):
        np.testing.assert_array_equal(
            embed(stream, GRID, jnp.int32(used)), at_portions(WHOLE, used).embed(stream, GRID)
        )
        np.testing.assert_allclose(
            WHOLE.portions.estimate(GRID, 4, jnp.int32(used)), at_portions(WHOLE, used).estimate(GRID, 4), rtol=1e-6
        )


def test_a_schedule_compiles_one_program():
    program = private_sum.__globals__["_embed_rows"]
    grids = jnp.zeros((3, 400), jnp.int32)  # too many to be drawn on the host
    before = program.quick.jitted._cache_size()
    for used in (8, 4, 2, 1):
        private_sum.__globals__["_embed_all"](at_portions(WHOLE, used), grids, randomness.stream(seed=0))
    assert program.quick.jitted._cache_size() == before + 1


def test_in_portions_is_exact_and_never_more():
    for dark_count in (1.0, 3.3, 1e-3, 123456.789, 4.9e7, np.nextafter(8.0, 0)):
        for portions in (1, 3, 7, 8):
            found = in_portions(dark_count, portions)
            assert found <= dark_count and found > dark_count * (1 - 1e-11)
            poisson_embedding(dark_count=max(found, 0.08 * portions), portions=portions, **FACTS) if found > 1 else None
            assert all((found / portions) * used == used * found / portions for used in range(1, portions + 1))


def test_what_is_refused():
    with pytest.raises(ValueError, match="not 7 times a float"):
        poisson_embedding(dark_count=1000.1, portions=7, **FACTS)
    for wrong in (0, 2.5, 5000):
        with pytest.raises(ValueError, match="whole number"):
            poisson_embedding(dark_count=8.0, portions=wrong, **FACTS)
    for wrong in (0, 9, 1.5):
        with pytest.raises(ValueError, match="a round uses a whole number"):
            at_portions(WHOLE, wrong)
    with pytest.raises(ValueError, match="made in one piece"):
        at_portions(poisson_embedding(dark_count=8.0, **FACTS), 1)
