"""Runs side by side, from what their summaries say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image

from fedjax_poisson.cli import main
from fedjax_poisson.reports.several_runs import draw, find_runs, row_of, text_rows

FACTS: dict[str, Any] = {
    "dataset": "heart",
    "model": "logistic",
    "verdict": "private",
    "unit": "record",
    "epsilon": 1.0,
    "delta": 1e-4,
    "rounds": 20,
    "auc": 0.88,
    "pooled_accuracy": 0.8,
    "nonprivate_auc": 0.9,
    "date": "2026-01-02T03:04:05+00:00",
}


def make(root: Path, name: str, **changes: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({**FACTS, **changes}))
    return folder


def test_runs_are_listed_by_date_and_damaged_ones_left_out(tmp_path: Path) -> None:
    make(tmp_path, "late", date="2026-02-02")
    make(tmp_path / "deeper", "early")
    make(tmp_path, "damaged", epsilon="?").joinpath("summary.json").write_text("{")
    assert [row.folder.name for row in find_runs(tmp_path)] == ["early", "late"]
    assert find_runs(tmp_path / "late" / "nothing") == []
    with pytest.raises(FileNotFoundError, match="holds no summary"):
        row_of(tmp_path)
    with pytest.raises(ValueError, match="damaged"):
        row_of(tmp_path / "damaged")


def test_runs_are_compared_by_the_score_that_all_of_them_have(tmp_path: Path) -> None:
    first, second = make(tmp_path, "a"), make(tmp_path, "b", auc=None, epsilon=3.0, verdict="conditional")
    head, one, two = text_rows([row_of(first), row_of(second)])
    assert "pooled_accuracy" in head and "auc" not in head
    assert one[head.index("pooled_accuracy")] == "0.800" and two[head.index("epsilon")] == "3"
    picture = image.imread(draw([row_of(first), row_of(second)], tmp_path / "both.png"))
    assert picture.shape[0] > 300 and picture.std() > 0
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([row_of(make(tmp_path, "c", auc=None, pooled_accuracy=None))], tmp_path / "none.png")


def test_the_commands_print_tables_and_lines_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make(tmp_path, "a"), make(tmp_path, "b", epsilon=3.0)
    for arguments, seen in (
        (["list", str(tmp_path)], "logistic"),
        (["list", str(tmp_path), "--json"], '"epsilon": 3.0'),
        (["compare", str(first), str(second), "--out", str(tmp_path / "x.png")], "x.png"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert seen in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(first)])
    assert ended.value.code == 2
