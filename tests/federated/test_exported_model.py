"""Exported weights: the same predictions as `predict`, in NumPy alone, from either file; and a refusal where folding is not possible."""

from __future__ import annotations

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import data, models
from fedjax_poisson.cli import main
from fedjax_poisson.federated import predict, save_model
from fedjax_poisson.federated.exported_model import apply_exported, export_model, fold, safetensors_bytes
from fedjax_poisson.federated.saved_model import load_model
from fedjax_poisson.federated.standardize import Scaler, bounds_scaler


def read_safetensors(blob: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A reader of the published format, written from its description and from nothing of the package."""
    size = int.from_bytes(blob[:8], "little")
    assert (8 + size) % 8 == 0
    header, body = json.loads(blob[8 : 8 + size]), blob[8 + size :]
    metadata = header.pop("__metadata__")
    found = {}
    for name, own in header.items():
        first, last = own["data_offsets"]
        assert own["dtype"] == "F32"
        found[name] = np.frombuffer(body[first:last], "<f4").reshape(own["shape"])
    assert sum(each.nbytes for each in found.values()) == len(body)
    return found, metadata


def saved(tmp_path, name: str, by_site: bool = False):
    """A model with random parameters, and a standardisation that clips many records at both its ranges and three deviations."""
    sites = data.load("heart")
    rng, width = np.random.default_rng(0), sites.features.shape[1]
    model = {"logistic": models.logistic(), "mlp": models.mlp((8, 5)), "linear": models.linear(2)}[name]
    like = model.init(jax.random.key(1), jnp.zeros((1, width)))
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), like)
    low, high = sites.feature_bounds.T
    middle, spread = sites.features.mean(0), sites.features.std(0) * rng.uniform(0.15, 1.0, width)
    shape = (4, 1, width) if by_site else (width,)
    centre, scale = (np.broadcast_to(each, shape).astype(np.float32) for each in (middle, spread))
    if by_site:
        centre = centre + rng.normal(size=(4, 1, 1)).astype(np.float32)
    scaler = Scaler(
        *(jnp.asarray(each, jnp.float32) for each in (centre, scale, low + 0.05 * (high - low), high, 400.0))
    )
    save_model(tmp_path / "model.npz", model, params, sites, scaler)
    return sites, tmp_path


@pytest.mark.parametrize("name", ["logistic", "mlp", "linear"])
def test_exported_weights_predict_what_the_model_predicts(tmp_path, name):
    sites, folder = saved(tmp_path, name)
    rows = np.concatenate([sites.features, sites.features * 3 - 40]).astype(np.float32)  # also far outside every range
    wanted = predict(folder, rows).outputs
    for path in export_model(folder, tmp_path / "out")[:2]:
        arrays = dict(np.load(path)) if path.suffix == ".npz" else read_safetensors(path.read_bytes())[0]
        found = apply_exported(arrays, rows)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())
    without = {
        **arrays,
        "input.lower": np.full_like(arrays["input.lower"], -np.inf),
        "input.upper": np.full_like(arrays["input.upper"], np.inf),
    }
    assert np.abs(apply_exported(without, rows) - wanted).max() > 1  # the twin: the clip is not optional


def test_a_number_comes_out_in_its_unit_and_within_its_range(tmp_path):
    path = tmp_path / "stays.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["site", "a", "b", "stay"])
        writer.writerows(
            [["NS"[i % 2], *rng.normal(size=2).round(3), round(rng.uniform(0, 50), 2)] for i in range(120)]
        )
    sites = data.from_csv(path, label="stay", site="site", label_bounds=(0, 60), bounds={"a": (-3, 3), "b": (-3, 3)})
    scaler = bounds_scaler(sites.feature_bounds, 80, sites.label_bounds)._replace(target=jnp.asarray([22.0, 9.0]))
    params = {"weight": jnp.asarray([4.0, -3.0]), "bias": jnp.asarray(0.4)}
    save_model(tmp_path / "model.npz", models.linear_regression(), params, sites, scaler)
    wanted = predict(tmp_path, sites.features).labels
    found = apply_exported(fold(load_model(tmp_path / "model.npz")).arrays, sites.features)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    assert found.max() == 60 and found.min() < 20


def test_a_site_s_own_standardisation_is_folded_for_that_site(tmp_path):
    sites, folder = saved(tmp_path, "logistic", by_site=True)
    with pytest.raises(ValueError, match=r"no site was given.*Cleveland"):
        export_model(folder, tmp_path / "out")
    for site in ("Hungary", "Cleveland"):
        found = apply_exported(fold(load_model(folder / "model.npz"), site).arrays, sites.features)
        np.testing.assert_allclose(found, predict(folder, sites.features, site=site).outputs, rtol=2e-5, atol=1e-3)


def test_what_cannot_be_folded_is_refused_with_the_reason(tmp_path):
    sites = data.load("xray", size=32, patients=12)
    model = models.cnn(2, binary=True)
    params = model.init(jax.random.key(0), jnp.zeros((1, *sites.features.shape[1:])))
    save_model(tmp_path / "model.npz", model, params, sites, bounds_scaler(sites.feature_bounds, 10))
    with pytest.raises(ValueError, match=r"takes pictures.*Use fedjax-poisson predict"):
        export_model(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(FileNotFoundError, match="no saved model"):
        export_model(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ValueError, match="float32 alone"):
        safetensors_bytes({"a": np.zeros(2)}, {})


def test_a_model_of_one_s_own_is_refused(tmp_path):
    _, folder = saved(tmp_path, "logistic")
    own = load_model(folder / "model.npz")
    with pytest.raises(ValueError, match="model of your own is no linear model"):
        fold(own._replace(model=own.model._replace(recipe=None)))


def test_the_command_says_what_it_wrote_and_the_files_say_what_they_hold(tmp_path, capsys):
    saved(tmp_path, "mlp")
    with pytest.raises(SystemExit) as done:
        main(["export", str(tmp_path / "model.npz"), "--out", str(tmp_path / "weights")])
    assert done.value.code == 0
    files = capsys.readouterr().out.split()
    assert [name.rsplit(".", 1)[1] for name in files] == ["npz", "safetensors", "json"]
    facts = json.loads((tmp_path / "weights" / "weights.json").read_text())
    assert facts["layers"] == 3 and facts["hidden_activation"] == "relu" and facts["features"][:2] == ["age", "sex"]
    arrays, metadata = read_safetensors((tmp_path / "weights" / "weights.safetensors").read_bytes())
    assert {name: list(each.shape) for name, each in arrays.items()} == facts["arrays"] and "clip" in metadata["how"]
    assert "Fill a missing number first (encoder: `fill`, else the middle of `bounds`)" in facts["how"]
    assert (
        facts["how"] == metadata["how"]
        and "equal to the run's own predictions up to float32 of centre/scale" in facts["how"].lower()
    )


def test_the_library_of_the_format_reads_the_file(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="the safetensors library is not installed")
    saved(tmp_path, "logistic")
    path = export_model(tmp_path, tmp_path / "out")[1]
    found = library.load(path.read_bytes())
    assert all(np.array_equal(found[name], each) for name, each in read_safetensors(path.read_bytes())[0].items())
