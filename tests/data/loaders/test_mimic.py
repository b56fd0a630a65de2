"""MIMIC-IV: the first stay, the last value in its window, and what is refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.loaders import mimic
from tests.data.helpers import column, write_csv


def mimic_folder(root, events=(), n=20):
    write_csv(
        root / "icu" / "icustays.csv.gz",
        ("subject_id", "hadm_id", "stay_id", "first_careunit", "last_careunit", "intime", "outtime", "los"),
        [
            (i, 200 + i, 300 + i, ("MICU", "CVICU")[i % 2], "MICU", "2150-01-10 12:00:00", "2150-01-12", 2)
            for i in range(n)
        ]
        # An earlier stay of patient 0 in another unit, which is the first.
        + [(0, 200, 399, "CVICU", "MICU", "2149-06-01 00:00:00", "2149-06-02", 1)],
        packed=True,
    )
    write_csv(
        root / "hosp" / "admissions.csv",
        ("hadm_id", "hospital_expire_flag"),
        [(200 + i, int(i % 4 == 0)) for i in range(n)],
    )
    write_csv(
        root / "hosp" / "patients.csv",
        ("gender", "subject_id", "anchor_age"),
        [("MF"[i % 2], i, 50 + i) for i in range(n)],
    )
    write_csv(
        root / "hosp" / "labevents.csv.gz", ("subject_id", "itemid", "charttime", "valuenum"), events, packed=True
    )
    return root


def test_mimic_takes_the_first_stay_and_the_last_value_in_its_window(tmp_path):
    events = [
        (1, 50983, "2150-01-10 05:59:00", 120),  # before the window
        (1, 50983, "2150-01-11 11:00:00", 150),
        (1, 50983, "2150-01-10 13:00:00", 131),  # earlier than the one above, though later in the file
        (1, 50983, "2150-01-11 12:01:00", 160),  # after the window
        (2, 50983, "2150-01-10 06:00:00", 133),
        (3, 50983, "2150-01-10 13:00:00", ""),
        (4, 99999, "2150-01-10 13:00:00", 7),
    ]
    sites = data.from_mimic(mimic_folder(tmp_path, events))
    assert len(sites.features) == 20 and sites.unit == "patient"
    np.testing.assert_array_equal(column(sites, "sodium")[:5], [140, 150, 133, 140, 140])
    np.testing.assert_array_equal(np.flatnonzero(column(sites, "sodium_measured")), [1, 2])
    assert sites.site_names[sites.site[0]] == "CVICU"
    np.testing.assert_array_equal(sites.labels, (np.arange(20) % 4 == 0).astype(int))
    np.testing.assert_array_equal(column(sites, "female"), np.arange(20) % 2)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ((1, 50983, "yesterday", 3), r"line 2: charttime should be a time.*'yesterday'"),
        ((1, 50983, "2150-01-10 13:00:00", "hemolysed"), r"line 2: valuenum should be a number; saw 'hemolysed'"),
    ],
)
def test_mimic_names_the_wrong_line(tmp_path, event, message):
    with pytest.raises(ValueError, match=message):
        data.from_mimic(mimic_folder(tmp_path, [event]))


def test_mimic_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"physionet\.org/content/mimic-iv-demo"):
        data.from_mimic(tmp_path / "none")
    mimic_folder(tmp_path)
    write_csv(tmp_path / "hosp" / "labevents.csv", ("subject_id", "itemid", "valuenum"), [])
    with pytest.raises(ValueError, match="no column 'charttime'"):
        data.from_mimic(tmp_path)
    write_csv(tmp_path / "hosp" / "admissions.csv", ("hadm_id", "hospital_expire_flag"), [(201, 0)])
    with pytest.raises(ValueError, match="ICU stay 399 has no row in hosp/admissions"):
        data.from_mimic(tmp_path)
    assert len(mimic.LABORATORY) == 12


def test_mimic_names_damaged_tables(tmp_path):
    events = [(i % 20, 50983, "2150-01-10 13:00:00", 130 + i % 9) for i in range(2000)]
    events_file = mimic_folder(tmp_path, events) / "hosp" / "labevents.csv.gz"
    whole = events_file.read_bytes()
    events_file.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match=r"labevents\.csv\.gz, after line \d+: does not unpack .* truncated"):
        data.from_mimic(tmp_path)
    text = gzip.decompress(whole)
    for tail, message in ((b"1,50983\n", "line 2002: more or fewer fields"), (b"\xff\n", "after line 2001: not UTF-8")):
        events_file.write_bytes(gzip.compress(text + tail))
        with pytest.raises(ValueError, match=rf"labevents\.csv\.gz, {message}"):
            data.from_mimic(tmp_path)
    admissions = tmp_path / "hosp" / "admissions.csv"
    admissions.write_text(admissions.read_text().replace("203,0", "203,unknown"))
    with pytest.raises(ValueError, match=r"admissions\.csv, line 5: hospital_expire_flag should be 0 or 1"):
        data.from_mimic(tmp_path)
