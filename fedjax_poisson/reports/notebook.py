"""A run's report inside a notebook: the page of `report.html` in a frame of its own, so that neither's styles touch the other's."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.runs.headline import scores_in_words

__all__ = ["ShownReport", "show_report"]

_SUMMARY = "summary.json"


class ShownReport(NamedTuple):
    """A report as the last value of a cell: a notebook draws the page, a console or a stored output without it the text.

    Attributes:
      page: path of report.html.
      text: verdict, epsilon and scores in one line.
      height: of the frame, in pixels.
    """

    page: Path
    text: str
    height: int

    def __repr__(self) -> str:
        """The line of text."""
        return self.text

    def _repr_html_(self) -> str:
        """The page in a frame that runs no scripts and reaches nothing outside it."""
        content = html.escape(self.page.read_text(encoding="utf-8"), quote=True)
        title = html.escape(self.text, quote=True)
        style = f"width:100%;height:{self.height}px;border:1px solid #999;background:#fff"
        return f'<iframe sandbox="" title="{title}" style="{style}" srcdoc="{content}"></iframe>'


def show_report(run_dir: str | Path, *, height: int = 640) -> ShownReport:
    """The report of a finished run, to be the last value of a notebook's cell; it is drawn anew from the run's files.

    Args:
      run_dir: folder of a finished run (`fp.run`).
      height: of the frame in pixels; the page scrolls in it.

    Returns:
      `ShownReport`.

    Raises:
      FileNotFoundError: the folder has no summary.json: the run has not finished, or it is no run folder.
      ValueError: height is below 100 pixels, or summary.json is not a JSON object.
    """
    from fedjax_poisson.reports.page import write_report

    if height < 100:
        raise ValueError(f"height is {height} pixels; give at least 100, or nobody can read the page.")
    page = write_report(run_dir)
    summary = json.loads((Path(run_dir) / _SUMMARY).read_text(encoding="utf-8"))
    scores = re.sub(r"\[/?(bold)?\]", "", scores_in_words(summary) or "no scores")  # without the terminal's marks
    private = f"epsilon {summary['epsilon']:.3g} at delta {summary['delta']:g} for each {summary['unit']}"
    return ShownReport(
        page, f"{summary['verdict']}: {private}; {scores}. Report: {page.parent.name}/{page.name}", height
    )
