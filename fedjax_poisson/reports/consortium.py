"""Who saw what, where a run's sites were on machines of their own: a diagram, a table of parties, and the sums that this site checked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.transcript import Checked, check_transcript
from fedjax_poisson.reports.formatting import plural
from fedjax_poisson.reports.html import Child, Html, element, join, paragraph, section, table
from fedjax_poisson.runs.run_folder import RunFolder
from fedjax_poisson.runs.transcripts import FOLDER

__all__ = ["who_saw_what"]

_MOST_SHOWN = 12
_BOX, _GAP, _WIDTH = (150, 34), 12, 640


def who_saw_what(run: RunFolder) -> Html:
    """The section; nothing where all sites were in one process."""
    config = tomllib.loads(run.config or "")
    names = [str(name) for name in config.get("sites", [])]
    if not names:
        return Html("")
    here, sums = str(config.get("here")), _sums(run.path / FOLDER)
    return section(
        "Who saw what",
        _diagram(names, here),
        table(["party", "has", "sees of a single site", "sees of all together"], _parties(names, here, sums), texts=4),
        paragraph(
            f"Opened sums: {len(sums)}. Each was checked by this site itself from its transcript (signatures, quorums, screening, opening); the "
            "transcripts lie in transcripts/, and anyone may check them again. What a site's own log says of all this can be held against the others' with "
            "fedjax-poisson consortium verify."
        ),
        *_table_of(sums),
    )


def _sums(folder: Path) -> list[tuple[str, Checked | None]]:
    """Releases in their order, with what their transcripts showed; None where one does not hold."""
    found: list[tuple[str, Checked | None]] = []
    for path in sorted(folder.glob("*.round")):
        label = path.stem.partition("-")[2].replace("-", " ")
        try:
            found.append((label, check_transcript(path.read_bytes())))
        except RoundRefused:
            found.append((label, None))
    return found


def _parties(names: list[str], here: str, sums: list[tuple[str, Checked | None]]) -> list[list[Child]]:
    first = next((checked for _, checked in sums if checked is not None), None)
    committee = "the committee" if first is None else f"the committee: {len(first.terms.members)} members"
    needed = "t of them" if first is None else f"{first.terms.threshold} of them"
    return [
        [
            f"{here} (this site)",
            "its own records, its key, its ledger",
            "everything of its own, nothing of the others",
            "the opened sums",
        ],
        [f"the other {plural(len(names) - 1, 'site')}", "their own records", "nothing of this site", "the opened sums"],
        [
            committee,
            "shares of secrets that are used once",
            f"nothing, unless {needed} pool what they hold",
            "the opened sums",
        ],
        ["the coordinator", "no key, no records", "an encrypted message and who sent it", "the opened sums"],
        ["readers of the model", "the model and released scores", "nothing", "what follows from the opened sums"],
    ]


def _table_of(sums: list[tuple[str, Checked | None]]) -> list[Html]:
    if not sums:
        return []
    rows: list[list[Child]] = []
    for label, checked in sums[:_MOST_SHOWN]:
        if checked is None:
            rows.append([label, "DOES NOT HOLD", "", ""])
            continue
        rows.append(
            [
                label,
                f"{len(checked.clients)} of {checked.terms.senders}",
                f"{len(checked.answered)} of {len(checked.terms.members)}",
                f"{checked.counts.size:,}",
            ]
        )
    shown = [table(["release", "sites in the sum", "members that answered", "values"], rows, texts=1)]
    if len(sums) > _MOST_SHOWN:
        shown.append(paragraph(f"and {plural(len(sums) - _MOST_SHOWN, 'more sum')}"))
    return shown


def _diagram(names: list[str], here: str) -> Html:
    """Sites on the left, the coordinator in the middle, the opened sum on the right; at most seven sites are drawn."""
    drawn = names if len(names) <= 7 else [*names[:6], f"{len(names) - 6} more"]
    step = _BOX[1] + _GAP
    height = max(len(drawn) * step, 3 * step) + _GAP
    middle = height / 2
    parts: list[Html] = []
    for k, name in enumerate(drawn):
        y = (height - len(drawn) * step) / 2 + k * step + _GAP / 2
        parts.append(_box(8, y, name, "this site" if name == here else "records stay here", name == here))
        parts.append(_line(8 + _BOX[0], y + _BOX[1] / 2, 250, middle))
    parts.append(_box(250, middle - _BOX[1] / 2, "coordinator", "sees ciphertexts, adds", False))
    parts.append(_line(250 + _BOX[0], middle, 470, middle))
    parts.append(_box(470, middle - _BOX[1] / 2, "one opened sum", "noisy, on every ledger", False))
    words = f"{len(names)} sites send encrypted parts to the coordinator; the committee opens only their sum, which every site checks."
    svg = element(
        "svg",
        element("title", words),
        *parts,
        viewBox=f"0 0 {_WIDTH} {height:.0f}",
        role="img",
        width="100%",
        style=f"max-width:{_WIDTH}px",
    )
    return element("figure", svg, element("figcaption", words))


def _box(x: float, y: float, name: str, below: str, marked: bool) -> Html:
    shape = element(
        "rect",
        x=f"{x:.0f}",
        y=f"{y:.0f}",
        width=str(_BOX[0]),
        height=str(_BOX[1]),
        rx="5",
        fill="none",
        stroke="currentColor",
        **{"stroke-width": "2.5" if marked else "1"},
    )
    return join(
        [shape, _words(x + _BOX[0] / 2, y + 14, name, "12", True), _words(x + _BOX[0] / 2, y + 28, below, "10", False)]
    )


def _words(x: float, y: float, text: str, size: str, strong: bool) -> Html:
    more: dict[str, Any] = {"text-anchor": "middle", "font-size": size, "font-weight": "600" if strong else "400"}
    return element("text", text, x=f"{x:.0f}", y=f"{y:.0f}", fill="currentColor", **more)


def _line(x: float, y: float, to_x: float, to_y: float) -> Html:
    return element(
        "line",
        x1=f"{x:.0f}",
        y1=f"{y:.0f}",
        x2=f"{to_x:.0f}",
        y2=f"{to_y:.0f}",
        stroke="currentColor",
        **{"stroke-width": "1"},
    )
