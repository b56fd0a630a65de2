"""The curve on the page: from the ledger that was verified, never below what a test does, never above what epsilon says."""

from __future__ import annotations

import math
import sqlite3

import numpy as np
import pytest

from fedjax_poisson import accounting
from fedjax_poisson.reports.formatting import format_bound
from fedjax_poisson.reports.trade_off import (
    RATES,
    TradeOff,
    patient_sentence,
    trade_off,
    trade_off_figure,
    write_trade_off_figure,
)
from fedjax_poisson.runs.run_folder import check_ledger, read_run
from tests.helpers.example_run import write_example_run


def curve_of(folder):
    run = read_run(folder)
    return trade_off(run, check_ledger(run))


def test_the_ledger_s_charges_give_the_curve_and_it_is_at_most_that_of_epsilon(tmp_path):
    summary = write_example_run(tmp_path)
    curve = curve_of(tmp_path)
    assert curve.source == "the ledger's 21 charges (Renyi curves)"
    stated = accounting.detection(RATES, epsilon=summary["epsilon"], delta=summary["delta"])
    assert np.all(curve.detection <= stated + 1e-12) and curve.at(0.05) < 0.8 * float(
        stated[np.argmin(np.abs(RATES - 0.05))]
    )
    spent = 0.059  # variances of the Gaussian releases of the example, whose curve it must not undercut
    power = 1 - 0.5 * (1 + np.vectorize(math.erf)((_quantile(RATES[1:-1]) - math.sqrt(spent)) / math.sqrt(2)))
    assert np.all(curve.detection[1:-1] >= power - 1e-9)


def _quantile(rates):
    from scipy import stats

    return stats.norm.isf(rates)


def test_without_a_ledger_that_holds_epsilon_and_delta_alone_speak(tmp_path):
    summary = write_example_run(tmp_path, ledger=False)
    curve = curve_of(tmp_path)
    assert curve.source == "epsilon and delta"
    assert curve.at(0.05) == pytest.approx(min(math.exp(summary["epsilon"]) * 0.05 + 1e-4, 1))
    write_example_run(tmp_path / "b")
    with sqlite3.connect(tmp_path / "b" / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER releases_are_final")
        database.execute("UPDATE releases SET parameters = '{}' WHERE id = 5")
    database.close()
    assert curve_of(tmp_path / "b").source == "epsilon and delta"
    write_example_run(tmp_path / "c", ledger=False, epsilon=None)
    assert curve_of(tmp_path / "c") is None


def test_a_run_that_adapts_is_charged_with_its_whole_budget(tmp_path):
    write_example_run(tmp_path / "a", adapts=True)
    write_example_run(tmp_path / "b")
    adapts, fixed = curve_of(tmp_path / "a"), curve_of(tmp_path / "b")
    assert np.all(adapts.detection >= fixed.detection - 1e-12) and adapts.at(0.05) > fixed.at(0.05) + 0.01


def test_a_patient_reads_counts_that_are_rounded_against_us():
    curve = TradeOff(np.array([0.0, 0.05, 1.0]), np.array([0.0, 0.0912, 1.0]), "a test")
    text = patient_sentence(curve, "patient")
    assert (
        "of 1,000 people who do, at most 92 are named on average" in text
        and "Guessing would name 50" in text
        and "took part" in text
    )
    assert "all that this run released" in text and "several records" not in text
    of_record = patient_sentence(curve, "record")
    assert "have one particular record in it" in of_record and of_record.endswith(
        "For a person with several records it is more."
    )
    assert "belong to a site" in patient_sentence(curve, "client")


def test_the_figure_says_the_example_of_the_text_and_an_old_one_goes(tmp_path):
    write_example_run(tmp_path)
    run, curve = read_run(tmp_path), curve_of(tmp_path)
    figure = trade_off_figure(curve)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert f"at most {format_bound(curve.at(0.05))} detected" in words and "guessing" in words
    assert write_trade_off_figure(run, curve).is_file()
    assert write_trade_off_figure(run, None) is None and not (tmp_path / "figures" / "trade_off.png").exists()
