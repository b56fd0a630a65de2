"""The private columns of a run: what they cost, in which order they are released, and that a resume releases nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedjax_poisson import accounting, ckks
from fedjax_poisson.data.bins import text_buckets
from fedjax_poisson.data.open_table import OpenTable, encode_sites, read_open
from fedjax_poisson.data.schema import Released, released_from_json, released_to_json
from fedjax_poisson.experiment.columns import ColumnPlan, plan_columns, release_columns
from fedjax_poisson.randomness import fold_in
from tests.federated import helpers

ORDERS = accounting.integer_orders(64)
FACTS = {
    "senders": 3,
    "honest_senders": 2,
    "largest_site": 1024,
    "delta": 1e-4,
    "orders": ORDERS,
    "modulation": 0.05,
}


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
    return plan_columns(numbers=2, texts=1, epsilon=8.0, **FACTS)


class Diary:
    """What is charged and kept, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.files: list[str] = []

    def release(self, opened: OpenTable, plan: ColumnPlan, saved: Released | None = None, backend: str = "plain"):
        root = helpers.seeded(3)

        def charge(purpose, number, mechanism, rdp):
            assert rdp.shape == ORDERS.shape and mechanism.facts.name == "poisson_embedding"
            return lambda: self.events.append(f"charge {purpose}"), fold_in(root, purpose, number)

        def aggregator(mechanism, size, purpose):
            bound = mechanism.count_bound(3, size)
            own = fold_in(root, "keys", purpose)
            return ckks.aggregator(backend, count_bound=bound, senders=3, minimum_senders=3, size=size, stream=own)

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
    assert Diary().release(opened, plan, backend="device") == Diary().release(opened, plan)


def test_a_refused_charge_opens_nothing(opened: OpenTable, plan: ColumnPlan) -> None:
    class Spent(RuntimeError):
        pass

    def charge(purpose, number, mechanism, rdp):
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
    small = plan_columns(numbers=4, texts=2, epsilon=2.0, adjacency=adjacency, **FACTS)
    assert small.first is not None and small.second is not None
    whole = small.first.rdp / 0.06
    assert accounting.epsilon(ORDERS, whole, 1e-4) == pytest.approx(2.0, rel=1e-6)
    assert accounting.epsilon(ORDERS, small.second.rdp / 0.03, 1e-4) == pytest.approx(2.0, rel=1e-6)
    np.testing.assert_allclose(small.rdp(ORDERS), small.first.rdp + small.second.rdp)
    facts = dict(small.first.mechanism.facts.parameters)
    assert facts["clip_norm"] == pytest.approx(6**0.5) and facts["coordinate_bound"] == 1.0
    assert dict(small.second.mechanism.facts.parameters)["clip_norm"] == 2.0


def test_the_cost_does_not_depend_on_the_number_of_bins_nor_the_noise_on_the_clamp() -> None:
    plans = [plan_columns(numbers=3, texts=0, epsilon=1.0, **{**FACTS, "largest_site": size}) for size in (256, 4096)]
    noise = [each.first.mechanism.variance(3) for each in plans]
    assert noise[0] == pytest.approx(noise[1], rel=2e-3)
    mechanism = plans[0].first.mechanism
    np.testing.assert_array_equal(mechanism.rdp(ORDERS, 2, 10), mechanism.rdp(ORDERS, 2, 10**6))


def test_what_is_not_open_costs_nothing_and_wrong_plans_are_refused(opened: OpenTable) -> None:
    none = plan_columns(numbers=0, texts=0, epsilon=1.0, **FACTS)
    assert none.releases == () and none.size == 0 and not none.rdp(ORDERS).any()
    assert plan_columns(numbers=0, texts=2, epsilon=1.0, **FACTS).second is None
    assert plan_columns(numbers=2, texts=2, epsilon=1.0, refine_share=0.0, **FACTS).second is None
    with pytest.raises(ValueError, match="together below 1"):
        plan_columns(numbers=1, texts=1, epsilon=1.0, ranges_share=0.6, refine_share=0.5, **FACTS)
    with pytest.raises(ValueError, match=r"honest_senders=4 exceeds senders=3"):
        plan_columns(numbers=1, texts=1, epsilon=1.0, **{**FACTS, "honest_senders": 4})
    with pytest.raises(ValueError, match="plan with its open columns"):
        Diary().release(opened, plan_columns(numbers=1, texts=1, epsilon=1.0, **FACTS))


def test_a_patient_is_the_unit_where_one_is_named(tmp_path: Path) -> None:
    rows = ["hospital,pid,age,sick", *(f"{'AB'[i % 2]},p{i // 2},{40 + i},{i % 2}" for i in range(40))]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    own = read_open(path, label="sick", site="hospital", patient="pid")
    assert own.layout.unit == "patient" and own.layout.group.max() == 19
