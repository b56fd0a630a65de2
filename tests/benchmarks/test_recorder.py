import functools

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.benchmarks.recorder import abstract, recording
from fedjax_poisson.platforms import for_only


def test_programs_are_noted_with_the_shapes_of_their_first_call():
    with recording() as programs:

        @functools.partial(jax.jit, static_argnames="power")
        def raised(x, *, power):
            return inner(x) ** power

        @jax.jit
        def inner(x):
            return x + 1

        np.testing.assert_array_equal(raised(jnp.arange(3), power=2), [1, 4, 9])
        raised(jnp.arange(3), power=2)
        raised(jnp.arange(4), power=2)
        found = programs()
    assert [program.name for program in found] == ["raised", "raised"]  # not `inner`, which is a part of it
    assert found[0].arguments[0].shape == (3,) and found[0].keywords == {"power": 2}
    traced = found[1].jitted.trace(*found[1].arguments, **found[1].keywords)
    assert traced.out_info.shape == (4,)


def test_a_program_that_is_traced_for_one_platform_is_known():
    with recording() as programs:
        one, other = jax.jit(lambda x: x + 1), jax.jit(lambda x: x + 2)
        with for_only("cpu"):
            one(jnp.ones(2))
        other(jnp.ones(2))
        found = programs()
    assert [program.one_platform for program in found] == [hasattr(jax, "make_user_context"), False]


def test_afterwards_nothing_is_watched():
    before = jax.jit
    with recording() as programs:
        assert jax.jit is not before
    later = jax.jit(lambda x: x)
    later(jnp.ones(2))
    assert jax.jit is before and not programs()


def test_attributes_and_methods_are_those_of_the_function():
    with recording() as programs:

        class Holder:
            @functools.partial(jax.jit, static_argnums=0)
            def twice(self, x):
                return 2 * x

        assert jax.jit(jnp.sin).lower(jnp.ones(2)).compile() is not None
        assert Holder().twice(jnp.ones(2)).tolist() == [2, 2]
        assert not programs()  # a method is bound by jax itself


def test_only_arrays_become_shapes():
    tree = {"a": np.ones((2, 3), np.float32), "b": 5, "c": "text", "d": jnp.ones(2, jnp.int32)}
    found = abstract(tree)
    assert found["a"] == jax.ShapeDtypeStruct((2, 3), jnp.float32) and found["b"] == 5 and found["c"] == "text"
    assert found["d"].dtype == jnp.int32
