"""Closed-form attacks on a dense first layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson import trees
from fedjax_poisson.attacks import (
    best_match,
    dense_gradients,
    gradients_of,
    plant_imprint,
    read_imprint,
    read_neurons,
    read_single,
)
from tests.attacks.helpers import images

MODEL = fp.models.mlp((64, 8))
X = images(8, seed=1).reshape(8, -1)
PARAMS = MODEL.init(jax.random.key(0), jnp.asarray(X[:1]))
Y = jnp.asarray([0, 1, 0, 1, 1, 0, 1, 0], jnp.float32)


def _gradient(params, rows):
    flat = gradients_of(MODEL, params, jnp.asarray(X[rows])[None], Y[jnp.asarray(rows)][None])[0]
    return dense_gradients(trees.layout(params).unflatten(flat), X.shape[1])


def test_a_single_record_is_read_exactly():
    got = read_single(*_gradient(PARAMS, [3]))
    np.testing.assert_allclose(got.records[0], X[3], atol=1e-4)
    assert "dense" in got.needs


def test_logistic_regression_gives_its_record_away_too():
    model = fp.models.logistic()
    params = model.init(jax.random.key(0), jnp.asarray(X[:1]))
    flat = gradients_of(model, params, jnp.asarray(X[2])[None, None], Y[None, 2:3])[0]
    got = read_single(*dense_gradients(trees.layout(params).unflatten(flat), X.shape[1]))
    np.testing.assert_allclose(got.records[0], X[2], atol=1e-4)


def test_an_honest_layer_mixes_a_batch_and_a_planted_one_separates_it():
    rows = list(range(8))
    mixed = read_neurons(*_gradient(PARAMS, rows), 64).records
    error_mixed = np.abs(mixed[best_match(mixed, X)] - X).max(axis=1)
    # Thresholds between the brightnesses of other pictures: the attacker does not know the victims'.
    others = np.sort(images(512, seed=7).reshape(512, -1).mean(axis=1))
    planted = plant_imprint(PARAMS, np.quantile(others, (np.arange(64) + 0.5) / 64))
    got = read_imprint(*_gradient(planted, rows))
    error = np.abs(got.records[best_match(got.records, X)] - X).max(axis=1)
    alone = (error < 0.01).sum()
    assert alone >= 5 and alone > (error_mixed < 0.01).sum()
    assert "malicious" in got.needs
    # What the theory says: exactly the records that are alone between two thresholds are separated.
    edges = np.quantile(others, (np.arange(64) + 0.5) / 64)
    gap = np.searchsorted(edges, X.mean(axis=1))
    expected = [(gap == g).sum() == 1 and g > 0 for g in gap]
    np.testing.assert_array_equal(error < 0.01, expected)


def test_a_model_without_a_dense_first_layer_is_refused():
    with pytest.raises(ValueError, match="dense layer of 256 inputs"):
        dense_gradients({"conv": jnp.zeros(3)}, 256)
    with pytest.raises(ValueError, match="rising"):
        plant_imprint(PARAMS, np.zeros(64))
    silent = read_single(jnp.zeros((5, 2)), jnp.zeros(2))
    assert silent.strength[0] == 0 and not silent.records.any()
