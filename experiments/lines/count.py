"""How many lines of code three tasks take in four libraries, each of them a complete program that runs: the table in docs/howto/own_algorithm.md.

    python experiments/lines/count.py [--python flower=PATH pfl=PATH fedjax=PATH] [--show]

A logical line is a statement or the head of one (`def`, `for`, `with`, a decorator), however many lines of the file it takes; imports are counted
apart, and blank lines, comments and docstrings not at all. Tokens (names, numbers, strings, operators) are counted beside them, since a line can be long.

The programs are run on the tables of `tables.py`: those of this library with this interpreter, those of the others with the interpreters given
(README.md beside this file says how to set them up). What each prints as its AUC, and the versions, go to results/lines.json; rows of a
library that is not run keep their AUC only as long as its program has not changed. --show prints the table.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import tokenize
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "lines.json"
TASKS = {"train": "hospitals", "algorithm": "practices", "model": "hospitals"}  # and the table each trains on
LIBRARIES = {
    "fedjax_poisson": ("fedjax-poisson", "jax", "optax", "flax"),
    "flower": ("flwr", "ray", "dp-accounting", "numpy", "torch"),
    "pfl": ("pfl", "torch", "numpy"),
    "fedjax": ("fedjax", "jax", "dm-haiku", "optax", "dp-accounting"),
}
SHORTEST = "train_fedjax_poisson_run"
_NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


class Count(NamedTuple):
    """The size of a program.

    Attributes:
      lines: logical lines without imports and docstrings.
      imports: import statements.
      tokens: tokens of the logical lines.
    """

    lines: int
    imports: int
    tokens: int


def count(source: str) -> Count:
    """Count a program's logical lines and tokens."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    left_out = [(node.lineno, node.end_lineno or node.lineno) for node in [*imports, *_docstrings(tree)]]
    lines = tokens = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if any(first <= token.start[0] <= last for first, last in left_out):
            continue
        lines += token.type == tokenize.NEWLINE
        tokens += token.type not in _NOT_CODE
    return Count(lines, len(imports), tokens)


def _docstrings(tree: ast.Module) -> list[ast.stmt]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]


def programs() -> dict[str, tuple[str, str]]:
    """Name of each program to its task and library."""
    found = {f"{task}_{library}": (task, library) for task in TASKS for library in LIBRARIES}
    return {**found, SHORTEST: ("train", "fedjax_poisson")}


def row_of(name: str) -> dict[str, Any]:
    """What the program's text alone says."""
    task, library = programs()[name]
    source = (HERE / f"{name}.py").read_text(encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    return {"program": name, "task": task, "library": library, **count(source)._asdict(), "sha256": digest}


def run_program(name: str, python: str, tables: Path) -> dict[str, Any]:
    """The AUC that a program prints, and the versions it ran with."""
    task, library = programs()[name]
    command = [python, str(HERE / f"{name}.py"), str(tables / f"{TASKS[task]}.csv"), str(tables / name)]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tables)
    printed = re.search(r"^AUC ([\d.]+)", finished.stdout, re.MULTILINE)
    if finished.returncode or printed is None:
        raise RuntimeError(f"{name} failed with {python}:\n{finished.stdout[-2000:]}\n{finished.stderr[-2000:]}")
    asked = f"import importlib.metadata as m; print(*(f'{{n}}={{m.version(n)}}' for n in {LIBRARIES[library]!r}))"
    versions = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    return {
        "auc": float(printed[1]),
        "versions": dict(each.split("=", 1) for each in versions),
        "date": datetime.now(UTC).date().isoformat(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The table of docs/howto/own_algorithm.md: logical lines (+ imports); tokens; AUC; each linked to its program."""
    own = {row["program"]: row for row in rows}
    lines = ["| task | " + " | ".join(LIBRARIES) + " |", "|---" * (len(LIBRARIES) + 1) + "|"]
    for task in TASKS:
        cells = [_cell(own[f"{task}_{library}"]) for library in LIBRARIES]
        lines.append(f"| `{task}` | " + " | ".join(cells) + " |")
    lines.append(f"| `train`, by `fp.run` | {_cell(own[SHORTEST])} | | | |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    auc = f"{row['auc']:.2f}" if row.get("auc") is not None else "not run"
    link = f"[{row['lines']}](../../experiments/lines/{row['program']}.py)"
    return f"{link} + {row['imports']}; {row['tokens']}; {auc}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="*", default=[], metavar="LIBRARY=PATH", help="interpreters of the others")
    parser.add_argument("--only", nargs="*", default=list(programs()), help="programs to run")
    parser.add_argument("--show", action="store_true", help="only print the table of the results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--machine", default=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}")
    arguments = parser.parse_args(argv)
    if arguments.show:
        print(table(json.loads(arguments.out.read_text(encoding="utf-8"))["rows"]))
        return
    pythons = {"fedjax_poisson": sys.executable, **dict(each.split("=", 1) for each in arguments.python)}
    earlier = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"] if arguments.out.exists() else []
    kept = {row["program"]: row for row in earlier}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        from tables import write_tables

        write_tables(Path(folder))
        for name, (_, library) in programs().items():
            row = row_of(name)
            if library in pythons and name in arguments.only:
                row |= run_program(name, pythons[library], Path(folder)) | {"machine": arguments.machine}
            elif kept.get(name, {}).get("sha256") == row["sha256"]:
                row = {**kept[name], **row}
            else:
                print(f"{name}: not run, no interpreter given for {library}")
            rows.append(row)
            print(row, flush=True)
    arguments.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
