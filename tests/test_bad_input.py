"""What users get wrong, at every door: one message that says what was wrong, what was seen and what to do, and nothing written.

Every case fails before anything is computed. Beside what is refused stands what is close to it and must be taken.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import typing
from pathlib import Path

import numpy as np
import pytest

from fedjax_poisson import accounting, data
from fedjax_poisson.runs import config_checks
from fedjax_poisson.runs.config import Config, read_config, write_config
from fedjax_poisson.runs.load_data import load_sites
from tests.test_cli import refused

N = 120
OWN = {"label": "ill", "site": "clinic"}


def columns(**changes):
    """A healthy table: three clinics, a number, a flag and a category that say something about the label and do not give it away."""
    generator = np.random.default_rng(0)
    ill = generator.integers(0, 2, N)
    found = {
        "clinic": [("North", "South", "East")[i % 3] for i in range(N)],
        "age": [f"{20 + 50 * generator.random() + 5 * y:.1f}" for y in ill],
        "smoker": [("yes", "no")[int(generator.random() < 0.4 + 0.2 * y)] for y in ill],
        "stage": [("I", "II", "III")[generator.integers(0, 3)] for _ in range(N)],
        "ill": [str(y) for y in ill],
    }
    for name, values in changes.items():
        if values is None:
            del found[name]
        else:
            found[name] = [str(values(i)) for i in range(N)] if callable(values) else values
    return found


def write(folder, table=None, *, delimiter=",", name="table.csv", encoding="utf-8", rows=N):
    table = columns() if table is None else table
    quote = [f'"{each}"' for each in table]
    lines = [delimiter.join(quote)]
    lines += [delimiter.join(f'"{values[i]}"' for values in table.values()) for i in range(min(rows, N))]
    path = folder / name
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def load(path, **options):
    return data.from_csv(path, **({"categorical": "from_data"} | OWN | options))


def cli_table(path, *options):
    return ["run", "--csv", path, "--label", "ill", "--site", "clinic", "--categorical", "from_data", *options]


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epsilon", "1e9"], "epsilon=1e+09 must lie between 0.001 and 100"),
        (["--epsilon", "nan"], "epsilon=nan"),
        (["--delta", "0.5"], "delta=0.5 must lie between 1e-300 and 0.01"),
        (["--delta", "0"], "delta=0"),
        (["--sampling-rate", "1e-12"], "sampling_rate=1e-12"),
        (["--rounds", "0"], "rounds=0"),
        (["--rounds", "1000000000"], "rounds=1000000000 must lie between 1 and 100000"),
        (["--clip-norm", "0"], "clip_norm=0"),
        (["--clip-norm", "0.1", "--coordinate-bound", "0.6"], "--clip-norm 0.1 --coordinate-bound 0.06"),
        (["--clip-norm", "inf"], "clip_norm=inf"),
        (["--coordinate-bound", "0"], "coordinate_bound=0"),
        (["--standardize-norm", "0"], "standardize_norm=0"),
        (["--modulation", "1"], "modulation=1"),
        (["--learning-rate", "nan"], "learning_rate=nan"),
        (["--learning-rate", "inf"], "learning_rate=inf"),
        (["--learning-rate", "1e30"], "learning_rate=1e+30"),
        (["--momentum", "1"], "momentum=1"),
        (["--seed", str(2**64)], "seed="),
        (["--seed", "-1"], "seed=-1"),
        (["--honest-senders", "0"], "honest_senders=0"),
        (["--clients", "1"], "clients=1"),
        (["heart", "--clients", "10"], "already has 4 sites; leave --clients out"),
        (["heart", "--csv", "t.csv", "--label", "y", "--site", "s"], "two sources of data"),
        (["xray", "--csv", "t.csv", "--label", "y", "--site", "s"], "two sources of data"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--clients", "3"], "leave --clients out"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--data", "x"], "--data is images"),
        (["--csv", "t.csv", "--label", "y"], "--site COLUMN"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--sites-per-patient", "2"], "--patient COLUMN"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--min-site-records", "0"], "min_site_records=0"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--min-site-records", "-3"], "min_site_records=-3"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--bounds", "0"], "table of columns in a TOML file"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--categorical", "I,II"], "one of from_data"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--fill", "3"], "table of columns in a TOML file"),
        (["--csv", "t.csv", "--label", "y", "--site", "s", "--test-fraction", "1"], "test_fraction=1"),
        (["--csv", "", "--label", "y", "--site", "s"], "csv=''"),
        (
            ["--csv", "t.csv", "--label", "y", "--site", "s", "--image-size", "32"],
            "--image-size: only applies to images",
        ),
        (["--label", "y", "--missing", "drop"], "--label, --missing: only applies to your own table"),
        (["--encoding", "latin-1"], "--encoding: only applies to your own table"),
        (["--sites-per-patient", "2"], "--sites-per-patient"),
        (["--dirichlet-alpha", "2"], "--clients"),
        (["--image-size", "32"], "--image-size: only applies to images"),
        (["heart", "--resume", "nowhere"], "give no other settings"),
    ],
)
def test_a_senseless_option_is_refused_before_anything_is_read(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert words in refused(capsys, "run", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", ""], "dataset=''"),
        (["account", "--senders", "4", "--dimension", "9", "--rounds", "2", "--epsilon", "1e9"], "epsilon=1e+09"),
        (["account", "--senders", "4", "--dimension", "9", "--rounds", "2", "--epsilon", "1", "--delta", "0.5"], "delta=0.5"),
        (["account", "--senders", "4", "--dimension", "9", "--rounds", "2", "--epsilon", "1", "--sampling-rate", "1e-12"], "sampling_rate=1e-12"),
        (["account", "--senders", "0", "--dimension", "9", "--rounds", "2", "--epsilon", "1"], "senders=0"),
        (["account", "--senders", "4", "--dimension", "9", "--rounds", "2", "--epsilon", "1", "--lines", "0"], "lines=0"),
        (["bench", "simulation", "--devices", "-1"], "--devices -1"),
        (["bench", "simulation", "--rounds-per-call", "0"], "--rounds-per-call 0"),
        (["bench", "sampling", "--chunk", "3"], "only `bench simulation` takes these"),
    ],
)  # fmt: skip
def test_other_commands_refuse_what_is_senseless(arguments, words, capsys):
    assert words in refused(capsys, *arguments)


def test_the_reason_against_an_adjacency_is_given():
    with pytest.raises(ValueError, match=r"add_remove.*refused"):
        Config(adjacency="add_remove")


NUMBERS = {
    name: hint
    for name, hint in typing.get_type_hints(Config).items()
    if {int, float} & {hint, *typing.get_args(hint)} and dict not in map(typing.get_origin, typing.get_args(hint))
}


def test_every_number_has_a_range():
    assert set(NUMBERS) == set(config_checks.RANGES)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_every_number_refuses_what_is_none(name):
    least, most, why = config_checks.RANGES[name]
    wrong = [
        math.nan,
        math.inf,
        -math.inf,
        -1,
        2 * most + 1,
        10**30,
        10**400,
        "3",
        True,
        [1],
        {},
        b"1",
        1j,
        np.zeros(2),
    ]
    if least > 0:
        wrong += [0, least / 2]
    for value in wrong:
        with pytest.raises(
            ValueError, match=rf"^{name}=.*({'|'.join(('must lie', 'expected', 'too large'))})"
        ) as error:
            Config(**{name: value})
        assert "\n" not in str(error.value) and why


@pytest.mark.parametrize("name", sorted(set(typing.get_type_hints(Config)) - set(NUMBERS)))
def test_every_other_setting_refuses_the_wrong_type(name):
    for value in (5, 1.5, "", b"x", object()):
        with pytest.raises(ValueError, match=rf"^{name}=.*expected"):
            Config(**{name: value})


def test_numbers_of_numpy_and_paths_are_taken_and_can_be_written(tmp_path):
    config = Config(
        epsilon=np.float32(2.5), rounds=np.int64(3), learning_rate=1, csv=tmp_path / "t.csv", label="y", site="s"
    )
    assert (type(config.epsilon), type(config.rounds), type(config.learning_rate)) == (float, int, float)
    write_config(config, tmp_path / "own.toml")
    assert read_config(tmp_path / "own.toml") == config


# TOML -----------------------------------------------------------------------------------------------------------------

TOML = """csv = "table.csv"
label = "ill"
site = "clinic"
"""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TOML + "[categorical]\nstage = 5", "levels of 'stage' are 5; expected a list of text"),
        (TOML + '[categorical]\nstage = "III"', "levels of 'stage' are 'III'; expected a list"),
        (TOML + "[categorical]\nstage = [1.5]", "levels of 'stage' hold 1.5"),
        (TOML + "[categorical]\nstage = []", "levels of 'stage' are []"),
        (TOML + "[bounds]\nage = 5", "bounds of 'age' are 5"),
        (TOML + "[bounds]\nage = [5]", "bounds of 'age' are [5]"),
        (TOML + "[bounds]\nage = [100, 0]", "lower < upper"),
        (TOML + "[bounds]\nage = [0, inf]", "two finite numbers"),
        (TOML + '[bounds]\nage = ["0", "9"]', "two finite numbers"),
        (TOML + "[fill]\nage = nan", "fill of 'age' is nan"),
        (TOML + "[bounds]\nage = [0, 99]\n[fill]\nage = 200", "outside its bounds"),
        (TOML + "bounds = 5", "bounds=5"),
        (TOML + "categorical = 5", "categorical=5"),
        (TOML + "categorical = [1]", "categorical=[1]"),
        (TOML + "drop = [1]", "drop=[1]"),
        (TOML + "epsilon = true", "epsilon=True"),
        (TOML + "rounds = 2.5", "rounds=2.5"),
        (TOML + "[epsilon]\nx = 1", "epsilon={"),
        (TOML + "when = 2024-01-01", "'when', which is not a setting"),
        ("dataset = 5", "dataset=5"),
        ('dataset = ["heart"]', "dataset=["),
        ("epsilon = ", "not valid TOML"),
        (b"# caf\xe9", "not UTF-8"),
    ],
)
def test_a_wrong_setting_in_a_file_is_named(content, words, tmp_path, capsys):
    file = tmp_path / "own.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in refused(capsys, "run", file, "--out", tmp_path / "run")
    assert [each.name for each in tmp_path.iterdir()] == ["own.toml"]


def test_a_folder_is_no_file_of_settings(tmp_path, capsys):
    (tmp_path / "own.toml").mkdir()
    assert "is a folder" in refused(capsys, "run", tmp_path / "own.toml")


def test_paths_in_a_file_are_relative_to_it_and_its_mark_and_suffix_do_not_matter(tmp_path, monkeypatch, capsys):
    (tmp_path / "study").mkdir()
    path = write(tmp_path / "study")
    file = tmp_path / "study" / "OWN.TOML"
    text = TOML + '[bounds]\nage = "from_data"\n[categorical]\nstage = ["I", "II", "III"]\n'
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    monkeypatch.chdir(tmp_path)
    config = read_config("study/OWN.TOML")
    assert config.csv == str(path) and len(load_sites(config).features) == N
    # From the command line: it is taken for a file of settings, and its table is found; the next complaint is about a column.
    assert "no column 'age_'" in refused(capsys, "run", "study/OWN.TOML", "--drop", "age_", "--out", "run")
    assert "no column 'x'" in refused(capsys, "run", "study/OWN.TOML", "--csv", "study/table.csv", "--label", "x")
    # What a run writes down holds from every folder.
    (tmp_path / "run").mkdir()
    write_config(Config(csv="study/table.csv", label="ill", site="clinic"), "run/config.toml")
    monkeypatch.chdir("/")
    assert read_config(tmp_path / "run" / "config.toml").csv == str(path)
    (tmp_path / "study" / "pictures.toml").write_text('dataset = "covid"\ndata = "x.npz"\n')
    assert read_config(tmp_path / "study" / "pictures.toml").data == str(tmp_path / "study" / "x.npz")


def test_levels_may_be_whole_numbers_and_lists_may_hold_commas(tmp_path):
    table = columns(stage=lambda i: (i * i) % 3) | {"a, b": ["x"] * N}
    (tmp_path / "own.toml").write_text(
        TOML
        + 'drop = ["a, b"]\npositive = ["1"]\ncategorical = {stage = [0, 1, 2]}\nmissing = "refuse"\nencoding = "latin-1"\n'
    )
    write(tmp_path, table, encoding="latin-1")
    sites = load_sites(read_config(tmp_path / "own.toml"))
    assert {"stage=0", "stage=1"} <= set(sites.feature_names) and sites.class_names[1] == "ill=1"


# Tables ---------------------------------------------------------------------------------------------------------------

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


def test_too_few_records_or_sites_are_refused_or_said(tmp_path, capsys):
    with pytest.raises(ValueError, match="same label"):
        load(write(tmp_path, rows=1))
    one = write(tmp_path, columns(clinic=lambda i: "North"))
    assert any("nothing is federated" in warning for warning in load(one).warnings)
    assert "1 site" in refused(capsys, *cli_table(one, "--out", tmp_path / "run"))
    assert any("no record is held out" in warning for warning in load(one, test_fraction=0).warnings)
    assert not (tmp_path / "run").exists()
    single = write(tmp_path, columns(ill=lambda i: int(i == 0)))
    assert any("all test records have the same label" in warning for warning in load(single).warnings)
    lonely = write(tmp_path, columns(clinic=lambda i: "East" if i == 0 else "North"))
    assert any("East has no test record" in warning for warning in load(lonely, min_site_records=1).warnings)


def test_a_wide_table_is_read_in_seconds_and_refused_for_a_run(tmp_path, capsys):
    wide = {f"c{k}": [f"{(i * k) % 97 / 7:.2f}" for i in range(N)] for k in range(1, 97)}
    path = write(tmp_path, columns(**wide))
    assert len(load(path).feature_names) == 96 + 5
    error = refused(capsys, *cli_table(path, "--out", tmp_path / "run"))
    assert "101 features for 81 training records" in error and "--drop" in error and not (tmp_path / "run").exists()


def test_names_of_many_columns_are_not_all_repeated(tmp_path):
    wide = {f"c{k}": [str((i * k) % 97 / 7) for i in range(N)] for k in range(1, 400)}
    with pytest.raises(ValueError, match=r"no column 'x' \(given as label\).* and \d+ more") as error:
        load(write(tmp_path, columns(**wide)), label="x")
    assert len(str(error.value)) < 1000


# A patient at several sites -------------------------------------------------------------------------------------------


def visits(folder):
    return write(folder, columns(person=lambda i: f"p{i // 2 if i < 12 else i}"))  # 6 people at two clinics each


def test_a_patient_at_several_sites_is_refused_with_the_count_or_declared(tmp_path, capsys):
    path = visits(tmp_path)
    error = refused(capsys, *cli_table(path, "--patient", "person", "--out", tmp_path / "run"))
    assert "6 patients have records at more than 1 site (up to 2)" in error and "--sites-per-patient 2" in error
    assert not (tmp_path / "run").exists()
    sites = load_sites(Config(csv=path, **OWN, patient="person", sites_per_patient=2, categorical="from_data"))
    assert sites.provenance.source == "table.csv"  # a report says nothing about folders of a machine
    assert sites.sites_per_unit == 2 and sites.unit == "patient" and "at most 2 sites" in data.describe(sites)
    assert load(path, drop=["person"]).sites_per_unit == 1
    with pytest.raises(ValueError, match="no column says whose record"):
        load(path, drop=["person"], sites_per_patient=2)


def test_names_of_patients_in_two_spellings_are_said(tmp_path):
    table = columns(person=lambda i: ("Ann", "ANN")[i // 3 % 2] if i % 3 == 0 else f"p{i}")
    warnings = load(write(tmp_path, table), patient="person").warnings
    assert any("names of patients differ by case" in warning for warning in warnings)


def test_sites_hold_what_they_say_about_patients_whoever_makes_them(tmp_path):
    sites = load(visits(tmp_path), patient="person", sites_per_patient=2)
    with pytest.raises(ValueError, match="6 patients have records at more than 1 site"):
        dataclasses.replace(sites, sites_per_unit=1)
    with pytest.raises(ValueError, match="sites_per_unit is 0"):
        dataclasses.replace(sites, sites_per_unit=0)
    with pytest.raises(ValueError, match="sites_per_unit is 2"):
        dataclasses.replace(load(write(tmp_path)), sites_per_unit=2)
    cut = np.arange(N) % 5
    with pytest.raises(ValueError, match="more than 1 site"):
        data.by_site(sites, cut)
    assert data.by_site(sites, cut, sites_per_patient=2).sites_per_unit == 2
    assert data.dirichlet(sites, 3, 10.0).sites_per_unit == 1  # patients are dealt whole


def worst_divergence(order, dark, modulation, shift):
    """Exact Renyi divergence of one opened coordinate whose mean moves by `shift`, at the worst mean that the modulation allows.

    Both channels are Poisson: (a - 1) D_a(Poi(p) || Poi(q)) = p^a q^(1-a) - a p - (1 - a) q (van Erven and Harremoes 2014).
    """
    before = np.linspace(-modulation, modulation - shift, 2001)
    found = 0.0
    for one, other in ((before, before + shift), (before + shift, before)):
        total = 0.0
        for sign in (1, -1):
            p, q = dark * (1 + sign * one), dark * (1 + sign * other)
            total = total + p**order * q ** (1 - order) - order * p - (1 - order) * q
        found = max(found, float(np.max(total)) / (order - 1))
    return found


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_patient_at_k_sites_is_covered_by_k_steps_and_not_by_fewer(k):
    """What `check_sites_per_patient` proves: aligned contributions of k sites attain the curve of k steps (the others' noise is fixed)."""
    honest, dark, modulation, ratio = 5, 400.0, 0.05, 0.25
    orders = np.array([2.0, 8.0, 32.0])

    def charged(steps):
        return accounting.poisson_embedding_rdp(
            orders,
            dark_count=dark,
            modulation=modulation,
            honest_senders=honest,
            norm_ratio=1.0,
            dimension=1,
            step_ratio=steps * ratio,
        )

    moved = k * modulation * ratio / honest  # each site moves the mean over the honest senders by one step
    exact = np.array([worst_divergence(order, honest * dark, modulation, moved) for order in orders])
    np.testing.assert_allclose(charged(k), exact, rtol=1e-6)
    assert (charged(k) >= exact * (1 - 1e-9)).all()
    if k > 1:
        assert (charged(k - 1) < 0.5 * exact).all()
        np.testing.assert_allclose(charged(k), k**2 * charged(1), rtol=0.01)


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"clinic,age,ill\n", {}, "a header but no record"),
        (b"clinic,age,age,ill\nA,1,2,0\n", {}, "two columns are called 'age'"),
        (b"PK\x03\x04" + b"\0" * 40, {}, "an Excel workbook or a zip archive"),
        (b"PAR1" + bytes(range(256)), {}, "a Parquet file"),
        (bytes(range(1, 256)) * 4, {}, "is not utf-8"),
        ("clinic,age,ill\nA,1,0\n".encode("utf-16"), {}, "--encoding utf-16"),
        (gzip.compress(b"clinic,age,ill\n" * 300, mtime=0)[:-20], {}, "truncated"),
        (b"clinic,age,ill\nA,1,0\n", {"encoding": "no-such"}, "encoding is 'no-such'"),
        (b"clinic,age,ill\nA,1,0\n", {"encoding": "rot13"}, "which is no text encoding"),
        (b"clinic,age,ill\nA,1,0\n", {"encoding": 5}, "encoding is 5"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": ""}, "delimiter is ''"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": ";;"}, "--delimiter"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": 5}, "delimiter is 5"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": ";"}, "no column 'ill'"),
    ],
)
def test_a_file_that_is_no_table_is_named(content, options, words, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load(path, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_no_table(tmp_path, capsys):
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)
    assert "is a folder" in refused(capsys, *cli_table(tmp_path, "--out", tmp_path / "run"))


@pytest.mark.parametrize("options", [["--encoding", "utf-16"], ["--delimiter", "|"], ["--missing", "refuse"]])
def test_what_messages_recommend_is_an_option(options, tmp_path):
    """The options that messages name reach the reader."""
    table = columns(age=lambda i: "" if i == 4 else i % 50 + 0.5)
    path = write(
        tmp_path,
        table,
        encoding="utf-16" if "utf-16" in options else "utf-8",
        delimiter="|" if "|" in options else ",",
    )
    config = Config(csv=path, **OWN, categorical="from_data", **{options[0][2:]: options[1]})
    if "refuse" in options:
        with pytest.raises(ValueError, match=r"line 6: no value in age.*--missing impute"):
            load_sites(config)
    else:
        assert len(load_sites(config).features) == N


# Python ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": None}, "label is None"),
        ({"label": ["ill"]}, "label is ['ill']"),
        ({"site": 3}, "site is 3"),
        ({"patient": 3}, "patient is 3"),
        ({"positive": 1}, "positive is 1"),
        ({"positive": []}, "positive is []"),
        ({"positive": [1]}, "positive is [1]"),
        ({"categorical": "abc"}, "categorical is 'abc'"),
        ({"categorical": 5}, "categorical is 5"),
        ({"categorical": {"stage": "I"}}, "levels of 'stage' are 'I'"),
        ({"categorical": {"stage": 5}}, "levels of 'stage' are 5"),
        ({"categorical": {"stage": [None]}}, "levels of 'stage' hold None"),
        ({"categorical": {3: ["I"]}}, "a column of categorical is 3"),
        ({"bounds": 5}, "bounds is 5"),
        ({"bounds": None}, "bounds is None"),
        ({"bounds": {"age": 5}}, "bounds of 'age' are 5"),
        ({"bounds": {"age": (0, math.nan)}}, "two finite numbers"),
        ({"bounds": {"age": (True, 5)}}, "two finite numbers"),
        ({"fill": 5}, "fill is 5"),
        ({"fill": {"age": "x"}}, "fill of 'age' is 'x'"),
        ({"missing": 5}, "missing is 5"),
        ({"drop": "age"}, "drop is 'age'; expected a list of columns, such as ['age']"),
        ({"drop": 5}, "drop is 5"),
        ({"drop": {"age"}}, "such as ['age']"),
        ({"drop": [5]}, "a column of drop is 5"),
        ({"min_site_records": "x"}, "min_site_records is 'x'"),
        ({"min_site_records": 0}, "min_site_records is 0"),
        ({"min_site_records": -1}, "min_site_records is -1"),
        ({"min_site_records": 2.5}, "min_site_records is 2.5"),
        ({"sites_per_patient": 0}, "sites_per_patient is 0"),
        ({"sites_per_patient": True}, "sites_per_patient is True"),
        ({"test_fraction": "x"}, "test_fraction is 'x'"),
        ({"test_fraction": math.nan}, "test_fraction is nan"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"split_seed": 2**64}, "split_seed is"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named_before_the_file_is_opened(options, words):
    with pytest.raises(ValueError) as error:
        load("nowhere.csv", **options)
    assert words in str(error.value) and "expected" in str(error.value)


@pytest.mark.parametrize("path", [5, None, b"t.csv", "", ["t.csv"]])
def test_a_path_of_the_wrong_kind_is_named(path):
    with pytest.raises(ValueError, match="path is"):
        load(path)


@pytest.mark.parametrize("horizon", ["x", math.nan, math.inf, -1, True])
def test_a_horizon_of_the_wrong_kind_is_named(horizon):
    with pytest.raises(ValueError, match="horizon is"):
        data.from_survival_csv("nowhere.csv", time="t", event="e", site="s", horizon=horizon)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": [[1.0]]}, "features is a list; expected a NumPy array"),
        ({"labels": None}, "labels is a NoneType"),
        ({"site_names": ["North"]}, "site_names is ['North']"),
        ({"site_names": ("A", "A", "B")}, "site_names holds 'A' twice"),
        ({"class_names": (0, 1)}, "class_names is (0, 1)"),
        ({"train": np.zeros(N, bool)}, "no record is in the training split"),
        ({"site": np.zeros(N, np.int64)}, "site is int64"),
        ({"unit": "person"}, "unit is 'person'"),
    ],
)
def test_sites_name_the_field_that_is_wrong(changes, words, tmp_path):
    sites = load(write(tmp_path))
    with pytest.raises(ValueError) as error:
        dataclasses.replace(sites, **changes)
    assert words in str(error.value)


def test_the_healthy_table_is_taken(tmp_path):
    """The table that every case changes is fine itself, so that a case fails for its own reason."""
    sites = load(write(tmp_path))
    assert sites.warnings == () and len(sites.uncovered) == 3
    assert all("taken from the records" in fact and remedy for fact, remedy in sites.uncovered[:2])
    assert Path(sites.provenance.source).name == "table.csv"
