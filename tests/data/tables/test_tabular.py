"""A user's own table: what is read, what is said about it, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import shared_file
from tests.data.tables.example_table import DECLARED, HEADER, rows


def test_a_fully_declared_table_has_no_warning(write):
    sites = data.from_csv(write(rows()), **DECLARED)
    assert sites.warnings == ()
    assert sites.feature_names == ("age", "sex=F", "sex=M", "smoker", "stage=I", "stage=II", "stage=III")
    assert sites.site_names == ("Mercy", "St. John") and sites.unit == "record"
    np.testing.assert_array_equal(sites.feature_bounds[0], [0, 110])
    np.testing.assert_array_equal(sites.binary, [False] + [True] * 6)
    np.testing.assert_array_equal(sites.features[:, 1] + sites.features[:, 2], np.ones(60))


def test_values_land_in_their_rows(write):
    lines = rows()
    sites = data.from_csv(write(lines), **DECLARED)
    fields = [line.split(",") for line in lines]
    np.testing.assert_array_equal(sites.features[:, 0], [float(f[2]) for f in fields])
    np.testing.assert_array_equal(sites.features[:, 3], [float(f[4] == "yes") for f in fields])
    np.testing.assert_array_equal(sites.labels, [int(f[6]) for f in fields])


def test_ranges_from_the_data_are_said_aloud_and_declarations_silence_them(write):
    sites = data.from_csv(write(rows()), label="sick", site="hospital", drop=["pid"], categorical="from_data")
    facts = [fact for fact, _ in sites.uncovered]
    assert facts[0].startswith("ranges of numbers were taken from the records: 'age': (")
    assert "'sex': ['F', 'M'], 'stage': ['I', 'II', 'III']" in facts[1]
    assert "[categorical] sex" in sites.uncovered[1][1] and sites.warnings == ()
    lower, upper = sites.feature_bounds[0]
    train_ages = sites.features[sites.train, 0]
    assert lower <= np.quantile(train_ages, 0.01) and upper >= np.quantile(train_ages, 0.99)


def test_one_typing_error_does_not_set_a_derived_range(write):
    lines = rows(400)
    lines[7] = "St. John,p2,65526,F,no,I,0"
    sites = data.from_csv(write(lines), label="sick", site="hospital", drop=["pid"], categorical="from_data")
    assert sites.feature_bounds[0, 1] < 200


def test_text_without_levels_is_refused_with_the_declaration_to_paste(write):
    with pytest.raises(
        ValueError,
        match=r"'sex' is not a number.*\[categorical\] sex = \[\"F\", \"M\"\].*categorical=\{'sex': \['F', 'M'\]\}.*--drop sex",
    ):
        data.from_csv(write(rows()), label="sick", site="hospital", drop=["pid"])


def test_numbers_must_be_declared_once_bounds_are_a_mapping(write):
    with pytest.raises(ValueError, match=r"'age' is a number without declared bounds"):
        data.from_csv(write(rows()), **(DECLARED | {"bounds": {}}))
    sites = data.from_csv(write(rows()), **(DECLARED | {"bounds": {"age": "from_data"}, "min_site_records": 1}))
    assert len(sites.uncovered) == 1


def test_levels_that_are_not_declared_are_refused_or_collected(write):
    lines = rows()
    lines[4] = "Mercy,p1,50,X,no,I,1"
    with pytest.raises(ValueError, match=r"line 6: column 'sex' has the value 'X'.*'other'"):
        data.from_csv(write(lines), **DECLARED)
    levels = {"sex": ["F", "M", "other"], "stage": ["I", "II", "III"]}
    sites = data.from_csv(write(lines), **(DECLARED | {"categorical": levels}))
    assert sites.features[4, sites.feature_names.index("sex=other")] == 1


def test_patients_are_never_split(write):
    own = DECLARED | {"drop": [], "patient": "pid"}
    with pytest.raises(
        ValueError, match=r"100 patients have records at more than 1 site \(up to 2\).*--sites-per-patient 2"
    ):
        data.from_csv(write(rows(300)), **own)
    sites = data.from_csv(write(rows(300)), **own, sites_per_patient=2)
    assert sites.sites_per_unit == 2
    assert sites.unit == "patient" and len(np.unique(sites.group)) == 100
    assert not set(sites.group[sites.train]) & set(sites.group[~sites.train])
    assert 0.3 < (~sites.train).mean() < 0.38


def test_patients_of_one_site_each_need_no_warning(write):
    lines = [f"{line.split(',')[0]},{line.split(',')[0]}{line.split(',', 1)[1]}" for line in rows()]
    sites = data.from_csv(write(lines), **(DECLARED | {"drop": [], "patient": "pid"}))
    assert sites.warnings == () and sites.sites_per_unit == 1


def gaps(write):
    lines = rows()
    lines[3] = "St. John,p1,,F,no,I,1"
    lines[4] = "Mercy,p1,NA,?,no,I,1"
    lines[5] = "St. John,p1,40,F,,nan,1"
    return write(lines)


def test_missing_values_are_set_to_public_values_and_said(write):
    sites = data.from_csv(gaps(write), **DECLARED)
    assert sites.features[3, 0] == sites.features[4, 0] == 55
    np.testing.assert_array_equal(sites.features[4, 1:3], [0, 0])
    np.testing.assert_array_equal(sites.features[5, 3:], [0, 0, 0, 0])
    notes = " | ".join(sites.provenance.notes)
    assert "age: 2 missing values set to 55, the middle of its public range" in notes
    assert "stage: 1 missing values are no level" in notes and "smoker: 1 missing values set to 0" in notes


def test_missing_values_can_be_filled_indicated_dropped_or_refused(write):
    path = gaps(write)
    filled = data.from_csv(path, **DECLARED, fill={"age": 61})
    assert filled.features[3, 0] == 61
    flagged = data.from_csv(path, **DECLARED, missing="indicate")
    names = flagged.feature_names
    assert {"age_missing", "sex_missing", "smoker_missing", "stage_missing"} < set(names)
    np.testing.assert_array_equal(np.flatnonzero(flagged.features[:, names.index("age_missing")]), [3, 4])
    dropped = data.from_csv(path, **DECLARED, missing="drop")
    assert len(dropped.features) == 57 and "3 of 60 records" in dropped.provenance.notes[0]
    with pytest.raises(ValueError, match=r"line 5: no value in age"):
        data.from_csv(path, **DECLARED, missing="refuse")
    with pytest.raises(ValueError, match="missing is 'ignore'"):
        data.from_csv(path, **DECLARED, missing="ignore")


def test_missing_can_be_a_level_of_its_own(write):
    levels = {"sex": ["F", "M", "missing"], "stage": ["I", "II", "III"]}
    sites = data.from_csv(gaps(write), **(DECLARED | {"categorical": levels}))
    np.testing.assert_array_equal(np.flatnonzero(sites.features[:, sites.feature_names.index("sex=missing")]), [4])


def test_a_value_that_reads_missing_is_the_missing_level(write):
    lines = rows()
    lines[3] = "St. John,p1,50,missing,no,I,1"
    lines[4] = "Mercy,p1,50,,no,I,1"
    sites = data.from_csv(
        write(lines), **(DECLARED | {"categorical": {"sex": "from_data", "stage": ["I", "II", "III"]}})
    )
    np.testing.assert_array_equal(np.flatnonzero(sites.features[:, sites.feature_names.index("sex=missing")]), [3, 4])


def test_the_layout_does_not_depend_on_the_records(write):
    """Declared columns give the same features whether or not a record has a gap or a level occurs."""
    whole = data.from_csv(write(rows(), name="a.csv"), **DECLARED, missing="indicate")
    holed = data.from_csv(gaps(write), **DECLARED, missing="indicate")
    assert whole.feature_names == holed.feature_names
    np.testing.assert_array_equal(whole.feature_bounds, holed.feature_bounds)


def test_small_sites_are_merged_by_count_alone(write):
    lines = [*rows(), *(f"Clinic {i},q{i},50,F,no,I,1" for i in range(3))]
    sites = data.from_csv(write(lines), **DECLARED)
    assert sites.site_names == ("Mercy", "St. John", "other")
    assert (sites.site == 2).sum() == 3
    assert any("'other': Clinic 0, Clinic 1, Clinic 2" in note for note in sites.provenance.notes)
    kept = data.from_csv(write(lines), **DECLARED, min_site_records=1)
    assert len(kept.site_names) == 5
    alone = data.from_csv(write(lines), **DECLARED, min_site_records=100)
    assert alone.site_names == ("other",) and "left only one" in alone.warnings[0]


def test_labels_of_two_words_need_the_positive_one(write):
    lines = [line[:-1] + ("Expired" if line.endswith("1") else "Alive") for line in rows()]
    with pytest.raises(ValueError, match=r"'sick' is not binary.*Alive, Expired.*positive='Expired'"):
        data.from_csv(write(lines), **DECLARED)
    sites = data.from_csv(write(lines), **DECLARED, positive="Expired")
    np.testing.assert_array_equal(sites.labels, [int(line.endswith("Expired")) for line in lines])
    assert sites.class_names == ("sick other", "sick=Expired")
    with pytest.raises(ValueError, match=r"no record has the label 'Dead'; the values of 'sick' are Alive, Expired"):
        data.from_csv(write(lines), **DECLARED, positive="Dead")


def test_a_label_that_is_odd_in_few_lines_names_them(write):
    lines = rows()
    for i in (3, 9):
        lines[i] = lines[i][:-1] + "x"
    with pytest.raises(ValueError, match=r"has 3 values, 0, 1, x \('x' is on lines 5, 11\)"):
        data.from_csv(write(lines), **DECLARED)


def test_a_label_of_many_values_is_refused_unless_grouped(write):
    lines = [line[:-1] + str(i % 5) for i, line in enumerate(rows())]
    with pytest.raises(ValueError, match=r"label 'sick' is not binary: it has 5 values, 0, 1, 2, 3, 4"):
        data.from_csv(write(lines), **DECLARED)
    sites = data.from_csv(write(lines), **DECLARED, positive=["1", "2", "3", "4"])
    assert sites.labels.mean() == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": "ill"}, r"no column 'ill' \(given as label\); the columns are: hospital, pid, age"),
        ({"site": "clinic"}, r"no column 'clinic' \(given as site\)"),
        ({"patient": "mrn"}, r"no column 'mrn' \(given as patient\)"),
        ({"drop": ["x"]}, r"no column 'x' \(given as drop\)"),
        ({"site": "sick"}, "must be different columns"),
        ({"bounds": {"weight": (0, 1)}}, r"no column 'weight' \(given as bounds\)"),
        ({"bounds": {"pid": (0, 1)}}, "'pid', which is dropped"),
        ({"bounds": {"age": (9, 9)}}, "bounds of 'age' are"),
        (
            {"bounds": {"age": (0, 99), "sex": (0, 9)}, "categorical": {"stage": ["I"]}},
            r"line 2: column 'sex' has bounds",
        ),
        ({"bounds": {"age": (0, 9), "sex": (0, 1)}}, "declared both as categorical and with bounds: sex"),
        ({"categorical": {"sex": ["F", "F"], "stage": ["I"]}}, "none twice"),
        ({"test_fraction": 1.0}, "test_fraction is 1.0"),
        ({"drop": ["pid", "age", "sex", "smoker", "stage"], "bounds": {}, "categorical": {}}, "no column is left"),
    ],
)
def test_a_wrong_declaration_is_named(write, changes, message):
    changes = {"bounds": {"age": (0, 110)}} | changes
    with pytest.raises(ValueError, match=message):
        data.from_csv(write(rows()), **(DECLARED | changes))


@pytest.mark.parametrize(
    ("place", "message"), [(0, "no site in column 'hospital' on lines 4, 9"), (6, "no label in column 'sick'")]
)
def test_a_missing_site_or_label_is_named_with_its_lines(write, place, message):
    lines = rows()
    for i in (2, 7):
        fields = lines[i].split(",")
        fields[place] = ""
        lines[i] = ",".join(fields)
    with pytest.raises(ValueError, match=message):
        data.from_csv(write(lines), **DECLARED)


def test_a_label_of_one_value_is_refused(write):
    with pytest.raises(ValueError, match="every record has the same label"):
        data.from_csv(write([line[:-1] + "1" for line in rows()]), **DECLARED)


def test_an_identifier_is_not_taken_for_a_feature(write):
    lines = [f"{line},{1000 + i}" for i, line in enumerate(rows())]
    with pytest.raises(ValueError, match=r"'mrn' is a different whole number in nearly every record.*--drop mrn"):
        data.from_csv(write(lines, HEADER + ",mrn"), **(DECLARED | {"bounds": {"age": (0, 110), "mrn": "from_data"}}))


def test_the_raw_hospital_table_trains_out_of_the_box():
    path = shared_file("heart_disease_uci_4hospitals.csv")
    sites = data.from_csv(
        path,
        label="num",
        site="site",
        positive=["1", "2", "3", "4"],
        drop=["id", "slope", "ca", "thal"],
        categorical={
            "sex": ["Female", "Male"],
            "cp": ["typical angina", "atypical angina", "non-anginal", "asymptomatic"],
            "restecg": ["normal", "st-t abnormality", "lv hypertrophy"],
        },
    )
    assert len(sites.features) == 920 and len(sites.site_names) == 4
    assert [fact[:9] for fact, _ in sites.uncovered] == ["ranges of", "values fo", "sites wit"]
