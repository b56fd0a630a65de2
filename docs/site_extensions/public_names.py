"""Sphinx directives: `names`, the entries of a package's public names, each documented as what it is, and `module-texts`, the docstrings of modules.

A page writes the package once and then one name a line::

    .. names:: fedjax_poisson.accounting

       epsilon
       Ledger

Functions, classes with the methods that they define, and constants are told apart here, so that a page is a list in the order of a reader and nothing else.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from site_extensions.docstrings import readable
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

INHERITED = (tuple, Exception, dict)  # what these bring is Python's own business


def methods_of(kind: type) -> list[str]:
    """The public functions and properties that a class itself defines and explains; fields stand in its docstring."""
    fields = {*getattr(kind, "_fields", ())}
    if dataclasses.is_dataclass(kind):
        fields |= {field.name for field in dataclasses.fields(kind)}
    own = [
        (name, member)
        for base in kind.__mro__
        if base.__module__.startswith("fedjax_poisson") and base not in INHERITED
        for name, member in vars(base).items()
    ]
    return list(
        dict.fromkeys(
            name
            for name, member in own
            if not name.startswith("_")
            and name not in fields
            and (inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod)))
            and inspect.getdoc(member)
        )
    )


def _sources(package: ModuleType) -> Iterator[str]:
    yield inspect.getsource(package)
    for found in pkgutil.iter_modules(getattr(package, "__path__", [])):
        yield inspect.getsource(importlib.import_module(f"{package.__name__}.{found.name}"))


def constant_text(package: ModuleType, name: str) -> str:
    """What the source says of a constant: the string below its assignment, or the comment behind it.

    Raises:
      LookupError: no module of the package explains the constant.
    """
    for source in _sources(package):
        lines, body = source.splitlines(), ast.parse(source).body
        for statement, following in zip(body, [*body[1:], None], strict=True):
            targets = (
                statement.targets
                if isinstance(statement, ast.Assign)
                else [statement.target]
                if isinstance(statement, ast.AnnAssign)
                else []
            )
            if not any(isinstance(target, ast.Name) and target.id == name for target in targets):
                continue
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                return inspect.cleandoc(str(following.value.value))
            _, mark, comment = lines[statement.lineno - 1].partition("  # ")
            if mark:
                return comment[0].upper() + comment[1:] + "."
    raise LookupError(f"{package.__name__}.{name}: write a docstring below its assignment")


def entry(package: ModuleType, name: str) -> list[str]:
    """The lines of reStructuredText that document one name."""
    value: Any = getattr(package, name)
    full = f"{package.__name__}.{name}"
    if inspect.isclass(value):
        members = methods_of(value)
        lines = [f".. autoclass:: {full}"]
        if members:
            lines += ["   :member-order: bysource", f"   :members: {', '.join(members)}"]
        return [*lines, ""]
    if inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        return [f".. autofunction:: {full}", ""]
    text = constant_text(package, name).splitlines()
    return [
        f".. py:currentmodule:: {package.__name__}",
        "",
        f".. py:data:: {name}",
        "",
        *(f"   {line}" for line in text),
        "",
    ]


class Names(SphinxDirective):
    """Documents the names of one package, in the order given, below a line that says where they are."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The entries."""
        package = importlib.import_module(self.arguments[0])
        source, line = self.get_source_info()
        lines = StringList()
        for name in " ".join(self.content).split():
            for text in entry(package, name):
                lines.append(text, source, line)
        holder = nodes.Element()
        holder.document = self.state.document
        self.state.nested_parse(lines, self.content_offset, holder)
        where = nodes.paragraph("", "In ", classes=["where"])
        where += nodes.literal("", package.__name__.replace("fedjax_poisson", "fp", 1))
        return [where, *holder.children]


class ModuleTexts(SphinxDirective):
    """A section a module, with its docstring."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """The sections."""
        made: list[nodes.Node] = []
        source, _ = self.get_source_info()
        for name in " ".join(self.content).split():
            short = name.removeprefix("fedjax_poisson.")
            section = nodes.section("", nodes.title("", short), ids=[short.replace(".", "-")], names=[short])
            section.document = self.state.document
            text = (inspect.getdoc(importlib.import_module(name)) or "").splitlines()
            self.state.nested_parse(StringList(readable(text), source), self.content_offset, section)
            self.state.document.note_explicit_target(section)
            made.append(section)
        return made


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers both directives."""
    app.add_directive("names", Names)
    app.add_directive("module-texts", ModuleTexts)
    return {"parallel_read_safe": True}
