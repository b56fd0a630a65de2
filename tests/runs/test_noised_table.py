"""Noised rows and noised sums that are handed out once: their epsilon, the law of their noise, and the correction that knows it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedjax_poisson import accounting
from tests.helpers.stat import assert_moments

ROOT = Path(__file__).parents[2]
SIZE = 9


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    return importlib.import_module("noised_table")


@pytest.fixture
def rows() -> np.ndarray:
    return (np.random.default_rng(0).random((4000, SIZE)) < np.linspace(0.05, 0.6, SIZE)).astype(np.float32)


def exact_delta(gain: float, offset: float, epsilon: float) -> float:
    """Delta of a row of ones against a row of zeros: the likelihood ratio depends on the row's total count only."""
    dark, bright = SIZE * gain * offset, SIZE * gain * (offset + 1)
    k = np.arange(int(bright + 12 * np.sqrt(bright) + 60))
    ones, zeros = stats.poisson.pmf(k, bright), stats.poisson.pmf(k, dark)
    up = np.maximum(ones - np.exp(epsilon) * zeros, 0).sum()
    return float(max(up, np.maximum(zeros - np.exp(epsilon) * ones, 0).sum()))


@pytest.mark.parametrize("epsilon", [1.0, 8.0, 20.0])
def test_the_epsilon_of_rows_is_the_accountants_and_half_of_the_noise_costs_more(script, epsilon: float) -> None:
    mechanism = script.row_mechanism(epsilon, SIZE)
    gain = dict(mechanism.facts.parameters)["gain"]
    stated = script.stated_epsilon(mechanism, epsilon, SIZE, senders=1, honest=1)
    curve = accounting.experimental.data_embedding_rdp(script.ORDERS, gain=gain, offset=script.OFFSET, pixels=SIZE)
    assert stated == pytest.approx(accounting.epsilon(script.ORDERS, curve, script.DELTA), rel=1e-3)
    assert 0.999 * epsilon < stated <= epsilon
    # Independent of the curve: the exact delta of the worst pair holds, and not by far.
    assert script.DELTA / 30 < exact_delta(gain, script.OFFSET, stated) <= script.DELTA
    twin = script.data_embedding(gain=4 * gain, offset=script.OFFSET)  # half of the standard deviation
    assert script.stated_epsilon(twin, epsilon, SIZE, senders=1, honest=1) > 1.8 * epsilon
    assert exact_delta(4 * gain, script.OFFSET, stated) > script.DELTA


@pytest.mark.parametrize(("senders", "honest"), [(1, 1), (5, 4)])
def test_the_epsilon_of_sums_is_the_accountants_and_half_of_the_noise_costs_more(script, senders, honest) -> None:
    size = SIZE * (SIZE + 1) // 2
    mechanism = script.sum_mechanism(1.0, size, senders, honest)
    stated = script.stated_epsilon(mechanism, 1.0, size, senders=senders, honest=honest)
    assert 0.999 < stated <= 1.0 + 2e-5  # a reading is rounded up, the filter of the ledger is not
    facts = dict(mechanism.facts.parameters)
    twin = script.fp.poisson_embedding(**{**facts, "dark_count": 4 * facts["dark_count"]})
    assert script.stated_epsilon(twin, 1.0, size, senders=senders, honest=honest) > 1.8
    # Fewer honest sites than were counted on: the same sums say more.
    if honest > 1:
        assert script.stated_epsilon(mechanism, 1.0, size, senders=senders, honest=1) > 1.8


def test_a_record_moves_its_sites_sums_as_the_mechanism_assumes(script, rows: np.ndarray) -> None:
    found = script.products(rows)
    size = SIZE * (SIZE + 1) // 2
    assert found.shape == (len(rows), size) and set(np.unique(found)) == {-1.0, 1.0}
    mechanism = script.sum_mechanism(3.0, size, 1, 1)
    clipped = np.asarray(script.jax.vmap(mechanism.clip)(found[:64]))
    step = mechanism.bounds.grid_step / mechanism.bounds.total_bound * script.LARGEST_SITE
    np.testing.assert_allclose(clipped * step, found[:64], atol=1e-6)  # a vector of ones is inside its own norm


@pytest.mark.statistical
def test_the_noise_of_rows_has_the_variance_that_is_subtracted(script, rows: np.ndarray) -> None:
    mechanism = script.row_mechanism(8.0, SIZE)
    gain = dict(mechanism.facts.parameters)["gain"]
    noise = script.noised_rows(mechanism, rows) - rows
    for value in (0.0, 1.0):  # 6 standard errors: wrong once in 1e8
        own = noise[rows == value]
        assert_moments(own, 0.0, (value + script.OFFSET) / gain)
        with pytest.raises(AssertionError):
            assert_moments(own, 0.0, 0.25 * (value + script.OFFSET) / gain)


@pytest.mark.statistical
def test_subtracting_the_known_variance_corrects_and_half_of_it_does_not(script) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200_000, 3)) @ np.array([[1.0, 0.6, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 1.0]])
    truth = np.array([1.0, -0.5, 0.0])
    rows = np.column_stack([x, x @ truth])
    noised = rows + rng.normal(size=rows.shape) * 1.5

    def error(share: float) -> float:
        moments = script.row_moments(noised, lambda mean: np.full(4, share * 2.25))
        return float(np.abs(script.direction(moments._replace(floor=0.0), 3)[:3] - truth).max())

    assert error(1.0) < 0.04  # standard errors of about 0.007
    assert error(0.5) > 0.3 and error(0.0) > 0.5


def test_exact_sums_give_the_least_squares_of_the_rows(script, rows: np.ndarray) -> None:
    sums = script.products(rows).astype(np.float64).sum(axis=0)
    own, wanted = script.sum_moments(sums, len(rows), 0.0), np.cov((2 * rows - 1).T, ddof=0)
    np.testing.assert_allclose(own.covariance, wanted, atol=1e-9)
    np.testing.assert_allclose(own.mean, (2 * rows - 1).mean(axis=0), atol=1e-9)
    direct = np.linalg.solve(wanted[:-1, :-1], wanted[:-1, -1])
    np.testing.assert_allclose(script.direction(own, SIZE - 1)[:-1], direct, rtol=1e-6)


def test_the_committed_results_are_of_the_whole_size_and_keep_their_budgets() -> None:
    result = json.loads((ROOT / "experiments" / "results" / "noised_table.json").read_text(encoding="utf-8"))
    assert not result["toy"] and result["adjacency"] == "replace_one"
    for row in result["rows"]:
        assert row["epsilon"] is None or row["epsilon_target"] * 0.99 < row["epsilon"] <= row["epsilon_target"]


@pytest.mark.long  # a minute; the tests above hold its parts
def test_the_script_runs(script, tmp_path: Path) -> None:
    script.main(["--toy", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "results" / "noised_table.json").read_text())
    kinds = [row["kind"] for row in result["rows"] if row["epsilon"] is not None]
    assert set(kinds) == {script.ROWS, script.NAIVE, script.SUMS, script.SUM, script.GRADIENTS} and result["toy"]
    assert all(0 < row["auc"] < 1 for row in result["rows"])
    assert (tmp_path / "figures" / "noised_table.png").stat().st_size > 1000
