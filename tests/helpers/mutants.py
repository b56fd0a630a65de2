"""Mutation testing: change one operator, number or check of a module at a time, and see whether a test fails.

    python -m tests.helpers.mutants fedjax_poisson/mechanisms/poisson.py --sample 30 --seed 1
    python -m tests.helpers.mutants fedjax_poisson/accounting/chain.py --only 17 --tests tests/accounting/test_ledger.py
    python -m tests.helpers.mutants fedjax_poisson/{accounting,mechanisms,randomness}/[a-z]*.py --sample 14 --seed 2 --results tests/mutants.json

Run it from the root of the repository (POSIX only). Nothing on disk is changed: a mutant lives in the memory of one forked process, whose import of the module
is compiled from the changed syntax tree. The parent has imported jax and pytest but computed nothing, so a mutant costs its tests and a fraction of a second.
Processes that a test starts itself see the module unchanged, so tests that do all their work in them kill nothing.

A mutant that survives is equivalent (no input tells it apart), changes a text or the speed alone, or shows that a test is missing. With `--results` a list of
the survivors of every module is written, to be judged by hand; a module is tried again when its text, the sample or the seed have changed.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import hashlib
import importlib.abc
import importlib.machinery
import json
import math
import os
import pathlib
import random
import resource
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any, NamedTuple

import pytest

# What is run for a module unless --tests says otherwise: its own cheap tests, so that a mutant costs seconds; else all tests of its folder. A survivor is
# worth a second run with more of them. Modules with the same tests share the run without a mutant.
_NAMES_OF_TESTS = {
    **{
        f"accounting/{name}": "law ledger ledger_readings tight_ledger"
        for name in ("chain", "law", "ledger", "opening")
    },
    **{f"accounting/{name}": "remaining_variance" for name in ("fixed_plan", "variance_cost")},
    "accounting/checks": "refusals",
    "accounting/gaussian": "account renyi",
    "accounting/price": "ledger_readings",
    "accounting/skellam": "skellam renyi",
    "accounting/tight": "tight_values",
    **{f"mechanisms/{name}": "values" for name in ("experimental", "gaussian", "poisson", "single_channel", "types")},
    "mechanisms/grouped": "grouped values",
    "mechanisms/skellam": "values rounding",
    "randomness/kernels": "chacha",
    "randomness/laws": "laws distances",
    "randomness/layout": "distances tables",
    "randomness/tables": "tables distances sampling_benchmark",
    "randomness/samplers": "samplers sampling_benchmark",
    "randomness/table_plan": "table_plan tables",
}
_OWN = (
    "account",
    "calibration",
    "experimental",
    "filter",
    "memory",
    "participation",
    "remaining_variance",
    "renyi",
    "reserve",
    "sampling",
)
_NAMES_OF_TESTS |= {f"accounting/{name}": name for name in _OWN}
_NAMES_OF_TESTS |= {f"mechanisms/{name}": name for name in ("adaptive", "clipping", "dark_counts")}
_NAMES_OF_TESTS |= {f"randomness/{name}": name for name in ("chacha", "wide")}
TESTS = {
    f"{module}.py": " ".join(f"tests/{module.split('/')[0]}/test_{name}.py" for name in names.split())
    for module, names in _NAMES_OF_TESTS.items()
}

# What a test would have to import again in every process.
_READY = ("jax.numpy", "scipy.stats", "scipy.optimize", "scipy.integrate", "mpmath", "nbmake", "xdist", "sqlite3")

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
    """What is known of the tests, by name; as a plugin of pytest it runs first those that killed before, then the quick ones.

    Tests that are known to take longer than `longest` seconds are left out.
    """

    def __init__(self, arguments: list[str], longest: float) -> None:
        self.arguments, self.longest = arguments, longest
        self.seconds: dict[str, float] = {}
        self.kills: dict[str, int] = {}
        self.reports = tempfile.TemporaryFile("w+")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [each for each in items if self.seconds.get(each.nodeid, 0.0) <= self.longest]
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
            self.seconds[name] = min(self.seconds.get(name, math.inf), float(duration))  # other programs lengthen it
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


def arguments(path: pathlib.Path, tests: str | None) -> list[str]:
    """What pytest is given for a module: `tests` instead of the usual ones, if named."""
    usual = TESTS.get("/".join(path.parts[-2:]), f"tests/{path.parent.name}")
    return [*shlex.split(tests or usual), "-x", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not slow and not long"]


class Mutant(NamedTuple):
    """What is known of a mutant before it is tried: its number if it was drawn, where it is, what it changes, and the changed module."""

    number: int | None
    line: int
    column: int
    text: str
    was: str
    became: str
    code: CodeType

    def __str__(self) -> str:
        return (
            f"{self.number}  line {self.line}:{self.column}: {self.was.splitlines()[0][:100]}  ->  {self.became[:100]}"
        )


def drawn(path: pathlib.Path, text: str, number: int) -> Mutant:
    tree = ast.parse(text)
    old, new = sites(tree)[number]
    was, became, line, column = ast.unparse(old), ast.unparse(new), old.lineno, old.col_offset
    changed = ast.fix_missing_locations(_Replace(old, new).visit(tree))
    code = compile(changed, str(path), "exec")
    return Mutant(number, line, column, text.splitlines()[line - 1].strip(), was[:200], became[:200], code)


def by_hand(path: pathlib.Path, text: str, old: str, new: str) -> Mutant:
    if text.count(old) != 1:
        sys.exit(f"--swap: {old!r} stands {text.count(old)} times in {path}; give a text that stands there once")
    start = text.index(old)
    line, column = text.count("\n", 0, start) + 1, start - 1 - text.rfind("\n", 0, start)
    code = compile(text.replace(old, new), str(path), "exec")
    return Mutant(None, line, column, text.splitlines()[line - 1].strip(), old, new, code)


def passing(path: pathlib.Path, text: str, given: list[str], longest: float) -> tuple[Tests, float] | None:
    """The tests, and the seconds that they take on the module as it is; None if one of them fails there."""
    tests = Tests(given, longest)
    verdict, seconds, failed = run(path, compile(text, str(path), "exec"), tests, 3600)
    print(f"{verdict} {failed} without a mutant, {seconds:.0f} s: {shlex.join(given)}", flush=True)
    return (tests, seconds) if verdict == "survived" else None


def campaign(path: pathlib.Path, mutants: Iterable[Mutant], tests: Tests, seconds: float) -> list[dict[str, Any]]:
    """Try mutants of one module: for each what it changes, whether it was "killed" (or "timeout", "survived") and by which test."""
    tried = []
    for mutant in mutants:
        verdict, used, failed = run(path, mutant.code, tests, 5 + 2 * int(seconds))
        seconds = min(seconds, used) if verdict == "survived" else seconds  # without the tests that are left out
        print(f"{verdict:8} {used:5.1f} s  {path.name} {mutant}    {failed}", flush=True)
        facts = {name: value for name, value in mutant._asdict().items() if name != "code"}
        tried.append({**facts, "outcome": verdict, "by": failed})
    return tried


def write(path: pathlib.Path, results: dict[str, Any]) -> None:
    """Write the list, whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(beside, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", type=pathlib.Path, nargs="+")
    parser.add_argument("--sample", type=int, help="so many mutants a module, drawn at random; all if left out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of single mutants")
    parser.add_argument("--tests", help="arguments for pytest instead of the module's usual ones")
    parser.add_argument(
        "--swap", nargs=2, action="append", metavar=("OLD", "NEW"), help="a mutant by hand: this text becomes that"
    )
    parser.add_argument(
        "--longest", type=float, default=math.inf, help="leave out tests that take more than so many seconds"
    )
    parser.add_argument("--results", type=pathlib.Path, help="the list to write, or to go on with")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.results and options.only:
        parser.error("--results: the list holds samples and mutants by hand (--swap), no single numbers (--only)")
    importlib.import_module("tests.conftest")  # sets what jax reads when it is imported
    for name in _READY:
        importlib.import_module(name)
    results = json.loads(options.results.read_text()) if options.results and options.results.exists() else {}
    wrong, known = False, {}  # modules with the same tests share the run without a mutant
    for path in options.modules:
        text = path.read_text()
        possible = len(sites(ast.parse(text)))
        size = min(options.sample or possible, possible)
        chosen = options.only or sorted(random.Random(options.seed).sample(range(possible), size))
        if options.swap:
            mutants = [by_hand(path, text, *swap) for swap in options.swap]
        else:
            mutants = [drawn(path, text, number) for number in chosen]
        if options.list:
            print(*mutants, sep="\n")
            continue
        # An entry stands as long as the module's text, the sample and the seed do: an interrupted campaign goes on where it was.
        source = {
            "text": hashlib.sha256(text.encode()).hexdigest()[:16],
            "sample": options.sample,
            "seed": options.seed,
            **({"longest": options.longest} if options.longest < math.inf else {}),
            **({"tests": options.tests} if options.tests else {}),
        }
        entry = results.get(str(path), {})
        if not mutants or (not options.swap and entry.items() >= source.items()):
            continue
        given = arguments(path, options.tests)
        if not (ready := known.get(tuple(given)) or passing(path, text, given, options.longest)):
            wrong = True
            continue
        known[tuple(given)] = ready
        tried = campaign(path, mutants, *ready)
        if not options.results:
            continue
        if options.swap:
            kept = [each for each in entry.get("by_hand", []) if [each["was"], each["became"]] not in options.swap]
            entry["by_hand"] = kept + tried
        else:
            outcomes = collections.Counter(each["outcome"] for each in tried)
            counts = {
                "possible": possible,
                "sampled": len(tried),
                "killed": outcomes["killed"],
                "timeout": outcomes["timeout"],
            }
            judged = {
                (each["text"], each["was"], each["became"]): each["verdict"] for each in entry.get("survivors", [])
            }
            survivors = [each for each in tried if each["outcome"] == "survived"]
            for each in survivors:  # a verdict stays with the same change of the same line
                del each["outcome"], each["by"]
                each["verdict"] = judged.get((each["text"], each["was"], each["became"]), "")
            entry = {**entry, **source, **counts, "survivors": survivors}
        results[str(path)] = entry
        write(options.results, dict(sorted(results.items())))
    if wrong:
        sys.exit("the tests of some modules do not pass on the module as it is, either: see above")


if __name__ == "__main__":
    main()
