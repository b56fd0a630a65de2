"""What a finished run says to people: figures, tables and one HTML page, all made from the files of its folder.

Here is what a section of one's own needs, and `write_report`, which loads the figures only when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedjax_poisson.reports.html import Html, bold, bullets, element, paragraph, section, table

__all__ = ["Html", "bold", "bullets", "element", "paragraph", "section", "table", "write_report"]


def write_report(run_dir: str | Path, *, sections: Sequence[str] = ()) -> Path:
    """Draw the figures and write report.html (`page.write_report`).

    Args:
      run_dir: folder of a finished run.
      sections: module:name of sections of your own, functions `(run, ledger, figures) -> Html`.
    """
    from fedjax_poisson.reports import page

    return page.write_report(run_dir, sections=sections)
