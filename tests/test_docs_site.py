"""The documentation site without building it: no public name is missing from the reference, and what its pages name exists."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import types
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

import fedjax_poisson as fp

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted(DOCS.rglob("*.md"))
_NAMES = re.compile(r"^\.\. names:: (\S+)\n\n((?:   \w+\n)+)", re.MULTILINE)


def listed_in(text: str) -> Iterator[tuple[str, str]]:
    """(package, name) of each entry of a page of the reference."""
    for package, names in _NAMES.findall(text):
        for name in names.split():
            yield package, name


LISTED = [pair for page in sorted(REFERENCE.glob("*.md")) for pair in listed_in(page.read_text(encoding="utf-8"))]


def public_names(package: types.ModuleType) -> Iterator[tuple[str, str]]:
    """(package, name) of everything that a public package offers, inner public modules included."""
    for name in getattr(package, "__all__", None) or offered(package):
        value = getattr(package, name)
        if isinstance(value, types.ModuleType):
            yield from public_names(value)
        else:
            yield package.__name__, name


def offered(package: types.ModuleType) -> list[str]:
    """Names of a package or module without `__all__`: what it imports from itself, or what it defines."""
    inside = package.__name__ + "." if hasattr(package, "__path__") else package.__name__
    return [
        name
        for name in dir(package)
        if not name.startswith("_")
        and not isinstance(getattr(package, name), types.ModuleType)
        and str(getattr(getattr(package, name), "__module__", "")).startswith(inside)
    ]


def missing(listed: list[tuple[str, str]]) -> list[str]:
    """Public names without an entry: neither there nor, for functions and classes, under another package that offers the same one."""
    places = set(listed)
    things = [getattr(pkgutil.resolve_name(package), name) for package, name in listed]
    known = {id(thing) for thing in things if callable(thing)}
    return [
        f"{package}.{name}"
        for package, name in public_names(fp)
        if (package, name) not in places and id(getattr(pkgutil.resolve_name(package), name)) not in known
    ]


def test_every_public_name_is_in_the_reference() -> None:
    assert len(LISTED) > 300
    assert missing(LISTED) == [], "give each a line in docs/reference, below `.. names:: PACKAGE`"


@pytest.mark.parametrize("left_out", [("fedjax_poisson", "calibrate"), ("fedjax_poisson.accounting", "epsilon")])
def test_twin_a_name_that_is_left_out_is_found(left_out: tuple[str, str]) -> None:
    assert ".".join(left_out) in missing([pair for pair in LISTED if pair != left_out])


def test_the_reference_names_what_exists_and_nothing_twice() -> None:
    for package, name in LISTED:
        value = getattr(pkgutil.resolve_name(package), name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"
    things = [(package, name) for package, name in LISTED]
    assert len(set(things)) == len(things)
    for page in REFERENCE.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert text.count(".. names::") == len(_NAMES.findall(text)), (
            f"{page.name}: an entry is not in the form that is read here"
        )


def tables_of(text: str) -> Iterator[tuple[str, str]]:
    """(a table, the line that follows it) of a page."""
    for found in re.finditer(r"((?:^\|.*\n)+)\n?(.*)", text, re.MULTILINE):
        yield found[1], found[2]


def unsourced(text: str) -> list[str]:
    """First lines of the tables with a row that names no script and no file of rows, neither itself nor in the line below the table."""
    found = []
    for table, below in tables_of(text):
        rows = table.splitlines()[2:]
        whole = "*Script: [" in below and "../experiments/results/" in below
        if not whole and not all(
            re.search(r"\(\.\./\S+\.py\)", row) and "../experiments/results/" in row for row in rows
        ):
            found.append(table.splitlines()[0])
    return found


def test_every_row_of_the_numbers_has_its_script_and_its_file() -> None:
    text = (DOCS / "numbers.md").read_text(encoding="utf-8")
    assert len(list(tables_of(text))) > 10
    assert unsourced(text) == []


def test_twin_a_table_without_its_source_is_found() -> None:
    text = (DOCS / "numbers.md").read_text(encoding="utf-8")
    shortened = text.replace("*Script: [experiments/tables.py](../experiments/tables.py).", "", 1)
    assert shortened != text
    assert len(unsourced(shortened)) == 1


def test_every_result_is_among_the_numbers() -> None:
    text = (DOCS / "numbers.md").read_text(encoding="utf-8")
    kept = {path.name for path in (ROOT / "experiments" / "results").iterdir()}
    assert {name for name in kept if f"../experiments/results/{name})" not in text} == set()


def test_links_and_toctrees_lead_somewhere() -> None:
    for page in PAGES:
        text = re.sub(r"```python.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links {target}, which is not there"
        for tree in re.findall(r"```\{toctree\}\n((?:.*\n)*?)```", text):
            for line in tree.splitlines():
                name = re.sub(r".*<(.*)>$", r"\1", line.strip())
                if name and not name.startswith(":") and "*" not in name:
                    there = [page.parent / f"{name}{ending}" for ending in (".md", ".ipynb")]
                    assert any(path.exists() for path in there), f"{page.relative_to(ROOT)} lists {name}"


def test_links_to_headings_lead_to_headings() -> None:
    for page in PAGES:
        for target, heading in re.findall(r"\]\(([^)\s#]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
            aimed = (page.parent / target) if target else page
            if aimed.suffix == ".md" and not target.startswith("http"):
                assert heading in anchors(aimed.read_text(encoding="utf-8")), f"{page.name}: {target}#{heading}"


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub and the site make it."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_every_attack_that_is_listed_has_a_test_of_its_number() -> None:
    text = (DOCS / "explanation" / "attacks_that_fail.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE)
    listed = sorted(int(number) for row in rows for number in row.split(","))
    tested = {
        int(number)
        for path in (ROOT / "tests" / "aggregation").glob("test_*.py")
        for found in re.findall(r"^def test_((?:\d\d_)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        for number in found.strip("_").split("_")
    }
    assert listed == sorted(tested)
    assert len(listed) == 52


def test_the_table_of_the_best_test_is_what_the_script_found() -> None:
    text = (DOCS / "explanation" / "what_epsilon_means.md").read_text(encoding="utf-8")
    found = json.loads((ROOT / "experiments" / "results" / "trade_off_curves.json").read_text(encoding="utf-8"))
    rows = {
        row[0]: row[2:]
        for row in (re.split(r" \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| "))
    }
    for rate in found["curves"]["1"]["detection_at"]:
        said = [float(cell.removesuffix(" %")) for cell in rows[f"{100 * float(rate):g} %"]]
        exact = [100 * found["curves"][epsilon]["detection_at"][rate] for epsilon in ("1", "3", "8")]
        assert said == [float(f"{value:.2g}") for value in exact]
    guesses = [float(cell.removesuffix(" %")) for cell in rows["right guesses, if a coin decides whether you are used"]]
    assert guesses == [round(100 * found["curves"][epsilon]["right_guesses_of_a_coin"]) for epsilon in ("1", "3", "8")]


def readable(text: str) -> str:
    """A docstring as the site reads it."""
    spec = util.spec_from_file_location("docstrings", DOCS / "site_extensions" / "docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return "\n".join(module.readable(text.splitlines()))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("The norm |x|_2 of x.", r"The norm \|x\|_2 of x."),
        ("`|x|` and ``a|b`` stay.", "`|x|` and ``a|b`` stay."),
        ("At c**2 rate(w), a*b.", r"At c\*\*2 rate(w), a\*b."),
        ("At c**2 h**2 and |w|.", r"At c\*\*2 h\*\*2 and \|w\|."),
        ("*Proof*, of *this*.", "*Proof*, of *this*."),
        ("Fields x_ and y_, z.", r"Fields x\_ and y\_, z."),
        ("As follows:\n\n    a = |b|\n\nand on.", "As follows:\n\n::\n\n    a = |b|\n\nand on."),
        ("**Theorem.** Let |x|, *so*.", r"**Theorem.** Let \|x\|, *so*."),
        ("With ``(1\n+ |s|)`` and |t|.", "With ``(1\n+ |s|)`` and \\|t\\|."),
        ("It holds for\n  - one,\n  - |two|;\nso it is.", "It holds for\n\n  - one,\n  - \\|two\\|;\n\nso it is."),
        ("Sizes.\n\nAttributes:\n  size: N.", "Sizes.\n\nAttributes:\n  size: \\N."),
        ("Args:\n  x: a number.\n\n  y: another.", "Args:\n  x: a number.\n\n  y: another."),
    ],
)
def test_docstrings_are_plain_text(written: str, read: str) -> None:
    assert readable(written) == read
