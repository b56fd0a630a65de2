"""Mutation testing: change one operator, number or check of a module at a time, and see whether a test fails.

    python -m tests.helpers.mutants fedjax_poisson/mechanisms/poisson.py --sample 30 --seed 1
    python -m tests.helpers.mutants fedjax_poisson/accounting/chain.py --only 17 --tests tests/accounting/test_ledger.py

Run it from the root of the repository (POSIX only). Nothing on disk is changed: a mutant lives in the memory of one forked process, whose import of the module
is compiled from the changed syntax tree. The parent has imported jax and pytest but computed nothing, so a mutant costs its tests and a fraction of a second.
Processes that a test starts itself see the module unchanged, so tests that do all their work in them kill nothing.

A mutant that survives is equivalent (no input tells it apart), changes a text or the speed alone, or shows that a test is missing.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import os
import pathlib
import random
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

# What is run for a module unless --tests says otherwise: cheap tests that kill much come first. Else all tests of its folder are run.
_SAMPLERS = "tests/randomness/test_sampling_benchmark.py tests/randomness/test_samplers.py"
_REFUSALS = "tests/accounting/test_refusals.py"


def _mechanism(names: str) -> str:
    files = " ".join(f"tests/mechanisms/test_{name}.py" for name in ("values", "rounding", "grouped", "contract"))
    quick = f"({names}) and not vmap_and_scan and not 0.05-False"
    return f"{files} -k 'test_values or test_rounding or test_grouped or ({quick})'"


TESTS = {
    "mechanisms/adaptive.py": "tests/mechanisms/test_adaptive.py",
    "mechanisms/clipping.py": "tests/mechanisms/test_clipping.py",
    "mechanisms/dark_counts.py": "tests/mechanisms/test_dark_counts.py tests/runs/test_budget_plan.py tests/federated/test_budget.py",
    "mechanisms/experimental.py": _mechanism("centred or compound or data_embedding"),
    "mechanisms/gaussian.py": _mechanism("gaussian"),
    "mechanisms/grouped.py": _mechanism("grouped"),
    "mechanisms/poisson.py": _mechanism("push_pull or wrong_parameters"),
    "mechanisms/single_channel.py": _mechanism("single_channel"),
    "mechanisms/skellam.py": _mechanism("skellam"),
    "mechanisms/types.py": _mechanism("subtracted or single_channel or wrong_parameters"),
    "randomness/chacha.py": "tests/randomness/test_chacha.py",
    "randomness/kernels.py": "tests/randomness/test_chacha.py",
    "randomness/laws.py": "tests/randomness/test_distances.py tests/randomness/test_laws.py",
    "randomness/layout.py": "tests/randomness/test_distances.py tests/randomness/test_tables.py -k 'layout or halves or most_levels'",
    "randomness/samplers.py": _SAMPLERS,
    "randomness/table_plan.py": "tests/randomness/test_table_plan.py tests/randomness/test_tables.py",
    "randomness/tables.py": f"tests/randomness/test_distances.py {_SAMPLERS.split()[0]} tests/randomness/test_tables.py",
    "randomness/wide.py": "tests/randomness/test_wide.py",
    "accounting/account.py": f"tests/accounting/test_account.py {_REFUSALS}",
    "accounting/calibration.py": f"tests/accounting/test_calibration.py tests/accounting/test_filter.py {_REFUSALS}",
    "accounting/chain.py": "tests/accounting/test_ledger.py tests/accounting/test_ledger_readings.py",
    "accounting/checks.py": f"{_REFUSALS} tests/accounting/test_calibration.py tests/accounting/test_renyi.py",
    "accounting/experimental.py": f"tests/accounting/test_experimental.py {_REFUSALS}",
    "accounting/filter.py": f"tests/accounting/test_filter.py {_REFUSALS}",
    "accounting/gaussian.py": f"tests/accounting/test_renyi.py tests/accounting/test_account.py {_REFUSALS} tests/accounting/test_tight_values.py",
    "accounting/ledger.py": "tests/accounting/test_ledger.py tests/accounting/test_ledger_readings.py",
    "accounting/memory.py": "tests/accounting/test_ledger.py tests/federated/test_stopping.py",
    "accounting/opening.py": "tests/accounting/test_ledger.py tests/accounting/test_ledger_readings.py",
    "accounting/renyi.py": f"tests/accounting/test_renyi.py {_REFUSALS} tests/accounting/test_calibration.py",
    "accounting/reserve.py": "tests/accounting/test_ledger.py tests/federated/test_charging.py tests/federated/test_budget.py",
    "accounting/sampling.py": f"tests/accounting/test_sampling.py {_REFUSALS}",
    "accounting/skellam.py": f"tests/accounting/test_renyi.py {_REFUSALS}",
}

_SWAPS: dict[type, list[type]] = {
    **{ast.Lt: [ast.LtE], ast.LtE: [ast.Lt], ast.Gt: [ast.GtE], ast.GtE: [ast.Gt], ast.Eq: [ast.NotEq]},
    **{ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn], ast.NotIn: [ast.In]},
    **{ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.FloorDiv: [ast.Mult]},
    **{ast.Pow: [ast.Mult], ast.Mod: [ast.FloorDiv], ast.LShift: [ast.RShift], ast.RShift: [ast.LShift]},
    **{ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.BitXor: [ast.BitOr], ast.And: [ast.Or], ast.Or: [ast.And]},
}
_NAMES = {
    **{"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"},
    **{"floor": "ceil", "ceil": "floor", "expm1": "exp", "log1p": "log", "rint": "floor"},
}


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """The changed copies of one node."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _SWAPS[type(operator)]:
                changed = copy.deepcopy(node)
                changed.ops[place] = other()
                yield changed
    elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)):
        for other in _SWAPS.get(type(node.op), []):
            changed = copy.deepcopy(node)
            changed.op = other()
            yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        numbers = [not node.value] if isinstance(node.value, bool) else [node.value + 1, node.value - 1]
        yield from (
            ast.Constant(value) for value in ([2 * node.value or 1.0] if isinstance(node.value, float) else numbers)
        )
    elif isinstance(node, (ast.Name, ast.Attribute)):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in _NAMES:
            changed = copy.deepcopy(node)
            setattr(changed, "id" if isinstance(node, ast.Name) else "attr", _NAMES[name])
            yield changed
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(copy.deepcopy(node.test), copy.deepcopy(node.orelse), copy.deepcopy(node.body))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and not isinstance(node.value, (ast.Constant, type(None))):
        yield ast.Return(ast.Constant(None))


def _without(node: ast.AST) -> Iterator[ast.AST]:
    """The children of a node that can change behaviour: no annotations, no texts, nothing inside a raised error or an assertion."""
    skipped = {"annotation", "returns", "decorator_list"} | ({"func"} if isinstance(node, ast.Raise) else set())
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST))


def sites(tree: ast.Module) -> list[tuple[ast.AST, ast.AST]]:
    """All (node, changed node) of a module."""
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        found += [(node, changed) for changed in variants(node)]
        if not isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr)):
            stack += list(_without(node))
    return sorted(found, key=lambda pair: (pair[0].lineno, pair[0].col_offset))


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


class _Mutated(importlib.machinery.SourceFileLoader, importlib.abc.MetaPathFinder):
    """Finds and loads one module from a compiled tree, whatever lies on disk or in a cache."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class Tests:
    """What is known of the tests, by name; as a plugin of pytest it runs first those that killed before, then the quick ones."""

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        self.seconds: dict[str, float] = {}
        self.kills: dict[str, int] = {}
        self.reports = tempfile.TemporaryFile("w+")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda each: self.seconds.get(each.nodeid, 0.0) / (1 + 4 * self.kills.get(each.nodeid, 0)))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.reports.write(f"{report.duration} {report.failed:d} {report.nodeid}\n")
        self.reports.flush()

    def learn(self) -> str:
        """Take in the reports of a forked run; the name of the test that failed, if one did."""
        failed = ""
        self.reports.seek(0)
        for line in self.reports.read().splitlines():
            duration, wrong, name = line.split(" ", 2)
            self.seconds[name] = max(self.seconds.get(name, 0.0), float(duration))
            if wrong == "1":
                failed = name
                self.kills[name] = self.kills.get(name, 0) + 1
        self.reports.seek(0)
        self.reports.truncate()
        return failed


def run(path: pathlib.Path, code: CodeType, tests: Tests, limit: int) -> tuple[str, float, str]:
    """(verdict, seconds of processor time, the test that failed) with one compiled module in the place of that on disk.

    The limit, too, is in processor time, which other programs on the machine change little; a mutant that waits for something gets twenty times as long.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        sys.meta_path.insert(0, _Mutated(".".join(path.with_suffix("").parts), str(path), code))
        os._exit(int(pytest.main(tests.arguments, plugins=[tests])))
    last = time.monotonic() + 20 * limit
    while (ended := os.wait4(child, os.WNOHANG))[0] == 0 and time.monotonic() < last:
        time.sleep(0.05)
    if ended[0] == 0:
        os.killpg(child, signal.SIGKILL)
        ended = os.wait4(child, 0)
    overtime = os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) in (signal.SIGKILL, signal.SIGXCPU)
    verdict = "timeout" if overtime else "survived" if ended[1] == 0 else "killed"
    return verdict, ended[2].ru_utime + ended[2].ru_stime, tests.learn()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", type=pathlib.Path)
    parser.add_argument("--sample", type=int, help="so many mutants, drawn at random; all if left out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of single mutants")
    parser.add_argument("--tests", help="arguments for pytest instead of the module's usual ones")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    path = options.module
    text = path.read_text()
    count = len(sites(ast.parse(text)))
    chosen = options.only or sorted(
        random.Random(options.seed).sample(range(count), min(options.sample or count, count))
    )
    usual = TESTS.get("/".join(path.parts[-2:]), f"tests/{path.parent.name}")
    arguments = shlex.split(options.tests or usual)
    arguments += ["-x", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow and not long"]

    importlib.import_module(
        "tests.conftest"
    )  # sets what jax reads when it is imported; below: what a test would have to import again

    for module in (
        "jax.numpy",
        "scipy.stats",
        "scipy.optimize",
        "scipy.integrate",
        "mpmath",
        "nbmake",
        "xdist",
        "sqlite3",
    ):
        importlib.import_module(module)
    tests, limit = Tests(arguments), 3600
    if not options.list:
        verdict, seconds, failed = run(path, compile(text, str(path), "exec"), tests, limit)
        if verdict != "survived":
            sys.exit(f"the tests do not pass on the module as it is: {verdict} {failed}")
        limit = 20 + 3 * int(seconds)
        print(
            f"{path}: {count} mutants, {len(chosen)} tried; the tests take {seconds:.0f} s: {' '.join(arguments)}",
            flush=True,
        )
    for number in chosen:
        tree = ast.parse(text)
        old, new = sites(tree)[number]
        what = f"{number}  line {old.lineno}: {ast.unparse(old).splitlines()[0][:100]}  ->  {ast.unparse(new)[:100]}"
        if options.list:
            print(what)
            continue
        changed = ast.fix_missing_locations(_Replace(old, new).visit(tree))
        verdict, seconds, failed = run(path, compile(changed, str(path), "exec"), tests, limit)
        print(f"{verdict:8} {seconds:5.1f} s  {what}    {failed}", flush=True)


if __name__ == "__main__":
    main()
