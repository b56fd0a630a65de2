"""A caller's declarations about a table, checked before the file is opened: types, ranges and shapes of every argument.

The same checks serve Python calls and settings of a run, so that a wrong level list gets the same message in both.
"""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_poisson.data.tables.remedies import declare_bounds, declare_levels, option

FROM_DATA = "from_data"
PRIVATE = "private"
"""In a run's settings: ranges or levels are released on the ledger instead of being looked up (`open_table`)."""
MISSING = ("impute", "indicate", "drop", "refuse")
LARGEST_VALUE = 1e30  # features are float32
LARGEST_SEED = 2**64 - 1


def file_name(path: Any) -> str:
    """A path as text.

    Raises:
        ValueError: It is neither text nor a path, or empty.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f"path is {path!r}; expected the name of a file, such as 'visits.csv'")
    return name


def check_column_name(role: str, name: Any, *, optional: bool = False) -> None:
    """Refuse a role (label, site, ...) that is not one column's name."""
    if (name is None and optional) or (isinstance(name, str) and name):
        return
    raise ValueError(f"{role} is {name!r}; expected the name of one column, as text")


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Refuse anything that is not a whole number in a range."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least {least}{upper}, such as {least}")


def check_test_fraction(value: Any) -> None:
    """Refuse a share of held-out patients outside [0, 1)."""
    if not is_finite(value) or not 0 <= value < 1:
        raise ValueError(f"test_fraction is {value!r}; expected 0 <= test_fraction < 1, such as 0.34")


def is_finite(value: Any) -> bool:
    """Whether it is a finite number (a bool is none)."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def checked_levels(categorical: Any, words: Sequence[str] = (FROM_DATA,)) -> Mapping[str, Sequence[str] | Any] | Any:
    """Levels of text columns with whole numbers as text; see `from_csv`.

    Raises:
        ValueError: It is neither "from_data" nor a mapping of columns to "from_data" or a list of levels.
    """
    if categorical is None or (isinstance(categorical, str) and categorical in words):
        return categorical
    if not isinstance(categorical, Mapping):
        raise ValueError(
            f"categorical is {categorical!r}; expected 'from_data' (--categorical from_data), or levels of each column: "
            + declare_levels("sex", ["F", "M"])
        )
    return {name: _levels(name, levels, words) for name, levels in categorical.items()}


def _levels(name: Any, levels: Any, words: Sequence[str]) -> Any:
    check_column_name("a column of categorical", name)
    if isinstance(levels, str) and levels in words:
        return levels
    if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
        raise ValueError(
            f"levels of {name!r} are {levels!r}; expected a list of text or 'from_data': "
            + declare_levels(name, [levels, "..."] if isinstance(levels, str) and levels else ["A", "B"])
        )
    for level in levels:
        if not (isinstance(level, str) or (isinstance(level, numbers.Integral) and not isinstance(level, bool))):
            raise ValueError(f"levels of {name!r} hold {level!r}; expected text: " + declare_levels(name, ["A", "B"]))
    return [str(level) for level in levels]


def check_bounds(bounds: Any, words: Sequence[str] = (FROM_DATA,)) -> None:
    """Refuse ranges that are neither "from_data" (or another word that is allowed) nor a mapping of columns to "from_data" or two finite numbers."""
    if isinstance(bounds, str) and bounds in words:
        return
    if not isinstance(bounds, Mapping):
        raise ValueError(
            f"bounds is {bounds!r}; expected 'from_data' (--bounds from_data), or a range of each column: "
            + declare_bounds("age")
        )
    for name, pair in bounds.items():
        check_column_name("a column of bounds", name)
        if isinstance(pair, str) and pair in words:
            continue
        two = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not two or not all(is_finite(end) and abs(end) <= LARGEST_VALUE for end in pair) or not pair[0] < pair[1]:
            raise ValueError(
                f"bounds of {name!r} are {pair!r}; expected two finite numbers of at most {LARGEST_VALUE:g}, lower < upper, or 'from_data': "
                + declare_bounds(name)
            )


def check_fill(fill: Any, bounds: Any = None) -> None:
    """Refuse fill values that are not finite numbers by column, or that a column's declared range would clip."""
    if fill is None:
        return
    if not isinstance(fill, Mapping):
        raise ValueError(f"fill is {fill!r}; expected a number for each column: [fill] age = 60 in a TOML file")
    for name, value in fill.items():
        check_column_name("a column of fill", name)
        if not is_finite(value):
            raise ValueError(f"fill of {name!r} is {value!r}; expected a finite number")
        pair = bounds.get(name, FROM_DATA) if isinstance(bounds, Mapping) else FROM_DATA
        if not isinstance(pair, str) and not pair[0] <= value <= pair[1]:
            raise ValueError(f"fill of {name!r} is {value!r}, outside its bounds {tuple(pair)}; choose one inside")


def checked_drop(drop: Any) -> tuple[str, ...]:
    """Columns to leave out.

    Raises:
        ValueError: It is one string, or not a sequence of names; a string would be taken letter by letter.
    """
    if isinstance(drop, str) or not isinstance(drop, Sequence):
        example = [drop] if isinstance(drop, str) else ["age"]
        raise ValueError(f"drop is {drop!r}; expected a list of columns, such as {example!r}")
    for name in drop:
        check_column_name("a column of drop", name)
    return tuple(drop)


def check_missing(missing: Any) -> None:
    """Refuse anything that is not a policy for missing values."""
    if missing not in MISSING:
        raise ValueError(f"missing is {missing!r}; expected one of {', '.join(MISSING)}")


def check_positive(positive: Any) -> None:
    """Refuse label values that are not text, or not a list of text."""
    values = [positive] if isinstance(positive, str) else positive
    if values is None:
        return
    if not isinstance(values, Sequence) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"positive is {positive!r}; expected label values as text: " + option("positive", "1"))
