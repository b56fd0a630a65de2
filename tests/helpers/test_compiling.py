"""What is compiled how: as shipped where a module is listed, quickly elsewhere, and a caller's own options in either."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import small_programs
from tests.helpers import compiling

TESTS = Path(__file__).parent.parent
XLAS_OWN = {
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
X = np.linspace(-3, 3, 1001, dtype=np.float32)


def has_emitters(options=None) -> bool:
    """Whether a sum is a loop of an emitter of its own, which XLA makes of it as shipped."""

    def function(x):
        return jnp.sum(jnp.exp(x) * jnp.tanh(x) / (1.0 + x * x))

    return jax.jit(function, compiler_options=options).lower(X).compile().as_text().count("%wrapped_reduce") > 0


@pytest.mark.skipif(compiling.ALL_AS_SHIPPED, reason="COMPILE_AS_SHIPPED=1: there is one way")
@pytest.mark.skipif(not small_programs._understood(), reason="this XLA does not know the options")
def test_a_module_that_is_listed_is_compiled_as_shipped_and_others_quickly():
    assert has_emitters(XLAS_OWN) and has_emitters() and not has_emitters(compiling.OPTIONS)
    assert compiling.flags() == "" and "fusion_emitters" not in os.environ["XLA_FLAGS"]
    compiling.compile_as_shipped(False)
    try:
        assert not has_emitters() and has_emitters(XLAS_OWN)
        assert os.environ["XLA_FLAGS"].endswith(compiling.flags()) and "fusion_emitters=false" in compiling.flags()
    finally:
        compiling.compile_as_shipped(True)
    assert has_emitters() and "fusion_emitters" not in os.environ["XLA_FLAGS"]


def test_quick_is_what_the_package_calls_quick():
    assert compiling.OPTIONS.items() >= small_programs.OPTIONS.items()


def test_every_name_of_the_list_is_there():
    assert all((TESTS / name).exists() for name in compiling.AS_SHIPPED)
    assert compiling.is_as_shipped(TESTS / "randomness" / "test_chacha.py", TESTS)
    assert compiling.is_as_shipped(TESTS / "test_cli.py", TESTS, marked=True)
    assert not compiling.is_as_shipped(TESTS / "test_cli.py", TESTS)
    assert not compiling.is_as_shipped(TESTS.parent / "notebooks" / "a.ipynb", TESTS)
