"""The programs whose lines are counted: the table follows from the files, and the programs run where their library is installed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
LINES = ROOT / "experiments" / "lines"
PACKAGES = {"flower": "flwr", "pfl": "pfl", "fedjax": "fedjax"}
LONG = pytest.mark.long  # the blocks of docs/howto hold what they do
OTHERS = [f"{task}_{library}" for library in PACKAGES for task in ("train", "algorithm", "model")]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(LINES))
    return importlib.import_module("count")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("tables_of_lines", LINES / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("tables")
    module.write_tables(folder)
    return folder


def test_a_statement_counts_once_and_what_is_no_code_not_at_all(count) -> None:
    source = '''"""A docstring
of two lines."""

import os  # not counted
from sys import (
    argv,
    path,
)

# a comment
total = sum(
    [1, 2],
    3,
)


def f(x):
    """Another."""
    a, b = 1, 2
    return (a,
            b)
'''
    assert count.count(source) == (4, 2, 32)  # total, def, a and b, return
    assert count.count(source + "f(1)\n") == (5, 2, 36)


def test_the_committed_table_follows_from_the_committed_programs(count) -> None:
    rows = json.loads((ROOT / "experiments" / "results" / "lines.json").read_text(encoding="utf-8"))["rows"]
    assert [row["program"] for row in rows] == list(count.programs())
    for row in rows:
        assert row == {**row, **count.row_of(row["program"])}, (
            f"{row['program']} changed: run experiments/lines/count.py"
        )
        assert 0.7 < row["auc"] < 0.95 and row["versions"] and re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"])
    assert count.table(rows) in (ROOT / "docs" / "howto" / "own_algorithm.md").read_text(encoding="utf-8")
    files = {path.stem for path in LINES.glob("*_*.py")}
    assert files == set(count.programs())


def printed(name: str, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a program in this process, as a reader's session would: three rounds."""
    source = re.sub(
        r"^(.*\bROUNDS\b.*?) = (.*)(20|10)(.*)$",
        r"\1 = \g<2>3\4",
        (LINES / f"{name}.py").read_text(),
        count=1,
        flags=re.MULTILINE,
    )
    assert re.search(r"ROUNDS.* = .*\b3\b", source), "the number of rounds was not found"
    monkeypatch.setattr(sys, "argv", [name, str(table)])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(source, f"{name}.py", "exec"), {"__name__": "__main__"})
    return capsys.readouterr().out


@pytest.mark.parametrize("task", ["train", pytest.param("algorithm", marks=LONG), pytest.param("model", marks=LONG)])
def test_our_own_programs_run(task: str, tables: Path, monkeypatch, capsys) -> None:
    table = tables / ("practices.csv" if task == "algorithm" else "hospitals.csv")
    found = re.search(
        r"^AUC (\S+) epsilon (\S+)$", printed(f"{task}_fedjax_poisson", table, monkeypatch, capsys), re.MULTILINE
    )
    assert found is not None
    assert float(found[1]) > 0.5
    budget = 8.0 if task == "algorithm" else 3.0
    assert 0.99 * budget < float(found[2]) <= budget


@pytest.mark.parametrize("name", OTHERS)
def test_the_programs_of_others_run_where_they_are_installed(name: str, tables: Path, count) -> None:
    _, library = count.programs()[name]
    if importlib.util.find_spec(PACKAGES[library]) is None:
        pytest.skip(f"{PACKAGES[library]} is not installed here; experiments/lines/README.md says how to run it")
    assert count.run_program(name, sys.executable, tables)["auc"] > 0.7


def test_the_tables_have_the_split_that_from_csv_makes(tables: Path) -> None:
    from fedjax_poisson import data

    for name, sites in (("hospitals", 4), ("practices", 60)):
        found = data.from_csv(
            tables / f"{name}.csv", label="disease", site="site", drop=["train"], bounds="from_data", min_site_records=1
        )
        column = [line.split(",")[1] for line in (tables / f"{name}.csv").read_text().splitlines()[1:]]
        assert len(found.site_names) == sites and len(found.labels) == 740
        assert [int(value) for value in column] == found.train.astype(int).tolist()
