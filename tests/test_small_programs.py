"""Programs of few values: which of the two is taken, and that a round's integers are the same from both."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import mechanisms, small_programs
from fedjax_poisson.aggregation import contribution, opening, parameters, rows, screening
from fedjax_poisson.mechanisms.types import partial_of
from fedjax_poisson.small_programs import MOST_VALUES, few_values
from tests.federated import helpers

PARAMS = parameters.choose(14, 1 << 16, 4, 5, 4)
DIGEST = bytes(range(32))
RNG = np.random.default_rng(7)
FORM = RNG.integers(0, min(PARAMS.ring.moduli), (PARAMS.ring.limbs, PARAMS.ring.degree)).astype(np.uint32)


def _cases() -> dict:
    private_sum = pytest.importorskip("fedjax_poisson.federated").private_sum.__globals__
    a = np.asarray(rows.common_of(PARAMS, DIGEST))
    mechanism = mechanisms.poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=1000.0, modulation=0.05)
    grids = RNG.integers(-(1 << 20), 1 << 20, (4, 14)).astype(np.int32)
    signs = RNG.integers(-1, 2, (12, PARAMS.ring.degree)).astype(np.int32)
    kappas = RNG.integers(0, 1 << 32, (PARAMS.members, 8)).astype(np.uint32)
    stream = helpers.seeded(1)
    return {
        "embed": (private_sum["_embed_rows"], (partial_of(mechanism.embed, 14), grids, stream)),
        "seal": (contribution.seal_rows, (PARAMS, a, grids[0], stream)),
        "common": (rows.__dict__["_common"], (PARAMS, kappas[0])),
        "centre": (opening.__dict__["_centred"], (PARAMS, FORM)),
        "decode": (opening.__dict__["_decode"], (PARAMS, a, FORM[None], FORM)),
        "project": (screening.project, (PARAMS, signs, np.stack([FORM] * 3), FORM)),
    }


@pytest.mark.parametrize("name", ["embed", "seal", "common", "centre", "decode", "project"])
def test_both_compilations_of_a_rounds_programs_give_the_same_integers(name):
    program, arguments = _cases()[name]
    found, wanted = (jax.tree.leaves(each(*arguments)) for each in (program.quick, program.whole))
    whole = [leaf.dtype in (jnp.int32, jnp.uint32, jnp.bool_) for leaf in found]
    assert any(whole) and (all(whole) or name == "decode")  # beside the counts, two distances
    for exact, one, other in zip(whole, found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0 if exact else 1e-6)


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
