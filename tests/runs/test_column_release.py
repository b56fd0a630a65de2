"""The private columns of a run: what they cost, in which order they are released, and that a resume releases nothing twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from fedjax_poisson import accounting, aggregation
from fedjax_poisson.data.tables.bins import text_buckets
from fedjax_poisson.data.tables.open_table import OpenTable, encode_sites, read_open
from fedjax_poisson.data.tables.schema import Released, released_from_json, released_to_json
from fedjax_poisson.mechanisms.dark_counts import Terms
from fedjax_poisson.randomness import fold_in
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.runs.build import prepare
from fedjax_poisson.runs.column_release import ColumnPlan, column_coordinates, plan_columns, release_columns
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.run_ledger import CannotResume
from tests.federated import helpers

ORDERS = accounting.integer_orders(64)
TERMS = Terms(
    epsilon=8.0,
    delta=1e-4,
    participation=accounting.Participation(senders=3, minimum_senders=3, honest_senders=2),
    largest_site=1024,
    sites_per_unit=1,
    modulation=None,
    orders=ORDERS,
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenTable:
    """1,800 records of three sites: two numbers and a text column, nothing declared."""
    rng = np.random.default_rng(0)
    rows = ["hospital,age,year,ward,sick"]
    for i in range(1800):
        ward = "rare" if i == 7 else rng.choice(["surgery", "medicine"])
        rows.append(f"{'ABC'[i % 3]},{rng.normal(60, 12):.1f},{rng.integers(1990, 2021)},{ward},{i % 2}")
    path = tmp_path_factory.mktemp("table") / "own.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return read_open(path, label="sick", site="hospital")


@pytest.fixture(scope="module")
def plan() -> ColumnPlan:
    return plan_columns(TERMS, numbers=2, texts=1)


class Diary:
    """What is charged and kept, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.files: list[str] = []

    def release(self, opened: OpenTable, plan: ColumnPlan, saved: Released | None = None, backend: str = "plain"):
        root = helpers.seeded(3)

        def charge(purpose, number, planned):
            assert planned.charge.shape == ORDERS.shape and planned.distance > 0
            assert planned.mechanism.facts.name == "poisson_embedding"
            return lambda: self.events.append(f"charge {purpose}"), fold_in(root, purpose, number)

        def aggregator(mechanism, size, purpose):
            bound = mechanism.count_bound(3, size)
            own = fold_in(root, "keys", purpose)
            return aggregation.aggregator(
                backend, count_bound=bound, senders=3, minimum_senders=3, size=size, stream=own
            )

        def keep(released, purpose, info):
            self.events.append(f"keep {purpose}")
            self.files.append(json.dumps(released_to_json(released)))
            assert info.senders == 3

        return release_columns(opened, plan, charge=charge, aggregator=aggregator, saved=saved, keep=keep)


def test_a_table_with_nothing_declared_is_encoded_without_a_warning(opened: OpenTable, plan: ColumnPlan) -> None:
    diary = Diary()
    released = diary.release(opened, plan)
    assert diary.events == ["charge columns", "keep columns", "charge ranges", "keep ranges"]
    sites = encode_sites(opened, released)
    assert sites.warnings == () and len(sites.labels) == 1800
    low, high = released.ranges["year"]
    first = released_from_json(json.loads(diary.files[0])).ranges["year"]
    assert first == (0.0, 2048.0) and 1750 <= low <= 1990 and 2020 <= high <= 2048 and released.refined
    assert released.ranges["age"] == (0.0, 128.0)  # no offset: its tails are kept
    found = text_buckets("ward", ["surgery", "medicine", "rare"]).tolist()
    assert released.levels["ward"] == tuple(sorted(found[:2]))  # one record is not enough to be seen
    assert sites.feature_names == (
        "age",
        "year",
        *(f"ward#{bucket}" for bucket in sorted(found[:2])),
        "ward#other",
    )


def test_a_resume_releases_nothing_twice(opened: OpenTable, plan: ColumnPlan) -> None:
    whole = Diary()
    wanted = whole.release(opened, plan)
    first, last = (released_from_json(json.loads(text)) for text in whole.files)
    assert last == wanted and not first.refined
    after_first, after_all = Diary(), Diary()
    assert after_first.release(opened, plan, saved=first) == wanted
    assert after_first.events == ["charge ranges", "keep ranges"]
    assert after_all.release(opened, plan, saved=last) == wanted and after_all.events == []


def test_encryption_changes_no_released_fact(opened: OpenTable, plan: ColumnPlan) -> None:
    assert Diary().release(opened, plan, backend="round") == Diary().release(opened, plan)


def test_a_refused_charge_opens_nothing(opened: OpenTable, plan: ColumnPlan) -> None:
    class Spent(RuntimeError):
        pass

    def charge(purpose, number, planned):
        def gate() -> None:
            raise Spent(purpose)

        return gate, helpers.seeded(1)

    kept: list[str] = []
    with pytest.raises(Spent, match="columns"):
        release_columns(
            opened,
            plan,
            charge=charge,
            aggregator=lambda m, size, purpose: helpers.plain_aggregator(m, 3, size),
            keep=lambda released, purpose, info: kept.append(purpose),
        )
    assert kept == []


@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
def test_a_share_of_the_budget_is_that_share_of_its_curve(adjacency: str) -> None:
    terms = TERMS._replace(epsilon=2.0, participation=dataclasses.replace(TERMS.participation, adjacency=adjacency))
    small = plan_columns(terms, numbers=4, texts=2)
    assert small.first is not None and small.second is not None
    first, second = (each.planned.rdp(terms) for each in small.releases)
    assert accounting.epsilon(ORDERS, first / 0.06, 1e-4) == pytest.approx(2.0, rel=1e-6)
    assert accounting.epsilon(ORDERS, second / 0.03, 1e-4) == pytest.approx(2.0, rel=1e-6)
    np.testing.assert_allclose(np.sum(small.charges, axis=0), first + second)
    bounds = small.first.planned.mechanism.bounds
    assert bounds.clip_norm == pytest.approx(6**0.5) and bounds.coordinate_bound == 1.0
    assert small.second.planned.mechanism.bounds.clip_norm == 2.0


def test_the_cost_does_not_depend_on_the_number_of_bins_nor_the_noise_on_the_clamp() -> None:
    terms = [TERMS._replace(epsilon=1.0, largest_site=size) for size in (256, 4096)]
    plans = [plan_columns(own, numbers=3, texts=0) for own in terms]
    noise = [each.first.planned.mechanism.variance(3) for each in plans]
    assert noise[0] == pytest.approx(noise[1], rel=2e-3)
    mechanism = plans[0].first.planned.mechanism
    np.testing.assert_array_equal(mechanism.rdp(ORDERS, 2, 10), mechanism.rdp(ORDERS, 2, 10**6))


def test_what_is_not_open_costs_nothing_and_wrong_plans_are_refused(opened: OpenTable) -> None:
    none = plan_columns(TERMS, numbers=0, texts=0)
    assert none.releases == () and column_coordinates(0, 0) == 0 and none.charges == []
    assert plan_columns(TERMS, numbers=0, texts=2).second is None
    assert plan_columns(TERMS, numbers=2, texts=2, refine_share=0.0).second is None
    with pytest.raises(ValueError, match="together below 1"):
        plan_columns(TERMS, numbers=1, texts=1, ranges_share=0.6, refine_share=0.5)
    with pytest.raises(ValueError, match="plan with its open columns"):
        Diary().release(opened, plan_columns(TERMS, numbers=1, texts=1))


def test_a_person_at_two_sites_is_charged_twice_the_step() -> None:
    one, two = (plan_columns(TERMS._replace(sites_per_unit=k), numbers=3, texts=0) for k in (1, 2))
    assert one.first is not None and two.first is not None
    ratio = two.first.planned.mechanism.variance(3) / one.first.planned.mechanism.variance(3)
    assert ratio == pytest.approx(4, rel=0.02)


def test_a_patient_is_the_unit_where_one_is_named(tmp_path: Path) -> None:
    rows = ["hospital,pid,age,sick", *(f"{'AB'[i // 2 % 2]},p{i // 2},{40 + i},{i % 2}" for i in range(40))]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    own = read_open(path, label="sick", site="hospital", patient="pid")
    assert own.placement.unit == "patient" and own.placement.group.max() == 19


WHOLLY_PRIVATE = {
    "label": "sick",
    "site": "hospital",
    "bounds": "private",
    "categorical": "private",
    "min_site_records": 1,
    "largest_site": 1024,
    "evaluation": "private",
    "epsilon": 8.0,
    "rounds": 2,
}


def test_one_command_on_an_undeclared_table_is_wholly_private(opened: OpenTable, tmp_path: Path) -> None:
    config = Config(csv=opened.table.path, **WHOLLY_PRIVATE)
    summary = run(config, tmp_path / "run")
    assert summary["verdict"] == "private" and summary["conditions"] == [] and summary["epsilon"] <= 8.0
    purposes = ["columns", "ranges", "standardise", "train", "evaluate"]
    assert [entry["purpose"] for entry in summary["releases"]] == purposes and summary["lost_releases"] == 0
    assert released_from_json(summary["released_columns"]).ranges["year"][0] > 1800
    book = accounting.read_ledger(tmp_path / "run" / "ledger.sqlite")
    assert book.verify() == 6 and book.epsilon() <= 8.0
    book.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [line["purpose"] for line in lines] == ["columns", "ranges", "standardise", "train", "train", "evaluate"]
    assert lines[-1]["bytes_up_total"] == sum(line["bytes_up_per_client"] for line in lines)
    assert write_report(tmp_path / "run").exists()
    again = run(config, tmp_path / "run", resume=True)  # nothing is released twice
    assert again["ledger_rows"] == 6 and again["released_columns"] == summary["released_columns"]


def test_a_run_that_is_killed_between_columns_and_moments_goes_on_with_what_it_released(
    opened: OpenTable, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    def die(line: dict[str, object]) -> None:
        if line["purpose"] == "ranges":
            raise Killed

    config = Config(csv=opened.table.path, **{**WHOLLY_PRIVATE, "evaluation": "none"}, aggregator="plain")
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        run(config, folder, report=die)
    kept = (folder / "checkpoints" / "columns.json").read_text()
    ledger = (folder / "ledger.sqlite").read_bytes()
    (folder / "ledger.sqlite").unlink()
    with pytest.raises(CannotResume, match="is missing"):
        run(config, folder, resume=True)
    (folder / "ledger.sqlite").write_bytes(ledger)
    summary = run(config, folder, resume=True)
    assert summary["lost_releases"] == 0 and summary["rounds"] == 2
    assert (folder / "checkpoints" / "columns.json").read_text() == kept
    (folder / "checkpoints" / "columns.json").write_text("{")
    with pytest.raises(CannotResume, match="released ranges and levels are lost"):
        run(config, folder, resume=True)


def test_the_plan_covers_whatever_levels_are_released(opened: OpenTable) -> None:
    """Curves are charged for the largest number of features that the release can lead to, so the schedule is fixed before it."""
    prepared = prepare(Config(csv=opened.table.path, **WHOLLY_PRIVATE))
    plan = prepared.plan
    assert plan.columns.first is not None and plan.epsilon <= 8.0
    for features in (2, 5, 40):
        moments = 1 + 2 * features
        spent = plan.terms.variance.total
        for release, size in ((plan.standardize, moments), (plan.train, features + 1)):
            smaller = release.priced.cost(plan.terms, size)
            assert accounting.spend_variance(plan.terms.variance, spent, smaller) >= accounting.spend_variance(
                plan.terms.variance, spent, release.charge
            )
