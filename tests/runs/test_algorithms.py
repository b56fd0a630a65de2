"""Algorithms and mechanisms of a run by name: a whole client protected by fedavg, what does not fit refused, what is foreign named as assumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson import accounting, cli
from fedjax_poisson.federated.client_recipe import client_recipe
from fedjax_poisson.mechanisms import MECHANISMS
from fedjax_poisson.reports.guarantees import protection
from fedjax_poisson.runs import client_level, record_level
from fedjax_poisson.runs.build import build, prepare
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import Stopped, run
from fedjax_poisson.runs.run_folder import read_run
from fedjax_poisson.runs.training_recipe import PublicSizes
from fedjax_poisson.runs.verdict import judge

CLIENTS = 50
HERE = "tests.runs.test_algorithms"


@pytest.fixture(scope="module")
def practices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    rows = ["died,practice,age"]
    for i in range(CLIENTS * 6):
        age = int(rng.integers(20, 90))
        rows.append(f"{int(rng.random() < age / 100)},p{i % CLIENTS:02d},{age}")
    path = tmp_path_factory.mktemp("practices") / "practices.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _config(practices: Path, **settings: Any) -> Config:
    usual: dict[str, Any] = {
        "csv": str(practices),
        "label": "died",
        "site": "practice",
        "bounds": {"age": [0.0, 110.0]},
        "min_site_records": 1,
        "algorithm": "fedavg",
        "mechanism": "gaussian",  # compiles in no time
        "aggregator": "plain",
        "standardize": "bounds",
        "epsilon": 8.0,
        "delta": 1e-3,
        "rounds": 2,
        "local_epochs": 1,
        "seed": 1,
    }
    return Config(**usual | settings)


def _leaves(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "checkpoints" / "latest.npz") as file:
        return [file[name] for name in file.files if name != "facts"]


@pytest.fixture(scope="module")
def finished(practices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client") / "run"
    run(_config(practices, yardstick=True), folder)
    return folder


def test_a_run_of_fedavg_protects_a_client_from_plan_to_report(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert (summary["algorithm"], summary["unit"], summary["senders"]) == ("fedavg", "client", CLIENTS)
    assert summary["honest_senders"] == CLIENTS - 1 and 7.9 < summary["epsilon"] <= 8.0
    assert summary["mechanism"]["train"]["name"] == "gaussian" and summary["mechanism"]["train"]["status"] == "baseline"
    assert summary["verdict"] == "not private" and summary["nonprivate_auc"] > 0.5 and summary["auc"] > 0.5
    facts = " ".join(each["fact"] for each in summary["conditions"])
    assert "number of training" not in facts and "bound on a site" not in facts  # neither enters what a client sends
    assert summary["encrypt_seconds"] is None and summary["open_seconds"] is None  # all in one program
    book = accounting.read_ledger(finished / "ledger.sqlite")
    assert book.unit == "client" and [row.label for row in book.rows()] == ["train 1", "train 2"]
    book.close()
    page = fp.reports.write_report(finished).read_text()
    assert "One site: everything it contributes." in page and "floating-point numbers" in page


def test_a_stopped_run_of_fedavg_goes_on_to_the_same_bits(practices: Path, finished: Path, tmp_path: Path) -> None:
    asked: list[int] = []
    with pytest.raises(Stopped):
        run(_config(practices, yardstick=True), tmp_path / "run", stop=lambda: asked.append(1) or len(asked) > 1)  # type: ignore[func-returns-value]
    run(_config(practices, yardstick=True), tmp_path / "run", resume=True)
    for a, b in zip(_leaves(finished), _leaves(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_attacks_on_records_are_refused_for_clients_with_the_reason(finished: Path) -> None:
    from fedjax_poisson.leakage.finished_run import Sizes

    sizes = Sizes(shadows=6, draws=4000, canaries=8, canary_rounds=1, targets=4, steps=2, site_rounds=4)
    found = fp.attack_run(finished, "membership", sizes=sizes)["attacks"]["membership"]
    assert "membership is for fedsgd" in found["skipped"]
    audit = fp.attack_run(finished, "audit", sizes=sizes)["attacks"]["audit"]
    assert audit["from_ledger"] and not audit["mechanism"]["violated"] and audit["said"]


def test_a_run_of_norm_rounds_counts_noise_senders_and_never_sites(practices: Path, tmp_path: Path) -> None:
    config = _config(practices, mechanism="committee_noise", aggregator="round", seed=None, epsilon=3.0, rounds=1)
    summary = run(config, tmp_path / "run")
    assert summary["noise_senders"] == {"senders": 5, "honest": 2} and 2.9 < summary["epsilon"] <= 3.0
    assert "5 parties send it (2 of them are counted on)" in summary["aggregator_info"]["protects"]
    book = accounting.read_ledger(tmp_path / "run" / "ledger.sqlite")
    assert [row.honest_senders for row in book.rows()] == [2]
    book.close()
    page = fp.reports.write_report(tmp_path / "run").read_text()
    assert "needs 2 of the 5 noise senders to draw their noise" in page and "49 of 50" not in page
    assert "vector is left out and named" in page and "carry no noise of their own" in page


@pytest.mark.long
@pytest.mark.parametrize("mechanism", ["poisson_embedding", "skellam", "single_channel"])
def test_every_integer_mechanism_serves_clients_under_encryption(
    practices: Path, tmp_path: Path, mechanism: str
) -> None:
    summary = run(_config(practices, mechanism=mechanism, aggregator="round", seed=None), tmp_path / "run")
    assert 7.9 < summary["epsilon"] <= 8.0 and summary["verdict"] == "conditional"
    assert "NOT signed" in summary["aggregator_info"]["protects"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_site_records": 20}, "min-site-records 1"),
        ({"standardize": "global"}, "standardize bounds"),
        ({"evaluation": "private"}, "choose 'clear' or 'none'"),
        ({"bounds": {"age": "private"}}, "declare them"),
        ({"total_bound": 3.0}, "total-bound: bounds a sum"),
        ({"controller": "settle"}, "takes no controller; leave it out"),
        ({"coordinate_bound": 30.0}, "would bound nothing"),
        ({"aggregator": "round"}, "only integers have an exact encrypted sum"),
        ({"mechanism": "laplace"}, "there is no mechanism 'laplace'"),
        ({"algorithm": "fedprox"}, "there is no algorithm 'fedprox'; give one of fedsgd, fedavg"),
        ({"algorithm": "fedsgd"}, "local-epochs: fedsgd takes one gradient"),
        ({"algorithm": f"{HERE}:SILENT", "yardstick": True}, "leave --yardstick out"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_released(
    practices: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        prepare(_config(practices, **change))


def test_few_clients_are_refused_with_ways_out() -> None:
    with pytest.raises(ValueError, match=r"there are 4 clients.*--algorithm fedsgd.*--site COLUMN"):
        prepare(Config(algorithm="fedavg"))
    with pytest.raises(ValueError, match="a site sums those of many records"):
        prepare(Config(mechanism="single_channel"))


def test_a_shared_ledger_of_another_law_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shared.sqlite"
    accounting.open_ledger(path, epsilon=3.0, delta=1e-4, unit="record", adjacency="zero_out", law="tight").close()
    with pytest.raises(ValueError, match=r"states no cost by the law 'tight' \(it has: renyi\)"):
        prepare(Config(mechanism="skellam", ledger=str(path)))


def test_skellam_is_planned_for_records_by_its_own_curve() -> None:
    plan, embedded = build(Config(mechanism="skellam")).plan, build(Config(controller="constant")).plan
    assert plan.law == "renyi" and plan.train.mechanism.facts.name == "summed_skellam" and plan.portions is None
    assert plan.standardize is not None and plan.standardize.mechanism.facts.name == "poisson_embedding"
    assert plan.epsilon <= 1.0 and plan.epsilon > 0.99
    assert 0.9 < plan.train.mechanism.variance(4) / embedded.train.mechanism.variance(4) < 1.4


def _silent(parts: Any) -> Any:
    """An algorithm that releases without asking."""
    made = record_level.make(parts)
    apply = made.algorithm.apply

    def unasked(state: Any, cohort: Any, stream: Any, gate: Any) -> Any:
        del gate
        return apply(state, cohort, stream, lambda: None)

    return made._replace(algorithm=made.algorithm._replace(apply=unasked))


SILENT = fp.AlgorithmEntry(_silent, unit="record")


def test_an_algorithm_that_does_not_ask_ends_the_run(tmp_path: Path) -> None:
    config = Config(
        algorithm=f"{HERE}:SILENT", mechanism="gaussian", aggregator="plain", standardize="bounds", rounds=1, seed=1
    )
    with pytest.raises(ValueError, match="without asking the gate"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


OWN = MECHANISMS["gaussian"]._replace(laws=("renyi",))  # not the entry of the registry, so it is foreign


def test_what_is_foreign_is_assumed_on_every_surface(
    practices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    summary = run(_config(practices, mechanism=f"{HERE}:OWN", seed=None), folder)
    assert summary["assumed"] == [f"mechanism {HERE}:OWN"] and summary["mechanism"]["train"]["status"] == "assumed"
    book = accounting.read_ledger(folder / "ledger.sqlite")
    rows = book.rows()
    book.close()
    assert all(row.origin["assumed"] == summary["assumed"] for row in rows)
    encrypted = [row._replace(origin=row.origin | {"aggregator": "round"}) for row in rows]
    assert judge(encrypted, ()).word == "conditional" and judge(encrypted, ()).assumed == tuple(summary["assumed"])
    without = [row._replace(origin={k: v for k, v in row.origin.items() if k != "assumed"}) for row in encrypted]
    assert judge(without, ()).word == "private"  # the twin: the same rows, not foreign
    page = fp.reports.write_report(folder).read_text()
    assert "The privacy claim is assumed" in page and "(claim assumed)" in page
    assert protection(read_run(folder)).startswith("not private")
    with pytest.raises(SystemExit):
        cli.main(["ledger", str(folder)])
    assert f"ASSUMED: mechanism {HERE}:OWN" in capsys.readouterr().out


def test_the_recipe_of_clients_reads_no_data() -> None:
    """Public sizes decide it: by the rule for clients for logistic regression, by fixed settings for other models."""
    config = Config(algorithm="fedavg", rounds=7, momentum=0.5)
    sizes = PublicSizes(features=13, senders=60, honest_senders=59, largest_site=1, units=None)
    recipe = client_level.recipe(config, sizes)
    rule = client_recipe(clients=60, features=13, epsilon=config.epsilon, delta=config.delta, rounds=7)
    assert (recipe.rounds, recipe.momentum, recipe.clip_norm, recipe.total_bound) == (
        *(7, 0.5),
        *(rule.clip_norm, rule.clip_norm),
    )
    assert (recipe.local_rate, recipe.local_epochs) == (rule.learning_rate, rule.epochs)
    assert jax.tree.leaves(recipe.average_from) == [3]
    other = client_level.recipe(Config(algorithm="fedavg", model="mlp", rounds=7), sizes)
    assert (other.clip_norm, other.local_rate, other.local_epochs) == (0.5, 0.3, 5)
