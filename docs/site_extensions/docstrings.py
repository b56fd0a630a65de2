"""Docstrings as reStructuredText: the house writes plain text, with bars for absolute values and indented formulas.

Bars and trailing underscores are ordinary characters here, and an indented block is shown as it stands. A name in single backticks becomes a link where the
reference documents it, under whichever package the entry stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_PROPERTIES: dict[str, list[str]] = {}
_LITERAL = re.compile(r"(``.+?``|`[^`\n]+`|(?<![\w)\]])\*\*[^*\s][^*]*\*\*)")  # and what is bold
_LETTER = re.compile(r"^(\s*\w+: )(\w{1,3})\.(?=\s|$)")  # "size: N." is no list whose first letter is N
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.|\(\d+\)) \S")
_SECTION = re.compile(r"^\s*[A-Z]\w+:$")  # Args:, Returns:, ... of the Google convention


def _escaped(line: str, inside: bool = False) -> tuple[str, bool]:
    """A line with plain characters escaped; whether it begins, and ends, inside of double backticks."""
    kept, rest = "", line
    if inside:
        kept, mark, rest = line.partition("``")
        if not mark:
            return line, True
        kept += mark
    opened = rest.count("``") % 2 == 1
    rest, mark, tail = rest.rpartition("``") if opened else (rest, "", "")
    if not inside:
        rest = _LETTER.sub(r"\1\\\2.", rest)
    parts = _LITERAL.split(rest)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"\|", r"\\|", parts[i])
        parts[i] = re.sub(r"(?<=\w)_(?=[\s,.;:)\]]|$)", r"\\_", parts[i])
        parts[i] = re.sub(r"(?<=[\w)\]])\*+(?=[\w(])", lambda stars: r"\*" * len(stars[0]), parts[i])
        parts[i] = re.sub(r"(?<![\w\\)\].])\*(?=\S)(?![^*\s][^*]*\*)", r"\\*", parts[i])
    return kept + "".join(parts) + mark + tail, opened


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def readable(lines: Iterable[str]) -> list[str]:
    """The lines with plain characters escaped, indented blocks made literal, and lists set off from the text around them."""
    made: list[str] = []
    given = list(lines)
    block: int | None = None  # the indentation around the literal block that is being read
    items: int | None = None  # the indentation of the list that is being read
    inside = False  # of double backticks that an earlier line opened
    before = ""  # the last line that was not empty
    for i, line in enumerate(given):
        if not line.strip():
            inside = False
            made.append(line)
            continue
        if block is not None and _indent(line) > block:
            made.append(line)
            continue
        block = None
        after_blank = i > 0 and not given[i - 1].strip()
        deeper = bool(before) and _indent(line) > _indent(before)
        if items is not None and _indent(line) < items:
            items = None
            made += [] if after_blank else [""]
        begins = _ITEM.match(line) and items is None and deeper and not _SECTION.match(before)
        if begins:
            items = _indent(line)
            made += [] if after_blank else [""]
        if after_blank and deeper and items is None and not before.endswith("::") and not _SECTION.match(before):
            block = _indent(before)
            made += [" " * block + "::", "", line]
        elif line.lstrip().startswith(">>>") or before.endswith("::"):
            made.append(line)
        else:
            text, inside = _escaped(line, inside)
            made.append(text)
        before = line
    return made


def _on_docstring(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    home = str(getattr(value, "__module__", "")).removeprefix("fedjax_poisson.")
    lines[:] = [line.replace("module docstring", f":ref:`module docstring <{home}>`") for line in readable(lines)]
    if what == "property":
        _PROPERTIES[name] = list(lines)


def _after_sections(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """A property's text as it was: what stands before its first colon is no type."""
    if what == "property":
        lines[:] = _PROPERTIES.pop(name)


def _on_signature(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Names of types that are documented under a short name, without what Python wraps them in."""

    def plain(text: str | None) -> str | None:
        return text and re.sub(r"(?:\w+\.)*TypeAliasForwardRef\('(\w+)'\)", r"\1", text)

    return plain(signature), plain(returned)


def _by_last_part(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Node | None:
    """A name that is not found where it is used: the one entry of the reference whose last parts it is."""
    if node.get("refdomain") != "py" or node.get("reftype") not in ("obj", "class", "func", "exc", "data"):
        return None
    python = env.domains.python_domain
    target = node["reftarget"].removeprefix("fp.").removesuffix("()")
    found = {
        (entry.docname, entry.node_id): name
        for name, entry in python.objects.items()
        if name == target or name.endswith("." + target)
    }
    if len(found) > 1:  # a function's own name before a method or field of the same name
        found = {place: name for place, name in found.items() if name.count(".") <= 2} or found
    if len(found) != 1:
        return None
    (docname, anchor), name = next(iter(found.items()))
    from sphinx.util.nodes import make_refnode

    return make_refnode(app.builder, node["refdoc"], docname, anchor, [shown], name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers all of it, and calls the fields of a record what they are."""
    from sphinx.domains.python import PyObject

    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Fields"
    app.connect("autodoc-process-docstring", _on_docstring, priority=100)  # before napoleon reads its sections
    app.connect("autodoc-process-docstring", _after_sections, priority=900)
    app.connect("autodoc-process-signature", _on_signature)
    app.connect("missing-reference", _by_last_part)
    return {"parallel_read_safe": True}
