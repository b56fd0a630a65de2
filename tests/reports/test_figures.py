"""Figures: drawn from the files, honest about what is absent, harmless to the caller's matplotlib."""

from __future__ import annotations

import json
import sys

import matplotlib
import matplotlib.image
import pytest

from fedjax_poisson.reports import figures, recorded_values
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import FINAL, write_example_run

NAMES = ["accuracy", "sites", "epsilon", "cost", "roc", "precision", "reliability", "decision"]


@pytest.fixture
def example(tmp_path):
    write_example_run(tmp_path)
    return tmp_path


def texts(figure):
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_every_figure_is_written_and_wide_enough(example):
    paths = figures.write_figures(example)
    assert [path.stem for path in paths] == NAMES
    for path in paths:
        image = matplotlib.image.imread(path)
        assert image.shape[1] >= 900
        assert image[..., :3].std() > 0.02  # something is drawn


def test_accuracy_figure_says_the_numbers_of_the_summary(example):
    found = "\n".join(texts(figures.accuracy_figure(read_run(example))))
    for wanted in ("81.5 % this run", "83.0 % same recipe", "73.5 % published by FLamby", "68.5 % published by FLamby"):
        assert wanted in found
    assert "epsilon spent so far (at delta 0.0001)" in found


def test_percent_ticks_are_not_rounded(tmp_path):
    # An axis of 2.5 % steps once showed 77.5 as 78 and 82.5 as 82.
    write_example_run(tmp_path, nonprivate_mean_client_accuracy=0.8)
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    for at, line in enumerate(lines[1:]):
        line["test"]["mean_client_accuracy"] = 0.715 + 0.005 * at
    (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figure = figures.accuracy_figure(read_run(tmp_path))
    figure.draw_without_rendering()
    axis = figure.axes[0].yaxis
    low, high = figure.axes[0].get_ylim()
    shown = [
        (place, label.get_text())
        for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        if low <= place <= high
    ]
    assert len(shown) >= 3
    for place, label in shown:
        assert float(label.removesuffix(" %")) == pytest.approx(100 * place, abs=1e-6)


def test_published_scores_only_for_the_data_set_they_belong_to(tmp_path):
    write_example_run(tmp_path, dataset="my_table")
    found = "\n".join(texts(figures.accuracy_figure(read_run(tmp_path))))
    assert "FLamby" not in found
    assert "mean over sites" in found


def test_a_run_that_is_not_private_is_not_labelled_private(tmp_path):
    write_example_run(tmp_path, private=True, seed=7, reproducible=True)  # a summary that contradicts itself
    found = "\n".join(texts(figures.accuracy_figure(read_run(tmp_path))))
    assert "not private, encrypted" in found


def test_bars_carry_the_scores_by_site(example):
    found = texts(figures.sites_figure(read_run(example)))
    for name, value in FINAL.items():
        assert any(text.startswith(name) for text in found)
        assert f"{100 * value:.0f} %" in found


@pytest.mark.parametrize("count", [9, 60])
def test_many_sites_become_dots_and_names_are_never_markup(tmp_path, count):
    # "$x_$" is invalid mathematical markup: parsing it would raise.
    scores = {f"ward $x_$ {i} <b>": 0.5 + 0.4 * i / count for i in range(count)}
    write_example_run(tmp_path, dataset="mine", accuracy_by_site=scores, nonprivate_accuracy_by_site=scores)
    figure = figures.sites_figure(read_run(tmp_path))
    found = texts(figure)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == min(count, 40) and all(label.startswith("ward $x_$") for label in labels)
    assert any("lowest" in text for text in found) == (count > 40)


def test_epsilon_figure_marks_standardisation_total_and_budget(example):
    summary = json.loads((example / "summary.json").read_text())
    found = "\n".join(texts(figures.epsilon_figure(read_run(example))))
    assert "1 budget" in found and "for standardisation" in found
    total = float(found.split(" in total")[0].split("\n")[-1])
    assert summary["epsilon"] <= total < summary["epsilon"] + 1e-4  # rounded up, never down


def test_cost_figure_shows_the_phases_and_the_expansion(example):
    found = "\n".join(texts(figures.cost_figure(read_run(example))))
    assert "66.7 kB (1,191 times)" in found and "56 B" in found and "everything else" in found


def test_what_was_not_recorded_is_not_drawn_and_stale_files_go(example):
    figures.write_figures(example)
    (example / "summary.json").write_text("{}")
    (example / "rounds.jsonl").unlink()
    assert figures.write_figures(example) == []
    assert list((example / "figures").iterdir()) == []


def test_one_round_is_enough(tmp_path):
    write_example_run(tmp_path, rounds=1)
    assert [path.stem for path in figures.write_figures(tmp_path)] == NAMES


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    bad = {"bins": [], "confidence": [0.1, None, "x"], "frequency": [0.2, 0.5, 0.1], "count": [4, 2, 1]}
    write_example_run(tmp_path, reliability=bad, nonprivate_mean_client_accuracy=float("nan"), accuracy_by_site=None)
    run = read_run(tmp_path)
    assert recorded_values.reliability_bins(run) == [(0.1, 0.2, 4.0)]
    assert figures.sites_figure(run) is None
    assert "same recipe" not in "\n".join(texts(figures.accuracy_figure(run)))


def test_drawing_leaves_the_caller_s_matplotlib_alone(example):
    before = dict(matplotlib.rcParams)
    figures.write_figures(example)
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_an_unfinished_run_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="--resume"):
        figures.write_figures(tmp_path)


@pytest.mark.parametrize("wrong", [None, "text", [1], {"a": "b"}])
def test_wrong_entries_are_survived(tmp_path, wrong):
    used = ("accuracy_by_site", "sites", "reliability", "bytes_up_per_client_per_round", "epsilon_target", "delta")
    write_example_run(tmp_path, rounds=2, **{name: wrong for name in (*used, "total_seconds", "aggregator")})
    lines = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    for name in lines[1]:
        broken = [lines[0], {**lines[1], name: wrong}, {k: v for k, v in lines[2].items() if k != name}]
        (tmp_path / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in broken))
        run = read_run(tmp_path)
        for draw in figures.FIGURES.values():
            draw(run)
