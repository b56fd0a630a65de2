import json
import subprocess
import sys

import pytest

from fedjax_poisson import cli
from fedjax_poisson.benchmarks import aggregation, simulation
from fedjax_poisson.benchmarks import compile as compile_elsewhere
from fedjax_poisson.benchmarks.compile import spills

SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'fusion_1' for 'sm_90'
ptxas info    : Function properties for fusion_1
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, 360 bytes cmem[0]
ptxas info    : Compiling entry function 'fusion_2' for 'sm_90'
    128 bytes stack frame, 96 bytes spill stores, 96 bytes spill loads
ptxas info    : Used 255 registers, 360 bytes cmem[0]
"""


def test_registers_and_spills_are_read_from_the_assembler():
    assert spills(SAID) == {"kernels": 2, "registers": 255, "spilled_bytes": 96}
    assert spills("") == {"kernels": 0, "registers": 0, "spilled_bytes": 0}


@pytest.mark.parametrize(
    "name", sorted(name for name, command in compile_elsewhere.COMMANDS.items() if command[0] == "bench")
)
def test_what_is_compiled_is_a_command_that_exists(name, monkeypatch):
    """Its options are read by the command line's own parser; with one that is gone nothing would be compiled."""
    asked = []
    monkeypatch.setattr(simulation, "main", asked.append)
    monkeypatch.setattr(aggregation, "main", asked.append)
    command = compile_elsewhere.COMMANDS[name]
    with pytest.raises(SystemExit) as ended:
        cli.main(list(command))
    assert ended.value.code == 0 and len(asked) == 1
    if command[1] == "simulation":
        text = " ".join(asked[0])
        assert "--encryption on" in text and f"--fidelity {name.split()[1]}" in text
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--encryption", "every_client"])
    assert ended.value.code != 0 and len(asked) == 1


def test_a_target_is_asked_for_and_its_compiler_too(monkeypatch):
    with pytest.raises(ValueError, match="h100, t4, v5e, rocm"):
        compile_elsewhere.main([])
    monkeypatch.setattr(compile_elsewhere, "needs", lambda target: "pip install it")
    with pytest.raises(ValueError, match=r"not installed.*pip install it"):
        compile_elsewhere.main(["--target", "t4"])


@pytest.mark.long
def test_every_program_of_a_round_lowers_for_rocm():
    """A process of its own that runs the parties of a round and exports each of their programs."""
    command = [
        sys.executable,
        "-m",
        "fedjax_poisson.benchmarks.compile",
        "--target",
        "rocm",
        "--programs",
        "W1 release",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    *rows, total = [json.loads(line) for line in ended.stdout.splitlines()]
    assert total["programs"] == len(rows) >= 5 and total["failed"] == 0
    assert all(row["module_bytes"] > 0 for row in rows) and "_whole_round" in {row["program"] for row in rows}
