"""HTML from values: text is escaped because of its type, so a name that looks like markup is only ever displayed.

A child that is a `str` is text and is escaped; a child that is an `Html` was built here and is kept as it is. Nothing
else produces `Html`.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class Html(NamedTuple):
    """Markup that is safe to write into a page."""

    markup: str


Child = str | Html
_VOID = frozenset({"meta", "img", "br"})
_TAG = re.compile(r"[a-z][a-z0-9]*")


def document(title: str, body: Html) -> str:
    """A whole page: one file with its style, which loads nothing else."""
    style = importlib.resources.files("fedjax_poisson.reports").joinpath("report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(style)),  # our own file: it holds no markup
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en").markup + "\n"


def element(tag: str, *children: Child, **attributes: str) -> Html:
    """One HTML element.

    Args:
      tag: its name.
      *children: text (escaped) and markup.
      **attributes: values are escaped; write `class_` for class.

    Raises:
      ValueError: the tag is not a plain name, or an element that must be empty was given children.

    >>> element("p", "5 < 6, ", element("b", "<script>")).markup
    '<p>5 &lt; 6, <b>&lt;script&gt;</b></p>'
    """
    if not _TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is not a tag name; use lower-case letters and digits.")
    opened = tag + "".join(f' {name.rstrip("_")}="{html.escape(value)}"' for name, value in attributes.items())
    if tag in _VOID:
        if children:
            raise ValueError(f"<{tag}> takes no content, got {len(children)} children; put them next to it.")
        return Html(f"<{opened}>")
    return Html(f"<{opened}>{join(children).markup}</{tag}>")


def join(children: Iterable[Child]) -> Html:
    """The children, concatenated."""
    return Html("".join(child.markup if isinstance(child, Html) else html.escape(child) for child in children))


def bold(text: str) -> Html:
    """Bold text."""
    return element("strong", text)


def paragraph(*children: Child) -> Html:
    """A paragraph."""
    return element("p", *children)


def bullets(entries: Iterable[Child]) -> Html:
    """An unordered list."""
    return element("ul", *(element("li", entry) for entry in entries))


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], *, texts: int = 1, caption: str = "") -> Html:
    """A table whose first column names the row.

    Args:
      head: column titles, each with words: whoever hears the page needs them.
      rows: cells; the first is the row's title.
      texts: number of leading columns that hold text; the others hold numbers and are right-aligned.
      caption: what the table shows, where its section does not say it.

    Raises:
      ValueError: a column has no title.
    """
    if not all(head):
        raise ValueError(
            f"column {[bool(each) for each in head].index(False) + 1} of a table has no title; say what it holds."
        )

    def cells(row: Sequence[Child], head: bool) -> list[Html]:
        found = []
        for i, cell in enumerate(row):
            attributes = {"scope": "col" if head else "row"} if head or i == 0 else {}
            if i >= texts:
                attributes["class_"] = "right"
            found.append(element("th" if head or i == 0 else "td", cell, **attributes))
        return found

    parts = [element("caption", caption)] if caption else []
    parts.append(element("thead", element("tr", *cells(head, True))))
    parts.append(element("tbody", *(element("tr", *cells(row, False)) for row in rows)))
    return element(
        "div", element("table", *parts), class_="wide", tabindex="0"
    )  # a wide one scrolls, by keyboard as well


def picture(path: Path, alt: str, caption: str = "") -> Html:
    """A PNG embedded in the page as data, so that the page stays complete wherever it is copied."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    parts: list[Child] = [element("img", src=f"data:image/png;base64,{data}", alt=alt, class_=path.stem)]
    if caption:
        parts.append(element("figcaption", caption))
    return element("figure", *parts)


def pictures(folder: Path, captions: Mapping[str, str], alts: Mapping[str, str] = MappingProxyType({})) -> list[Child]:
    """The figures {name: caption} that exist in the folder; `alts` says in words what a picture shows, where its caption does not."""
    return [
        picture(path, alt=alts.get(name, f"Figure: {caption}"), caption=caption)
        for name, caption in captions.items()
        if (path := folder / f"{name}.png").is_file()
    ]


def section(title: str, *children: Child, anchor: str = "") -> Html:
    """A section with its heading; `anchor` is what links on the page name it by."""
    return element("section", element("h2", title), *children, **({"id": anchor} if anchor else {}))


def tag(status: str, text: str = "") -> Html:
    """A statement's status, such as "proved", as a small label of its colour."""
    return element("span", text or status, class_=f"tag {status}")
