"""MedMNIST files: strict on keys, shapes and labels; forgiving about checksums; honest about patients."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.loaders.medmnist import FLAGS
from tests.data.helpers import shared_file


def arrays(flag="pneumoniamnist", counts=(12, 4, 6), side=28):
    info = FLAGS[flag]
    generator = np.random.default_rng(0)
    tail = () if info.channels == 1 else (3,)
    made = {}
    for split, n in zip(("train", "val", "test"), counts, strict=True):
        made[f"{split}_images"] = generator.integers(0, 256, (n, side, side, *tail), np.uint8)
        width, top = (len(info.classes), 2) if info.multi_label else (1, len(info.classes))
        made[f"{split}_labels"] = generator.integers(0, top, (n, width)).astype(np.uint8)
    return made


def save(folder, made, name="pneumoniamnist.npz"):
    np.savez_compressed(folder / name, **made)
    return folder / name


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("side", [28, 64])
def test_every_flag_loads_at_two_sizes(tmp_path, flag, side):
    made = arrays(flag, side=side)
    suffix = "" if side == 28 else "_64"
    sites = data.from_medmnist(save(tmp_path, made, f"{flag}{suffix}.npz"))
    info = FLAGS[flag]
    assert sites.features.shape == (22, side, side, info.channels) and sites.features.dtype == np.float32
    assert sites.labels.shape == ((22, 14) if info.multi_label else (22,))
    np.testing.assert_array_equal(sites.train, [True] * 16 + [False] * 6)
    np.testing.assert_array_equal(
        sites.features[:12].reshape(12, -1), made["train_images"].reshape(12, -1) / np.float32(255)
    )
    assert sites.class_names == info.classes and sites.provenance.licence.startswith("CC BY")


@pytest.mark.parametrize(("validation", "train", "test"), [("train", 16, 6), ("test", 12, 10), ("drop", 12, 6)])
def test_validation_goes_where_it_is_sent(tmp_path, validation, train, test):
    sites = data.from_medmnist(save(tmp_path, arrays()), validation=validation)
    assert sites.train.sum() == train and (~sites.train).sum() == test


def test_another_checksum_warns_and_loads(tmp_path):
    sites = data.from_medmnist(save(tmp_path, arrays()))
    assert "checksum" in sites.warnings[0] and "28209eda62fecd6e6a2d98b1501bb15f" in sites.warnings[0]
    assert "counts (12, 4, 6), published (4708, 524, 624)" in sites.warnings[0]


def test_sizes_without_a_published_checksum_do_not_warn(tmp_path):
    assert data.from_medmnist(save(tmp_path, arrays(side=128), "pneumoniamnist_128.npz")).warnings == ()


def test_the_flag_can_be_given_for_any_file_name(tmp_path):
    path = save(tmp_path, arrays(), "download (3).npz")
    with pytest.raises(ValueError, match="give flag="):
        data.from_medmnist(path)
    assert data.from_medmnist(path, flag="pneumoniamnist").provenance.name == "pneumoniamnist"


def change(made, **changes):
    return {key: value for key, value in (made | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_labels": None}, r"missing \['val_labels'\], unexpected none"),
        ({"extra": np.zeros(3)}, r"unexpected \['extra'\]"),
        ({"train_images": np.zeros((12, 28, 28))}, r"train_images is float64 \[12, 28, 28\]"),
        ({"train_images": np.zeros((12, 28, 28, 3), np.uint8)}, r"uint8 \[n, side, side\]"),
        ({"test_labels": np.zeros((5, 1), np.uint8)}, r"test_labels is uint8 \[5, 1\]; expected integers \[6, 1\]"),
        ({"test_labels": np.zeros(6, np.uint8)}, r"expected integers \[6, 1\]"),
        ({"val_labels": np.array([[0], [1], [7], [0]], np.uint8)}, r"val_labels row 2 is \[7\].*labels 0..1"),
        ({"val_images": np.zeros((4, 64, 64), np.uint8)}, "squares of one size"),
        (
            {"test_images": np.zeros((0, 28, 28), np.uint8), "test_labels": np.zeros((0, 1), np.uint8)},
            "test_images is empty",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        data.from_medmnist(save(tmp_path, change(arrays(), **changes)))


def test_truncated_and_pickled_files_are_refused(tmp_path):
    path = save(tmp_path, arrays())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="truncated"):
        data.from_medmnist(path)
    with pytest.raises(ValueError, match="of plain arrays"):
        data.from_medmnist(save(tmp_path, change(arrays(), train_labels=np.array([{}] * 12)[:, None])))


def test_unknown_three_dimensional_and_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="three-dimensional"):
        data.from_medmnist(tmp_path / "organmnist3d.npz")
    with pytest.raises(ValueError, match=r"'catmnist'.*pneumoniamnist"):
        data.from_medmnist(tmp_path / "catmnist.npz")
    with pytest.raises(FileNotFoundError, match=r"PneumoniaMNIST of MedMNIST v2 is at https://zenodo"):
        data.from_medmnist(tmp_path / "pneumoniamnist.npz")


def test_the_real_pneumonia_set_has_the_published_sizes():
    sites = data.from_medmnist(shared_file("pneumoniamnist_rebuilt.npz"))
    assert sites.train.sum() == 5232 and (~sites.train).sum() == 624
    assert "the counts are the published ones" in sites.warnings[0]
    cut = data.dirichlet(sites, 10, 0.5)
    assert len(cut.site_names) == 10 and (cut.train == sites.train).all()
