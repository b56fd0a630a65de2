"""What attacks extracted from a run: the text, the figures and the report section, all generated from leakage.json."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.table import Table
from rich.text import Text

from fedjax_poisson.leakage.reconstruction import ORIGINALS
from fedjax_poisson.leakage.words import VIEWS
from fedjax_poisson.reports.formatting import moment, words
from fedjax_poisson.reports.html import Html, bullets, element, paragraph, pictures, section, table
from fedjax_poisson.reports.plotting import DPI, FAINT, PALE, PLAIN, PRIVATE, PUBLISHED, WIDTH, clean, title
from fedjax_poisson.runs.run_folder import RunFolder, number

NO_PROOF = "A failed attack does not prove privacy; it shows only what this attacker achieved. The guarantee is epsilon, not this list."
SITES = (
    "The guarantee is for one record or patient. It does not hide which hospital an update came from: a hospital's whole sum may be recognised by "
    "anyone who sees individual updates. Encryption is what hides individual updates from the server."
)
_AGAIN = (
    "We include unrealistically strong attackers as upper bounds. The attacks trained and summed again on this run's records with fresh noise "
    "that is not on any ledger, so their results are for the holders of the records only."
)
_LEFT_OUT = (
    " Images of reconstructed training records were left out of this page. They are in the run folder (figures/leakage_inversion.png and "
    "leakage_inversion.npz); delete them before you share the folder."
)
_CAPTIONS = {
    "leakage_numbers": "What each attack achieved (dots, with 95 % intervals), compared with chance or with the claim (lines).",
    "leakage_inversion": "Training records and their reconstructions from the four views of one step.",
}


class Row(NamedTuple):
    """One attack in words: the question, the result, what the attacker needs, and what a stronger one would try."""

    question: str
    result: str
    needs: str
    try_next: str


def read_leakage(folder: Path) -> dict[str, Any] | None:
    """The object in leakage.json, or None if there is no readable one."""
    try:
        found = json.loads((folder / "leakage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("attacks"), dict) else None


def rows_in_words(found: dict[str, Any]) -> list[Row]:
    """One or more rows for each attack in leakage.json, in the words that the attack left there."""
    rows: list[Row] = []
    for name, own in found["attacks"].items():
        question = str(own.get("question", name))
        if "skipped" in own:
            rows.append(Row(question, f"Not attacked: {own['skipped']}", "", ""))
        else:
            rows += [Row(question, *map(str, each)) for each in own["said"]]
    return rows


def grouped(rows: list[Row]) -> list[Row]:
    """One row per question: each result on a separate line, and each requirement listed once."""
    found = []
    for question in dict.fromkeys(row.question for row in rows):
        own = [row for row in rows if row.question == question]
        parts = (dict.fromkeys(part for row in own if (part := row[at])) for at in (1, 2, 3))
        found.append(Row(question, *("\n".join(part) for part in parts)))
    return found


def text_table(found: dict[str, Any]) -> Table:
    """The rows for a terminal."""
    page = Table("question", "result", "the attacker needs", show_lines=True)
    for row in grouped(rows_in_words(found)):
        page.add_row(*(Text(part) for part in row[:3]))
    return page


def _lines(text: str) -> Html:
    parts = text.split("\n")
    return element("span", parts[0]) if len(parts) == 1 else bullets(parts)


def what_leaks(run: RunFolder, folder: Path) -> Html:
    """The section of the report; empty if the run was not attacked."""
    found = read_leakage(run.path)
    if found is None:
        return Html("")
    rows = grouped(rows_in_words(found))
    captions = dict(_CAPTIONS)
    hidden = not shows_records(run)
    if hidden:
        captions.pop("leakage_inversion")
    notes = [str(note) for note in found.get("notes") or []]
    stale = found.get("ledger_head") != run.summary.get("ledger_head")
    return section(
        "What attacks got out of the run",
        paragraph(element("b", NO_PROOF)),
        *([paragraph("These attacks were run on an earlier state of this run.")] if stale else []),
        table(
            ["question", "result", "the attacker needs"],
            [[row.question, _lines(row.result), _lines(row.needs)] for row in rows],
            texts=3,
        ),
        *pictures(folder, captions),
        paragraph(SITES),
        paragraph(_AGAIN + (_LEFT_OUT if hidden and (folder / "leakage_inversion.png").is_file() else "")),
        *([bullets(notes)] if notes else []),
        element("h3", "What a stronger attacker would try"),
        bullets(f"{row.question} {row.try_next}." for row in rows if row.try_next),
        paragraph(f"Attacked {moment(found.get('date'))}, {words(found.get('machine'))}."),
    )


def shows_records(run: RunFolder) -> bool:
    """Whether a page that may be mailed can show training records: only those of public data sets and phantoms."""
    settings = run.config or ""
    return "csv = " not in settings and 'dataset = "covid"' not in settings and run.config is not None


def write_leakage_figures(folder: str | Path) -> list[Path]:
    """Draw figures/leakage_*.png from leakage.json; older ones that it no longer supports are removed.

    Raises:
      ValueError: the folder holds no leakage.json.
    """
    path = Path(folder)
    found = read_leakage(path)
    if found is None:
        raise ValueError(f"{path} holds no readable leakage.json; make one with: fedjax-poisson attack {path}")
    (path / "figures").mkdir(exist_ok=True)
    saved = path / ORIGINALS
    drawn = {"leakage_numbers": numbers_figure(found), "leakage_inversion": None}
    if saved.is_file() and "skipped" not in found["attacks"].get("inversion", {"skipped": ""}):
        with np.load(saved, allow_pickle=False) as file:
            drawn["leakage_inversion"] = pictures_figure({name: file[name] for name in file.files})
    written = []
    for name, figure in drawn.items():
        target = path / "figures" / f"{name}.png"
        if figure is None:
            target.unlink(missing_ok=True)
            continue
        FigureCanvasAgg(figure).print_png(target)
        written.append(target)
    return written


def numbers_figure(found: dict[str, Any]) -> Figure | None:
    """Dots with intervals compared with chance or the claim, one panel for each attack that gave numbers."""
    done = {name: own for name, own in found["attacks"].items() if "skipped" not in own}
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    if own := done.get("membership"):
        panels.append(("Membership: AUC", functools.partial(_membership_panel, own)))
    if audits := {**_bounds(done.get("audit"), "direct"), **_bounds(done.get("one_run"), "canaries")}:
        panels.append(("Audits: epsilon", functools.partial(_audit_panel, audits)))
    if own := done.get("property"):
        panels.append(("Site identified correctly", functools.partial(_site_panel, own)))
    if own := done.get("inversion"):
        panels.append(
            (
                "Reconstruction: SSIM" if own["picture"] else "Reconstruction: error",
                functools.partial(_inversion_panel, own),
            )
        )
    if not panels:
        return None
    rows = (len(panels) + 1) // 2
    figure = Figure(figsize=(WIDTH, 2.7 * rows), dpi=DPI, layout="constrained", facecolor="white")
    for at, (name, draw) in enumerate(panels):
        axes = figure.add_subplot(rows, min(len(panels), 2), at + 1)
        clean(axes)
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.8)
        draw(axes)
        title(axes, name, pad=8)
    return figure


def _dots(axes: Axes, names: list[str], values: list[float], lows: list[float], highs: list[float]) -> None:
    at = np.arange(len(names))
    axes.hlines(at, lows, highs, color=PRIVATE, linewidth=2)
    axes.plot(values, at, "o", color=PRIVATE, markersize=7)
    axes.set_yticks(at, names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _rates(axes: Axes, rates: dict[str, dict[str, Any]], chance: float) -> None:
    _dots(axes, list(rates), *([rate[key] for rate in rates.values()] for key in ("value", "low", "high")))
    axes.axvline(chance, color=PLAIN, linewidth=1.4, linestyle="--")
    axes.annotate("guessing", (chance, -0.45), (4, 0), textcoords="offset points", color=PLAIN, fontsize=9.5)


def _membership_panel(own: dict[str, Any], axes: Axes) -> None:
    names = {
        "lira_online": "LiRA",
        "lira_offline": "LiRA offline",
        "loss_threshold": "loss (shadows)",
        "own_model": "loss, train from test",
    }
    _rates(axes, {text: own[key]["auc"] for key, text in names.items()}, 0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.4), max(high, 0.6))


def _site_panel(own: dict[str, Any], axes: Axes) -> None:
    _rates(axes, {text: own[view]["accuracy"] for view, text in VIEWS.items()}, own["clear"]["chance"])
    axes.set_xlim(-0.02, 1.04)


def _bounds(own: dict[str, Any] | None, name: str) -> dict[str, tuple[float, float]]:
    keys = {
        "mechanism": "two sums",
        "sampled_round": "sampled sum",
        "white_box": "from sums",
        "black_box": "from the model",
    }
    if own is None:
        return {}
    return {
        f"{name}, {text}": (own[key]["epsilon_lower"], claimed)
        for key, text in keys.items()
        if key in own and (claimed := number(own[key]["epsilon_claimed"])) is not None
    }


def _audit_panel(audits: dict[str, tuple[float, float]], axes: Axes) -> None:
    at = np.arange(len(audits))
    lower, claimed = (np.array([pair[i] for pair in audits.values()]) for i in range(2))
    axes.barh(at, claimed, 0.55, color=PALE)
    axes.barh(at, lower, 0.55, color=np.where(lower > claimed, PUBLISHED, PRIVATE))
    axes.set_yticks(at, list(audits))
    axes.set_ylim(len(audits) - 0.4, -0.6)
    axes.set_xlabel("grey: claimed, blue: demonstrated")


def _inversion_panel(own: dict[str, Any], axes: Axes) -> None:
    key = "ssim" if own["picture"] else "error"
    at = np.arange(len(VIEWS))
    axes.plot([own[view][f"chance_{key}"] for view in VIEWS], at, "|", color=PLAIN, markersize=18, markeredgewidth=2)
    axes.plot([own[view][key] for view in VIEWS], at, "o", color=PRIVATE, markersize=7)
    axes.set_yticks(at, list(VIEWS.values()))
    axes.set_ylim(len(VIEWS) - 0.4, -0.6)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
    axes.set_xlabel("dot: attack, grey: random records")


def pictures_figure(found: dict[str, np.ndarray]) -> Figure:
    """A row of originals and one row of reconstructions per view; `[n, H, W, C]` in 0..1."""
    names = {"originals": "original", **VIEWS}
    shown_rows = [(text, found[key]) for key, text in names.items() if key in found]
    columns = len(shown_rows[0][1])
    figure = Figure(figsize=(WIDTH, 0.3 + 0.88 * WIDTH / (columns + 1.6) * len(shown_rows)), dpi=DPI, facecolor="white")
    grid = figure.add_gridspec(
        len(shown_rows), columns, left=0.17, right=0.99, top=0.99, bottom=0.01, wspace=0.05, hspace=0.05
    )
    for row, (text, images) in enumerate(shown_rows):
        for column, image in enumerate(images):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(text.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=10.5)
    return figure
