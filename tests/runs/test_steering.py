"""Runs that a controller steers: what they spend, state and leave, alone and on a shared ledger; a kill changes no decision."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from fedjax_poisson import accounting
from fedjax_poisson.federated.control import Controller, Plan, Released, decision
from fedjax_poisson.federated.controllers import Registered, registry
from fedjax_poisson.federated.controllers.registry import CONTROLLERS
from fedjax_poisson.leakage.attack_runs import _training
from fedjax_poisson.leakage.finished_run import load
from fedjax_poisson.runs.build import prepare
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.terminal import print_summary

SETTINGS: dict[str, Any] = {"rounds": 6, "aggregator": "plain", "yardstick": False, "epsilon": 2.0}
WHOLE = 8


def _wandering(plan: Plan) -> Controller:
    """Portions that hang on the released gradient, remembered over rounds, and a stop after four."""

    def step(memory: Any, released: Released) -> Any:
        memory = memory + jnp.linalg.norm(released.gradient)
        used = 1 + (1000 * memory).astype(jnp.int32) % WHOLE
        return memory, decision(used, released.number >= 4)

    return Controller("wandering", lambda start: (jnp.float32(0), decision(start.whole)), step, stopped="wandered off")


@pytest.fixture(autouse=True)
def wandering(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry of the registry is all that a controller of one's own takes."""
    own = Registered("for tests", _wandering, lambda rounds, average_from: (WHOLE,) * rounds, growing=True)
    monkeypatch.setattr(registry, "CONTROLLERS", {**CONTROLLERS, "wandering": own})


class Killed(Exception):
    pass


def _kill_after(number: int) -> Any:
    def report(line: dict[str, Any]) -> None:
        if line["round"] == number:
            raise Killed

    return report


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


def test_a_run_ends_as_its_controller_says_and_a_kill_changes_no_decision(tmp_path: Path) -> None:
    config = Config(**SETTINGS, controller="wandering", seed=5)
    summary = run(config, tmp_path / "once")
    assert summary["rounds"] == 4 and summary["rounds_planned"] == 6 and not summary["budget_exhausted"]
    assert summary["ended"]["how"] == "wandered off" and 0 < summary["ended"]["share_left"] < 1
    # What is stated is the plan's epsilon: the moment of stopping was chosen from releases. What was spent is said beside it.
    assert 1.99 < summary["epsilon"] <= 2.0 and summary["epsilon_spent"] < 1.9 and summary["adapts"]
    lines = [line for line in _lines(tmp_path / "once") if line["purpose"] == "train"]
    used = [line["portions"] for line in lines]
    assert used[0] == WHOLE and len(set(used)) > 1 and lines[-1]["test"] is not None
    with contextlib.closing(accounting.read_ledger(tmp_path / "once" / "ledger.sqlite")) as ledger:
        events = [row.charge.events for row in ledger.rows() if row.purpose == "train"]  # type: ignore[union-attr]
        assert ledger.remaining().share == summary["ended"]["share_left"]
    assert [round(WHOLE * each / max(events)) for each in events] == used  # each charged as it was decided

    with pytest.raises(Killed):
        run(config, tmp_path / "twice", report=_kill_after(2))
    again = run(config, tmp_path / "twice", resume=True)
    assert [line["portions"] for line in _lines(tmp_path / "twice") if line["purpose"] == "train"] == used
    assert again["ended"] == summary["ended"] and again["auc"] == summary["auc"]

    told = Console(record=True, width=300)
    print_summary(told, summary, tmp_path / "report.html")
    text = told.export_text()
    assert "wandered off after 4 of 6 rounds" in text and "left on the ledger for the next question" in text
    assert f"Guaranteed is epsilon {summary['epsilon']:.4f}" in text
    # An attack repeats what was done, not what was planned.
    attacked = load(tmp_path / "once")
    assert attacked.portions == tuple(used) and attacked.rounds == 4
    assert _training(attacked, rounds=4, records=100.0).average_from == "growing"


def test_the_rest_stays_on_the_shared_ledger_for_the_next_question(tmp_path: Path) -> None:
    config = Config(**SETTINGS | {"controller": "wandering"}, ledger=str(tmp_path / "heart.sqlite"), ledger_epsilon=2.2)
    first = run(config, tmp_path / "first")
    with contextlib.closing(accounting.read_ledger(tmp_path / "heart.sqlite")) as ledger:
        assert ledger.remaining().share == first["ended"]["share_left"]
        plan = prepare(config).plan
        second = prepare(Config(**SETTINGS | {"controller": "constant", "epsilon": 1.0}, ledger=config.ledger)).plan
        # The next question fits, which it would not beside the whole plan of the first.
        assert ledger.fits(second.charges)
        assert isinstance(ledger.law, accounting.TightLaw)
        budget = ledger.law.budget
        assert accounting.spend_all(budget, budget.total, plan.charges) is not None
        assert accounting.spend_all(budget, budget.total, [*plan.charges, *second.charges]) is None


def test_a_shared_ledger_whose_reserve_is_too_small_is_refused_before_the_first_release(tmp_path: Path) -> None:
    """Without that the run would end midway, when the samplers' distances reach the reserve. Twin: `test_the_rest_stays_on_the_shared_ledger`."""
    config = Config(**SETTINGS | {"controller": "constant"}, ledger=str(tmp_path / "heart.sqlite"))
    facts = {"unit": "record", "adjacency": "zero_out", "law": "tight"}
    accounting.open_ledger(config.ledger, epsilon=9.0, delta=config.delta, reserve=1e-30, **facts).close()
    with pytest.raises(ValueError, match="it would end midway"):
        run(config, tmp_path / "run")
    with contextlib.closing(accounting.read_ledger(tmp_path / "heart.sqlite")) as ledger:
        assert not ledger.rows()


def test_more_than_was_planned_is_refused_before_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = Controller("greedy", lambda start: ((), decision(2)), lambda memory, released: (memory, decision(8)))
    own = Registered("for tests", lambda plan: greedy, lambda rounds, average_from: (2,) * rounds)
    monkeypatch.setattr(registry, "CONTROLLERS", {**CONTROLLERS, "greedy": own})
    with pytest.raises(ValueError, match="8 portions of the noise in round 2, where at most 2 were planned"):
        run(Config(**SETTINGS, controller="greedy"), tmp_path / "run")
    with contextlib.closing(accounting.read_ledger(tmp_path / "run" / "ledger.sqlite")) as ledger:
        assert [row.label for row in ledger.rows()] == ["standardise 0", "train 1"]


def test_what_a_controller_cannot_judge_is_refused() -> None:
    from fedjax_poisson.runs.training_recipe import PublicSizes, recipe_of

    sizes = PublicSizes(features=13, senders=4, honest_senders=3, largest_site=256, units=486)
    with pytest.raises(ValueError, match="known only with sampling_rate=1"):
        recipe_of(Config(controller="settle", sampling_rate=0.5), sizes)
    with pytest.raises(ValueError, match="average_share=0"):
        recipe_of(Config(controller="risk", average_share=0.0), sizes)
    with pytest.raises(ValueError, match="no controller is called 'tail'"):
        Config(controller="tail")
    assert recipe_of(Config(controller="settle"), sizes).average_from == "growing"
    assert recipe_of(Config(), sizes).average_from == 30 and np.sum(recipe_of(Config(), sizes).portions) == 365
