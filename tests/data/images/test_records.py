"""Image folders: layouts, splits by patient, copies, and the border control."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.pictures import folder, paint


def test_sites_and_classes_from_the_folders(tmp_path):
    sites = data.from_image_folder(folder(tmp_path), size=16)
    assert sites.features.shape == (48, 16, 16, 1)
    assert sites.site_names == ("north", "south") and sites.class_names == ("ill", "well")
    np.testing.assert_array_equal(np.bincount(sites.labels), [24, 24])
    assert sites.unit == "record" and any("one image" in note for note in sites.provenance.notes)
    assert (~sites.train).sum() == 2 * 4


def test_a_flat_layout_is_one_site_and_declared_classes_give_the_order(tmp_path):
    for label in ("well", "ill"):
        for i in range(10):
            paint(tmp_path / label / f"{i}.jpg")
    sites = data.from_image_folder(tmp_path, size=8, classes=["well", "ill"], min_site_records=1)
    assert sites.site_names == ("all",) and sites.class_names == ("well", "ill")
    with pytest.raises(ValueError, match=r"class 'well' is not among the declared ones: ill"):
        data.from_image_folder(tmp_path, classes=["ill"])


def test_patients_in_file_names_are_never_split(tmp_path):
    sites = data.from_image_folder(folder(tmp_path), size=8, patient=r"^([A-Za-z0-9]+)_")
    assert sites.unit == "patient" and len(np.unique(sites.group)) == 12
    assert not set(sites.group[sites.train]) & set(sites.group[~sites.train])
    with pytest.raises(ValueError, match=r"north_0.png: the patient pattern"):
        data.from_image_folder(tmp_path, size=8, patient=r"^(\d+)-")


def test_copies_of_a_file_stay_on_one_side(tmp_path):
    for i in range(40):
        paint(tmp_path / "ab"[i % 2] / f"{i}.png", value=(i // 4) * 2 + i % 2)
    sites = data.from_image_folder(tmp_path, size=8, test_fraction=0.5, min_site_records=1)
    assert not set(sites.group[sites.train]) & set(sites.group[~sites.train])
    assert any("20 files repeat another file's content" in note for note in sites.provenance.notes)


def test_missing_empty_and_mixed_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        data.from_image_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no picture found"):
        data.from_image_folder(tmp_path)
    paint(tmp_path / "a" / "1.png")
    paint(tmp_path / "north" / "a" / "1.png")
    with pytest.raises(ValueError, match="use one layout"):
        data.from_image_folder(tmp_path)
    paint(tmp_path / "x.png")
    with pytest.raises(ValueError, match="1 levels below"):
        data.from_image_folder(tmp_path)


def test_border_only_keeps_the_frame_and_nothing_else():
    pixels = np.zeros((40, 10, 10), np.float32)
    pixels[:, 3:7, 3:7] = 1.0
    sites = data.from_image_arrays(pixels, np.arange(40) % 2, classes=("a", "b"), name="x", source="made up")
    border = data.border_only(sites, 3)
    assert border.features.shape == (40, 100 - 16) and not border.features.any()
    assert data.border_only(sites, 4).features.any()
    with pytest.raises(ValueError, match="leaves nothing"):
        data.border_only(sites, 5)
    with pytest.raises(ValueError, match="needs images"):
        data.border_only(data.load("heart"))
