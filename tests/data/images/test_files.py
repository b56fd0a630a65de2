"""Decoding: grays and colours, sizes, DICOM's depth and sense, and files that are no pictures."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from PIL import Image

from fedjax_poisson import data
from fedjax_poisson.data.images.files import decode_image
from tests.data.pictures import folder, paint


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
