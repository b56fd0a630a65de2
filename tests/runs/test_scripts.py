"""The evidence scripts at toy size: they run, keep their results, and skip with a reason where their data is not there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module


@pytest.mark.long  # half a minute; test_run holds the bits
def test_encryption_changes_no_bit_and_the_price_of_each_layer_is_kept(script, tmp_path: Path) -> None:
    script("layers").main(["--toy", "--out", str(tmp_path), "--machine", "here"])
    result = json.loads((tmp_path / "results" / "layers.json").read_text())
    assert result["machine"] == "here" and result["toy"] and result["commit"] and result["date"]
    rows = {row["layer"]: row for row in result["rows"]}
    assert rows["+ encryption"]["bits_equal_to_clear"] and rows["+ both"]["bits_equal_to_clear"]
    assert rows["+ both"]["bytes_per_sender_and_round"] > rows["+ embedding"]["bytes_per_sender_and_round"]
    assert rows["+ both"]["accuracy"] == rows["+ embedding"]["accuracy"] and rows["+ both"]["epsilon"] == 1.0
    assert (tmp_path / "figures" / "layers.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["pneumonia", "chest_xrays"])
def test_a_script_whose_data_is_not_there_says_so(script, name: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        script(name).main(["--data", str(tmp_path / "nowhere.npz"), "--out", str(tmp_path)])
    assert stop.value.code == 0 and "skipped" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def pictures(count: int, side: int, labels: np.ndarray) -> np.ndarray:
    """Gray pictures with a bright patch inside in class 1, uint8 `[count, side, side]`."""
    made = np.random.default_rng(0).integers(0, 120, (count, side, side))
    made[:, side // 2 : -6, 6:-6] += 100 * labels[:, None, None]
    return made.astype(np.uint8)


def result_of(folder: Path, name: str) -> dict[str, object]:
    assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
    return json.loads((folder / "results" / f"{name}.json").read_text())


@pytest.mark.long  # a minute; heart and the tables take the same way
def test_pneumonia_keeps_what_it_searched_and_measured(script, tmp_path: Path) -> None:
    made = {}
    for split, count in (("train", 60), ("val", 12), ("test", 24)):
        labels = np.arange(count) % 2
        made[f"{split}_images"] = pictures(count, 28, labels)
        made[f"{split}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(tmp_path / "pneumoniamnist.npz", **made)
    options = ["--data", str(tmp_path / "pneumoniamnist.npz"), "--out", str(tmp_path), "--models", "scattering"]
    script("pneumonia").main(["--toy", *options])
    searched = json.loads((tmp_path / "results" / "pneumonia_search.json").read_text())["rows"]
    assert [row["epsilon_target"] for row in searched] == [8.0, None]
    result = result_of(tmp_path, "pneumonia")
    assert [row["epsilon_target"] for row in result["rows"]] == [8.0, None]
    assert result["rows"][0]["epsilon"] <= 8.0 and result["rows"][1]["candidate"] == searched[1]["candidate"]
    assert result["rows"][0]["bytes_up_total_per_client"] > 0  # encrypted, while the search was not


@pytest.mark.long  # over a minute; heart and the tables take the same way
def test_chest_xrays_shows_the_border_beside_the_model(script, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count, classes = 240, ("no_finding", "pneumonia", "covid19")
    labels, source = np.arange(count) % 3, np.array(["nih", "other"])[rng.integers(0, 2, count)]
    images = pictures(count, 32, (labels > 0).astype(int))
    images[labels == 2, :4] = 255  # whoever sees the border alone knows this class
    np.savez(
        tmp_path / "cxr.npz", images=images, labels=labels, source=source, patient=np.arange(count), classes=classes
    )
    options = ["--data", str(tmp_path / "cxr.npz"), "--out", str(tmp_path), "--models", "scattering", "--toy"]
    script("chest_xrays").main(options)
    result = result_of(tmp_path, "chest_xrays")
    inside, across = result["border_only"].values()
    assert across["accuracy"] > 0.95 and inside["accuracy"] < 0.95
    assert [(row["task"][:5], row["epsilon_target"]) for row in result["rows"]] == [
        ("pneum", 3.9),
        ("pneum", None),
        ("COVID", 3.9),
        ("COVID", None),
    ]


@pytest.mark.long  # most of a minute
def test_client_level_protects_whole_centres(script, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lines = ["pid,event,time,fac_center,fac_disease,num_age,num_begin"]
    for number in range(120):
        event, age = number % 3 == 0, rng.integers(30, 80)
        lines.append(f"{number},{int(event)},{5 if event else 30},{number % 6},hypert,{age + 15 * event},1")
    (tmp_path / "dialysis.csv").write_text("\n".join(lines) + "\n")
    script("client_level").main(["--dialysis", str(tmp_path / "dialysis.csv"), "--toy", "--out", str(tmp_path)])
    result = result_of(tmp_path, "client_level")
    assert result["config"]["unit"] == "client" and list(result["tables"]) == ["Dialysis, death within 12 months"]
    assert {row["clients"] for row in result["rows"]} == {6} and {row["dimension"] for row in result["rows"]} == {7}


def test_heart_and_tables_run_on_what_ships(script, tmp_path: Path) -> None:
    script("heart").main(["--toy", "--standardize", "global", "--out", str(tmp_path)])
    (row,) = result_of(tmp_path, "heart")["rows"]
    assert 0.5 < row["epsilon"] <= 1.0 and len(row["accuracy_by_site"]) == 4
    script("tables").main(["--toy", "--out", str(tmp_path)])
    found = result_of(tmp_path, "tables")
    assert list(found["tables"]) == ["heart"] and 0.8 < found["clear"]["heart"] < 0.95
    (row,) = found["rows"]
    assert row["epsilon"] <= row["epsilon_target"] == 3.0 and row["units"] < 200
    script("tables").main(["--draw", "--out", str(tmp_path)])


def test_a_fold_holds_out_patients_and_leaves_every_site_a_training_record(script) -> None:
    from fedjax_poisson.data.phantom.phantom import load_xray

    common = script("common")
    sites = load_xray(patients=60, sites=5, size=32)
    seen = []
    for number in range(4):
        part = common.training_fold(sites, number)
        assert len(part.labels) == sites.train.sum()
        assert set(part.site[part.train]) == set(range(5))
        assert not set(part.group[part.train]) & set(part.group[~part.train])
        seen += sorted(set(part.group[~part.train].tolist()))
    assert len(seen) == len(set(seen)) and len(seen) > 0.8 * len(set(sites.group[sites.train].tolist()))


@pytest.mark.long  # a minute; test_column_release holds what it shows
@pytest.mark.slow
def test_private_columns_costs_the_same_epsilon_as_columns_that_are_read(script, tmp_path: Path) -> None:
    script("private_columns").main(["--toy", "--out", str(tmp_path)])
    read, released, plain = result_of(tmp_path, "private_columns")["rows"]
    assert read["epsilon_target"] == released["epsilon_target"] == 8.0 and plain["epsilon"] is None
    assert (
        7.9 < released["epsilon"] <= 8.0 and 7.9 < read["epsilon"] <= 8.0
    )  # the histograms are paid from the same budget
    assert released["kind"] == "private" and 0 < released["auc"] < 1


def test_the_tight_ledger_is_as_good_as_it_says(script, tmp_path: Path, capsys) -> None:
    """At most 1 % more noise than a Gaussian with exact accounting, 14 % less than by Renyi accounting, in the adaptive filter."""
    script("tight_ledger").main(["--toy", "--out", str(tmp_path), "--machine", "here"])
    result = json.loads((tmp_path / "results" / "tight_ledger.json").read_text())
    assert result["machine"] == "here" and result["toy"] and result["commit"] and result["date"]
    for row in result["noise"]:
        assert all(1 < row["over_gaussian"][name] <= 1.01 for name in row["over_gaussian"] if "renyi" not in name)
        assert all(0.8 < gain <= 0.86 for gain in row["over_renyi"].values())
    assert "milliseconds" in capsys.readouterr().out


@pytest.mark.long  # three programs; test_controllers and test_steering hold what they decide
def test_controllers_keep_what_they_leave(script, tmp_path: Path) -> None:
    script("controllers").main(["--toy", "--out", str(tmp_path)])
    result = result_of(tmp_path, "controllers")
    rows = {row["controller"]: row for row in result["summary"]}
    assert set(rows) == {"schedule", "settle", "risk"} and all(row["runs"] == 2 for row in rows.values())
    assert rows["schedule"]["share_left"] < 1e-3 and rows["schedule"]["gain"] == 0
    assert all(
        0 <= row["share_left"] < 1 and 8 <= row["rounds"] <= 10
        for row in result["rows"]
        if row["controller"] == "settle"
    )
    assert {row["canaries"] for row in result["ideal_auditor"]} == {100, 1000}


def test_insiders_measures_attacks_with_and_without_a_vote(script, tmp_path: Path) -> None:
    experiment = script("insiders")
    few = ["--toy", "--out", str(tmp_path), "--attacks", "count_bound"]
    experiment.main([*few, "--tasks", "thyroid", "--defences", "light", "vote"])
    result = json.loads((tmp_path / "results" / "insiders_thyroid.json").read_text())
    rows = {(row["attack"], row["defence"]): row for row in result["rows"]}
    assert rows["count_bound", "light"]["rounds"] == 0 and "count_bound" in rows["count_bound", "light"]["refused"]
    none = experiment.cells.NONE
    honest, voted = rows[none, "light"], rows[none, "vote"]
    assert voted["epsilon"] > honest["epsilon"] > 0 and voted["bytes_up_per_sender"] > honest["bytes_up_per_sender"]
    assert voted["excluded_wrong"] is not None
    assert "in the clear" in experiment.DEFENCES["krum"].words and not experiment.DEFENCES["krum"].private
    assert (tmp_path / "figures" / "insiders.png").stat().st_size > 1000
    assert 0 <= honest["baseline"]["backdoor_rare_value"] <= 1 and result["left_out"] == []
    written = (tmp_path / "results" / "insiders_thyroid.json").read_bytes()
    experiment.main([*few, "--tasks", "thyroid", "--defences", "light", "vote"])
    assert (tmp_path / "results" / "insiders_thyroid.json").read_bytes() == written, "what is there is not made again"
    experiment.main(["--toy", "--out", str(tmp_path), "--tasks", "eicu"])
    assert not (tmp_path / "results" / "insiders_eicu.json").exists()


def test_inconsistent_shares_are_kept_out_of_real_rounds(
    script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twin: corrupt software that changes nothing is not kept out, which the script calls a fault."""
    experiment = script("insider_shares")
    experiment.main(["--toy", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "results" / "insider_shares.json").read_text())
    rows = {row["kind"]: row for row in result["rows"]}
    assert set(rows) == {experiment.NONE, *experiment.KINDS} and all(row["exact"] for row in rows.values())
    assert all(row["kept_out_right"] == row["corrupt"] and not row["kept_out_wrong"] for row in rows.values())
    assert rows["one residue"]["corrupt"] == 2 and rows["one residue"]["reasons"] == ["shares do not agree"]
    monkeypatch.setattr(experiment, "plus_one", lambda corrections, moduli: corrections)
    with pytest.raises(SystemExit, match="not kept out"):
        experiment.main(["--toy", "--out", str(tmp_path)])


def test_lengths_of_honest_updates_are_kept_round_by_round(script, tmp_path: Path) -> None:
    script("update_lengths").main(["--toy", "--out", str(tmp_path)])
    rounds = json.loads((tmp_path / "results" / "update_lengths.json").read_text())["rounds"]
    lengths = [list(each.values()) for each in rounds]
    assert len(rounds) == 2 and all(each == sorted(each) and each[0] > 0 for each in lengths)


def test_insiders_that_move_a_sum_by_more_than_the_printed_bound_end_the_campaign(
    script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training without a bound, in place of a light round. Twin: what the bound admits is measured and kept."""
    defences, measuring = script("insider_campaign.defences"), script("insider_campaign.measuring")
    task = script("insider_campaign.site_tasks").thyroid(True)
    first, size = task.model.init(jax.random.key(0), task.test[0][:1]), task.bounds.size

    def moved(length: float) -> Any:
        outcome = defences.Outcome(first, 3, None, total=np.full(size, length / np.sqrt(size)))
        light = defences.DEFENCES["light"]._replace(run=lambda *_: outcome)
        monkeypatch.setitem(defences.DEFENCES, "light", light)
        return measuring.measure(task, measuring.Cell("scale_10", "light", 0.2), None, np.zeros(size), None)[0]

    clips = task.bounds.light / task.bounds.clip
    assert moved(0.9 * task.bounds.light)["moved_clips"] == pytest.approx(0.9 * clips)
    with pytest.raises(measuring.BoundBroken, match="weighs"):
        moved(1.1 * task.bounds.light)


@pytest.mark.long  # minutes: it compiles a program for each attack
def test_insiders_reads_updates_in_the_clear_for_robust_rules_and_finds_the_liars(script, tmp_path: Path) -> None:
    experiment = script("insiders")
    attacks = ["--attacks", "scale_50", "free_rider_zero"]
    experiment.main(["--toy", "--out", str(tmp_path), "--tasks", "w3", "--defences", "mean", "multi_krum", *attacks])
    result = json.loads((tmp_path / "results" / "insiders_w3.json").read_text())
    rows = {(row["attack"], row["defence"]): row for row in result["rows"]}
    assert rows["scale_50", "multi_krum"]["accuracy"] > rows["scale_50", "mean"]["accuracy"] - 0.02
    assert rows["scale_50", "multi_krum"]["detection_auc"] > 0.9 and not rows["scale_50", "multi_krum"]["private"]


@pytest.mark.long  # two processes that compile a round each
def test_the_script_for_accelerators_compares_bits_and_times_a_round(script, tmp_path: Path, capsys) -> None:
    script("benchmarks.accelerator").main(["--toy", "--out", str(tmp_path)])
    (file,) = (tmp_path / "results").glob("accelerator_*.json")
    steps = json.loads(file.read_text())["steps"]
    assert steps["exactness"]["rows"][0]["same"] and steps["exactness"]["rows"][0]["device"]["opened"]
    assert steps["W1 release"]["rows"][0]["median_ms"] > 0
    assert "2 of 2 steps" in capsys.readouterr().out


def _row(run: int, kind: str, accuracy: float, setting: str = "peers") -> dict[str, Any]:
    private = kind != "no privacy"
    facts = {"epsilon": 60.0 if private else None, "noise_multiplier": 1.0 if private else None}
    return {"workload": "W1", "setting": setting, "run": run, "kind": kind, "accuracy": accuracy, **facts}


def test_the_fidelities_are_compared_run_by_run_and_shown_with_their_interval(script, tmp_path: Path) -> None:
    found = script("workloads_private")
    rows = [_row(run, "release", 0.9 + 0.02 * run) for run in range(3)]
    rows += [_row(run, "messages", 0.9 + 0.02 * run - 0.001 * (run - 1)) for run in range(3)]
    rows += [_row(0, "no privacy", 0.95, "epsilon 8"), _row(0, "release", 0.94, "epsilon 8")]
    peers, everybody = found.summary(rows)
    assert peers["release minus messages"] == pytest.approx(0.0, abs=1e-12)
    # differences -.001, 0, .001: deviation .001, t of 2 degrees 4.303, over sqrt 3
    assert peers["release minus messages, half interval"] == pytest.approx(4.3027 * 0.001 / 3**0.5, rel=1e-4)
    assert peers["release, half interval"] > 10 * peers["release minus messages, half interval"]
    assert peers["epsilon"] == 60.0 and "no privacy" not in peers
    assert everybody["no privacy"] == 0.95 and "release minus messages" not in everybody
    found.draw(tmp_path / "figure.png", [peers, everybody])
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.long  # a minute; the algorithm, the bench and the summary have tests of their own
def test_workloads_at_a_budget_keep_what_they_reach_and_go_on(script, tmp_path: Path, capsys) -> None:
    asked = ["--toy", "--workloads", "W1", "--runs", "2", "--out", str(tmp_path)]
    script("workloads_private").main(asked)
    result = json.loads((tmp_path / "results" / "workloads_private.json").read_text())
    assert len(result["rows"]) == 12
    spent = {(row["setting"], row["kind"]): row["epsilon"] for row in result["rows"]}
    assert 7.9 < spent["epsilon 8", "release"] <= 8 and spent["epsilon 8", "no privacy"] is None
    assert spent["peers", "release"] == spent["peers", "messages"] > 4
    capsys.readouterr()
    script("workloads_private").main(asked)  # nothing is left to do
    assert "accuracy" not in capsys.readouterr().out
