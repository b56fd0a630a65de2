"""Runs on tables whose label is several classes, several labels or a number: what they release, say, save and refuse."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from fedjax_poisson.cli import main
from fedjax_poisson.federated import predict
from fedjax_poisson.federated.intervals import wilson_interval
from fedjax_poisson.leakage.measure import attack_run
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.runs.build import prepare
from fedjax_poisson.runs.config import Config, read_config
from fedjax_poisson.runs.headline import scores_in_words
from fedjax_poisson.runs.run import run

COLUMNS = {
    "multiclass": {"label": "kind", "classes": "x,y,z", "drop": "died,back,stay"},
    "multilabel": {"label": "died,back", "drop": "kind,stay"},
    "regression": {"label": "stay", "label_bounds": (-10, 60), "drop": "kind,died,back"},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("table") / "visits.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["site", "a", "b", "kind", "died", "back", "stay"])
        for i in range(240):
            a, b = rng.normal(size=2)
            kind = "xyz"[int(np.argmax(np.array([2 * a, 2 * b, 0]) + rng.gumbel(size=3)))]
            died, back = int(2 * a + rng.normal() > 0), ("no", "yes")[int(2 * b + rng.normal() > 0)]
            writer.writerow(
                ["NSW"[i % 3], round(a, 3), round(b, 3), kind, died, back, round(20 + 8 * a + rng.normal(), 2)]
            )
    return path


def _config(table, task, **more):
    bounds = {"a": [-4.0, 4.0], "b": [-4.0, 4.0]}
    base = {
        "csv": str(table),
        "site": "site",
        "bounds": bounds,
        "epsilon": 8.0,
        "aggregator": "plain",
        "min_site_records": 1,
    }
    return Config(**base | COLUMNS[task] | more)


@pytest.mark.parametrize("task", COLUMNS)
def test_a_run_learns_saves_and_reports_every_kind_of_label(table, tmp_path, task):
    config = _config(table, task, rounds=30, yardstick=task == "regression", public_data=True, subgroups="a>=0")
    folder = tmp_path / task
    summary = run(config, folder)
    assert summary["task"] == task and read_config(folder / "config.toml") == config
    assert summary["epsilon"] <= 8 and summary["dimension"] == {"multiclass": 9, "multilabel": 6, "regression": 3}[task]
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["standardise", *["train"] * 30]
    found = predict(folder, str(table))
    page = write_report(folder).read_text()
    if task == "regression":
        assert summary["r2"] > 0.8 and summary["auc"] is None and summary["mean_client_accuracy"] is None
        assert summary["nonprivate_r2"] > 0.8 and lines[-1]["test"]["rmse"] == pytest.approx(summary["rmse"], rel=1e-6)
        assert found.probabilities is None and 10 < found.labels.mean() < 30 and found.labels.max() <= 60
        assert summary["intervals"]["rmse"][0] < summary["rmse"] < summary["intervals"]["rmse"][1]
        assert sum(summary["curves"]["agreement"]["count"]) > 40 and "mean error (predicted less true)" in page
        assert "root mean squared error" in page.lower() and "whose public range is -10 to 60" in page
    else:
        assert summary["auc"] > 0.75 and summary["rmse"] is None
        own = summary["auc_by_label"]
        assert set(own) == set("xyz" if task == "multiclass" else ("died", "back"))
        assert summary["auc"] == pytest.approx(np.mean(list(own.values())))
        assert found.probabilities.shape[1] == len(own) and "Each" in page
        assert summary["reliability"]["count"] and (folder / "figures" / "reliability.png").exists()
        assert set(summary["curves"]) == {"confusion" if task == "multiclass" else "points"}
    assert [part["name"] for part in summary["subgroups"]] == [
        "a < 0",
        "a >= 0",
    ] and "Does it work for everybody?" in page
    assert not (folder / "figures" / "reliability.png").exists() or task != "regression"


def test_records_that_are_not_public_keep_their_scores_and_no_curve(table, tmp_path):
    summary = run(_config(table, "multiclass", rounds=2), tmp_path / "own")
    assert summary["auc"] is not None
    assert all(summary[name] is None for name in ("reliability", "intervals", "curves", "subgroups"))
    assert "the records are not public" in write_report(tmp_path / "own").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subgroups": "a>=0"}, r"subgroups are scored on test records in the clear.*leave --subgroups out"),
        ({"subgroups": "a>=0", "public_data": True, "evaluation": "none"}, "subgroups are scored on test records"),
        ({"subgroups": "postcode", "public_data": True}, r"not a column that the model sees.*a>=NUMBER"),
    ],
)
def test_subgroups_are_refused_before_anything_is_released(table, changes, words):
    with pytest.raises(ValueError, match=words):
        prepare(_config(table, "multiclass", **changes))


def test_attacks_that_score_one_class_are_refused_for_other_labels(table, tmp_path):
    folder = tmp_path / "run"
    run(_config(table, "regression", rounds=2, evaluation="none"), folder)
    found = attack_run(folder, "membership", quick=True)
    assert "a number as its label" in found["attacks"]["membership"]["skipped"]
    assert "audit" in found["attacks"]["membership"]["skipped"]


def test_scores_of_one_private_sum_are_for_two_classes(table):
    for task in COLUMNS:
        with pytest.raises(ValueError, match=r"evaluation='private' is for two classes.*choose 'clear' or 'none'"):
            prepare(_config(table, task, evaluation="private"))


def test_models_get_an_output_for_each_class_or_label(table):
    for task, outputs in {"multiclass": 3, "multilabel": 2, "regression": 1}.items():
        linear, network = (prepare(_config(table, task, model=model)) for model in ("logistic", "mlp"))
        assert linear.sizes.parameters == outputs * 3 and linear.target.outputs == outputs
        assert network.plan.train.dimension == 3 * 32 + 33 * 16 + 17 * outputs
    assert math.isclose(prepare(_config(table, "multilabel")).recipe.clip_norm, 0.3 * math.sqrt(6))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--label", "kind"], "--classes x,y,z"),
        (["--label", "stay"], "--label-bounds 0 100"),
        (["--label", "stay", "--label-bounds", "9", "2"], "lower < upper"),
        (["--label", "died,back", "--classes", "a,b"], "contradict each other"),
        (["--label", "kind", "--classes", "x,y"], "'z', which is not a declared class"),
    ],
)
def test_the_command_line_says_how_a_label_is_declared(table, capsys, given, message):
    with pytest.raises(SystemExit):
        main(["run", "--csv", str(table), "--site", "site", *given])
    assert message in capsys.readouterr().err


def test_a_label_belongs_to_a_table(capsys):
    for given in (["--label-bounds", "0", "1"], ["--classes", "a,b"]):
        with pytest.raises(SystemExit):
            main(["run", "heart", *given])
        assert "only applies to your own table" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("area", "error", "words"),
    [(0.75, None, "AUC 0.750"), (None, 0.05, "noise of private scores hides it"), (None, None, "have one class")],
)
def test_a_missing_area_under_the_curve_is_said_in_words(area, error, words):
    said = scores_in_words(
        {
            "mean_client_accuracy": 0.8,
            "nonprivate_mean_client_accuracy": None,
            "auc": area,
            "pooled_accuracy_error": error,
        }
    )
    assert words in said and "nan" not in said


def test_subgroups_know_whose_records_they_are(tmp_path):
    """Patients with four identical rows: their decisions are one, and the interval is that of so many patients."""
    rng, path = np.random.default_rng(2), tmp_path / "visits.csv"
    rows = [[i, "NS"[i % 2], round(rng.normal(), 3), int(rng.random() < 0.5)] for i in range(160)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["who", "site", "a", "died"], *(row for row in rows for _ in range(4))])
    config = Config(
        csv=str(path), label="died", site="site", patient="who", bounds={"a": [-4.0, 4.0]}, epsilon=8.0, rounds=1, aggregator="plain",
        min_site_records=1, public_data=True, subgroups="a>=0", yardstick=False,
    )  # fmt: skip
    for part in run(config, tmp_path / "run")["subgroups"]:
        alone = np.diff(wilson_interval(part["accuracy"], part["records"]))[0]
        patients = np.diff(wilson_interval(part["accuracy"], part["records"] / 4))[0]
        width = np.diff(part["interval"])[0]
        assert part["records"] % 4 == 0 and width == pytest.approx(patients, rel=0.05) and width > 1.5 * alone
