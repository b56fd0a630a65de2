"""FHIR: index dates, sites, and what is refused."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import column

SYSTOLIC, DIABETES, COLD = "8480-6", "44054006", "82272006"


def coded(code):
    return {"coding": [{"system": "x", "code": code}]}


def observation(person, date, value, code=SYSTOLIC, unit="mm[Hg]", **more):
    return {
        "resourceType": "Observation",
        "id": f"o{person}{date}",
        "subject": {"reference": f"Patient/{person}"},
        "effectiveDateTime": date,
        "code": coded(code),
        "valueQuantity": {"value": value, "unit": unit},
    } | more


def fhir_folder(root, observations=(), n=24):
    root.mkdir(exist_ok=True)
    patients, encounters, conditions = [], [], []
    for i in range(n):
        patients.append(
            {
                "resourceType": "Patient",
                "id": f"{i:02}",
                "birthDate": "1960-03" if i == 1 else "1960-01-01",
                "gender": ("male", "female", "other")[i % 3],
                "managingOrganization": {"reference": f"Organization/{i % 2}"},
            }
        )
        for year in (2018, 2020):
            encounters.append(
                {
                    "resourceType": "Encounter",
                    "id": f"e{i}{year}",
                    "subject": {"reference": f"Patient/{i:02}"},
                    "period": {"start": f"{year}-05-01T08:00:00Z"},
                    "serviceProvider": {"reference": f"Organization/{'ABC'[i % 3]}{year if i == 5 else ''}"},
                }
            )
        condition = {"resourceType": "Condition", "subject": {"reference": f"Patient/{i:02}"}}
        conditions.append(condition | {"id": f"c{i}", "code": coded(COLD), "onsetDateTime": "2017-01-01"})
        if i % 2:
            conditions.append(condition | {"id": f"d{i}", "code": coded(DIABETES), "onsetDateTime": "2019-06-01"})
    for name, resources in {
        "Patient.ndjson": patients,
        "1.Encounter.ndjson": encounters[:10],
        "2.Encounter.ndjson": encounters[10:],
        "Observation.000.ndjson": observations,
    }.items():
        (root / name).write_text("".join(json.dumps(resource) + "\n" for resource in resources))
    (root / "Condition.ndjson.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, conditions)).encode()))
    return root


def test_fhir_index_dates_decide_what_is_known(tmp_path):
    observations = [
        observation("01", "2019-05-31", 150),
        observation("01", "2019-06-01", 190),  # the day of the diagnosis: not a feature
        observation("01", "2018-01-01", 110),
        observation("02", "2020-04-30T23:00:00Z", 140),
        observation("03", "2018-02", 0, code="85354-9", valueQuantity={}, component=[
            {"code": coded(SYSTOLIC), "valueQuantity": {"value": 133, "code": "mm[Hg]"}},
            {"code": coded("8462-4"), "valueQuantity": {"value": 77, "code": "mm[Hg]"}},
        ]),
    ]  # fmt: skip
    sites = data.from_fhir(fhir_folder(tmp_path, observations), outcome=[DIABETES], min_site_records=1)
    assert len(sites.features) == 24 and sites.unit == "patient"
    np.testing.assert_array_equal(sites.labels, np.arange(24) % 2)
    np.testing.assert_array_equal(column(sites, "systolic")[:4], [120, 150, 140, 133])
    np.testing.assert_array_equal(np.flatnonzero(column(sites, "systolic_measured")), [1, 2, 3])
    assert column(sites, "diastolic")[3] == 77
    np.testing.assert_allclose(column(sites, "age")[[0, 1]], [60.33, 59.25], atol=0.01)
    np.testing.assert_array_equal(column(sites, "female"), np.arange(24) % 3 == 1)
    np.testing.assert_array_equal(column(sites, "sex_other_or_unknown"), np.arange(24) % 3 == 2)
    # The outcome itself is never counted among the conditions.
    assert (column(sites, "other_conditions") == 1).all()


def test_fhir_sites_are_the_last_provider_or_the_managing_organisation(tmp_path):
    fhir_folder(tmp_path)
    by_encounter = data.from_fhir(tmp_path, outcome=[DIABETES], min_site_records=1)
    assert by_encounter.site_names == ("Organization/A", "Organization/B", "Organization/C", "Organization/C2018")
    by_patient = data.from_fhir(tmp_path, outcome=[DIABETES], site="patient", min_site_records=1)
    assert by_patient.site_names == ("Organization/0", "Organization/1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"Observation.000.ndjson, line 1: not JSON"),
        (json.dumps({"resourceType": "Patient", "id": "1"}), "expected a Observation resource"),
        (json.dumps(observation("01", "2018-01-01", 16, unit="kPa")), r"systolic in 'kPa'; expected 'mm\[Hg\]'"),
        (json.dumps(observation("01", "1.1.2018", 120)), "'1.1.2018' is not a FHIR date"),
        (json.dumps(observation("01", "2018-13-01", 120)), "not a FHIR date"),
        (json.dumps(observation("01", "2018-01-01", 120, subject={})), "subject reference is ''"),
        (json.dumps(observation("01", "2018-01-01", 120, subject=None)), "subject reference is ''"),
        (json.dumps(observation("01", "2018-01-01", "high")), "line 1: systolic should be a number; saw 'high'"),
    ],
)
def test_fhir_names_the_wrong_line(tmp_path, line, message):
    fhir_folder(tmp_path)
    (tmp_path / "Observation.000.ndjson").write_text(line)
    with pytest.raises(ValueError, match=message):
        data.from_fhir(tmp_path, outcome=[DIABETES])


def test_fhir_names_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="FHIR bulk export is a folder"):
        data.from_fhir(tmp_path / "none", outcome=[DIABETES])
    with pytest.raises(FileNotFoundError, match=r"no Patient\.ndjson"):
        data.from_fhir(tmp_path, outcome=[DIABETES])
    fhir_folder(tmp_path)
    with pytest.raises(ValueError, match=r"0 of 24 patients have a condition coded 1234"):
        data.from_fhir(tmp_path, outcome=["1234"])
    with pytest.raises(ValueError, match="expected a list of condition codes"):
        data.from_fhir(tmp_path, outcome=DIABETES)


def test_fhir_names_damaged_files_and_a_patient_that_comes_twice(tmp_path):
    patients = fhir_folder(tmp_path) / "Patient.ndjson"
    whole = patients.read_bytes()
    for tail, message in ((b"\xff\n", "after line 24: not UTF-8"), (whole[:100].splitlines()[0], "line 25: not JSON")):
        patients.write_bytes(whole + tail)
        with pytest.raises(ValueError, match=rf"Patient\.ndjson, {message}"):
            data.from_fhir(tmp_path, outcome=[DIABETES])
    patients.write_bytes(whole + whole.splitlines()[3])
    with pytest.raises(ValueError, match=r"line 25: patient '03' was there before"):
        data.from_fhir(tmp_path, outcome=[DIABETES])
    patients.write_bytes(whole)
    conditions = tmp_path / "Condition.ndjson.gz"
    conditions.write_bytes(conditions.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"Condition\.ndjson\.gz, after line \d+: does not unpack .* truncated"):
        data.from_fhir(tmp_path, outcome=[DIABETES])
