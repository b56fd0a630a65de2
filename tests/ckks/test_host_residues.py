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


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("shape", [(3,), (64, 3), (2048, 4)])
def test_secrets_are_those_of_the_programs_also_where_lower_bits_decide(shape, marked, monkeypatch):
    """`marked`: every other word is made one of a threshold, in the host's words and the program's."""
    own = fold_in(helpers.seeded(5), "secrets")
    planes = host_residues.word_planes(np.asarray(own.key), 3, shape)
    np.testing.assert_array_equal(planes, np.asarray(rlwe_samplers.word_planes(own, 3, shape)))
    if marked:
        upper = [threshold >> 64 for threshold in rlwe_samplers.wide_thresholds()]
        flat = planes[0].reshape(-1)
        flat[::2] = (np.resize(upper, flat[::2].size).astype(np.uint32) << np.uint32(1)) | (flat[::2] & np.uint32(1))
    monkeypatch.setattr(host_residues, "word_planes", lambda key, count, shape: planes[:count])
    found = host_residues.wide_binomial(np.asarray(own.key), shape)
    wanted = rlwe_samplers.compare_all(planes[0], planes[1:])
    np.testing.assert_array_equal(found, np.asarray(wanted))
    if marked:  # the twin: lower bits that are not looked at
        assert (found != np.asarray(rlwe_samplers.compare_all(planes[0], np.zeros_like(planes[1:])))).any()
    else:
        np.testing.assert_array_equal(found, np.asarray(rlwe_samplers.wide_binomial(own, shape)))
