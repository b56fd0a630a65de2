"""Readable numbers and names, formatted the same way in every figure and in the report."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from fedjax_poisson.runs.run_folder import RunFolder, number

MISSING = "not recorded"


def format_bytes(value: float) -> str:
    """Bytes in decimal units, three digits."""
    for limit, unit in ((1e3, "B"), (1e6, "kB"), (1e9, "MB")):
        if value < limit:
            return f"{value / (limit / 1e3):.3g} {unit}" if unit != "B" else f"{value:.0f} B"
    return f"{value / 1e9:.3g} GB"


def format_seconds(value: float) -> str:
    """Seconds with a unit that leaves two or three digits."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.3g} min"


def format_factor(value: float) -> str:
    """A ratio, three digits."""
    return f"{value:,.0f} times" if value >= 100 else f"{value:.3g} times"


def format_epsilon(value: float, decimals: int = 4) -> str:
    """Epsilon rounded up, so that the text never promises more privacy than was proved."""
    unit = 10.0**decimals
    return f"{math.ceil(round(value * unit, 6)) / unit:.{decimals}f}"


def site_word(run: RunFolder, count: int = 2) -> str:
    """The word for a sender: "hospital" where it is one, else "site"; plural unless count is 1."""
    word = "hospital" if run.summary.get("dataset") == "heart" else "site"
    return word if count == 1 else word + "s"


def format_share(value: float) -> str:
    """A fraction in percent with one decimal: an accuracy of 0.8149 is "81.5 %"."""
    return f"{100 * value:.1f} %"


def shown(value: Any, form: Callable[[float], str] = "{:g}".format) -> str:
    """A number in the given format, or "not recorded"."""
    found = number(value)
    return MISSING if found is None else form(found)


def words(value: Any) -> str:
    """Text, or "not recorded" where there is none."""
    return value if isinstance(value, str) and value else MISSING


def plural(count: float, one: str, many: str = "") -> str:
    """A count with its noun: "1 message", "21 messages"."""
    return f"{count:,.0f} {one if count == 1 else many or one + 's'}"


def moment(value: Any) -> str:
    """An ISO 8601 time in readable form; any other text unchanged."""
    try:
        when = datetime.fromisoformat(words(value))
    except ValueError:
        return words(value)
    return f"{when.day} {when:%B %Y, %H:%M}" + (" UTC" if when.utcoffset() == timedelta(0) else f" {when:%z}".rstrip())


def interval_text(found: Any, form: Callable[[float], str]) -> str:
    """A 95 % interval, "75.9 to 85.4 %", or a dash where there is none."""
    ends = [number(each) for each in found] if isinstance(found, list) and len(found) == 2 else []
    if len(ends) != 2 or None in ends:
        return "–"
    low, high = (form(each) for each in ends if each is not None)
    return f"{low.removesuffix(' %')} to {high}" if low.endswith(" %") else f"{low} to {high}"


def format_bound(value: float) -> str:
    """An upper bound in percent with one decimal, rounded up."""
    return f"{math.ceil(round(1000 * value, 6)) / 10:.1f} %"


def in_hundred(value: float) -> str:
    """An upper bound as people count: "9.2 in 100", rounded up."""
    return f"{math.ceil(round(1000 * value, 6)) / 10:g} in 100"
