"""Uniform residues on the host: bit by bit those of the programs, for every order of words and number of primes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from fedjax_poisson.ckks import host_residues, ntt, rlwe_samplers
from fedjax_poisson.randomness import fold_in, host_cipher
from tests.federated import helpers

CASES = {
    "a share": ((1024,), (33550337,), rlwe_samplers.UNIFORM_SLACK_BITS),
    "rows of two primes": ((3, 2048), ntt.primes_below(1 << 31, 2048, 2), 20),
    "many tiles": ((8, 4096), ntt.primes_below(1 << 30, 4096, 3), rlwe_samplers.UNIFORM_SLACK_BITS),
}


@pytest.mark.parametrize("usable", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_the_residues_are_those_of_the_programs(name, usable, monkeypatch):
    shape, moduli, slack = CASES[name]
    own = fold_in(helpers.seeded(3), name)
    wanted = jax.jit(lambda s: rlwe_samplers.uniform_residues(s, shape, moduli, slack_bits=slack))(own)
    monkeypatch.setattr(host_cipher, "available", lambda: usable)  # without the package: the words by a program
    found = host_residues.uniform_residues(np.asarray(own.key), shape, moduli, slack_bits=slack)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, np.asarray(wanted))
    other = host_residues.uniform_residues(np.asarray(fold_in(own, 1).key), shape, moduli, slack_bits=slack)
    assert (found != other).mean() > 0.99


@pytest.mark.parametrize("shape", [(3,), (3, 100), (3, 1024, 2), (3, 5000)])
def test_words_are_an_array_of_their_own_in_the_order_of_the_programs(shape):
    own = helpers.seeded(4)
    words = host_residues.random_words(np.asarray(own.key), shape)
    np.testing.assert_array_equal(words, np.asarray(rlwe_samplers.random_words(own, shape)))
    words[0] = 0  # may be changed in place
