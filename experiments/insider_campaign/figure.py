"""The figure: a table of attacks against defences, one block a task, that says what each attack cost and which were stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fedjax_poisson.reports.plotting import DPI, FAINT, PLAIN, PUBLISHED, WIDTH
from insider_campaign.measuring import NONE
from insider_campaign.task import TOO_LONG

WORDS = {
    "count_bound": "counts at the round's bound",
    "count_wrap": "counts that overflow",
    "scale_50": "update times -50",
    "scale_10": "update times -10",
    "spike": "one huge coordinate",
    "colluding_pair": "huge vector, split by a pair",
    "inner_product": "against the mean (times -2)",
    "sign_flip": "update times -1",
    "little_is_enough": "a little is enough",
    "label_flip": "labels exchanged",
    "model_replacement": "model replacement",
    "backdoor": "backdoor in the records",
}
"""Attacks that are shown, in this order, and what they are called; attacks on images stand with those on tables."""
_TARGETED = ("model_replacement", "backdoor")
COLUMNS = {
    "light": "no defence",
    "vote": "vote",
    "norm": "norm proof",
    "trimmed_mean": "trimmed mean *",
    "multi_krum": "multi-Krum *",
    "centred_clipping": "centred clipping *",
}
"""Defences that are shown; those with a star read every update in the clear."""
_HARM = LinearSegmentedColormap.from_list("harm", ["white", PUBLISHED])
_WORST = 0.3  # lost score, or marked records won, at which the colour is full
_STOPPED = "#BBD3E6"


class Block(NamedTuple):
    """The columns of one task."""

    task: str
    score: str
    rows: list[dict[str, Any]]
    defences: list[str]


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw the table of all results there are."""
    blocks = [
        _block(name, [row for row in rows if row["task"] == name]) for name in dict.fromkeys(r["task"] for r in rows)
    ]
    wide = sum(_width(block) for block in blocks) + 0.5 * (len(blocks) - 1)
    shown = [name for name in WORDS if any(_found(block, name, each) for block in blocks for each in block.defences)]
    untargeted = [name for name in shown if name not in _TARGETED]
    high = len(untargeted) + len(_TARGETED) + 1.9
    figure = Figure(
        figsize=(WIDTH * max(1.0, wide / 9), 0.29 * high + 2.3), dpi=DPI, layout="constrained", facecolor="white"
    )
    axes = figure.add_subplot()
    axes.set_xlim(0, wide + 0.03)  # with the last line
    axes.set_ylim(high, 0)
    axes.axis("off")
    places = {name: 0.75 + i for i, name in enumerate(untargeted)}
    places |= {name: 0.75 + len(untargeted) + 1.1 + i for i, name in enumerate(_TARGETED)}
    _say(axes, -0.15, 0.35, "Points of the score that the attack costs", "right", 9.5, weight="bold")
    _say(
        axes,
        -0.15,
        places[_TARGETED[0]] - 0.45,
        "Of 100 marked records, decided as the attacker wants",
        "right",
        9.5,
        weight="bold",
    )
    for name, top in places.items():
        _say(axes, -0.15, top + 0.5, WORDS[name], "right", 10)
    left = 0.0
    for block in blocks:
        middle = left + len(block.defences) / 2
        clean = _found(block, NONE, "light")
        reads = "accuracy" if block.score == "accuracy" else "AUC"
        _say(axes, middle, -3.7, _short(block.task), "center", 10, weight="bold")
        if clean is not None:
            _say(axes, middle, -2.9, f"{reads} {100 * clean[block.score]:.1f}", "center", 8.5, colour=PLAIN)
        for i, defence in enumerate(block.defences):
            axes.text(left + i + 0.5, 0.6, COLUMNS[defence], rotation=90, ha="center", va="bottom", fontsize=8.5)
            for name, top in places.items():
                _cell(axes, left + i, top, block, name, defence)
        left += _width(block) + 0.5
    figure.text(0.01, -0.012, _caption(), fontsize=8.5, color=PLAIN, va="top", linespacing=1.35)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.12)


def _width(block: Block) -> float:
    return max(float(len(block.defences)), 1.6)  # one column is narrower than its title


def _short(name: str) -> str:
    """A task's name in two short lines."""
    first, rest = name.split(", ", 1)
    return f"{first}\n{rest.split(' of ')[0]}" + (" clients" if " of " in rest else "")


def _caption() -> str:
    return (
        "Points are lost against an honest training with the same defence; a few either way are chance. Blue: refused at once, or every such client\n"
        "kept out (the number is what that cost). A tenth of the clients are corrupt, a fifth where a norm proof meets the long messages of the first five\n"
        "rows and of model replacement, and under the trimmed mean of W2; of sites, one. Marked records: by an honest model > by the attacked one. "
        "* reads every client's update in the clear."
    )


def _block(name: str, rows: list[dict[str, Any]]) -> Block:
    score = (
        "accuracy" if name.startswith("W2") else "auc"
    )  # ten classes; else an attack that only shifts the threshold would look like one that harms
    return Block(
        name, score, rows, [each for each in COLUMNS if any(r["defence"] == each and r["attack"] != NONE for r in rows)]
    )


def _found(block: Block, attack: str, defence: str) -> dict[str, Any] | None:
    """The row of an attack: at the largest share where a norm proof meets messages that are too long, else at the usual one, which comes first."""
    own = [
        row
        for row in block.rows
        if row["defence"] == defence and "accuracy" in row and _same(row["attack"], attack) and row["share"] != 0.05
    ]
    if not own:
        return None
    most = defence == "norm" and attack in TOO_LONG
    return max(own, key=lambda row: row["share"]) if most else min(own, key=lambda row: row["share"])


def _same(name: str, shown: str) -> bool:
    if shown == "model_replacement":
        return name.startswith("model_replacement")
    return name.startswith("backdoor") if shown == "backdoor" else name == shown


def _cell(axes: Axes, left: float, top: float, block: Block, name: str, defence: str) -> None:
    row, clean = _found(block, name, defence), _found(block, NONE, defence)
    if row is None or (clean is None and name not in _TARGETED):
        return
    # a training that was stopped after rounds were opened keeps what they did to the model
    stopped = row["rounds"] == 0 or (defence == "norm" and (row["excluded_right"] or 0) > 0.99)
    if name in _TARGETED:
        after, before = row["attack_success"], row["attack_success_honest"]
        text = f"{100 * after:.0f}" if before is None else f"{100 * before:.0f}>{100 * after:.0f}"
        harm = 0.0 if before is None else after - before
    else:
        assert clean is not None
        harm = clean[block.score] - row[block.score]
        text = f"{100 * harm:.1f}".replace("-0.0", "0.0")
    if row["refused"] is not None:
        text = "stops" if stopped else f"stops\nafter {row['rounds']}"
    colour = _STOPPED if stopped else _HARM(min(max(harm, 0.0) / _WORST, 1.0))
    axes.add_patch(Rectangle((left, top), 1, 1, facecolor=colour, edgecolor=FAINT, linewidth=0.8))
    _say(axes, left + 0.5, top + 0.5, text, "center", 8.5 if "\n" not in text else 7.5)


def _say(
    axes: Axes, x: float, y: float, text: str, ha: str, size: float, *, colour: str = "black", weight: str = "normal"
) -> None:
    axes.text(x, y, text, ha=ha, va="center", fontsize=size, color=colour, fontweight=weight, parse_math=False)
