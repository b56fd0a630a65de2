"""The mutation runner: what a list of results holds, and that it is gone on with, never begun again."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.helpers import mutants

ROOT = pathlib.Path(__file__).parent.parent.parent
TOY = "def larger(a, b):\n    return a if a > b else b\n"


def _run(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "tests.helpers.mutants", *arguments, "--results", "list.json"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a mutant is a forked process")
def test_a_list_holds_the_survivors_and_is_gone_on_with(tmp_path: pathlib.Path) -> None:
    for name in ("toy", "other"):
        (tmp_path / f"{name}.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(
        "import toy\n\n\ndef test_it():\n    assert toy.larger(1, 2) == toy.larger(2, 1) == 2\n"
    )
    (tmp_path / "test_wrong.py").write_text("def test_it():\n    assert False\n")
    first = _run(tmp_path, "toy.py", "--seed", "3", "--tests", "test_toy.py")
    assert first.returncode == 0, first.stderr
    entry = json.loads((tmp_path / "list.json").read_text())["toy.py"]
    assert {name: entry[name] for name in ("possible", "sampled", "killed", "timeout", "seed")} == {
        **{"possible": 3, "sampled": 3, "killed": 2, "timeout": 0, "seed": 3},
    }
    [survivor] = entry["survivors"]
    assert (survivor["line"], survivor["column"], survivor["was"], survivor["became"]) == (2, 16, "a > b", "a >= b")
    assert survivor["text"] == "return a if a > b else b" and survivor["verdict"] == ""
    before = (tmp_path / "list.json").read_bytes()
    second = _run(tmp_path, "toy.py", "other.py", "--seed", "3", "--tests", "test_wrong.py")
    assert second.returncode != 0 and "do not pass on the module as it is" in second.stderr
    assert "toy.py" not in second.stdout, "the same text, sample and seed are not tried again"
    assert (tmp_path / "list.json").read_bytes() == before and not list(tmp_path.glob("*.new"))


def test_a_mutant_by_hand_is_one_place_of_the_text() -> None:
    path = pathlib.Path("toy.py")
    mutant = mutants.by_hand(path, TOY, "a > b", "a < b")
    assert (mutant.number, mutant.line, mutant.column) == (None, 2, 16)
    names: dict[str, object] = {}
    exec(mutant.code, names)
    assert names["larger"](1, 2) == 1  # type: ignore[operator]
    for text in ("b", "nowhere"):
        with pytest.raises(SystemExit, match="stands there once"):
            mutants.by_hand(path, TOY, text, "c")
