"""The words of a page as data: what `report.json` holds of every section, so that a program finds whatever a reader sees."""

from __future__ import annotations

import html.parser
import re
from typing import Any

__all__ = ["page_content"]

_BLOCKS = frozenset({"p", "li", "pre", "figcaption", "div", "span", "b", "caption", "title"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_VOID = frozenset({"meta", "img", "br", "hr"})


def page_content(page: str) -> list[dict[str, Any]]:
    """The blocks of an HTML page that `html` wrote, in their order.

    Args:
      page: the page.

    Returns:
      Objects with a kind: {"heading", "level", "text"}, {"text", "text"}, {"table", "caption", "head", "rows"}, {"figure", "alt"}.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    reader.flush()
    return reader.blocks


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.table: dict[str, Any] | None = None
        self.row: list[str] = []
        self.in_head = self.skipped = False
        self.level = 0

    def flush(self) -> None:
        text = _one_line("".join(self.text))
        self.text = []
        if not text:
            return
        if self.level:
            self.blocks.append({"kind": "heading", "level": self.level, "text": text})
        else:
            self.blocks.append({"kind": "text", "text": text})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "style":
            self.skipped = True
        elif tag == "img":
            self.flush()
            self.blocks.append({"kind": "figure", "alt": dict(attrs).get("alt") or ""})
        elif self.table is not None:
            self._inside_table(tag)
        elif tag == "table":
            self.flush()
            self.table = {"kind": "table", "caption": "", "head": [], "rows": []}
        elif tag in _HEADINGS:
            self.flush()
            self.level = int(tag[1])
        elif tag in _BLOCKS - {"span", "b"} or tag in ("section", "header", "ul", "figure", "svg", "text"):
            self.flush()

    def _inside_table(self, tag: str) -> None:
        if tag == "thead":
            self.in_head = True
        elif tag == "tr":
            self.row = []
        elif tag in ("th", "td", "caption"):
            self.text = []
        elif tag in ("li", "br"):
            self.text.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self.skipped = False
        elif self.table is not None:
            self._end_in_table(tag)
        elif tag in _HEADINGS:
            self.flush()
            self.level = 0
        elif tag in _BLOCKS - {"b"} or tag in ("section", "header", "figure", "text"):
            if tag == "span":
                self.text.append(" ")
            else:
                self.flush()

    def _end_in_table(self, tag: str) -> None:
        assert self.table is not None
        text = _one_line("".join(self.text))
        if tag in ("th", "td"):
            self.row.append(text)
            self.text = []
        elif tag == "caption":
            self.table["caption"], self.text = text, []
        elif tag == "tr":
            if self.in_head:
                self.table["head"] = self.row
            else:
                self.table["rows"].append(self.row)
        elif tag == "thead":
            self.in_head = False
        elif tag == "table":
            self.blocks.append(self.table)
            self.table, self.text = None, []

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.text.append(data)
