"""What the host reads of a round that one program made."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.federated import one_program
from fedjax_poisson.federated.population import Cohort
from fedjax_poisson.randomness import stream

REPORT = jnp.asarray([0, 9, 255, 1], jnp.uint8)
MARK = jnp.asarray([7, 2**32 - 1], jnp.uint32)


class State(SimpleNamespace):
    """A state as far as the round looks at it."""


def _made(mark, sealed, norm, exact=True, values=(3, -8)):
    total = SimpleNamespace(
        values=None if sealed else jnp.asarray(values, jnp.int32),
        sealed="rows" if sealed else None,
        senders=jnp.uint32(4),
        largest=jnp.int32(5),
        fingerprint=mark,
    )
    return one_program.whole_round(
        lambda *_: (total, (), REPORT),
        lambda key, rows: (jnp.asarray(values, jnp.int32), jnp.bool_(exact)),
        lambda state, kept, values, senders, numbers: (values, jnp.float32(norm)),
        State(server=State(round=jnp.int32(41))),
        Cohort(None, None, None),
        stream(),
        SimpleNamespace(key=None),
        None,
    )


@pytest.mark.parametrize("mark", [None, MARK])
@pytest.mark.parametrize("sealed", [True, False])
def test_words_are_read_where_they_were_put(mark, sealed):
    values, words = _made(mark, sealed, 0.3, exact=False)
    looked = one_program.read(np.asarray(words), REPORT.size)
    np.testing.assert_array_equal(values, [3, -8])
    assert looked.norm == float(np.float32(0.3)) and looked.number == 41
    assert looked.exact is not sealed and looked.most == (8 if sealed else 0)
    np.testing.assert_array_equal(looked.report, REPORT)
    assert (looked.mark is None) == (mark is None)
    if mark is not None:
        np.testing.assert_array_equal(looked.mark, mark)


@pytest.mark.parametrize("norm", [float("nan"), float("inf"), 0.0, 1e-42])
def test_any_norm_goes_through_words(norm):
    looked = one_program.read(np.asarray(_made(MARK, True, norm)[1]), REPORT.size)
    np.testing.assert_equal(looked.norm, float(np.float32(norm)))


def test_a_count_of_the_other_sign_is_as_large():
    """-2^31 has no magnitude in 32 bits of a signed number."""
    looked = one_program.read(np.asarray(_made(MARK, True, 1.0, values=(-(2**31), 5))[1]), REPORT.size)
    assert looked.most == 2**31


def test_the_platform_is_that_of_what_lies_on_a_device():
    program = jax.jit(lambda x: x)
    assert one_program.platform_of(program, (np.ones(2), jnp.ones(2))) == "cpu"
    assert one_program.platform_of(jax.jit(lambda x: x + 1), (np.ones(2),)) == jax.default_backend()
