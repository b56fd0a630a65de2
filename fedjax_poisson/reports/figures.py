"""Figures of a finished run, drawn only from the files in its folder.

matplotlib is used through its objects (`Figure`, `FigureCanvasAgg`), without pyplot or a global style, so drawing a
figure changes nothing for the caller and works without a display.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedjax_poisson.reports.curve_figures import CURVE_FIGURES
from fedjax_poisson.reports.formatting import (
    format_bytes,
    format_epsilon,
    format_factor,
    format_seconds,
    format_share,
    site_word,
)
from fedjax_poisson.reports.guarantees import encrypted, protection
from fedjax_poisson.reports.plotting import (
    DPI,
    EPSILON,
    FAINT,
    PALE,
    PLAIN,
    PRIVATE,
    PUBLISHED,
    PUBLISHED_LIGHT,
    WIDTH,
    canvas,
    coloured_key,
    horizontal_bars,
    label_lines,
    percent,
    title,
)
from fedjax_poisson.reports.recorded_values import phase_seconds
from fedjax_poisson.runs.headline import headline
from fedjax_poisson.runs.published_scores import Published, published
from fedjax_poisson.runs.run_folder import RunFolder, number, numbers_by_name, objects, read_run, score

_MOST_BARS, _MOST_SITES = 8, 40


def write_figures(run_dir: str | Path, names: Collection[str] | None = None) -> list[Path]:
    """Draw every figure for which the run recorded the values.

    Args:
      run_dir: run folder with summary.json and rounds.jsonl.
      names: which of `FIGURES`; None for all of them.

    Returns:
      The PNG files written under figures/, in the order of `FIGURES`. A figure
      whose values were not recorded is not drawn, and an older file of the same name is removed so that nothing stale
      is shown.

    Raises:
      FileNotFoundError: the folder has no summary.json.
    """
    run = read_run(run_dir)
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    written = []
    for name, draw in FIGURES.items():
        if names is not None and name not in names:
            continue
        figure, path = draw(run), folder / f"{name}.png"
        if figure is None:
            path.unlink(missing_ok=True)
            continue
        FigureCanvasAgg(figure).print_png(path)
        written.append(path)
    return written


def accuracy_figure(run: RunFolder) -> Figure | None:
    """The headline score after every release, with the epsilon spent so far on the upper axis; None without scores."""
    lead = headline(run.summary)
    form = format_share if lead.share else lead.text
    points = [
        (at, value)
        for row in run.rounds
        if (at := number(row.get("round"))) is not None and (value := score(row, lead.name)) is not None
    ]
    if not points or run.summary.get("evaluation") == "private":  # scores of one release at the end are no curve
        return None
    rounds, values = zip(*points, strict=True)
    figure, axes = canvas(4.9)
    lines: list[tuple[float, str, str]] = []
    if (plain := number(run.summary.get(f"nonprivate_{lead.name}"))) is not None:
        axes.axhline(plain, color=PLAIN, linewidth=1.6, dashes=(6, 3))
        lines.append((plain, f"{form(plain)} same recipe,\nwithout privacy", PLAIN))
    for found, name, color in _published_lines(published(run.summary.get("dataset"))):
        axes.axhline(found, color=color, linewidth=1.4, dashes=(2, 2))
        lines.append((found, f"{format_share(found)} {name}", color))
    axes.plot(
        rounds, values, color=PRIVATE, linewidth=2.6, marker="o", markersize=5 if len(rounds) <= 40 else 0, zorder=3
    )
    lines.append((values[-1], f"{form(values[-1])} this run,\n{protection(run)}", PRIVATE))

    everything = [*values, *(value for value, _, _ in lines)]
    if lead.share:
        axes.set_ylim(max(0.0, min(everything) - 0.04), min(1.0, max(everything) + 0.04))
    else:
        axes.set_ylim(*_margins(everything))
    axes.set_xlim(min(rounds) - 0.02 * len(rounds), max(rounds) + 0.02 * len(rounds) + (len(rounds) == 1))
    label_lines(axes, lines)
    axes.set_xlabel("training round")
    axes.set_ylabel(
        f"accuracy on test records,\nmean over {site_word(run)}" if lead.share else f"{lead.words},\ntest records"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if lead.share:
        percent(axes.yaxis)
    _epsilon_axis(axes, run)
    title(axes, f"{'Accuracy' if lead.share else 'Error'} against privacy spent", pad=42)
    return figure


def _margins(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis of errors: from zero where that wastes little room, with space above for labels."""
    low, high = min(values), max(values)
    room = 0.15 * (high - low) or 0.1 * high or 1.0
    return max(0.0, low - room), high + room


def sites_figure(run: RunFolder) -> Figure | None:
    """The headline score by site: this run, the same recipe without privacy, and published scores; None without scores by site."""
    lead = headline(run.summary)
    own = numbers_by_name(run.summary.get(lead.by_site))
    if not own:
        return None
    known = published(run.summary.get("dataset"))
    series = [
        (f"this run ({protection(run)})", PRIVATE, own),
        ("without privacy", PLAIN, numbers_by_name(run.summary.get(f"nonprivate_{lead.by_site}"))),
    ]
    if known is not None:
        series.append((f"published: {known.by} pooled", PUBLISHED, dict(known.pooled.by_site)))
        series.append((f"published: {known.by} FedAvg", PUBLISHED_LIGHT, dict(known.federated.by_site)))
    series = [entry for entry in series if any(name in entry[2] for name in own)]
    tested = {str(site.get("name")): number(site.get("test_records")) for site in objects(run.summary.get("sites"))}
    names = list(own)
    if len(names) > _MOST_BARS:
        return _sites_as_dots(run, series[:2], sorted(names, key=lambda name: own[name]))

    figure, axes = canvas(4.6)
    width = 0.8 / len(series)
    for k, (_, color, scores) in enumerate(series):
        for i, name in enumerate(names):
            if name in scores:
                x = i + (k - (len(series) - 1) / 2) * width
                axes.bar(x, scores[name], width * 0.92, color=color)
                axes.annotate(
                    f"{100 * scores[name]:.0f} %" if lead.share else f"{scores[name]:.3g}",
                    (x, scores[name]),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9.5,
                )
    axes.set_xticks(range(len(names)), [_site_label(name, tested.get(name)) for name in names], parse_math=False)
    axes.tick_params(axis="x", length=0)
    if lead.share:
        axes.set_ylim(0, 1.05 if max(own.values()) > 0.97 else 1.0)
        percent(axes.yaxis)
    axes.set_ylabel(f"{'accuracy' if lead.share else lead.words} on test records")
    coloured_key(axes, [(name, color) for name, color, _ in series])
    title(axes, f"{'Accuracy' if lead.share else 'Error'} by {site_word(run, 1)}", pad=34)
    return figure


def _sites_as_dots(run: RunFolder, series: list[tuple[str, str, dict[str, float]]], names: list[str]) -> Figure:
    """Many sites: one line per site, with a bar between two dots for the effect of privacy."""
    shown = names if len(names) <= _MOST_SITES else names[: _MOST_SITES // 2] + names[-_MOST_SITES // 2 :]
    figure, axes = canvas(1.6 + 0.26 * len(shown))
    for i, name in enumerate(shown):
        present = [scores[name] for _, _, scores in series if name in scores]
        axes.plot([min(present), max(present)], [i, i], color=FAINT, linewidth=3, zorder=1)
        for _, color, scores in series[::-1]:
            if name in scores:
                axes.plot(scores[name], i, "o", color=color, markersize=7, zorder=2)
    axes.set_yticks(range(len(shown)), [_short(name) for name in shown], parse_math=False, fontsize=9.5)
    lead = headline(run.summary)
    axes.set_xlabel(f"{'accuracy' if lead.share else lead.words} on test records")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=FAINT, linewidth=0.8)
    if lead.share:
        percent(axes.xaxis)
    coloured_key(axes, [(name, color) for name, color, _ in series])
    cut = (
        ""
        if len(shown) == len(names)
        else f" (the {_MOST_SITES // 2} lowest and {_MOST_SITES // 2} highest of {len(names)})"
    )
    title(axes, f"{'Accuracy' if lead.share else 'Error'} by {site_word(run, 1)}{cut}", pad=34)
    return figure


def epsilon_figure(run: RunFolder) -> Figure | None:
    """Cumulative epsilon after every release, and the cost of standardisation alone; None without readings."""
    rows = [(row, value) for row in run.rounds if (value := number(row.get("epsilon_so_far"))) is not None]
    if not rows:
        return None
    figure, axes = canvas(4.0)
    spent = [value for _, value in rows]
    edges = np.arange(len(spent) + 1) + 0.5
    first = sum(row.get("purpose") == "standardise" for row, _ in rows)
    alone = spent[first - 1] if first else 0.0
    axes.stairs(spent, edges, baseline=0, fill=True, color=EPSILON, alpha=0.25)
    axes.stairs(spent, edges, baseline=None, color=EPSILON, linewidth=2.2)
    labels = [(spent[-1], f"{format_epsilon(spent[-1])} in total", EPSILON)]
    if first:
        axes.fill_between([edges[0], edges[-1]], 0, alone, color=EPSILON, alpha=0.35, linewidth=0)
        labels.append((alone, f"{format_epsilon(alone)} for standardisation\nalone", EPSILON))
    target = number(run.summary.get("epsilon_target"))
    if target is not None and target < 3 * spent[-1]:
        axes.axhline(target, color=PLAIN, linewidth=1.4, dashes=(6, 3))
        labels.append((target, f"{target:g} budget", PLAIN))
    axes.set_ylim(0, 1.1 * max(value for value, _, _ in labels))
    axes.set_xlim(edges[0], edges[-1])
    label_lines(axes, labels)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("release on the ledger")
    axes.set_ylabel("epsilon spent so far")
    title(axes, f"Privacy spent, release by release{_at_delta(run)}")
    return figure


def cost_figure(run: RunFolder) -> Figure | None:
    """Seconds by phase, and bytes of one message compared with plain float32; None if neither was recorded."""
    seconds = phase_seconds(run)
    sent = number(run.summary.get("bytes_up_per_client_per_round"))
    plain = number(run.summary.get("plaintext_bytes_per_client_per_round"))
    if not seconds and (sent is None or plain is None):
        return None
    figure = Figure(figsize=(WIDTH, 3.5), dpi=DPI, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    shades = {"compute gradients": PLAIN, "everything else": PALE}
    horizontal_bars(left, [(name, value, shades.get(name, PRIVATE), format_seconds(value)) for name, value in seconds])
    title(left, "Time, all rounds together")
    if sent is None or plain is None:
        horizontal_bars(right, [])
        title(right, "Size of one message: not recorded")
        return figure
    factor = f" ({format_factor(sent / plain)})" if plain else ""
    sizes = [
        ("encrypted" if encrypted(run) else "sent, unencrypted", sent, PRIVATE, format_bytes(sent) + factor),
        ("plain float32", plain, PLAIN, format_bytes(plain)),
    ]
    horizontal_bars(right, sizes, slots=len(seconds))
    title(right, "Size of one message")
    return figure


FIGURES: dict[str, Callable[[RunFolder], Figure | None]] = {
    "accuracy": accuracy_figure,
    "sites": sites_figure,
    "epsilon": epsilon_figure,
    "cost": cost_figure,
    **CURVE_FIGURES,
}


def _published_lines(known: Published | None) -> list[tuple[float, str, str]]:
    if known is None:
        return []
    return [
        (known.pooled.mean_client_accuracy, f"published by {known.by}:\npooled, no privacy", PUBLISHED),
        (known.federated.mean_client_accuracy, f"published by {known.by}:\nFedAvg, no privacy", PUBLISHED),
    ]


def _at_delta(run: RunFolder) -> str:
    delta = number(run.summary.get("delta"))
    return "" if delta is None else f" (at delta {delta:g})"


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _site_label(name: str, tested: float | None) -> str:
    return _short(name) if tested is None else f"{_short(name)}\n{tested:.0f} test records"


def _epsilon_axis(axes: Axes, run: RunFolder) -> None:
    """Label the upper axis with epsilon at selected rounds, so that one curve shows accuracy against both."""
    readings = {
        int(at): value
        for row in run.rounds
        if (at := number(row.get("round"))) is not None and (value := number(row.get("epsilon_so_far"))) is not None
    }
    low, high = axes.get_xlim()
    ticks = [
        r for r in MaxNLocator(nbins=7, integer=True).tick_values(low, high) if low <= r <= high and int(r) in readings
    ]
    if not ticks:
        return
    last = max(readings)
    ticks = [r for r in ticks if last - r > 0.07 * (high - low)] + [last]
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(ticks, [format_epsilon(readings[int(r)], 2) for r in ticks])
    upper.tick_params(labelsize=10.5, colors=EPSILON)
    upper.spines["top"].set_color(EPSILON)
    upper.set_xlabel(f"epsilon spent so far{_at_delta(run)}", color=EPSILON, fontsize=11)
