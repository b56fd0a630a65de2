"""What would spoil a run and looks like a table: refused by name, or said; beside it what is close to it and must be taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.tables.healthy_table import N, columns, load, write

DATES = ["2024-01-%02d", "%02d.03.2024", "3/%d/24", "2024-03-%02d 13:20:00", "%02d Mar 2024"]


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({}, {"drop": ["ill"]}, "drop names the column 'ill', which is the label"),
        ({}, {"drop": ["clinic"]}, "which is the site"),
        ({"ill": lambda i: 1}, {}, "every record has the same label"),
        ({"ill": lambda i: ("alive", "dead", "Dead")[i * i % 7 % 3]}, {"positive": "dead"}, "would be 2 labels"),
        ({"clinic": lambda i: ("Mercy", "mercy", "South")[i % 3]}, {}, "'Mercy', 'mercy' (lines 2, 3) differ by case"),
        ({"clinic": lambda i: ("St. John", "St.  John", "South")[i % 3]}, {}, "would be 2 sites"),
        ({"clinic": lambda i: ("01", "1", "2")[i % 3]}, {}, "leading zeros"),
        ({"visit": lambda i: 5000 + 7 * i}, {}, "'visit' is a different whole number in nearly every record"),
        ({"visit": lambda i: f"{5000 + i}.0"}, {}, "'visit' is a different whole number"),
        ({"visit": lambda i: 5000 + max(i, 1)}, {}, "'visit' is a different whole number"),  # 119 of 120 differ
        ({"visit": lambda i: f"v{min(i, 70)}"}, {}, "'visit' is a different text"),
        ({"visit": lambda i: f"v{i}"}, {}, "'visit' is a different text"),
        ({"pid": lambda i: 1000 + i // 3}, {}, "'pid' is called like an identifier"),
        ({"stage": lambda i: "II"}, {}, "the same value in every record of stage"),
        ({"smoker": lambda i: "no", "dose": lambda i: 5}, {}, "smoker, dose"),
        ({"smoker": lambda i: "no", "dose": lambda i: 5}, {}, "--drop smoker,dose"),
        ({"smoker": lambda i: ""}, {}, "'smoker' has no value at all"),
        *(({"seen": lambda i, d=date: d % (1 + i % 28)}, {}, "'seen' holds dates, as on line 2") for date in DATES),
        ({"seen": lambda i: 20240100 + 1 + i % 28}, {}, "'seen' holds dates"),
        ({}, {"bounds": {"age": (0, 1)}}, "clips every value to 1"),
        ({}, {"bounds": {"age": (500, 600)}}, "clips every value to 500"),
        ({"dose": lambda i: f"1,{100 + i}"}, {}, "'1,100' in column 'dose' may be a number with a thousands separator"),
        ({"dose": lambda i: f"1.{100 + i},5"}, {}, "holds a thousands separator"),
        ({"dose": lambda i: f"{i % 9},5" if i else "7.5"}, {"categorical": {"stage": ["I", "II", "III"]}}, "'dose'"),
        ({"dose": lambda i: "low" if i == 7 else f"{i / 7:.2f}"}, {}, "is a number but for 'low' on line 9"),
        ({"stage": lambda i: ("F", "f", "M")[i % 3]}, {}, "'F', 'f' of column 'stage' differ by case"),
        ({"dose": lambda i: "1e300" if i == 3 else i / 7}, {}, "line 5: a value of column 'dose' is beyond 1e+30"),
        ({"dose": lambda i: 10**9 + 1e-3 * (i * i % 7)}, {}, "too narrow for single precision"),
        ({}, {"bounds": {"age": (0, 1e60)}}, "of at most 1e+30"),
        (
            {"dose": lambda i: "inf" if i == 4 else f"{i / 7:.2f}"},
            {"categorical": {"stage": ["I", "II", "III"]}},
            "'inf' on line 6",
        ),
        ({"dose": lambda i: f"{i} %"}, {}, "If it should be a number, look at line 2: '0 %'"),
        ({}, {"fill": {"stage": 3}}, "'stage', which is not numeric"),
        ({}, {"fill": {"nothing": 3}}, "no column 'nothing'"),
        ({}, {"categorical": {"clinic": ["North"]}}, "which is the site"),
    ],
)
def test_a_table_that_would_spoil_a_run_is_refused(changes, options, words, tmp_path):
    path = write(tmp_path, columns(**changes))
    with pytest.raises(ValueError) as error:
        load(path, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def copies():
    ill = columns()["ill"]
    grade = [str(int(y) * (1 + i % 3)) for i, y in enumerate(ill)]
    return {
        "exact": ill,
        "words": ["dead" if y == "1" else "alive" for y in ill],
        "reversed": ["0" if y == "1" else "1" for y in ill],
        "numbers": [str(2.5 * int(y) + 3) for y in ill],
        "finer": grade,
        "with gaps": ["" if i % 7 == 0 else y for i, y in enumerate(ill)],
        "only for the ill": [f"{1 + i % 40}.5" if y == "1" else "" for i, y in enumerate(ill)],
    }


@pytest.mark.parametrize("how", copies())
def test_a_copy_of_the_label_is_refused_however_it_is_coded(how, tmp_path):
    path = write(tmp_path, columns(outcome=copies()[how]))
    with pytest.raises(ValueError, match=r"can be read off outcome.*--drop outcome"):
        load(path)
    assert "outcome" not in load(path, drop=["outcome"]).feature_names


def test_what_tells_much_of_the_label_is_taken_and_what_tells_nearly_all_is_said(tmp_path):
    ill = columns()["ill"]
    for wrong, said in ((12, False), (1, True)):
        outcome = [str(1 - int(y)) if i < wrong else y for i, y in enumerate(ill)]
        warnings = load(write(tmp_path, columns(outcome=outcome))).warnings
        assert any("can be read off outcome" in warning for warning in warnings) == said


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"visit": lambda i: 5000 + 7 * i}, {"bounds": {"age": "from_data", "visit": (5000, 6000)}}),
        ({"visit": lambda i: 5000 + i // 2}, {}),  # every number twice
        ({"mass": lambda i: f"{50 + i / 7:.3f}"}, {}),  # measured: all differ, none is whole
        ({"stage": lambda i: "II"}, {"categorical": {"stage": ["I", "II"]}}),
        (
            {"dose": lambda i: f"{i % 9},5"},
            {"categorical": {"stage": ["I", "II", "III"], "dose": [f"{k},5" for k in range(9)]}},
        ),
        ({"clinic": lambda i: ("Mercy A", "Mercy B", "South")[i % 3]}, {}),
        (
            {"seen": lambda i: f"2024-01-0{1 + i % 2}"},
            {"categorical": {"stage": "from_data", "seen": ["2024-01-01", "other"]}},
        ),
        ({"pressure": lambda i: f"{100 + (i * i) % 7}"}, {}),
    ],
)
def test_what_is_close_to_wrong_is_taken(changes, options, tmp_path):
    assert len(load(write(tmp_path, columns(**changes)), **options).features) == N


@pytest.mark.parametrize(
    ("values", "meant"),
    [
        (lambda i: f"{i % 9},5", 3.5),
        (lambda i: "0,125" if i else "12,250", 0.125),
        (lambda i: "1234,567" if i == 3 else f"{i},250", 1234.567),
    ],
)
def test_decimal_commas_that_something_proves_are_read(values, meant, tmp_path):
    table = columns(dose=values, age=None)
    sites = load(write(tmp_path, table, delimiter=";"))
    assert sites.features[3, sites.feature_names.index("dose")] == np.float32(meant)


@pytest.mark.parametrize("odd", ["1,234", "12.345,6", "1.234.567", "1,234,567"])
def test_one_thousands_separator_among_plain_numbers_is_refused(odd, tmp_path):
    table = columns(dose=lambda i: odd if i == 5 else 100 + i % 50, age=None)
    with pytest.raises(ValueError, match=r"line 7: .*thousands separator"):
        load(write(tmp_path, table, delimiter=";"))


@pytest.mark.parametrize("code", ["-1", "-9", "-999", "999", "9999"])
def test_a_code_for_missing_is_said_without_a_count(code, tmp_path):
    table = columns(age=lambda i: code if i % 11 == 0 else f"{30 + (i * i) % 41}")
    warnings = [warning for warning in load(write(tmp_path, table)).warnings if "missing value" in warning]
    assert len(warnings) == 1 and f"'age' holds {code}, which" in warnings[0] and "11" not in warnings[0]
    plain = columns(age=lambda i: f"{30 + (i * i) % 41}", change=lambda i: (i % 7) - 3)
    assert not any("missing value" in warning for warning in load(write(tmp_path, plain)).warnings)


def test_a_range_that_clips_much_is_said(tmp_path):
    warnings = load(write(tmp_path), bounds={"age": (0, 40)}).warnings
    assert any("clips more than a quarter" in warning for warning in warnings)
    assert not any("clips" in warning for warning in load(write(tmp_path), bounds={"age": (0, 90)}).warnings)


def test_the_healthy_table_is_taken(tmp_path):
    """The table that every case changes is fine itself, so that a case fails for its own reason."""
    sites = load(write(tmp_path))
    assert sites.warnings == () and len(sites.uncovered) == 3
    assert all("taken from the records" in fact and remedy for fact, remedy in sites.uncovered[:2])
    assert Path(sites.provenance.source).name == "table.csv"
