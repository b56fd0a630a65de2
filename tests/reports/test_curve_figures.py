"""Figures of curves: of what was recorded, with its numbers, and nothing where a file was changed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.federated.curves import operating_points
from fedjax_poisson.reports.curve_figures import CURVE_FIGURES, recorded_curves
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run


def drawn(folder, **changes):
    write_example_run(folder, **changes)
    run = read_run(folder)
    return {name: figure for name, draw in CURVE_FIGURES.items() if (figure := draw(run)) is not None}


def test_two_classes_have_four_curves_which_are_those_of_the_counts(tmp_path):
    found = drawn(tmp_path)
    assert set(found) == {"roc", "precision", "reliability", "decision"}
    (own,) = recorded_curves(read_run(tmp_path)).values()
    lines = [line.get_xydata() for line in found["roc"].axes[0].lines]
    assert any(len(line) == len(own.thresholds) and np.allclose(line[:, 1], own.sensitivity) for line in lines)
    kept = (own.thresholds >= 0.01) & (own.thresholds <= 0.99)
    lines = [line.get_ydata() for line in found["decision"].axes[0].lines]
    assert any(len(line) == kept.sum() and np.allclose(line, own.net_benefit[kept]) for line in lines)


def test_several_labels_share_a_figure_and_have_no_decision_curve(tmp_path):
    rng = np.random.default_rng(0)
    points = {name: operating_points(rng.integers(0, 2, 50), rng.random(50)) for name in ("died", "back $x$")}
    found = drawn(tmp_path, curves={"points": points}, task="multilabel")
    assert "decision" not in found
    assert [text.get_text() for text in found["roc"].axes[0].get_legend().get_texts()] == ["died", "back $x$"]


def test_a_number_has_its_own(tmp_path):
    agreement = {"predicted": [1.0, 2.0], "observed": [1.1, 1.9], "standard_error": [0.1, 0.2], "count": [10.0, 10.0]}
    assert set(drawn(tmp_path, curves={"agreement": agreement}, reliability=None)) == {"agreement"}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {"points": {"a": {}}},
        {"points": {"a": {"thresholds": [0.1]}}},
        {"agreement": {"predicted": ["x"]}},
        {"points": 3},
    ],
)
def test_what_is_no_curve_is_not_drawn(tmp_path, wrong):
    assert drawn(tmp_path, curves=wrong, reliability=None) == {}
