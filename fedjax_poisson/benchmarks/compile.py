"""Compile what the package runs for a device that is not here: `fedjax-poisson bench compile --target h100 --programs "W1 release"`.

A command is run once on this CPU while every program it compiles is noted (`recorder`). Each is then compiled by the target's own compiler (`targets`), which
answers with what no lowering can tell: that it compiles at all, how long a user's first round waits, how much memory it takes besides its arguments, how many
kernels a call starts, registers and spills. What it cannot give is time on the device: `floor_ms` is what data-sheet peaks allow (`operations`).

Prints one JSON object a program and one for each command. Ends with status 1 if a program does not compile.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedjax_poisson.benchmarks.targets import TARGETS, Target, described_device, needs
from fedjax_poisson.traced_programs import FOLDER

__all__ = ["COMMANDS", "main", "spills"]

_ROUND = ("bench", "simulation", "--privacy", "on", "--encryption", "on", "--quick")
_AT_ONCE = {"W1": "100", "W2": "50", "W3": "2000"}  # every client of a round is vmapped at once, as on an accelerator
COMMANDS: dict[str, tuple[str, ...]] = {
    **{
        f"{name} {fidelity}": (*_ROUND, "--workload", name, "--chunk", chunk, "--fidelity", fidelity)
        for name, chunk in _AT_ONCE.items()
        for fidelity in ("release", "messages")
    },
    "aggregation": ("bench", "aggregation", "--quick"),
    "run": ("run", "heart", "--rounds", "2", "--no-yardstick"),
}
"""What is compiled, by name: one round of each workload with all clients at once, as one draw and with every client's message, the
parties of an aggregation, training on records."""


def spills(text: str) -> dict[str, int]:
    """What the assembler says of the kernels of a module: their number, most registers a thread, bytes spilled."""
    registers = [int(found) for found in re.findall(r"Used (\d+) registers", text)]
    spilled = [int(found) for found in re.findall(r"(\d+) bytes spill stores", text)]
    return {"kernels": len(registers), "registers": max(registers, default=0), "spilled_bytes": sum(spilled)}


def _assembler() -> Path | None:
    import importlib.util

    found = importlib.util.find_spec("nvidia.cuda_nvcc")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return next((file for place in places for file in [Path(place) / "bin" / "ptxas"] if file.exists()), None)


def _of_kernels(folder: Path) -> dict[str, int]:
    """Registers and spills of the kernels that were written into the folder."""
    assembler, said = _assembler(), ""
    if assembler is None:
        return {}
    for file in sorted(folder.glob("*.ptx")):
        architecture = re.search(r"^\.target (\w+)", file.read_text(), re.MULTILINE)
        if architecture is None:  # a module of constants
            continue
        command = [str(assembler), "-v", f"-arch={architecture[1]}", "-o", os.devnull, str(file)]
        said += subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return spills(said)


def _processor_seconds() -> float:
    """Of this process and those it waited for: XLA starts the assembler of CUDA as a process."""
    return sum(os.times()[:4])


def _compiled(target: Target, program: Any, folder: Path) -> dict[str, Any]:
    """One row: what the target's compiler says of a program."""
    import jax
    from jax.sharding import SingleDeviceSharding

    from fedjax_poisson.benchmarks.hlo_text import started_in
    from fedjax_poisson.benchmarks.operations import bytes_of, floor_seconds, work_of
    from fedjax_poisson.benchmarks.recorder import abstract
    from fedjax_poisson.platforms import for_only

    row: dict[str, Any] = {"target": target.name, "program": program.name}
    if target.topology is None:
        exported = jax.export.export(program.jitted, platforms=[target.platform])(
            *program.arguments, **program.keywords
        )
        return row | {"module_bytes": len(exported.mlir_module_serialized)}
    arguments, keywords = abstract(
        (program.arguments, program.keywords), SingleDeviceSharding(described_device(target))
    )
    options = dict(target.options)
    if target.platform == "cuda":
        options |= {"xla_dump_to": str(folder), "xla_dump_hlo_as_text": False}
    began, used = time.perf_counter(), _processor_seconds()
    with for_only(target.platform) if program.one_platform else contextlib.nullcontext():
        traced = program.jitted.trace(*arguments, **keywords)
        lowered = traced.lower(lowering_platforms=(target.platform,))
    compiled = lowered.compile(compiler_options=options or None)
    seconds, processor = time.perf_counter() - began, _processor_seconds() - used
    memory, started = compiled.memory_analysis(), started_in(compiled.as_text())
    work = work_of(traced.jaxpr)
    moved = bytes_of(arguments) + bytes_of(keywords) + bytes_of(traced.out_info)
    floor = floor_seconds(
        work,
        moved,
        bytes_per_s=target.bytes_per_s,
        integer_per_s=target.integer_per_s,
        multiply_add_per_s=target.multiply_add_per_s,
    )
    return row | {
        "compile_s": round(seconds, 2),
        "compile_cpu_s": round(processor, 2),
        "temporary_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "started_in_a_call": sum(started.values()),
        "by_kind": dict(started.most_common(6)),
        "operations": work.values,
        "multiply_adds": work.multiply_adds,
        "floor_ms": None if floor is None else round(floor * 1e3, 4),
        **(_of_kernels(folder) if target.platform == "cuda" else {}),
    }


def compile_all(target: Target, name: str, command: Sequence[str], folder: Path) -> bool:
    """Run a command, compile its programs for the target and print the rows; whether all of them compile.

    Only in a process whose package has not been imported but for this room (`recorder`).
    """
    import jax

    from fedjax_poisson.benchmarks.recorder import recording

    kept = sys.argv
    with recording() as programs:
        sys.argv = ["fedjax-poisson", *command, "--no-cache"]
        with contextlib.redirect_stdout(sys.stderr):  # the rows stand alone
            try:
                runpy.run_module("fedjax_poisson", run_name="__main__")
            except SystemExit as end:
                if end.code:
                    raise ValueError(f"the command {' '.join(command)} failed with status {end.code}.") from None
        sys.argv = kept
        found = programs()
    rows = []
    for number, program in enumerate(found):
        try:
            row = _compiled(target, program, folder / f"kernels{number}")
        except Exception as error:  # whatever a foreign compiler raises is a finding; the next is looked at too
            row = {"target": target.name, "program": program.name, "error": f"{type(error).__name__}: {error}"[:500]}
        rows.append(row)
        print(json.dumps({"programs_of": name} | row), flush=True)
    total = {
        "programs_of": name,
        "target": target.name,
        "programs": len(rows),
        "compile_s": round(sum(row.get("compile_s", 0.0) for row in rows), 2),
        "compile_cpu_s": round(sum(row.get("compile_cpu_s", 0.0) for row in rows), 2),
        "largest_temporary_bytes": max((row.get("temporary_bytes", 0) for row in rows), default=0),
        "failed": sum("error" in row for row in rows),
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(total), flush=True)
    return bool(rows) and not total["failed"]


def _child(arguments: argparse.Namespace) -> int:
    """What the process does that watches a command."""
    target, name = TARGETS[arguments.target], arguments.programs
    with tempfile.TemporaryDirectory() as temporary:
        command = list(COMMANDS[name])
        if name == "run":
            command += ["--out", str(Path(temporary) / "run")]
        return 0 if compile_all(target, name, command, Path(temporary)) else 1


def main(arguments: list[str] | None = None) -> None:
    """Compile the programs of one command, or of all, each in a process of its own."""
    parser = argparse.ArgumentParser(description="Compile what the package runs for a device that is not here.")
    parser.add_argument("--target", choices=list(TARGETS))
    parser.add_argument("--programs", choices=list(COMMANDS), help="default: all of them")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        sys.exit(_child(options))
    if options.target is None:
        raise ValueError(f"Which device? Give --target, one of {', '.join(TARGETS)}.")
    missing = needs(TARGETS[options.target])
    if missing is not None:
        raise ValueError(f"The compiler for {options.target} is not installed. In an environment of its own: {missing}")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    environment.pop(FOLDER, None)  # what is kept was traced for this machine
    environment["FEDJAX_POISSON_BENCH_CORES"] = (
        "all"  # `bench aggregation` measures in this process instead of starting others
    )
    module = [sys.executable, "-m", "fedjax_poisson.benchmarks.compile", "--child", "--target", options.target]
    codes = [
        subprocess.run([*module, "--programs", name], env=environment, check=False).returncode
        for name in ([options.programs] if options.programs else COMMANDS)
    ]
    if any(codes):
        raise ValueError("Not every program compiled: the rows above name them.")


if __name__ == "__main__":
    main(sys.argv[1:])
