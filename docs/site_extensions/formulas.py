"""Formulas as drawings, made while the site is built: no script and no font is asked of another server, and every browser shows the same.

(MathML was tried first: without a font for mathematics, which many machines lack, browsers set fractions and brackets badly.)
"""

from __future__ import annotations

import html
import re
from typing import Any

import ziamath
from docutils import nodes
from sphinx.application import Sphinx
from ziamath.config import config

SIZE = 17.5  # units of the drawing in one em of the page


def drawing(source: str, *, inline: bool) -> str:
    """The formula as one SVG element, in the colour of the text and on its baseline; LaTeX is its spoken text."""
    config.math.color = "currentColor"
    config.svg2 = False  # shapes in place of references to shapes, whose names would meet those of the next formula
    svg = ziamath.Latex(source, size=SIZE, inline=inline).svg()
    box = re.search(r'width="([\d.]+)" height="([\d.]+)" viewBox="(\S+) (\S+) (\S+) (\S+)"', svg)
    if box is None:
        raise ValueError(f"the drawing of {source!r} has no size")
    width, height, top = float(box[1]), float(box[2]), float(box[4])
    below = (height + top) / SIZE
    style = f"width:{width / SIZE:.3f}em;height:{height / SIZE:.3f}em" + (
        f";vertical-align:{-below:.3f}em" if inline else ""
    )
    spoken = html.escape(source, quote=True)
    shown = f'<svg class="math" role="img" aria-label="{spoken}" style="{style}" viewBox="{box[3]} {box[4]} {box[5]} {box[6]}"'
    return shown + svg[svg.index(">") :]


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(drawing(node.astext(), inline=True))
    raise nodes.SkipNode


def _display(writer: Any, node: nodes.math_block) -> None:
    label = f' id="{node["ids"][0]}"' if node.get("ids") else ""
    writer.body.append(f'<div class="formula"{label}>{drawing(node.astext(), inline=False)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer as "drawn"."""
    app.add_html_math_renderer("drawn", (_inline, None), (_display, None))
    return {"parallel_read_safe": True}
