"""What a report claims of a run: an attacker's best success, and the reasons against calling it private."""

from __future__ import annotations

import math

import pytest

from fedjax_poisson.reports.guarantees import attack_success, reasons_against
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run


def test_a_private_run_has_no_reason_against_it(tmp_path):
    write_example_run(tmp_path)
    assert reasons_against(read_run(tmp_path)) == []


def test_attack_success_is_the_definition():
    assert attack_success(1.0, 1e-4) == pytest.approx(math.e * 0.05 + 1e-4)
    assert attack_success(0.0, 0.0) == pytest.approx(0.05)
    assert attack_success(5.0, 0.0) == attack_success(1e9, 0.0) == 1.0
