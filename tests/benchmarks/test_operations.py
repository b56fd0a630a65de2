import jax
import jax.numpy as jnp
import pytest
from jax import lax

from fedjax_poisson.benchmarks.operations import Work, bytes_of, floor_seconds, work_of


def traced(function, *arguments):
    return jax.make_jaxpr(function)(*arguments)


def test_products_elementwise_and_free_operations_are_told_apart():
    x, y = jnp.ones((3, 4)), jnp.ones((4, 5))
    assert work_of(traced(lambda a, b: a @ b, x, y)) == Work(0.0, 60.0)
    assert work_of(traced(lambda a, b: jnp.sin(a) + a, x, y)) == Work(24.0, 0.0)
    assert work_of(traced(lambda a, b: a.reshape(12)[2:5].astype(jnp.int32), x, y)) == Work(0.0, 0.0)
    assert work_of(traced(lambda a, b: jnp.sum(a), x, y)) == Work(12.0, 0.0)


def test_a_convolution_is_its_multiplications():
    images, kernels = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    found = traced(
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        images,
        kernels,
    )
    assert work_of(found) == Work(0.0, 2 * 8 * 8 * 5 * 3 * 3 * 3)


def test_loops_count_as_often_as_they_run_and_functions_are_looked_into():
    once = work_of(traced(jax.jit(jnp.sin), jnp.ones(7)))
    often = work_of(traced(lambda x: lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=10)[0], jnp.ones(7)))
    assert once == Work(7.0, 0.0) and often == Work(70.0, 0.0)


def test_of_two_branches_the_dearer_counts():
    found = work_of(traced(lambda x: lax.cond(x[0] > 0, lambda: jnp.sin(x) * x, lambda: x), jnp.ones(9)))
    assert 18 <= found.values <= 20  # and the comparison


def test_bytes_and_the_floor():
    assert bytes_of({"a": jnp.ones((2, 3)), "b": jnp.ones(4, jnp.uint8), "c": 3}) == 28
    peaks = {"bytes_per_s": 100.0, "integer_per_s": 10.0, "multiply_add_per_s": 1000.0}
    assert floor_seconds(Work(20.0, 0.0), 50.0, **peaks) == 2.0
    assert floor_seconds(Work(1.0, 0.0), 50.0, **peaks) == 0.5
    assert floor_seconds(Work(0.0, 5000.0), 50.0, **peaks) == 5.0
    assert floor_seconds(Work(1.0, 0.0), 50.0, **(peaks | {"bytes_per_s": 0.0})) is None


@pytest.mark.parametrize("length", [1, 5])
def test_a_product_inside_a_loop(length):
    x = jnp.ones((4, 4))
    found = work_of(traced(lambda a: lax.fori_loop(0, length, lambda _, c: c @ a, a), x))
    assert found.multiply_adds == 64 * length
