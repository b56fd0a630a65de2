"""Private, conditional or not: what is shown beside the releases decides, and each gap says what closes it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedjax_poisson import accounting, cli
from fedjax_poisson.reports.guarantees import conditions as told_conditions
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.runs.config import Config, records_are_public
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.run_folder import check_ledger, read_run

SITES = ("north", "south", "west")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(4)
    rows = ["died,site,age,ward,patient"]
    for i in range(450):
        age, ward = int(rng.integers(20, 90)), rng.choice(["A", "B", "C"])
        died = int(rng.random() < 0.15 + 0.6 * (age > 60))
        rows.append(f"{died},{SITES[i % 3]},{age},{ward},p{i}")
    path = tmp_path_factory.mktemp("table") / "visits.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _config(table: Path, **settings: Any) -> Config:
    base = {
        "csv": str(table),
        "label": "died",
        "site": "site",
        "patient": "patient",
        "rounds": 1,
        "aggregator": "plain",
    }
    return Config(**{**base, "categorical": "from_data", **settings})


DECLARED: dict[str, Any] = {
    "categorical": {"ward": ["A", "B", "C"]},
    "bounds": {"age": [0.0, 110.0]},
    "largest_site": 256,
    "min_site_records": 1,
    "evaluation": "none",
}


@pytest.fixture(scope="module")
def conditional(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditional") / "run"
    run(_config(table, aggregator="round"), folder)
    return folder


@pytest.fixture(scope="module")
def private(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private") / "run"
    run(_config(table, aggregator="round", **DECLARED), folder)
    return folder


def _summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_exact_facts_about_the_records_make_the_verdict_conditional(conditional: Path) -> None:
    """Before: private, with no reason against it, beside the yardstick, sizes, ranges, levels and scores of a user's own records."""
    summary = _summary(conditional)
    assert summary["verdict"] == "conditional" and summary["private"] is False and summary["privacy_note"] == ""
    facts = " | ".join(each["fact"] for each in summary["conditions"])
    for words in (
        "ranges of numbers",
        "levels of text columns",
        "the bound on a site's patients (128)",
        "scores on held-out records",
    ):
        assert words in facts
    assert all(each["remedy"] for each in summary["conditions"])
    assert summary["nonprivate_auc"] is None  # no yardstick on a user's own records unless asked for
    assert summary["sites"] == [{"name": name} for name in SITES]  # no sizes either


def test_declaring_the_facts_makes_the_run_private(private: Path) -> None:
    summary = _summary(private)
    assert summary["verdict"] == "private" and summary["private"] is True and summary["conditions"] == []
    assert summary["auc"] is None and summary["accuracy_by_site"] is None and summary["reliability"] is None
    assert summary["data"]["notes"] == []  # they count missing values
    shown = (private / "summary.json").read_text() + (private / "rounds.jsonl").read_text()
    assert '"test": null' in shown and "train_records" not in shown


ADDED: list[tuple[dict[str, Any], str]] = [
    ({"bounds": None}, "ranges of numbers"),
    ({"categorical": "from_data"}, "levels of text columns"),
    ({"largest_site": None}, "the bound on a site's patients"),
    ({"evaluation": "clear"}, "scores on held-out records"),
    ({"yardstick": True}, "trained without privacy"),
    ({"min_site_records": 20}, "merged into 'other'"),
]


@pytest.mark.parametrize(("change", "words"), ADDED)
def test_each_gap_alone_is_found(table: Path, change: dict[str, Any], words: str) -> None:
    from fedjax_poisson.runs.build import build
    from fedjax_poisson.runs.verdict import conditions

    config = _config(table, **{**DECLARED, **change})
    found = conditions(build(config))
    assert len(found) == 1 and words in found[0].fact
    assert conditions(build(dataclasses.replace(config, public_data=True))) == ()


def test_what_is_noticed_about_the_records_is_a_condition_too(table: Path) -> None:
    from fedjax_poisson.runs.build import build
    from fedjax_poisson.runs.verdict import conditions

    setting = build(_config(table, **DECLARED))
    assert conditions(setting) == ()
    noticed = setting._replace(sites=dataclasses.replace(setting.sites, warnings=("age holds -1 in many records",)))
    assert "shown as warnings" in conditions(noticed)[0].fact


def test_data_sets_that_ship_are_public_and_a_users_are_not(table: Path) -> None:
    assert records_are_public(Config()) and records_are_public(Config(dataset="pneumonia", data="x.npz"))
    assert not records_are_public(_config(table)) and not records_are_public(Config(dataset="covid", data="x"))
    assert records_are_public(_config(table, public_data=True)) and not records_are_public(Config(public_data=False))


def test_the_first_lines_say_it(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["run", "--csv", str(table), "--label", "died", "--site", "site", "--patient", "patient", "--rounds", "1"]
    with pytest.raises(SystemExit) as done:
        cli.main([*base, "--categorical", "from_data", "--out", str(tmp_path / "run")])
    assert done.value.code == 0
    lines = [" ".join(part.split()) for part in capsys.readouterr().out.split("\n")]
    first = next(i for i, line in enumerate(lines) if "CONDITIONALLY PRIVATE" in line)
    score = next(i for i, line in enumerate(lines) if "mean client accuracy" in line)
    assert first < score and "ranges of numbers" in " ".join(lines[first:score])
    text = " ".join(lines)
    assert "if the server colludes with all but one" in text


def test_the_report_says_it_first(conditional: Path, private: Path) -> None:
    page = write_report(conditional).read_text()
    box = page.index("This run is conditionally private")
    assert (
        box < page.index("What was learned?")
        and "scores on held-out records" in page[box : page.index("What was learned?")]
    )
    assert "With the conditions in the box above" in page and "if the server works with all other" in page.lower()
    page = write_report(private).read_text()
    assert "conditionally private" not in page and "NOT private" not in page
    assert not told_conditions(read_run(private))
    (private / "leakage.json").write_text("{}")
    try:
        assert "attacks were run on the records" in told_conditions(read_run(private))[0][0]
    finally:
        (private / "leakage.json").unlink()


def test_scores_can_be_a_release_of_the_same_budget(table: Path, tmp_path: Path) -> None:
    config = _config(table, **{**DECLARED, "evaluation": "private"}, epsilon=4.0, rounds=3)
    summary = run(config, tmp_path / "run")
    assert summary["conditions"] == [] and summary["epsilon"] <= 4.0 and summary["lost_releases"] == 0
    assert [entry["purpose"] for entry in summary["releases"]] == ["standardise", "train", "evaluate"]
    assert summary["auc"] is None or 0 <= summary["auc"] <= 1
    assert 0 <= summary["pooled_accuracy"] <= 1 and 0 < summary["pooled_accuracy_error"] < 0.3
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["standardise", "train", "train", "train", "evaluate"]
    assert all(line["test"] is None for line in lines[:-1])
    again = run(config, tmp_path / "run", resume=True)  # nothing is released twice
    assert (
        again["pooled_accuracy"] == summary["pooled_accuracy"] and again["ledger_rows"] == summary["ledger_rows"] == 5
    )
    assert write_report(tmp_path / "run").exists()


def test_runs_share_a_budget(table: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "visits.ledger"
    config = _config(table, **DECLARED, ledger=str(ledger), epsilon=0.5)
    with pytest.raises(ValueError, match=r"no ledger at .* --ledger-epsilon E"):
        run(config, tmp_path / "first")
    first = run(dataclasses.replace(config, ledger_epsilon=0.8), tmp_path / "first")
    assert (
        first["shared_ledger"]["runs"] == 1
        and 0.49 < first["epsilon"] <= 0.5 <= first["shared_ledger"]["epsilon"] <= 0.8
    )
    other = dataclasses.replace(
        config, label="ward", positive="A", categorical=None
    )  # another question to the same table
    with pytest.raises(ValueError, match=r"would spend more than is left .* Ask for a smaller --epsilon"):
        run(dataclasses.replace(other, epsilon=0.75), tmp_path / "second")
    assert not (tmp_path / "second" / "config.toml").exists()
    second = run(other, tmp_path / "second")
    assert (
        second["shared_ledger"]["runs"] == 2
        and first["shared_ledger"]["epsilon"] < second["shared_ledger"]["epsilon"] <= 0.8
    )
    assert second["epsilon"] <= 0.5 and second["earlier_runs"]["folders"] == []
    book = accounting.read_ledger(ledger)
    rows = book.rows()
    assert book.verify() == 4 and len({row.origin["run"] for row in rows}) == 2 and len({row.data for row in rows}) == 1
    assert rows[0].data.startswith("visits.csv, 5 columns")
    book.close()
    for name, summary in (
        ("first", first),
        ("second", second),
    ):  # each report reads its own rows, although the other run's stand beside them
        found = check_ledger(read_run(tmp_path / name))
        assert found.verified and len(found.rows) == 2 == len(found.readings) and found.epsilon is not None
        assert found.epsilon == pytest.approx(summary["epsilon"], rel=1e-3)
    (tmp_path / "first" / "config.toml").write_text("# another run\n")
    assert "no release of this run" in check_ledger(read_run(tmp_path / "first")).problem
    ledger.rename(tmp_path / "away")
    assert "is not at" in check_ledger(read_run(tmp_path / "second")).problem
    (tmp_path / "away").rename(ledger)
    with pytest.raises(ValueError, match="made for other facts: unit patient"):
        run(dataclasses.replace(config, patient=None, drop="patient"), tmp_path / "third")
    with pytest.raises(ValueError, match=r"was made for epsilon 0\.8"):
        run(dataclasses.replace(config, ledger_epsilon=5.0), tmp_path / "third")
    moved = table.with_name("moved.csv")
    moved.write_text(table.read_text())
    with pytest.raises(ValueError, match="belongs to one data set"):
        run(dataclasses.replace(config, csv=str(moved), epsilon=0.05), tmp_path / "fourth")


def test_a_second_run_without_a_shared_ledger_says_what_the_sum_is(table: Path, tmp_path: Path) -> None:
    config = _config(table, **DECLARED)
    alone = run(config, tmp_path / "a")
    assert alone["earlier_runs"] == {"folders": [], "epsilon_together": None}
    other = run(config, tmp_path / "b")
    assert other["earlier_runs"]["folders"] == ["a"] and 1.2 < other["earlier_runs"]["epsilon_together"] < 2
    assert other["epsilon"] <= 1.0
    shipped = run(
        Config(rounds=1, yardstick=False, aggregator="plain"), tmp_path / "c"
    )  # other data beside it do not count
    assert shipped["earlier_runs"]["folders"] == []
