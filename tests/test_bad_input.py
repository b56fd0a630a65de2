"""What users get wrong, at every door: one message that says what was wrong, what was seen and what to do, and nothing written.

Every case fails before anything is computed. Beside what is refused stands what is close to it and must be taken.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np
import pytest

from fedjax_poisson import accounting, data
from fedjax_poisson.runs import config_checks
from fedjax_poisson.runs.config import Config, read_config, write_config
from fedjax_poisson.runs.load_data import load_sites
from tests.data.tables.healthy_table import OWN, N, columns, load, write
from tests.test_cli import refused


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
