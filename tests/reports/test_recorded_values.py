"""Values of a run as figures and sections show them."""

from __future__ import annotations

import pytest

from fedjax_poisson.reports import recorded_values
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run


@pytest.fixture
def example(tmp_path):
    write_example_run(tmp_path)
    return tmp_path


def test_phase_seconds_account_for_the_whole_run(example):
    run = read_run(example)
    assert sum(value for _, value in recorded_values.phase_seconds(run)) == pytest.approx(run.summary["total_seconds"])


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_against_published_values(hits, count, low, high):
    assert recorded_values.wilson_interval(hits / count, count) == (
        pytest.approx(low, abs=6e-5),
        pytest.approx(high, abs=6e-5),
    )
