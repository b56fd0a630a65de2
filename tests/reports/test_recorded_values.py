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
