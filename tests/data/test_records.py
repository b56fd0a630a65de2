"""eICU, MIMIC-IV and FHIR: joins, windows, index dates, and what is refused."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.loaders import eicu, mimic
from tests.data.helpers import shared_file


def write_csv(path, header, rows, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([",".join(header), *(",".join(map(str, row)) for row in rows), ""]).encode()
    path.write_bytes(gzip.compress(text) if packed else text)


def column(sites, name):
    return sites.features[:, sites.feature_names.index(name)]


# eICU ---------------------------------------------------------------------------------------------------------------


def eicu_folder(root, n=24, **changes):
    outcome = ["Alive", "Expired", ""]
    stays = [
        (
            100 + i,
            f"p{i // 2}",
            i // 2 % 3,
            "> 89" if i == 3 else 40 + i,
            "Female" if i % 2 else "Male",
            outcome[(i % 5) // 2],
        )
        for i in range(n)
    ]
    names = ("patientunitstayid", "uniquepid", "hospitalid", "age", "gender", "hospitaldischargestatus")
    write_csv(root / "patient.csv.gz", names, stays, packed=True)
    physiology = list(eicu._PHYSIOLOGY)
    header = ["patientunitstayid", "intubated", "vent", "dialysis", "meds", *physiology]
    values = [[100 + i, 0, i % 2, 0, -1, *([-1] * len(physiology))] for i in range(n - 2)]
    values[0][header.index("sodium")] = 131
    values[1][header.index("sodium")] = changes.get("sodium", 150)
    write_csv(root / "apacheApsVar.csv", header, values)
    history = ["patientunitstayid", *eicu._HISTORY]
    write_csv(root / "apachePredVar.csv", history, [[100 + i, *([i % 2] * 11)] for i in range(n)])
    write_csv(root / "hospital.csv", ("hospitalid", "region"), [(0, "West"), (1, "South"), (2, "")])
    return root


def test_eicu_joins_its_tables_by_stay(tmp_path):
    sites = data.from_eicu(eicu_folder(tmp_path))
    # 24 stays, two without APACHE variables, those with i % 5 == 4 without an outcome.
    assert len(sites.features) == 22 - 4
    assert sites.site_names == ("hospital 0", "hospital 1", "hospital 2")
    sodium = column(sites, "sodium")
    assert sodium[0] == 131 and sodium[1] == 150 and (sodium[2:] == 140).all()
    assert column(sites, "age")[3] == 90 and column(sites, "meds").sum() == 0
    np.testing.assert_array_equal(sites.labels[:4], [0, 0, 1, 1])
    assert sites.unit == "patient" and sites.warnings == ()


def test_eicu_regions_and_indicators(tmp_path):
    sites = data.from_eicu(eicu_folder(tmp_path), site="region", indicators=True)
    assert sites.site_names == ("South", "West", "unknown")
    np.testing.assert_array_equal(np.flatnonzero(column(sites, "sodium_measured")), [0, 1])


def test_eicu_names_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="eICU Collaborative Research Database"):
        data.from_eicu(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"neither patient\.csv nor patient\.csv\.gz"):
        data.from_eicu(tmp_path)
    with pytest.raises(ValueError, match="line 3: sodium should be a number; saw 'high'"):
        data.from_eicu(eicu_folder(tmp_path, sodium="high"))
    with pytest.raises(ValueError, match="'hospital' or 'region'"):
        data.from_eicu(tmp_path, site="ward")


def test_the_eicu_demo_as_one_file():
    file = shared_file("eicu_demo_apache.csv.gz")
    for site, count in (("hospital", 18), ("region", 7)):
        with pytest.raises(ValueError, match=rf"{count} patients have records at more than 1 site \(up to 2\)"):
            data.from_eicu(file, site=site)
    sites = data.from_eicu(file, sites_per_patient=2)
    assert len(sites.features) == 2205 - 26 and len(sites.site_names) == 186
    assert sites.labels.sum() == 196 and sites.sites_per_unit == 2 and sites.warnings == ()
    assert data.clipped_fraction(sites).max() < 0.005
    assert len(data.from_eicu(file, site="region", sites_per_patient=2).site_names) == 5


# MIMIC-IV -----------------------------------------------------------------------------------------------------------


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


# FHIR ---------------------------------------------------------------------------------------------------------------

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
