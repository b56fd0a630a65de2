"""Run all notebooks and write what they take into README.md: `python notebooks/timings.py [--clean PYTHON] [--jax 0.7.2] [--store]`.

Without --clean the notebooks run in this interpreter's environment, which has the package. With --clean an environment of that Python is made from nothing
but jax, jaxlib and a notebook's kernel, a wheel of this source tree is put beside the notebooks, and their own first cell installs it, as in a hosted notebook.
Seconds are wall time and processor time of the kernel and all it starts; every kernel starts anew and compiles everything. --store keeps the outputs in
the files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TIMES, README = HERE / "timings.json", HERE / "README.md"
LARGEST_HTML = 100_000  # characters; a whole report is half a megabyte
_BEGIN, _END = "<!-- timings: written by timings.py -->", "<!-- end of timings -->"


def execute(path: Path, folder: Path, store: bool) -> None:
    """Run one notebook in this interpreter's environment, in a folder of its own; raises at the first cell that fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}, record_timing=False
    )
    client.execute()
    if store:
        stored = json.loads(path.read_text(encoding="utf-8"))
        codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, run in zip((c for c in stored["cells"] if c["cell_type"] == "code"), codes, strict=True):
            cell["execution_count"], cell["outputs"] = run.execution_count, tidy(json.loads(json.dumps(run.outputs)))
        path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def tidy(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs as they are kept: pieces of one stream joined, text as lines, and no page that is larger than the rest of the notebook."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] == "stream" and kept and kept[-1].get("name") == output["name"]:
            kept[-1]["text"] += output["text"]
            continue
        if len(output.get("data", {}).get("text/html", "")) > LARGEST_HTML:
            del output["data"]["text/html"]
        kept.append(output)
    for output in kept:
        if "text" in output:
            output["text"] = output["text"].splitlines(keepends=True)
        for kind, value in output.get("data", {}).items():
            if kind.startswith("text/"):
                output["data"][kind] = value.splitlines(keepends=True)
    return kept


def clean_environment(folder: Path, python: str, jax: str) -> Path:
    """An interpreter with jax and a kernel and nothing of ours, and a wheel of this tree in the folder. Returns the interpreter."""
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
    inside = folder / "venv" / "bin" / "python"
    packages = [f"jax=={jax}", f"jaxlib=={jax}", "ipykernel", "nbclient", "pip"]
    subprocess.run([str(inside), "-m", "pip", "install", "-q", *packages], check=True)
    wheel = [str(inside), "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder / "work"), str(ROOT)]
    subprocess.run(wheel, check=True)
    return inside


def timed(
    python: Path, paths: list[Path], folder: Path, store: bool, environment: dict[str, str], jobs: int
) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of each notebook in a process of its own, at most `jobs` of them at once."""
    waiting, running, found = list(paths), {}, {}
    while waiting or running:
        while waiting and len(running) < jobs:
            path = waiting.pop(0)
            command = [str(python), str(Path(__file__).resolve()), "--one", str(path), "--folder", str(folder)]
            command += ["--store"] if store else []
            child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
            running[child.pid] = (path.name, time.perf_counter())
        pid, status, used = os.wait4(-1, 0)
        name, began = running.pop(pid)
        if status:
            raise SystemExit(f"{name} failed; what it said is above.")
        seconds = time.perf_counter() - began
        found[name] = {"wall_s": round(seconds, 1), "processor_s": round(used.ru_utime + used.ru_stime, 1)}
        print(name, found[name], flush=True)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a notebook a line, an environment a column."""
    names = list(rows[0]["notebooks"])
    heads = [f"{row['python']}, {row['jax']}, {row['how']}, load {row['load']:.0f}, {row['date']}" for row in rows]
    lines = ["| notebook | " + " | ".join(heads) + " |", "|---|" + "---|" * len(rows)]
    for name in names:
        found = [row["notebooks"].get(name) for row in rows]
        cells = ["-" if each is None else f"{each['processor_s']:.0f} s ({each['wall_s']:.0f} s)" for each in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    sums = [sum(each["processor_s"] for each in row["notebooks"].values()) for row in rows]
    lines.append("| all | " + " | ".join(f"{each:.0f} s" for each in sums) + " |")
    return "\n".join(lines)


def write_readme(rows: list[dict[str, Any]], machine: str) -> None:
    """Put the table between its marks."""
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(_BEGIN)
    tail = rest.split(_END)[1]
    said = (
        f"Processor seconds, wall seconds in brackets, on {machine}. The load is the mean number of jobs that wanted its cores meanwhile: where "
        f"it is far above two, wall times are mostly waiting, and processor seconds are what counts.\n\n{table(rows)}"
    )
    README.write_text(f"{head}{_BEGIN}\n\n{said}\n\n{_END}{tail}", encoding="utf-8")


def main() -> None:
    """Run, record, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clean", metavar="PYTHON", help="make an environment of this interpreter, e.g. python3.13")
    options.add_argument("--jax", default="0.7.2", help="its jax")
    options.add_argument("--store", action="store_true", help="keep the outputs in the notebooks")
    options.add_argument(
        "--only", nargs="+", default=[], help="notebooks whose names begin so; others keep their times"
    )
    options.add_argument("--jobs", type=int, default=1, help="notebooks at once; wall times then are of no use")
    options.add_argument("--machine", default="2 cores of a shared AMD EPYC")
    options.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one is not None:
        execute(given.one, given.folder, given.store)
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "work").mkdir()
        inside = Path(sys.executable)
        if given.clean:
            inside = clean_environment(folder, given.clean, given.jax)
            environment.pop("PYTHONPATH", None)
        asked = "import jax, platform; print(platform.python_version(), jax.__version__)"
        said = subprocess.run([str(inside), "-c", asked], capture_output=True, text=True, check=True, env=environment)
        python, jax = said.stdout.split()
        row = {
            "python": f"Python {python}",
            "jax": f"jax {jax}",
            "how": "from a wheel, by the first cell" if given.clean else "installed before",
            "system": platform.system(),
        }
        chosen = [path for path in sorted(HERE.glob("*.ipynb")) if path.name.startswith(tuple(given.only or [""]))]
        paths = chosen if given.store else [Path(shutil.copy(path, folder / "work")) for path in chosen]
        load = os.getloadavg()[0]
        if given.clean:  # the first cells of one notebook, so that notebooks that run side by side find the package
            first = json.loads(paths[0].read_text(encoding="utf-8"))
            (folder / "work" / "install.ipynb").write_text(json.dumps(first | {"cells": first["cells"][:2]}))
            row["installation"] = timed(
                inside, [folder / "work" / "install.ipynb"], folder / "work", False, environment, 1
            )
        found = timed(inside, paths, folder / "work", given.store, environment, given.jobs)
        row["date"] = datetime.now(UTC).date().isoformat()
        row["load"] = round((load + os.getloadavg()[0]) / 2, 1)
    # Read only now: another environment's notebooks may have ended meanwhile.
    rows = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.is_file() else []
    same = [each for each in rows if (each["python"], each["jax"]) == (row["python"], row["jax"])]
    row["notebooks"] = dict(sorted({**(same[0]["notebooks"] if same else {}), **found}.items()))
    rows = sorted([each for each in rows if each not in same] + [row], key=lambda each: (each["python"], each["jax"]))
    TIMES.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    write_readme(rows, given.machine)


if __name__ == "__main__":
    main()
