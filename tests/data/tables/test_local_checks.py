"""Local checks: each finds its fault and says what to do, and takes the nearest export that is in order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fedjax_poisson.data.tables import local_checks as checks

NAMES = ("age", "glucose", "sex")
BOUNDS = {"age": (18.0, 110.0), "glucose": (2.0, 30.0)}


def _export(count=400, seed=0, rate=0.2):
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(60, 12, count), rng.gamma(9, 0.7, count), rng.integers(0, 2, count)], axis=1)
    x[:, 0], x[:, 1] = np.clip(x[:, 0], 20, 100), np.clip(x[:, 1], 2.5, 29)
    return x, (rng.random(count) < rate).astype(int)


PAST = checks.summarise(*_export(seed=1))


def _kinds(x, y, **more):
    return [fault.kind for fault in checks.check_site(x, y, NAMES, bounds=BOUNDS, past=PAST, **more)]


def test_an_export_in_order_is_not_reported():
    for seed in range(2, 30):
        assert _kinds(*_export(seed=seed)) == []


def test_wrong_units_are_found_against_the_ranges_and_against_the_past():
    x, y = _export()
    x[:, 1] *= 18
    found = checks.check_site(x, y, NAMES, bounds=BOUNDS, past=PAST)
    assert [fault.kind for fault in found] == ["units", "units"]
    assert "'glucose'" in found[0].seen and "2 to 30" in found[0].seen and "Check the unit" in str(found[0])
    assert "mg/dl in place of mmol/l" in found[1].do
    first = checks.check_site(x, y, NAMES, bounds=BOUNDS)  # no past yet: the ranges alone
    assert [fault.kind for fault in first] == ["units"]


def test_a_few_outliers_are_cut_by_the_clamp_and_not_reported():
    x, y = _export()
    x[:20, 1] = 35.0
    assert _kinds(x, y) == []
    x[:21, 1] = 35.0
    assert _kinds(x, y) == ["units"]


def test_exchanged_labels_are_found_and_a_moderate_change_is_not():
    x, y = _export()
    found = checks.check_site(x, 1 - y, NAMES, bounds=BOUNDS, past=PAST)
    assert [fault.kind for fault in found] == ["labels"] and "0 and 1 exchanged" in found[0].do
    assert _kinds(*_export(rate=0.28)) == []
    other = checks.changed_labels(np.ones(400), PAST)
    assert "definition of the label" in other[0].do


@pytest.mark.statistical
def test_the_label_alarm_keeps_its_rate_and_one_that_takes_the_past_for_exact_does_not():
    """At alarm .05 the exact test reports at most 5 % of 4,000 exports (error 1e-6); the binomial tail at the past's rate, the twin, more."""
    rng, reported, naive = np.random.default_rng(0), 0, 0
    for _ in range(4000):
        past = PAST._replace(positives=int(rng.binomial(60, 0.3)), records=60)
        ones = int(rng.binomial(200, 0.3))
        reported += bool(checks.changed_labels(np.arange(200) < ones, past, alarm=0.05))
        law = stats.binom(200, past.positives / 60)
        naive += 2 * min(law.cdf(ones), law.sf(ones - 1)) < 0.05
    assert stats.binomtest(reported, 4000, 0.05, alternative="greater").pvalue > 1e-6
    assert stats.binomtest(naive, 4000, 0.05, alternative="greater").pvalue < 1e-6


def test_a_stale_model_is_told_by_round_or_hash():
    assert checks.stale_model((7, "abc"), (7, "abc")) == []
    (old,) = checks.stale_model((7, "abc"), (6, "abb"))
    assert "round 6" in old.seen and "Fetch the model" in old.do
    (other,) = checks.stale_model((7, "abc"), (7, "abd"))
    assert "abd" in other.seen


def test_an_export_appended_to_itself_is_found_and_a_coarse_table_with_a_past_is_not():
    x, y = _export()
    twice = (np.concatenate([x, x]), np.concatenate([y, y]))
    assert _kinds(*twice) == ["duplicates"]
    assert checks.duplicated_rows(np.concatenate([x, x[:80]]), np.concatenate([y, y[:80]])) == []
    coarse = np.round(x[:, 2:])
    assert checks.duplicated_rows(coarse, y)[0].kind == "duplicates"
    assert checks.duplicated_rows(coarse, y, checks.summarise(coarse, y)) == []


def test_missing_numbers_are_named():
    x, _ = _export()
    x[3, 1] = np.nan
    found = checks.missing_numbers(x, NAMES)
    assert len(found) == 1 and "'glucose': 1 of 400" in found[0].seen and checks.missing_numbers(x[:3], NAMES) == []


def test_tables_that_do_not_fit_are_refused():
    x, y = _export()
    with pytest.raises(ValueError, match="a label each"):
        checks.summarise(x, y[:-1])
    with pytest.raises(ValueError, match="2 names for 3"):
        checks.check_site(x, y, NAMES[:2])
    with pytest.raises(ValueError, match="new schema"):
        checks.changed_columns(x[:, :2], NAMES[:2], PAST)
