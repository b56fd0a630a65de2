"""Pictures in arrays and in an `.npz`: classes and sources chosen by name, and every defect named with its file and row."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import shared_file

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 6), np.uint8)
LABELS = np.arange(60) % 3
NAMES = ("well", "focal", "both")
SOURCE = np.array(["north", "south"])[np.arange(60) // 30]
PEOPLE = np.array([f"p{i // 2}" for i in range(60)])
OPTIONS = {"classes": NAMES, "name": "x", "source": "scans.npz"}


def save(folder, **changes):
    arrays = {"images": PIXELS, "labels": LABELS, "classes": np.array(NAMES), "source": SOURCE, "who": PEOPLE} | changes
    np.savez(folder / "scans.npz", **{key: value for key, value in arrays.items() if value is not None})
    return folder / "scans.npz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": LABELS[:30]}, r"scans.npz: labels are int64 of shape \(30,\); expected integers \[60\]"),
        ({"labels": LABELS + 0.5}, "labels are float64"),
        (
            {"labels": np.where(np.arange(60) == 7, 5, LABELS)},
            "scans.npz: row 7 has the label 5; declared classes are well",
        ),
        ({"labels": np.where(np.arange(60) == 8, -1, LABELS)}, "row 8 has the label -1"),
        ({"site": SOURCE[:3]}, r"scans.npz: site has shape \(3,\) for 60 pictures"),
        ({"patient": PEOPLE[:3]}, r"scans.npz: patient has shape \(3,\)"),
        ({"train": np.ones(3, bool)}, r"scans.npz: train has shape \(3,\)"),
        (
            {"patient": PEOPLE, "train": np.arange(60) != 41},
            r"scans.npz: patient 'p20' is in training \(row 40\) and test \(row 41\) at once, as are 0 others",
        ),
        ({"images": PIXELS[:0]}, "no picture to learn from"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_with_source_and_row(changes, message):
    arguments = {"images": PIXELS, "labels": LABELS} | OPTIONS | changes
    with pytest.raises(ValueError, match=message):
        data.from_image_arrays(arguments.pop("images"), arguments.pop("labels"), **arguments)


def test_a_file_gives_what_its_arrays_give(tmp_path):
    found = data.from_image_npz(save(tmp_path), site="source", patient="who")
    wanted = data.from_image_arrays(PIXELS, LABELS, site=SOURCE, patient=PEOPLE, **OPTIONS)
    for field in ("features", "labels", "site", "group", "train"):
        np.testing.assert_array_equal(getattr(found, field), getattr(wanted, field))
    assert found.class_names == NAMES and found.unit == "patient" and found.site_names == ("north", "south")


def test_classes_and_sources_are_chosen_by_name(tmp_path):
    path = save(tmp_path)
    some = data.from_image_npz(path, classes=("both", "well"), only={"source": "south"}, patient="who")
    kept = (SOURCE == "south") & (LABELS != 1)
    np.testing.assert_array_equal(some.features[..., 0], PIXELS[kept] / np.float32(255))
    np.testing.assert_array_equal(some.labels, np.where(LABELS[kept] == 2, 0, 1))
    assert "20 of 60 pictures taken: both, well" in some.provenance.notes
    # Names in place of numbers, or numbers whose names the caller gives.
    by_name = data.from_image_npz(save(tmp_path, labels=np.array(NAMES)[LABELS], classes=None))
    assert by_name.class_names == ("both", "focal", "well")
    given = data.from_image_npz(save(tmp_path, classes=None, labels=LABELS[:, None]), classes=NAMES)
    np.testing.assert_array_equal(given.labels, LABELS)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {},
            {"site": "hospital"},
            "scans.npz: no array 'hospital'; the file holds: classes, images, labels, source, who",
        ),
        ({"images": None}, {}, "no array 'images'"),
        ({"labels": LABELS[:9]}, {}, r"labels has shape \(9,\) for 60 pictures"),
        (
            {"labels": np.where(np.arange(60) == 4, 3, LABELS)},
            {},
            r"scans.npz: row 4 has the label 3; declared classes",
        ),
        ({"labels": LABELS * 1.0}, {}, "labels are float64"),
        ({"classes": None}, {}, "in the argument classes"),
        ({}, {"classes": ("well", "il")}, "no picture has the class 'il'; there are: both, focal, well"),
        ({}, {"only": {"source": "west"}}, r"no picture is of well, focal, both with \{'source': 'west'\}"),
        ({"who": np.array([{}] * 60)}, {"patient": "who"}, "of plain arrays"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message):
        data.from_image_npz(save(tmp_path, **changes), **options)


def test_missing_truncated_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz: no such file; .* an \.npz with images, labels, who"):
        data.from_image_npz(tmp_path / "gone.npz", patient="who")
    path = save(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"PK\x03\x04nonsense", whole.replace(PIXELS[3].tobytes(), bytes(36))):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"scans\.npz: not a readable \.npz"):
            data.from_image_npz(path)
    np.save(tmp_path / "bare.npy", PIXELS)
    with pytest.raises(ValueError, match="one bare array"):
        data.from_image_npz(tmp_path / "bare.npy")


def test_sources_that_give_the_class_away_are_said():
    options = OPTIONS | {"classes": ("a", "b"), "site": SOURCE[10:50]}
    told = data.from_image_arrays(PIXELS[:40], (SOURCE[10:50] == "north").astype(int), **options)
    assert any("gives the class of 100% of the pictures (the largest class has 50%)" in text for text in told.warnings)
    mixed = data.from_image_arrays(PIXELS, LABELS, site=SOURCE, **OPTIONS)
    assert not any("gives the class" in text for text in mixed.warnings)


def test_the_covid_file_loads_for_both_tasks():
    path = shared_file("cxr_covid_64.npz")
    inside = data.from_image_npz(path, classes=("no_finding", "pneumonia"), patient="patient", only={"source": "nih"})
    assert len(inside.labels) == 999 and inside.unit == "patient" and inside.warnings == ()
    covid = data.from_image_npz(path, classes=("no_finding", "covid19"), site="source", patient="patient")
    assert len(covid.labels) == 901 and "gives the class of 100%" in covid.warnings[0]


def test_arrays_of_bytes_and_of_floats_are_the_same_pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6), np.uint8)
    labels = np.arange(40) % 2
    options = {"classes": ("a", "b"), "name": "x", "source": "made up"}
    bytes_, floats = (
        data.from_image_arrays(p, labels, **options) for p in (pixels, pixels.astype(np.float32) / np.float32(255))
    )
    np.testing.assert_array_equal(bytes_.features, floats.features)
    with pytest.raises(ValueError, match="outside uint8 and float32"):
        data.from_image_arrays(pixels.astype(np.float32), labels, **options)
    with pytest.raises(ValueError, match=r"shape \(40, 6, 6, 2\)"):
        data.from_image_arrays(np.zeros((40, 6, 6, 2), np.uint8), labels, **options)
