"""What a report claims of a run: the reasons against calling it private."""

from __future__ import annotations

from fedjax_poisson.reports.guarantees import reasons_against
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run


def test_a_private_run_has_no_reason_against_it(tmp_path):
    write_example_run(tmp_path)
    assert reasons_against(read_run(tmp_path)) == []
