"""The page of a run that has not finished: what was spent, how to go on, and no claim."""

from __future__ import annotations

import json

import pytest

from fedjax_poisson.cli import main
from fedjax_poisson.reports.page import write_report
from tests.helpers.example_run import write_example_run


def test_it_says_how_far_it_came_what_was_spent_and_claims_nothing(tmp_path, capsys):
    write_example_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(SystemExit) as done:
        main(["report", str(tmp_path)])
    assert done.value.code == 0 and "report.html" in capsys.readouterr().out
    page, found = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "report.json").read_text())
    assert "This run has not finished" in page and "run --resume RUN" in page and "20" in page
    assert found["run"]["finished"] is False and found["ledger"]["releases"] == 21 and found["ledger"]["epsilon"] > 0.5
    for claim in ("Against whom", "at most", "proved", "classified correctly"):
        assert claim not in page.split("</style>")[1]


@pytest.mark.parametrize("content", [None, b"no ledger"])
def test_a_ledger_that_cannot_be_read_is_said(tmp_path, content):
    write_example_run(tmp_path, ledger=False)
    (tmp_path / "summary.json").unlink()
    if content:
        (tmp_path / "ledger.sqlite").write_bytes(content)
    assert "cannot be read" in write_report(tmp_path).read_text()


def test_its_next_report_is_the_whole_one(tmp_path):
    write_example_run(tmp_path)
    summary = (tmp_path / "summary.json").read_bytes()
    (tmp_path / "summary.json").unlink()
    write_report(tmp_path)
    (tmp_path / "summary.json").write_bytes(summary)
    assert "What was learned?" in write_report(tmp_path).read_text()
    assert json.loads((tmp_path / "report.json").read_text())["run"]["finished"] is True
