"""The command line as a user meets it: what it says it does, it does; what is wrong gets one line and exit code 2."""

from __future__ import annotations

import csv
import importlib
import importlib.metadata
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedjax_poisson import accounting, cli, data
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.runs.config import Config, read_config
from fedjax_poisson.runs.terminal import print_summary

HEART = ["run", "--epsilon", "3", "--rounds", "2", "--seed", "7", "--aggregator", "plain"]


def call(*arguments: object) -> int:
    """Exit code of `fedjax-poisson ARGUMENTS` in this process."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return 0 if stop.value.code is None else int(stop.value.code)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that must fail with exit code 2."""
    capsys.readouterr()
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedjax-poisson: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


def summary_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text())


def parameters(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "checkpoints" / "latest.npz") as file:
        return [file[name] for name in file.files if name != "facts"]


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "heart"
    assert call(*HEART, "--out", folder, "--quiet") == 0
    return folder


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    with accounting.open_ledger(
        tmp_path / "l.sqlite", epsilon=1.0, delta=1e-4, unit="record", adjacency="zero_out"
    ) as _:
        pass
    command = f"from fedjax_poisson.cli import main; main(['ledger', {str(tmp_path / 'l.sqlite')!r}])"
    program = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdin.readline(); {command}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    program.stdout.close()
    _, error = program.communicate(b"go\n")
    assert program.returncode == 141 and error == b""


# Runs -----------------------------------------------------------------------------------------------------------------


def test_run_does_what_its_options_say(heart: Path) -> None:
    assert read_config(heart / "config.toml") == Config(epsilon=3.0, rounds=2, seed=7, aggregator="plain")
    summary = summary_of(heart)
    assert summary["dataset"] == "heart" and summary["rounds"] == 2 and summary["aggregator"] == "plain"
    assert 2.9 < summary["epsilon"] <= 3 and summary["epsilon_target"] == 3
    assert summary["reproducible"] is True and summary["seed"] == 7
    assert summary["private"] is False and "seed" in summary["privacy_note"] and "encrypted" in summary["privacy_note"]
    lines = [json.loads(line) for line in (heart / "rounds.jsonl").read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["standardise", "train", "train"]
    for name in ("report.html", "ledger.sqlite", "checkpoints/latest.npz"):
        assert (heart / name).stat().st_size > 0
    assert list((heart / "figures").glob("*.png"))


@pytest.mark.parametrize(
    ("total", "words"),
    [
        (1.4321, "what was spent reads as epsilon 1.4321 (orientation; at up to twice this delta)"),
        (None, "epsilon is larger (their guarantees differ"),
    ],
)
def test_what_neighbouring_runs_spent_is_for_orientation(heart: Path, total: float | None, words: str) -> None:
    summary = {**summary_of(heart), "earlier_runs": {"folders": ["other"], "epsilon_together": total}}
    out = io.StringIO()
    print_summary(Console(file=out, width=500), summary, heart / "report.html")
    line = next(line for line in out.getvalue().splitlines() if "neighbouring" in line)
    assert f"together with this one, {words}" in line and line.endswith("use --ledger FILE to share one budget")


def test_a_toml_file_repeats_the_run_and_options_win_over_it(heart: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert call("run", heart / "config.toml", "--out", again, "--quiet") == 0
    for one, other in zip(parameters(heart), parameters(again), strict=True):
        np.testing.assert_array_equal(one, other)
    changed = tmp_path / "changed"
    assert call("run", heart / "config.toml", "--rounds", "1", "--out", changed, "--quiet") == 0
    assert summary_of(changed)["rounds"] == 1 and read_config(changed / "config.toml").seed == 7


def test_what_is_not_protected_is_said_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*HEART, "--rounds", "1", "--out", tmp_path / "run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "NOT private",
        "NOTHING is encrypted",
        "NOT PRIVATE:",
        "unit record",
        "zero_out",
        "3 of 4 sites honest",
        "bytes per site",
    ):
        assert words in shown


def test_resume_goes_on_where_an_interrupted_run_stopped(
    heart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], checkpoints.save_tree

    def save_then_stop(*arguments: object, **facts: object) -> None:
        save(*arguments, **facts)
        saved.append(1)
        if len(saved) == 2:  # the standardisation and round 1 are done
            raise KeyboardInterrupt

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_tree", save_then_stop)
        assert call(*HEART, "--out", folder, "--quiet") == 130
    assert not (folder / "summary.json").exists()
    assert call("run", "--resume", folder, "--quiet") == 0
    for one, other in zip(parameters(heart), parameters(folder), strict=True):
        np.testing.assert_array_equal(one, other)
    book = accounting.read_ledger(folder / "ledger.sqlite")
    assert [row.label for row in book.rows()] == ["standardise 0", "train 1", "train 2"]
    book.close()


# What is wrong --------------------------------------------------------------------------------------------------------


def test_wrong_names_get_one_line(heart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "heart, thyroid" in refused(capsys, "run", "hart", "--out", tmp_path / "a")
    assert "nowhere.toml" in refused(capsys, "run", tmp_path / "nowhere.toml")
    assert "already holds a run" in refused(capsys, *HEART, "--out", heart)
    assert "no run to resume" in refused(capsys, "run", "--resume", tmp_path / "nothing")
    assert "give no other settings" in refused(capsys, "run", "--resume", heart, "--rounds", "3")
    assert "no such ledger" in refused(capsys, "ledger", tmp_path)
    (tmp_path / "bad.toml").write_text("epsilom = 1.0\n")
    assert "'epsilom'" in refused(capsys, "run", tmp_path / "bad.toml")
    assert "--label" in refused(capsys, "run", "--csv", tmp_path / "t.csv")
    assert "t.csv: no such file" in refused(
        capsys, "run", "--csv", tmp_path / "t.csv", "--label", "y", "--site", "s", "--out", tmp_path / "b"
    )
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        (["--epsilon", "-1"], "epsilon=-1"),
        (["--delta", "2"], "delta=2"),
        (["--adjacency", "replace_one", "--sampling-rate", "0.5"], "zero_out"),
        (["--honest-senders", "9"], "honest_senders=9"),
        (["--sampling-rate", "1.5"], "sampling_rate=1.5"),
    ],
)
def test_unsound_settings_get_one_line_and_leave_no_folder(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "run", *options, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()  # the corrected command may use the same folder


@pytest.mark.parametrize(
    "options", [["--epsilom", "1"], ["--rounds", "many"], ["--aggregator", "seal"], ["--sead", "1"]]
)
def test_unknown_options_and_values_are_named(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", *options) == 2
    shown = capsys.readouterr()
    assert options[0].lstrip("-") in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err


# The ledger -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger_copy(heart: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may spoil, its ledger in one file."""
    folder = tmp_path / "copy"
    shutil.copytree(heart, folder)
    return folder


def _execute(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "ledger.sqlite")
    with connection:
        # The triggers stop an accident; whoever tampers drops them first.
        for trigger in ("releases_are_final", "releases_stay"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(statement)
    connection.close()


def test_ledger_shows_and_verifies_every_release(ledger_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ledger", ledger_copy, "--verify") == 0
    shown = capsys.readouterr().out
    assert shown.count("poisson_embedding") == 3 and "3/4" in shown
    assert "verified: 3 rows" in shown and "what summary.json pins" in shown
    assert "of 3 at delta" in shown
    assert call("ledger", ledger_copy / "ledger.sqlite") == 0
    assert "verified" not in capsys.readouterr().out


def test_a_ledger_that_a_run_shares_is_found_by_its_settings(
    ledger_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (ledger_copy / "ledger.sqlite").rename(tmp_path / "shared.sqlite")
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (ledger_copy / name).unlink(missing_ok=True)
    assert "no such ledger" in refused(capsys, "ledger", ledger_copy)  # the twin: nothing names it
    settings = ledger_copy / "config.toml"
    settings.write_text(f'ledger = "{tmp_path / "shared.sqlite"}"\n' + settings.read_text())
    assert call("ledger", ledger_copy, "--verify") == 0
    assert "what summary.json pins" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement, words",
    [
        ("UPDATE releases SET label = 'train 9' WHERE id = 2", "row 2"),
        ("UPDATE releases SET honest_senders = 4 WHERE id = 3", "row 3"),
        ("DELETE FROM releases WHERE id = 2", "row 2 is missing"),
        ("DELETE FROM releases WHERE id = 3", "holds 2 releases, but 3"),  # only the head in summary.json shows it
        ("UPDATE charges SET body = zeroblob(length(body))", "charge"),
    ],
)
def test_verify_finds_what_was_changed_by_hand(
    ledger_copy: Path, statement: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _execute(ledger_copy, statement)
    assert words in refused(capsys, "ledger", ledger_copy, "--verify")


def test_a_file_that_is_no_ledger_gets_one_line(ledger_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ledger.sqlite-wal", "ledger.sqlite-shm"):
        (ledger_copy / name).unlink(missing_ok=True)
    (ledger_copy / "ledger.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 100)
    assert "ledger.sqlite" in refused(capsys, "ledger", ledger_copy)


# A user's own table ---------------------------------------------------------------------------------------------------


def _table(path: Path, **changes: object) -> Path:
    """75 visits of 45 patients in three clinics: quoted text with a comma, gaps, a category, a flag, one small clinic."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(45):
        clinic = ["North, old town", "South", "East"][min(patient // 18, 2)]
        for _ in range(1 + patient % 3 // 2 * 2):
            ill = int(rng.random() < 0.5)
            rows.append(
                {
                    "patient": f"p{patient:03d}",
                    "clinic": clinic,
                    "age": "" if rng.random() < 0.1 else f"{rng.normal(60 + 8 * ill, 8):.1f}",
                    "colour": str(rng.choice(["red, dark", "blue", "green"])),
                    "smoker": "yes" if rng.random() < 0.3 + 0.3 * ill else "no",
                    "ill": str(ill),
                }
            )
    for name, value in changes.items():
        rows[4][name] = value
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _own(path: Path, *options: object) -> list[object]:
    return ["run", "--csv", path, "--label", "ill", "--site", "clinic", "--rounds", "1", *options]


def test_a_table_with_declared_facts_trains_per_patient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.toml").write_text(
        f"""csv = {json.dumps(str(_table(tmp_path / "visits.csv")))}
label = "ill"
site = "clinic"
patient = "patient"
rounds = 1
aggregator = "plain"
min_site_records = 10
largest_site = 40
[categorical]
colour = ["red, dark", "blue", "green"]
[bounds]
age = [20, 100]
"""
    )
    folder = tmp_path / "run"
    assert call("run", tmp_path / "own.toml", "--out", folder) == 0
    shown = " ".join(capsys.readouterr().out.split())
    summary = summary_of(folder)
    assert summary["unit"] == "patient" and "unit patient" in shown and summary["dataset"] == "visits.csv"
    assert [site["name"] for site in summary["sites"]] == ["East", "North, old town", "South"]
    assert summary["dimension"] == 1 + 1 + 3 + 1  # intercept, age, three colours, smoker
    assert summary["epsilon"] <= 1 and summary["seed"] is None
    assert summary["data"]["notes"] == []  # they count missing values, and the table is not public
    facts = [each["fact"] for each in summary["conditions"]]
    assert len(facts) == 2 and "merged into 'other'" in facts[0] and "scores on held-out records" in facts[1]
    assert (
        call("run", folder / "config.toml", "--out", tmp_path / "again", "--quiet") == 0
    )  # tables survive config.toml


def test_a_table_without_declared_facts_trains_and_says_what_is_not_covered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    options = ["--categorical", "from_data", "--drop", "patient", "--seed", "1", "--aggregator", "plain"]
    assert call(*_own(_table(tmp_path / "visits.csv"), *options, "--out", folder)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    summary = summary_of(folder)
    assert summary["unit"] == "record"
    told = [each["fact"] + each["remedy"] for each in summary["conditions"]]
    for words in ("colour", "age", "largest-site"):
        assert any(words in text for text in told)
    assert "NOT PRIVATE" in shown


@pytest.mark.parametrize(
    "changes, options, words",
    [
        ({}, ["--label", "sick"], "no column 'sick'"),
        ({}, ["--site", "hospital"], "no column 'hospital'"),
        ({}, ["--patient", "person"], "no column 'person'"),
        ({"ill": "2"}, [], "'ill'"),
        ({"clinic": ""}, [], "site"),
        ({"ill": ""}, [], "label"),
        ({}, ["--categorical", "guess"], "from_data"),
        ({}, ["--drop", "patient"], "'colour'"),  # text without declared levels
    ],
)
def test_what_is_wrong_in_a_table_is_named(
    tmp_path: Path, changes: dict[str, object], options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _table(tmp_path / "visits.csv", **changes)
    error = refused(capsys, *_own(path, *options, "--out", tmp_path / "run"))
    assert words in error
    assert not (tmp_path / "run").exists()


def test_one_site_is_refused_because_its_sum_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.csv"
    path.write_text("clinic,age,ill\n" + "".join(f"North,{20 + i}.5,{i % 2}\n" for i in range(30)))
    assert "1 site" in refused(capsys, *_own(path, "--out", tmp_path / "run"))


# Pictures -------------------------------------------------------------------------------------------------------------


def _pictures(path: Path, **changes: object) -> Path:
    """60 pictures of 20 pixels at two sources; the class is written on the border and nowhere else."""
    rng = np.random.default_rng(0)
    sick = np.arange(60) % 2
    images = rng.integers(0, 60, (60, 20, 20)).astype(np.uint8)
    images[:, :4] += (100 * sick).astype(np.uint8)[:, None, None]
    arrays = {
        "images": images,
        "labels": sick.astype(np.int64),
        "classes": np.array(["no_finding", "covid19"]),
        "source": np.where(np.arange(60) < 30, "east", "west"),
        "patient": np.array([f"p{i // 3:02d}" for i in range(60)]),
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def _medmnist(path: Path, **changes: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    arrays = {}
    for split, n in (("train", 40), ("val", 6), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (n, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    np.savez(path, **{**arrays, **changes})
    return path


def test_covid_prints_what_the_border_alone_reaches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, path = tmp_path / "run", _pictures(tmp_path / "x.npz")
    options = ["--rounds", "1", "--width", "1", "--seed", "1", "--aggregator", "plain", "--no-yardstick"]
    options += ["--public-data"]  # the border's classifier is trained in the clear
    assert call("run", "covid", "--data", path, *options, "--out", folder) == 0
    shown = " ".join(capsys.readouterr().out.split())
    summary = summary_of(folder)
    border = summary["border_only"]
    assert border["accuracy"] == 1.0 and border["majority_accuracy"] <= 0.6  # the border is where the class is
    assert "border only" in shown and "accuracy 1.000" in shown and border["why"] in shown
    assert "nothing released to standardise" in shown
    assert summary["unit"] == "patient" and summary["record_shape"] == [20, 20, 1]
    assert [entry["purpose"] for entry in summary["releases"]] == ["train"] and summary["epsilon"] <= 8
    page = (folder / "report.html").read_text()
    assert "How much of the score does not come from anatomy?" in page and "Nothing was sent" in page
    before = sorted(each.name for each in folder.iterdir())
    assert "already holds a run" in refused(capsys, "run", "covid", "--data", tmp_path / "no.npz", "--out", folder)
    assert sorted(each.name for each in folder.iterdir()) == before


def test_what_is_wrong_with_pictures_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(name: str, path: object, *options: object) -> str:
        return refused(capsys, "run", name, "--data", path, *options, "--out", tmp_path / "run")

    whole = _medmnist(tmp_path / "pneumoniamnist.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    assert "truncated" in error("pneumonia", tmp_path / "cut.npz") and "cut.npz" in error(
        "pneumonia", tmp_path / "cut.npz"
    )
    absent = error("pneumonia", tmp_path / "nowhere.npz")
    assert "PneumoniaMNIST" in absent and "zenodo" in absent
    labels = np.zeros((40, 1), np.uint8)
    labels[7] = 2
    assert "row 7" in error("pneumonia", _medmnist(tmp_path / "bad.npz", train_labels=labels))
    assert "model='logistic'" in error("pneumonia", tmp_path / "pneumoniamnist.npz", "--model", "logistic")
    assert "images" in error("covid", _pictures(tmp_path / "a.npz", images=None))
    assert "x/COVID-19" not in error("covid", tmp_path / "no_folder") and not (tmp_path / "run").exists()
    for label in ("Normal", "COVID"):
        (tmp_path / "radiography" / label).mkdir(parents=True)
        (tmp_path / "radiography" / label / f"{label}-1.png").write_bytes(b"no picture")
    assert "does not decode" in error("covid", tmp_path / "radiography")
    covidx = tmp_path / "covidx"
    for split in ("train", "test"):
        (covidx / split).mkdir(parents=True)
        (covidx / split / "a.png").write_bytes(b"no picture")
        (covidx / f"{split}.txt").write_text("p1 a.png positive cohen\n")
    assert "in training and test at once" in error("covid", covidx) and "line 1" in error("covid", covidx)
    assert "give --data" in refused(capsys, "run", "covid") and "ships" in error("heart", tmp_path / "cut.npz")


# Other commands -------------------------------------------------------------------------------------------------------


def test_report_is_drawn_again_from_the_folder(ledger_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (ledger_copy / "report.html").unlink()
    assert call("report", ledger_copy) == 0
    assert (ledger_copy / "report.html").stat().st_size > 10_000
    assert str(ledger_copy / "report.html") in capsys.readouterr().out


def test_help_lists_every_setting_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for field in Config.__dataclass_fields__:
        if field != "dataset":
            assert f"--{field.replace('_', '-')} " in shown
    assert "privacy budget for everything released" in shown


def test_help_shows_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--help") == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert 'or "private" (released by a noisy histogram on the ledger).' in shown
    assert "--no-yardstick turns it off" in shown


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"fedjax-poisson {importlib.metadata.version('fedjax_poisson')}\n"


def test_switches_are_turned_on_and_off_by_their_names() -> None:
    spelt = cli._spelt_out(["run", "heart", "--no-yardstick", "--public-data", "--publish_site_sizes", "--rounds", "2"])
    assert spelt == [
        *("run", "heart", "--yardstick", "False", "--public-data", "True", "--publish-site-sizes", "True"),
        *("--rounds", "2"),
    ]
    assert cli._spelt_out(["--yardstick", "False", "--no-such"]) == ["--yardstick", "False", "--no-such"]


def test_predict_writes_what_the_model_says_of_new_rows(
    heart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sites = data.load("heart")
    rows = tmp_path / "rows.csv"
    table = [sites.feature_names, *sites.features[:4].tolist()]
    rows.write_text("\n".join(",".join(map(str, row)) for row in table) + "\n")
    assert "standardises all sites in the same way" in refused(capsys, "predict", heart, rows, "--site", "Hungary")
    assert call("predict", heart, rows, "--out", tmp_path / "found.csv") == 0
    found = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert [row["row"] for row in found] == ["1", "2", "3", "4"]
    assert all(row["predicted"] in sites.class_names for row in found)
    chances = [[float(row[f"probability of {name}"]) for name in sites.class_names] for row in found]
    np.testing.assert_allclose(np.sum(chances, axis=1), 1, atol=2e-6)
    (tmp_path / "none.csv").write_text("age\n3\n")
    assert "no column" in refused(capsys, "predict", heart, tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["[1, 2]", '{"ledger_rows": "many", "ledger_head": ""}', "{}", "not JSON", "null"])
def test_a_summary_that_pins_nothing_is_refused_in_one_line(
    heart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    shutil.copyfile(heart / "ledger.sqlite", tmp_path / "ledger.sqlite")
    (tmp_path / "summary.json").write_text(text)
    for command in (["ledger", tmp_path, "--verify"], ["verify", tmp_path]):
        assert "does not say what the ledger held" in refused(capsys, *command)


def test_bounds_of_one_column_are_two_numbers() -> None:
    with pytest.raises(ValueError, match=r"bounds of 'age' are \[20\].*\[bounds\] age = \[0, 100\]"):
        Config(csv="t.csv", label="y", site="s", bounds={"age": [20]})
    Config(csv="t.csv", label="y", site="s", bounds={"age": "from_data", "dose": [0, 5]})


# Scripts --------------------------------------------------------------------------------------------------------------


def test_json_is_all_there_is_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "json"
    assert call(*HEART, "--out", folder, "--json") == 0
    said = capsys.readouterr()
    *rounds, end = (json.loads(line, parse_constant=pytest.fail) for line in said.out.splitlines())
    kept = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [{name: each[name] for name in ("round", "purpose")} for each in rounds] == [
        {name: each[name] for name in ("round", "purpose")} for each in kept
    ]
    assert {each["event"] for each in rounds} == {"round"} and rounds[1]["seconds"] == kept[1]["seconds"]
    assert end["event"] == "end" and end["folder"] == str(folder) and Path(end["report"]).is_file()
    assert end["summary"] == summary_of(folder)
    assert "NOT private" in said.err  # a seed and no encryption: what people must know is not lost
    assert call(*HEART, "--out", tmp_path / "quiet", "--json", "--quiet") == 0
    said = capsys.readouterr()
    assert said.err == "" and len(said.out.splitlines()) == len(rounds) + 1


def test_json_leaves_errors_on_standard_error(heart: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "already holds a run" in refused(capsys, *HEART, "--out", heart, "--json", "--quiet")
    assert capsys.readouterr().out == ""
