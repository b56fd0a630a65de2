"""A user's own table: what is read, what is said about it, and what is refused by name."""

from __future__ import annotations

import gzip

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.tables.columns import flag_values
from fedjax_poisson.data.tables.csv_table import canonical, numeric, read_table
from tests.data.helpers import shared_file

HEADER = "hospital,pid,age,sex,smoker,stage,sick"


def rows(count=60, seed=0):
    generator = np.random.default_rng(seed)
    lines = []
    for i in range(count):
        hospital = ("Mercy", "St. John")[i % 2]
        age, sex = generator.integers(20, 90), generator.choice(["F", "M"])
        smoker, stage = generator.choice(["yes", "no"]), generator.choice(["I", "II", "III"])
        lines.append(f"{hospital},p{i // 3},{age},{sex},{smoker},{stage},{generator.integers(0, 2)}")
    return lines


@pytest.fixture
def write(tmp_path):
    def writer(lines, header=HEADER, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes("\n".join([header, *lines, ""]).encode(encoding))
        return path

    return writer


DECLARED = {
    "label": "sick",
    "site": "hospital",
    "drop": ["pid"],
    "bounds": {"age": (0, 110)},
    "categorical": {"sex": ["F", "M"], "stage": ["I", "II", "III"]},
}


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


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_byte_order_marks(write, delimiter):
    lines = [delimiter.join(f'"{field}"' for field in line.split(",")) for line in rows()]
    path = write(lines, HEADER.replace(",", delimiter), encoding="utf-8-sig")
    assert read_table(path).delimiter == delimiter
    sites = data.from_csv(path, **DECLARED)
    np.testing.assert_array_equal(sites.features, data.from_csv(write(rows(), name="plain.csv"), **DECLARED).features)


def test_quoted_fields_may_hold_delimiters_and_line_ends(write):
    lines = [line.replace("St. John", '"St. John,\n the ""old"" one"') for line in rows()]
    sites = data.from_csv(write(lines), **DECLARED)
    assert sites.site_names[1] == 'St. John,\n the "old" one'


def test_gzip_is_unpacked_and_a_truncated_one_named(write, tmp_path):
    packed = gzip.compress(write(rows()).read_bytes())
    (tmp_path / "t.csv.gz").write_bytes(packed)
    assert len(data.from_csv(tmp_path / "t.csv.gz", **DECLARED).features) == 60
    (tmp_path / "t.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_table(tmp_path / "t.csv.gz")


def test_decimal_commas_are_read_and_said(write):
    lines = [f"{'AB'[i % 2]};{i % 7},5;{i % 3 % 2}" for i in range(60)]
    sites = data.from_csv(write(lines, "site;dose;y"), label="y", site="site", bounds={"dose": (0, 10)})
    assert sites.features[3, 0] == 3.5
    assert any("decimal commas" in note for note in sites.provenance.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"a,b\n", "no record below"),
        (b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
        (b"a,,c\n1,2,3\n", "column 2 of 3 has no name"),
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 fields where the header has 2"),
        (b"a,b\n1,2\n1\n", "line 3: 1 fields"),
        (b"a,b\n1,caf\xe9\n", r"line 2: byte 0xe9 is not utf-8.*latin-1"),
        (b'a,b\n1,"2\n3,4\n', r"line \d: .*check the quotes"),
        (b"a,b\n\0\0\0", "zero bytes"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "bad.csv")


def test_latin_1_is_read_when_declared(tmp_path):
    (tmp_path / "l.csv").write_bytes("a,b\n1,café\n".encode("latin-1"))
    assert read_table(tmp_path / "l.csv", encoding="latin-1").columns["b"] == ["café"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        data.from_csv(tmp_path / "nowhere.csv", label="a", site="b")


def test_flags_numbers_and_spellings():
    assert flag_values(["t", "F", "T"]) == [1.0, 0.0, 1.0]
    assert flag_values(["1.0", "0"]) == [1.0, 0.0]
    assert flag_values(["yes", "t"]) is None and flag_values(["2", "1"]) is None and flag_values(["", ""]) is None
    assert canonical("007") == "007" and canonical("-2.00") == "-2"
    assert canonical("3.0") == "3" and canonical("3.5") == "3.5" and canonical("x") == "x"
    assert numeric(["1", "2e3"]) == [1.0, 2000.0]
    assert numeric(["1", "inf"]) is None and numeric(["1_000"]) is None and numeric(["1,5"]) is None


@hypothesis.given(
    site=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 10),
    spread=st.integers(1, 5),
)
def test_split_is_by_group_with_exact_counts(site, fraction, seed, spread):
    site = np.array(site, np.int32)
    group = np.arange(len(site), dtype=np.int64) // spread
    labels = np.arange(len(site), dtype=np.int32) % 2
    train = data.split_by_group(group, site, labels, test_fraction=fraction, seed=seed)
    assert not set(group[train]) & set(group[~train])
    first = np.unique(group, return_index=True)[1]
    for s in np.unique(site[first]):
        own = first[site[first] == s]
        assert (~train[own]).sum() == np.floor(fraction * len(own) + 1e-9)


def test_split_is_stratified_within_one():
    labels = np.repeat([0, 1], [170, 30]).astype(np.int32)
    train = data.split_by_group(np.arange(200), np.zeros(200, np.int32), labels, test_fraction=0.25, seed=3)
    assert abs((~train & (labels == 1)).sum() - 7.5) <= 1


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
