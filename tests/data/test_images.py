"""Image folders and the COVID-19 collections: layouts, decoding, splits by patient, and the border control."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from PIL import Image

from fedjax_poisson import data
from fedjax_poisson.data.images.files import decode_image
from tests.data.helpers import area_under_curve, shared_file


def paint(path, value=None, size=(20, 20), mode="L"):
    """A picture of one value, or of noise of its own if none is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(abs(hash(str(path))) % 2**32)
    shape = size if mode == "L" else (*size, 3)
    pixels = generator.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(path)


def folder(root, sites=("north", "south"), count=12):
    for site in sites:
        for label in ("ill", "well"):
            for i in range(count):
                paint(root / site / label / f"P{i // 2}x{site}_{i}.png")
    return root


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


def test_values_and_resizing(tmp_path):
    paint(tmp_path / "a.png", 51)
    np.testing.assert_allclose(decode_image(tmp_path / "a.png", 20, 1), 0.2)
    np.testing.assert_allclose(decode_image(tmp_path / "a.png", 7, 3), np.full((7, 7, 3), 0.2), rtol=1e-6)
    Image.fromarray(np.full((9, 9), 13107, np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(decode_image(tmp_path / "deep.png", 9, 1), 0.2, rtol=1e-5)
    half = np.zeros((16, 16), np.uint8)
    half[:, 8:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    small = decode_image(tmp_path / "half.png", 4, 1)[..., 0]
    assert small[:, 0].max() < 0.1 and small[:, 3].min() > 0.9


def test_colour_is_kept_or_made_gray(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255
    Image.fromarray(pixels).save(tmp_path / "red.png")
    np.testing.assert_allclose(decode_image(tmp_path / "red.png", 8, 3)[0, 0], [1, 0, 0])
    np.testing.assert_allclose(decode_image(tmp_path / "red.png", 8, 1), 0.299, atol=0.003)


def fake_pydicom(monkeypatch, **header):
    fields = {
        "pixel_array": np.array([[0, 1024], [2048, 4095]], np.uint16),
        "BitsStored": 12,
        "PhotometricInterpretation": "MONOCHROME2",
        "PatientName": "SECRET^NAME",
    } | header
    module = types.SimpleNamespace(dcmread=lambda path: types.SimpleNamespace(**fields))
    monkeypatch.setitem(sys.modules, "pydicom", module)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, [[0, 1024 / 4095], [2048 / 4095, 1]]),
        ({"PhotometricInterpretation": "MONOCHROME1"}, [[1, 1 - 1024 / 4095], [1 - 2048 / 4095, 0]]),
        ({"RescaleSlope": 2, "RescaleIntercept": -1000}, [[0, 1024 / 4095], [2048 / 4095, 1]]),
        ({"RescaleSlope": -1, "RescaleIntercept": 0}, [[1, 1 - 1024 / 4095], [1 - 2048 / 4095, 0]]),
    ],
)
def test_dicom_uses_the_stored_depth_and_the_photometric_sense(tmp_path, monkeypatch, header, expected):
    fake_pydicom(monkeypatch, **header)
    (tmp_path / "x.dcm").write_bytes(b"")
    np.testing.assert_allclose(decode_image(tmp_path / "x.dcm", 2, 1)[..., 0], expected, atol=1e-6)


def test_dicom_says_what_to_install_and_refuses_stacks(tmp_path, monkeypatch):
    (tmp_path / "x.dcm").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pydicom"):
        decode_image(tmp_path / "x.dcm", 2, 1)
    fake_pydicom(monkeypatch, pixel_array=np.zeros((3, 4, 4), np.uint16))
    with pytest.raises(ValueError, match="one gray frame"):
        decode_image(tmp_path / "x.dcm", 2, 1)


def test_a_picture_that_does_not_decode_is_named(tmp_path):
    folder(tmp_path)
    victim = tmp_path / "north" / "ill" / "broken.png"
    paint(victim)
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"broken\.png: does not decode"):
        data.from_image_folder(tmp_path)
    (tmp_path / "north" / "ill" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken\.png: does not decode"):
        data.from_image_folder(tmp_path)


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
