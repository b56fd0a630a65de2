"""A saved model predicts on new rows what it predicted before it was saved, and says what does not fit."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import data, federated, models
from fedjax_poisson.federated import saved_model, standardize


@pytest.fixture(scope="module")
def heart():
    return data.load("heart")


def _scaler(sites):
    return standardize.bounds_scaler(sites.feature_bounds, 500)


def _trained(model, shape):
    params = model.init(jax.random.key(1), jnp.zeros((1, *shape)))
    return jax.tree.map(lambda leaf: leaf + 0.1, params)


def test_rows_raw_records_and_a_run_folder(heart, tmp_path):
    model, scaler = models.mlp((6, 3)), _scaler(heart)
    params = _trained(model, (13,))
    federated.save_model(tmp_path / "model.npz", model, params, heart, scaler)
    want = np.asarray(model.apply(params, standardize.standardize(scaler, jnp.asarray(heart.features))))
    rows = dict(zip(heart.feature_names, heart.features.T, strict=True))
    for given in (rows, heart.features):
        for path in (tmp_path, tmp_path / "model.npz"):
            found = federated.predict(path, given)
            np.testing.assert_allclose(found.outputs, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.probabilities[:, 1], 1 / (1 + np.exp(-want.astype(float))), rtol=1e-5)
    np.testing.assert_array_equal(found.labels, want > 0)
    assert found.class_names == heart.class_names
    # Without the standardisation the outputs are others: the file's is used.
    assert not np.allclose(want, model.apply(params, jnp.asarray(heart.features)), atol=1e-2)


def test_the_file_holds_no_record(heart, tmp_path):
    model = models.logistic()
    federated.save_model(tmp_path / "a.npz", model, _trained(model, (13,)), heart, _scaler(heart))
    fewer = data.load("heart")
    changed = fewer.features.copy()
    changed[0] = changed[1]
    object.__setattr__(fewer, "features", changed)
    federated.save_model(tmp_path / "b.npz", model, _trained(model, (13,)), fewer, _scaler(heart))
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert a.files == b.files and all(np.array_equal(a[name], b[name]) for name in a.files)


def test_a_model_of_ones_own_must_be_given_again(heart, tmp_path):
    own = models.with_loss(
        lambda key, x: {"w": jnp.ones(x.shape[1])}, lambda params, x: jnp.tanh(x) @ params["w"], loss="binary"
    )
    changed = models.logistic()._replace(apply=lambda params, x: jnp.tanh(x) @ params["weight"] + params["bias"])
    for number, model in enumerate((own, changed)):
        path = tmp_path / f"{number}.npz"
        params = _trained(model, (13,))
        federated.save_model(path, model, params, heart)
        with pytest.raises(ValueError, match="give model="):
            federated.predict(path, heart.features)
        found = federated.predict(path, heart.features, model=model)
        np.testing.assert_allclose(
            found.outputs, model.apply(params, jnp.asarray(heart.features)), rtol=1e-5, atol=1e-5
        )
    with pytest.raises(ValueError, match="another model"):
        federated.load_model(tmp_path / "0.npz", model=models.logistic())


def test_several_classes_and_pictures(tmp_path):
    sites = data.load("xray", patients=6, sites=2, size=32)
    model = models.cnn(3, widths=(2,), dense=4)
    params = _trained(model, (32, 32, 1))
    federated.save_model(tmp_path / "model.npz", model, params, sites)
    found = federated.predict(tmp_path, sites.features[:5])
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-9)
    assert found.outputs.shape == (5, 3) and found.probabilities.shape == (5, 3)
    with pytest.raises(ValueError, match="model takes images"):
        federated.predict(tmp_path, [{"age": 3}])
    with pytest.raises(ValueError, match=r"has shape \[28, 28, 1\]; the model was trained on \[32, 32, 1\]"):
        federated.predict(tmp_path, np.zeros((1, 28, 28, 1), np.float32))


def test_each_site_is_standardised_by_its_own_moments(heart, tmp_path):
    model = models.logistic()
    shared = _scaler(heart)
    offsets = jnp.arange(4, dtype=jnp.float32)[:, None, None] * jnp.ones((1, 1, 13))
    by_site = shared._replace(
        centre=shared.centre[None, None] + offsets, scale=jnp.broadcast_to(shared.scale, (4, 1, 13))
    )
    params = _trained(model, (13,))
    federated.save_model(tmp_path / "model.npz", model, params, heart, by_site)
    for number, name in enumerate(heart.site_names):
        own = shared._replace(centre=shared.centre + jnp.float32(number))
        want = model.apply(params, standardize.standardize(own, jnp.asarray(heart.features)))
        found = federated.predict(tmp_path, heart.features, site=name)
        np.testing.assert_allclose(found.outputs, want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"no site was given.*Cleveland"):
        federated.predict(tmp_path, heart.features)
    with pytest.raises(ValueError, match="no site 'nowhere'"):
        federated.predict(tmp_path, heart.features, site="nowhere")


def test_what_does_not_fit_is_named(heart, tmp_path):
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(ValueError, match=r"torn\.npz is not a saved model"):
        federated.load_model(tmp_path / "torn.npz")
    with pytest.raises(FileNotFoundError):
        federated.load_model(tmp_path / "none.npz")


def _relabelled(heart, task):
    """The heart records with another kind of label."""
    numbers = np.clip(heart.features[:, 3], 80, 200).astype(np.float32)
    changes = {
        "multiclass": {"labels": (heart.features[:, 2] % 3).astype(np.int32), "class_names": ("x", "y", "z")},
        "multilabel": {
            "labels": np.stack([heart.labels, heart.features[:, 1]], axis=1).astype(np.int32),
            "class_names": ("ill", "male"),
        },
        "regression": {"labels": numbers, "class_names": ("pressure",), "label_bounds": (80.0, 200.0)},
    }
    return dataclasses.replace(heart, **changes[task])


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_what_is_predicted_follows_the_label(heart, tmp_path, task):
    sites = _relabelled(heart, task)
    assert sites.task == task
    model = {
        "multiclass": lambda: models.linear(3),
        "multilabel": lambda: models.multilabel_logistic(2),
        "regression": models.linear_regression,
    }[task]()
    scaler = standardize.bounds_scaler(sites.feature_bounds, 500, sites.label_bounds)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(np.random.default_rng(1).normal(size=leaf.shape), jnp.float32), _trained(model, (13,))
    )
    federated.save_model(tmp_path / "model.npz", model, params, sites, scaler)
    want = np.asarray(model.apply(params, standardize.standardize(scaler, jnp.asarray(sites.features))))
    found = federated.predict(tmp_path / "model.npz", sites.features)
    np.testing.assert_allclose(found.outputs, want, rtol=1e-4, atol=1e-5)
    lines = saved_model.table_of(found)
    assert found.task == task and len(lines) == len(want) + 1
    if task == "regression":
        np.testing.assert_allclose(found.labels, np.clip(140 + 60 * want.astype(float), 80, 200), rtol=1e-4)
        assert found.probabilities is None and lines[0] == ["row", "predicted pressure"]
    elif task == "multilabel":
        np.testing.assert_array_equal(found.labels, want > 0)
        np.testing.assert_allclose(found.probabilities, 1 / (1 + np.exp(-want.astype(float))), rtol=1e-4)
        assert lines[0][1:] == ["predicted ill", "predicted male", "probability of ill", "probability of male"]
    else:
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
        assert lines[1][1] == "xyz"[want[0].argmax()]
