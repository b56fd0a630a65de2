"""The bound on the noise of a sum, beside the noise of real encryptions and the tails of its law."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.ckks import encryption, noise_bound, rlwe_samplers
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters
from tests.ckks.core import combine_crt, seeded_stream, tiny


def simulated_noise(params: CkksParameters, mode: str, samples: int, senders: int) -> np.ndarray:
    """Noise coefficients of sums of encrypted zeros, under fresh keys."""
    stream = seeded_stream(11)
    collected = []
    for i in range(samples):
        secret, public = encryption.generate_keys(params, rlwe_samplers.fold_in(stream, "keys", i))
        total = encryption.zero(params, params.values_per_row)
        zeros = jnp.zeros(params.values_per_row, jnp.int32)
        for j in range(senders):
            key = public if mode == "public_key" else secret
            total = encryption.add(
                params, total, encryption.encrypt(params, key, zeros, rlwe_samplers.fold_in(stream, "send", i, j))
            )
        phase = np.asarray(encryption.phase(params, secret, total))[0]
        collected.append(np.asarray(combine_crt(phase, params.moduli), np.float64))
    return np.concatenate(collected)


@pytest.mark.statistical
@pytest.mark.parametrize("mode", ["public_key", "seeded"])
def test_noise_has_the_modelled_variance(mode):
    params = tiny(degree=256, limbs=2, fields=1, width=12, mode=mode)
    found = simulated_noise(params, mode, samples=60, senders=3)
    model = noise_bound.noise_variance(degree=256, senders=3, mode=mode)
    ratio = found.var() / model
    assert 0.96 < ratio < 1.04
    assert (
        not 0.96 < found.var() / noise_bound.noise_variance(degree=256, senders=4, mode=mode) < 1.04
    )  # the twin: one sender more
    assert abs(found.mean()) < 6 * math.sqrt(model / found.size)


@pytest.mark.statistical
def test_noise_bound_holds_by_simulation_and_is_not_empty():
    """At failures that can be seen: over 60 vectors, at most the stated share may reach T, and T / 3 must be reached."""
    params = tiny(degree=256, limbs=2, fields=1, width=12)
    vectors = np.abs(simulated_noise(params, "public_key", samples=60, senders=2).reshape(60, -1)).max(axis=1)
    for failure in (0.5, 0.2):
        bound = noise_bound.noise_bound(degree=256, senders=2, mode="public_key", coefficients=256, failure=failure)
        assert (vectors >= bound).mean() <= failure
    assert (vectors >= bound / 3).all()


@pytest.mark.statistical
def test_failures_at_an_inflated_noise_are_as_frequent_as_gaussian_tails_say():
    """A step of about four standard deviations: the share of wrong values is the share of |noise| > step/2."""
    degree, senders, vectors = 256, 4, 40
    params = tiny(degree=degree, limbs=2, bits=20, fields=1, width=31, count_bound=1000)
    deviation = math.sqrt(noise_bound.noise_variance(degree=degree, senders=senders, mode="public_key"))
    expected = math.erfc(params.step / 2 / deviation / math.sqrt(2))
    assert 0.005 < expected < 0.1
    stream = seeded_stream(5)
    counts = jnp.asarray(np.random.default_rng(0).integers(-250, 251, size=degree), jnp.int32)
    wrong, distances = 0, []
    for i in range(vectors):
        secret, public = encryption.generate_keys(params, rlwe_samplers.fold_in(stream, "keys", i))
        total = encryption.zero(params, degree)
        for j in range(senders):
            fresh = encryption.encrypt(params, public, counts, rlwe_samplers.fold_in(stream, "send", i, j))
            total = encryption.add(params, total, fresh)
        opened, distance = encryption.decrypt_with_margin(params, secret, total, degree)
        wrong += int((np.asarray(opened) != senders * np.asarray(counts)).sum())
        distances.append(float(distance))
    samples = vectors * degree
    error = 6 * math.sqrt(expected / samples)
    assert abs(wrong / samples - expected) < error
    assert abs(wrong / samples - 3 * expected) > error  # the twin: three times the rate is noticed
    assert np.mean(np.asarray(distances) > MARGIN) > 0.9  # and such vectors are refused
