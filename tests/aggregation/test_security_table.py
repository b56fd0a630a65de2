"""The stored estimates of `experiments/security_table.py`: every set has 128 bits, and the limits speak for all that a chooser may return."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedjax_poisson.aggregation import parameters

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TARGET = 128


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return json.loads((EXPERIMENTS / "results" / "security.json").read_text(encoding="utf-8"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module("security_table")


def test_every_set_has_128_bits_by_every_attack_and_count(stored) -> None:
    assert {row["degree"] for row in stored["sets"]} == {1024, 2048, 4096, 8192}
    for row in stored["sets"]:
        assert set(row["counts"]) == {"plain", "rows", "weighted"}
        for count in row["counts"].values():
            assert set(count["attacks"]) >= {"usvp", "bdd", "dual", "dual_hybrid", "matzov"}
            assert min(count["attacks"].values()) >= TARGET, row
        assert row["bits"] == min(min(count["attacks"].values()) for count in row["counts"].values())
    assert stored["least"] == min(row["bits"] for row in stored["sets"])


def test_the_limits_are_covered_and_by_the_slow_attacks_too(stored, script) -> None:
    assert script.LIMITS == {int(degree): bits for degree, bits in stored["limits"].items()}
    rows = {(row["degree"], row["log2_modulus"], row["kind"]): row for row in stored["sets"]}
    for degree in script.LIMITS:
        for kind, hints in (("light", 15), ("norm", 31)):
            row = rows[degree, script.limit(degree, kind), kind]
            assert row["hints"] == hints <= row["weighted_hints"]
            assert row["counts"]["plain"]["dimension"] == degree - hints
            assert row["counts"]["weighted"]["dimension"] == degree - row["weighted_hints"]
        attacks = rows[degree, script.LIMITS[degree], "light"]["counts"]["plain"]["attacks"]
        assert {"bdd_hybrid", "bdd_mitm_hybrid"} <= set(attacks)
    assert [row["degree"] for row in script.parameter_sets()] == [row["degree"] for row in stored["sets"]]


def test_a_larger_modulus_has_fewer_bits(stored) -> None:
    for degree in (1024, 2048, 4096, 8192):
        rows = [row for row in stored["sets"] if row["degree"] == degree and row["kind"] == "light"]
        bits = [row["bits"] for row in sorted(rows, key=lambda row: row["log2_modulus"])]
        assert len(bits) > 2 and bits == sorted(bits, reverse=True)


def test_beyond_the_largest_modulus_the_estimate_says_no(stored) -> None:
    for row in stored["largest"]:
        assert row["limit"] <= row["largest"] and row["bits"] >= TARGET > row["bits_above"]


def test_the_rejected_alternatives_are_weaker(stored) -> None:
    def bits(name: str, lost: int) -> float:
        (found,) = (
            row["bits"]
            for row in stored["alternatives"]
            if row["name"] == name and row["log2_modulus"] == 193 and row["lost_dimensions"] == lost
        )
        return found

    assert bits("CBD(21)", 31) < bits("CBD(42)", 31) < bits("CBD(42), no hints", 0)
    assert bits("ternary secret, sums opened", 1821) < TARGET < bits("ternary secret, sums closed", 0)


@pytest.mark.parametrize("members", [1, 5, 20])
def test_everything_that_the_chooser_returns_is_within_the_limits(stored, members) -> None:
    """On a grid of (D, n, m): the ring is one of the table's, its modulus no larger than the one that was estimated."""
    limits = {int(degree): bits for degree, bits in stored["limits"].items()}
    threshold = parameters.least_threshold(members, parameters.default_malicious(members))
    seen = set()
    for size in (1, 14, 3000, 100_000, 421_642, 1_000_000, 25_600_000):
        for senders in (2, 10, 100, 1000, 10_000):
            for bound in (30, 1000, 10**6, 2**31 - 1):
                ring = parameters.choose(size, bound, senders, members, threshold, corrupt=1).ring
                assert math.log2(ring.modulus) <= limits[ring.degree], (size, senders, bound)
                seen.add(ring.degree)
    assert len(seen) > 2
