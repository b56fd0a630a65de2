"""The data sets that ship: by name, with licence and attribution."""

from __future__ import annotations

import importlib.resources

import pytest

from fedjax_poisson import data


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'hart'.*heart, thyroid.*from_csv"):
        data.load("hart")


def test_licences_and_attribution_ship():
    folder = importlib.resources.files("fedjax_poisson.data")
    text = (folder / "LICENSES.md").read_text()
    files = [entry.name for entry in (folder / "files").iterdir()]
    assert sorted(files) == ["heart.npz", "thyroid.csv.gz"]
    assert all(f"files/{name}" in text for name in files)
    for person in ("Janosi", "Steinbrunn", "Pfisterer", "Detrano", "Quinlan"):
        assert person in text
    for name in ("heart", "thyroid"):
        assert data.load(name).provenance.licence == "CC BY 4.0"
        assert data.load(name).provenance.citation in " ".join(text.split())
