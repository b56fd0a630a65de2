"""The benchmark's arrays: unchanged to the last bit, of the stated shapes, and learnable."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from fedjax_poisson.benchmarks import workloads

COHORTS = {
    "W1": "4b76c77fa8e367d2cfa43f51b691fa02a680a402bb025e02da74b4a8ac4f519d",
    "W2": "2c95b8424b000521a8600c1843e4a0860c748f5beaf2aec3aab45123a4cdbaca",
    "W3": "0ecc1631f490b02d89f168bdc97a7420ec1fdae44efe7b8b3bdeee1325f57d86",
}
FIRST_WEIGHTS = {
    "mlp": "61092b356ca095b3692eda8b2e19d4f80d086b479450abdead7d50bcd9261446",
    "cnn": "c0997dadf7c9b63dc333cdbee971af10bea857d56345463c03217478288b1a8c",
}


def digest(*arrays):
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def test_the_digest_sees_one_bit_and_the_type():
    array = np.arange(4, dtype=np.float32)
    changed = array.copy()
    changed.view(np.uint32)[2] ^= 1
    assert len({digest(array), digest(changed), digest(array.astype(np.float64)), digest(array[None])}) == 4


def test_the_first_workload_is_unchanged():
    config, x, y, x_test, y_test = workloads.make("W1")
    assert (
        x.shape == (1000, 64, 30) and y.shape == (1000, 64) and x_test.shape == (4096, 30) and y_test.shape == (4096,)
    )
    assert config.steps == 2
    assert digest(x, y, x_test, y_test) == "7054b2217f77d837395d8ec3f90a376944a61235c9a8c865afceabf032b12856"


def test_a_small_third_workload_is_unchanged():
    small = dataclasses.replace(workloads.CONFIGS["W3"], clients=30, test=32)
    assert digest(*workloads.data(small)) == "44cfd8aed5b4ea3a732095d37b9c2a29dfdaa5d4f79afe44664770e95a6d93b5"


def test_a_small_second_workload_is_unchanged():
    # Pixels are divided by a float32 standard deviation, whose last bit may differ between processors: no hash here.
    small = dataclasses.replace(workloads.CONFIGS["W2"], clients=3, per_client=4, test=5)
    x, y, x_test, y_test = workloads.data(small)
    assert y.dtype == y_test.dtype == np.int32 and x.dtype == x_test.dtype == np.float32
    assert y.tolist() == [[3, 5, 1, 3], [4, 9, 4, 4], [0, 3, 2, 9]] and y_test.tolist() == [0, 8, 9, 7, 5]
    assert x.shape == (3, 4, 28, 28, 1) and x_test.shape == (5, 28, 28, 1)
    corner = [[-1.27909219, -0.10038493, -0.82402039], [0.64832139, 0.49952152, -0.81186241]]
    np.testing.assert_allclose(x[0, 0, :2, :3, 0], corner, rtol=1e-5)
    np.testing.assert_allclose(x_test[4, 27, 25:, 0], [-1.47203135, -2.04326892, 0.44311750], rtol=1e-5)


@pytest.mark.parametrize("name", workloads.CONFIGS)
def test_cohorts_and_first_weights_are_unchanged(name):
    config = workloads.CONFIGS[name]
    cohorts, params = workloads.cohorts(config), workloads.init_params(config)
    assert cohorts.shape == (config.rounds + 1, config.cohort)
    assert all(len(set(row)) == config.cohort for row in cohorts.tolist())
    assert cohorts.min() >= 0 and cohorts.max() < config.clients
    assert digest(cohorts) == COHORTS[name]
    assert digest(*params.values()) == FIRST_WEIGHTS[config.model]
    assert workloads.n_params(config) == {"mlp": 4097, "cnn": 421_642}[config.model]


def test_labels_follow_the_records():
    # Nearest class mean in W2 and a linear fit in W1 must find what a network is to find, and not all of it.
    small = dataclasses.replace(workloads.CONFIGS["W2"], clients=60, test=300)
    x, y, x_test, y_test = workloads.data(small)
    means = np.stack([x[y == label].mean(0) for label in range(10)]).reshape(10, -1)
    found = np.argmax(x_test.reshape(300, -1) @ means.T - (means**2).sum(1) / 2, 1)
    assert 0.5 < np.mean(found == y_test) < 0.99
    _, x, y, x_test, y_test = workloads.make("W1")
    slopes = np.linalg.lstsq(x.reshape(-1, 30), 2 * y.reshape(-1) - 1, rcond=None)[0]
    assert 0.85 < np.mean((x_test @ slopes > 0) == y_test) < 0.97


def test_an_unknown_name_and_a_changed_setting_are_refused():
    with pytest.raises(ValueError, match="no workload 'W4'; the workloads are W1, W2, W3"):
        workloads.make("W4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        workloads.CONFIGS["W1"].rounds = 1
    with pytest.raises(TypeError):
        workloads.Workload("W1")
