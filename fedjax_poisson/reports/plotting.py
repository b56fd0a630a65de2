"""Drawing helpers shared by the figures: one style for all of them, and labels next to what they name.

Only matplotlib's objects are used, never its global settings. Text that comes from data is never parsed as
mathematical markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Okabe and Ito's palette: distinguishable with every common colour vision deficiency, and in grey print by lightness.
# Vermilion and orange are darkened: words on white need a contrast of 4.5, shapes that carry a value one of 3 (WCAG 2.1, AA).
PRIVATE, PLAIN, PUBLISHED, PUBLISHED_LIGHT, EPSILON = "#0072B2", "#595959", "#B34700", "#C97B00", "#007A5A"
PALE = "#8F8F8F"  # bars that matter least
FAINT = "#D9D9D9"  # lines that only help to read a value
WIDTH, DPI = 9.0, 160  # inches, dots per inch: 11 pt is about 15 pixels when shown 900 pixels wide


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure of the standard width with one clean pair of axes; height in inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    clean(axes)
    return figure, axes


def panels(height: float, count: int) -> tuple[Figure, list[Axes]]:
    """A figure of the standard width with several clean pairs of axes side by side, sharing one vertical axis."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    every = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in every:
        clean(axes)
    return figure, every


def grid(height: float, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of the standard width with clean pairs of axes in rows and columns, listed row by row."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")
    every = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in every:
        clean(axes)
    return figure, every


def clean(axes: Axes) -> None:
    """Keep only the frame and grid lines that help to read a value."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#8C8C8C")
    axes.tick_params(labelsize=10.5, color="#8C8C8C")
    axes.xaxis.label.set_fontsize(11)
    axes.yaxis.label.set_fontsize(11)
    axes.grid(visible=True, axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def title(axes: Axes, text: str, pad: float = 12) -> None:
    """A left-aligned title; pad in points leaves room for a key or an upper axis."""
    axes.set_title(text, loc="left", fontsize=13, fontweight="bold", pad=pad, parse_math=False)


def percent(axis: Axis) -> None:
    """Label an axis of fractions in percent, with ticks that need no rounding."""
    axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g} %"))


def label_lines(axes: Axes, lines: Sequence[tuple[float, str, str]]) -> None:
    """Label each (value, name, colour) line at its right end, moving apart names that would overlap."""
    low, high = axes.get_ylim()
    height = axes.bbox.height * 72 / DPI * 0.9  # points; the layout will take a tenth or so for the axis titles
    ordered = sorted(lines, key=lambda line: line[0])
    heights = [(text.count("\n") + 1) * 12.5 / height for _, text, _ in ordered]
    wanted = [(value - low) / (high - low) for value, _, _ in ordered]
    for (_, text, color), place in zip(ordered, spread(wanted, heights), strict=True):
        axes.text(
            1.015,
            place,
            text,
            transform=axes.transAxes,
            color=color,
            fontsize=10,
            va="center",
            linespacing=1.1,
            parse_math=False,
        )


def spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres of labels in [0, 1], as close to the wanted ones as their heights allow, in the given (ascending) order.

    Overlapping neighbours are merged into blocks, and each block is placed at the mean of the positions its members
    want (pool adjacent violators).
    """
    blocks: list[tuple[list[int], float]] = []  # members, bottom edge
    for i, (place, height) in enumerate(zip(wanted, heights, strict=True)):
        members, bottom = [i], place - height / 2
        while blocks and blocks[-1][1] + sum(heights[m] for m in blocks[-1][0]) > bottom:
            members = blocks.pop()[0] + members
            offset, bottoms = 0.0, []
            for m in members:
                bottoms.append(wanted[m] - heights[m] / 2 - offset)
                offset += heights[m]
            bottom = sum(bottoms) / len(bottoms)
        blocks.append((members, bottom))
    centres = [0.0] * len(wanted)
    for members, bottom in blocks:
        for m in members:
            centres[m] = bottom + heights[m] / 2
            bottom += heights[m]
    return centres


def coloured_key(axes: Axes, entries: list[tuple[str, str]]) -> None:
    """One row of (name, colour) above the axes."""
    handles: list[Any] = [axes.plot([], [], "s", color=color, markersize=9, label=name)[0] for name, color in entries]
    key = axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=len(entries), frameon=False, fontsize=9.5,
        handletextpad=0.1, columnspacing=1.1, borderaxespad=0.2,
    )  # fmt: skip
    key.set_in_layout(False)  # a long key must not squeeze the axes; the title leaves room for it


def horizontal_bars(axes: Axes, bars: list[tuple[str, float, str, str]], slots: int = 0) -> None:
    """Horizontal bars (name, length, colour, label), each labelled with its value instead of an axis.

    If there are fewer bars than slots, the bars are as thick as in a panel that fills all slots.
    """
    clean(axes)
    axes.grid(visible=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    longest = max((value for _, value, _, _ in bars), default=0.0)
    for i, (_, value, color, label) in enumerate(bars):
        axes.barh(i, value, 0.62, color=color)
        axes.annotate(
            label, (value, i), (4, 0), textcoords="offset points", va="center", fontsize=10, annotation_clip=False
        )
    axes.set_yticks(range(len(bars)), [name for name, _, _, _ in bars])
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(bars), slots, 1) - 0.5, -0.5)
    axes.set_xlim(0, 1.28 * longest or 1.0)
