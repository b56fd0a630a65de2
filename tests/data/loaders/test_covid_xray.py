"""The COVID-19 collections: layouts, official splits, patients, and what the border alone tells."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import area_under_curve, shared_file
from tests.data.pictures import paint


@pytest.mark.parametrize("inner", ["images", "."])
def test_covid_radiography_in_both_releases(tmp_path, inner):
    for label in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for i in range(6):
            paint(tmp_path / label / inner / f"{label}-{i}.png")
            if inner == "images":
                paint(tmp_path / label / "masks" / f"{label}-{i}.png")
    sites = data.from_covid_radiography(tmp_path, size=8)
    assert len(sites.features) == 24 and sites.class_names[3] == "COVID"
    assert "border_only" in sites.warnings[0]
    binary = data.from_covid_radiography(tmp_path, size=8, classes=("Normal", "COVID"))
    assert len(binary.features) == 12


def test_covid_radiography_names_the_missing_class(tmp_path):
    (tmp_path / "Normal").mkdir()
    with pytest.raises(FileNotFoundError, match=r"COVID-19 Radiography Database is expected to hold Lung_Opacity"):
        data.from_covid_radiography(tmp_path)


def qu_ex(root):
    for split in ("Train", "Val", "Test"):
        for label in ("COVID-19", "Non-COVID", "Normal"):
            for i in range(3):
                paint(root / split / label / "images" / f"{split}{label}{i}.png")
                paint(root / split / label / "lung masks" / f"{split}{label}{i}.png")
    return root


def test_covid_qu_ex_keeps_the_official_split_and_leaves_masks(tmp_path):
    qu_ex(tmp_path / "Lung Segmentation Data" / "Lung Segmentation Data")
    sites = data.from_covid_qu_ex(tmp_path, size=8)
    assert len(sites.features) == 27 and sites.train.sum() == 18
    qu_ex(tmp_path / "Infection Segmentation Data")
    with pytest.raises(ValueError, match="2 folders called Train"):
        data.from_covid_qu_ex(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder called Train"):
        data.from_covid_qu_ex(tmp_path / "Lung Segmentation Data" / "Lung Segmentation Data" / "Val")


def test_covid_qu_ex_leaves_out_test_copies_of_training_pictures(tmp_path):
    qu_ex(tmp_path)
    source = tmp_path / "Train" / "Normal" / "images" / "TrainNormal0.png"
    (tmp_path / "Test" / "Normal" / "images" / "TestNormal0.png").write_bytes(source.read_bytes())
    sites = data.from_covid_qu_ex(tmp_path, size=8)
    assert (~sites.train).sum() == 8
    assert any("1 test pictures that are copies" in note for note in sites.provenance.notes)


def covidx(root):
    lines = {"train": [], "test": []}
    for split, people in (("train", range(30)), ("test", range(30, 40))):
        for i in people:
            paint(root / split / f"img{i}.png")
            lines[split].append(
                f"p{i // 2} img{i}.png {'positive' if i % 2 else 'negative'} {'rsna' if i % 3 else 'ricord'}"
            )
    for split, listed in lines.items():
        (root / f"{split}.txt").write_text("\n".join(listed))
    return root


def test_covidx_reads_lists_sources_and_patients(tmp_path):
    with pytest.raises(ValueError, match=r"14 patients have records at more than 1 site .*--sites-per-patient 2"):
        data.from_covidx(covidx(tmp_path), size=8, min_site_records=1)
    sites = data.from_covidx(tmp_path, size=8, min_site_records=1, sites_per_patient=2)
    assert sites.site_names == ("ricord", "rsna") and sites.unit == "patient"
    assert sites.train.sum() == 30 and len(np.unique(sites.group)) == 20
    assert sites.sites_per_unit == 2


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        (
            "p0 img39.png positive rsna",
            ValueError,
            r"test.txt, line 11: patient 'p0' is in training and test.*train.txt, line 1\.",
        ),
        ("p99 img39.png maybe rsna", ValueError, r"test.txt, line 11: the class 'maybe'.*negative, positive"),
        ("p99 img39.png positive", ValueError, r"test.txt, line 11: 3 fields"),
        ("p99 gone.png positive rsna", FileNotFoundError, r"test.txt, line 11: .*gone.png does not exist"),
    ],
)
def test_covidx_names_the_wrong_line(tmp_path, line, error, message):
    covidx(tmp_path)
    with (tmp_path / "test.txt").open("a") as file:
        file.write("\n" + line)
    with pytest.raises(error, match=message):
        data.from_covidx(tmp_path)


def test_covidx_names_a_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train.txt: no such file"):
        data.from_covidx(tmp_path)


def test_the_border_alone_tells_covid_from_normal():
    """Why a score on mixed sources means little: no lung is visible in these pixels."""
    with np.load(shared_file("cxr_covid_64.npz")) as stored:
        names = stored["classes"][stored["labels"]]
        keep = names != "pneumonia"
        sites = data.from_image_arrays(
            stored["images"][keep],
            (names[keep] == "covid19").astype(int),
            classes=("no finding", "COVID-19"),
            name="cxr",
            source="mixed",
            patient=stored["patient"][keep],
            test_fraction=0.3,
        )
    border = data.border_only(sites)
    x = (border.features - border.features[border.train].mean(0)) / (border.features[border.train].std(0) + 1e-3)
    fit, target = x[border.train].astype(np.float64), border.labels[border.train] - border.labels[border.train].mean()
    weight = np.linalg.solve(fit.T @ fit + 100 * np.eye(x.shape[1]), fit.T @ target)
    assert area_under_curve(x[~border.train] @ weight, border.labels[~border.train]) > 0.9
