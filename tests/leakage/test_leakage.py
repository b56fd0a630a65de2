"""Attacks on a finished run: what they write, what they refuse, what is said of it; the experiment in its smallest size."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedjax_poisson import cli
from fedjax_poisson.leakage import attack_runs, finished_run, measure
from fedjax_poisson.reports import leakage
from fedjax_poisson.runs import build
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run

SIZES = finished_run.Sizes(shadows=6, draws=4000, canaries=8, canary_rounds=1, targets=4, steps=2, site_rounds=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose setting is built once: another building has other functions, and every program would be compiled again."""
    folder = tmp_path_factory.mktemp("leakage") / "run"
    prepared, whole = functools.cache(build.prepare), functools.cache(build.build)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fedjax_poisson.runs.run", "fedjax_poisson.leakage.finished_run"):
            patch.setattr(f"{name}.prepare", lambda config, *rest: prepared(config))
            patch.setattr(f"{name}.complete", lambda own, sites: whole(own.config))
        run(Config(rounds=2, seed=5, aggregator="plain", yardstick=False, standardize="bounds"), folder)
        yield folder


@pytest.fixture(scope="module")
def target(finished: Path) -> finished_run.Attacked:
    return finished_run.load(finished)


@pytest.fixture(scope="module")
def attacked(finished: Path, target: finished_run.Attacked) -> dict[str, object]:
    said: list[tuple[str, int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "load", lambda folder: target)
        result = measure.attack_run(finished, sizes=SIZES, report=lambda *what: said.append(what))
    assert {what for what, _, _ in said} == set(measure.ATTACKS)
    assert all((name, 1, 1) in said for name in measure.ATTACKS)
    return result


@pytest.mark.long
def test_every_attack_gives_numbers_and_says_what_it_needs(finished: Path, attacked) -> None:
    assert json.loads((finished / "leakage.json").read_text()) == json.loads(json.dumps(attacked))
    found = attacked["attacks"]
    assert list(found) == list(measure.ATTACKS) and not any("skipped" in own for own in found.values())
    assert attacked["epsilon"] == pytest.approx(read_run(finished).summary["epsilon"])
    audit = found["audit"]
    assert audit["from_ledger"] and (audit["honest_senders"], audit["senders"]) == (3, 4)
    assert not audit["mechanism"]["violated"] and audit["mechanism"]["epsilon_claimed"] > 0
    assert audit["sampled_round"]["epsilon_claimed"] < audit["mechanism"]["epsilon_claimed"]
    assert found["one_run"]["aggregator"] == "plain" and found["one_run"]["white_box"]["canaries"] == 8
    clear, noisy = found["inversion"]["clear"], found["inversion"]["noisy"]
    assert clear["error"] < 1e-3 and clear["labels_recovered"] == 1.0
    assert (
        noisy["error"] > 0.5
    )  # about 1, as far as no reading at all; the median of four targets varies with the noise
    assert found["membership"]["lira_online"]["models"] == 6 and found["membership"]["own_model"]["models"] == 1
    rows = leakage.rows_in_words(attacked)
    assert len(rows) == 14 and all(row.needs and row.try_next for row in rows)
    notes = " ".join(attacked["notes"])
    assert "Nothing was encrypted" in notes and "seeded" in notes


@pytest.mark.long
def test_the_command_attacks_again_keeps_what_stands_and_writes_the_report(
    finished: Path, target, attacked, capsys, monkeypatch, tmp_path: Path
) -> None:
    del attacked
    monkeypatch.setattr(measure, "QUICK", SIZES)
    monkeypatch.setattr(measure, "load", lambda folder: target)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main(["attack", str(finished), "--attack", "audit", "--quick"])
    assert not stop.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "Does the noise match the ledger?" in said and "does not prove privacy" in said and "hospital" in said
    stored = json.loads((finished / "leakage.json").read_text())["attacks"]
    assert list(stored) == list(measure.ATTACKS) and stored["audit"]["quick"] and not stored["inversion"]["quick"]
    page = (finished / "report.html").read_text()
    for part in (
        "What attacks got out of the run",
        "does not prove privacy",
        "which hospital",
        'class="leakage_numbers"',
    ):
        assert part in page
    assert [path.name for path in (finished / "figures").glob("leakage*")] == ["leakage_numbers.png"]
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "leakage.json").unlink()
    assert not leakage.what_leaks(read_run(copy), copy / "figures").markup
    with pytest.raises(ValueError, match=r"no readable leakage\.json"):
        leakage.write_leakage_figures(copy)


def test_the_ledger_is_what_the_mechanism_is_held_against(target: finished_run.Attacked) -> None:
    """A ledger that announced more noise than runs is contradicted; an edited ledger is not believed."""
    assert target.claim is not None and target.rounds == 2
    # A quarter of the events is twice the noise.
    louder = {**target.claim.parameters, "dark_count": target.claim.parameters["dark_count"] / 4}
    false = target._replace(claim=target.claim._replace(parameters=louder))
    sizes = SIZES._replace(draws=20_000)
    found = attack_runs.audit(false, sizes, lambda *what: None)
    assert found["mechanism"].violated
    other = target._replace(claim=target.claim._replace(mechanism="gaussian"))
    with pytest.raises(finished_run.Unattackable, match="settings give 'poisson_embedding'"):
        attack_runs.audit(other, sizes, lambda *what: None)


def test_what_cannot_be_attacked_is_told_so(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the run has not finished"):
        measure.attack_run(tmp_path)
    write_example_run(tmp_path / "example")
    with pytest.raises(ValueError, match=r"latest.npz is missing"):
        measure.attack_run(tmp_path / "example")
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    settings = copy / "config.toml"
    settings.write_text(settings.read_text().replace('model = "logistic"', 'model = "mlp"'))
    with pytest.raises(ValueError, match="another model"):
        measure.attack_run(copy)
    settings.unlink()
    with pytest.raises(ValueError, match=r"config.toml is missing"):
        measure.attack_run(copy)


def test_records_of_private_data_stay_out_of_the_page(finished: Path) -> None:
    folder = read_run(finished)
    assert leakage.shows_records(folder)
    assert not leakage.shows_records(folder._replace(config='csv = "mine.csv"\n'))
    assert not leakage.shows_records(folder._replace(config='dataset = "covid"\n'))


def test_pictures_are_drawn_in_rows() -> None:
    shown = {name: np.zeros((3, 12, 12, 1)) for name in ("originals", "clear", "noisy_sum")}
    assert len(leakage.pictures_figure(shown).axes) == 9


def test_the_experiment_runs_in_its_smallest_size(target, tmp_path: Path, monkeypatch) -> None:
    path = Path(__file__).parents[2] / "experiments" / "leakage.py"
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location("leakage_experiment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "attacked", lambda config, sites, folder: (target, {"pooled_accuracy": 0.5}))
    monkeypatch.setitem(module.TOY, "epsilons", [])
    monkeypatch.setitem(module.TOY, "steps", SIZES.steps)
    module.main(["inversion", "audit", "--toy", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "results" / "leakage.json").read_text())
    assert [row["view"] for row in result["inversion"]["rows"]] == ["clear", "summed", "noisy", "noisy_sum"]
    assert "not shipped" in result["inversion"]["skipped"]["pneumonia"] and result["audit"]["rows"] == []
    assert (tmp_path / "figures" / "leakage.png").stat().st_size > 10_000
    assert dataclasses.is_dataclass(module.setting_of("heart", 1.0, module.arguments().parse_args([]), "cnn")[0])
