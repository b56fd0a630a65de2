"""A status of numbers and names, for people and for Prometheus."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from fedjax_poisson.deployment.status import STATUS_FILE, age, prometheus_text, read_status, write_status


def test_what_was_written_is_read_with_its_age(tmp_path: Path) -> None:
    write_status(tmp_path, "waiting")
    write_status(tmp_path, "training", run="ab" * 16, round=7, epsilon=0.5, approved=True)
    found = read_status(tmp_path)
    assert found["phase"] == "training" and found["round"] == 7 and found["approved"] is True
    assert 0 <= age(found) < 60 and age(found, found["updated"] + 90) == 90 and age({}) == math.inf
    assert [path.name for path in tmp_path.iterdir()] == [STATUS_FILE]


@pytest.mark.parametrize(
    "facts",
    [
        {"error": "could not convert 'Doe, Jane'"},
        {"epsilon": math.nan},
        {"epsilon": math.inf},
        {"list": [1, 2]},
        {"Name": 1},
        {"reason": "x\ny"},
        {"reason": 'a"b'},
    ],
)
def test_free_text_does_not_enter_a_status(tmp_path: Path, facts: dict) -> None:
    write_status(tmp_path, "training", reason="BadTerms")
    with pytest.raises(ValueError, match="a number or a short name from the code"):
        write_status(tmp_path, "training", **facts)
    assert read_status(tmp_path)["reason"] == "BadTerms"


def test_what_is_missing_or_damaged_has_a_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no worker has run here yet"):
        read_status(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / STATUS_FILE).write_text(text)
        with pytest.raises(ValueError, match="the worker replaces it"):
            read_status(tmp_path)


def test_prometheus_reads_every_line(tmp_path: Path) -> None:
    write_status(tmp_path, "training", round=7, epsilon=0.125, approved=True, run="ab" * 16)
    text = prometheus_text(read_status(tmp_path))
    assert "fedjax_poisson_site_epsilon 0.125\n" in text and "fedjax_poisson_site_approved 1\n" in text
    assert 'fedjax_poisson_site_phase{phase="training"} 1\n' in text and "abab" not in text
    sample = re.compile(r'[a-z_]+(\{phase="[^"\\\n]*"\})? -?[0-9.e+-]+')
    for line in text.splitlines():
        assert line.startswith("# TYPE ") or sample.fullmatch(line), line
    assert prometheus_text({"phase": 'a"b', "epsilon": "none"}) == "\n"
