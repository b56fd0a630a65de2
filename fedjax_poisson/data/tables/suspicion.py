"""Checks for columns used by mistake: an identifier, a date, a copy of the label, a number with thousands separators, a code for "missing".

None of this is private: it reads all records, and addresses their owner. Anything certain to spoil a run is refused with
a remedy; anything that may be intended is a warning. Messages name columns and lines, never how many records are affected,
since warnings go into the report of a run.
"""

from __future__ import annotations

import collections
import datetime
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedjax_poisson.data.tables.csv_table import line_list, listed, numeric
from fedjax_poisson.data.tables.remedies import declare_bounds, declare_levels, leave_out, option

if TYPE_CHECKING:
    from fedjax_poisson.data.tables.columns import Column
    from fedjax_poisson.data.tables.labels import TableLabel

_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_SURE_THOUSANDS = re.compile(
    r"[+-]?\d{1,3}(,\d{3})+\.\d+|[+-]?\d{1,3}(,\d{3}){2,}|[+-]?\d{1,3}(\.\d{3})+(,\d+|\.\d{3})"
)
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4})"
    r"([T ]\d{1,2}:\d{2}.*)?"
)
_ID_NAME = re.compile(
    r"(^|[_\W])(id|ids|pid|uid|uuid|guid|mrn|ssn|case_?no|record_?(no|nr|id)|patient_?(no|nr|id)|nhs_?no)$", re.I
)
_LEAST_RECORDS = 30  # below this, whole numbers that all differ may be a measurement
_SENTINELS = (-1.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0, 99999.0)


def refuse_thousands(column: Column) -> None:
    """Refuse numbers whose comma or point may separate thousands: 1,234 is 1.234 or 1234, and nothing in the column tells.

    Raises:
        ValueError: With the first such line.
    """
    marked = [text for text in column.distinct if "," in text or text.count(".") > 1]
    if not marked:
        return
    sure = [text for text in marked if _SURE_THOUSANDS.fullmatch(text)]
    unsure = [text for text in marked if _THOUSANDS.fullmatch(text)]
    # One value such as 3,5 or 0,123 proves that the column's commas are decimal, unless a point is decimal beside it.
    decimal = any(re.fullmatch(r"[+-]?(0|\d{4,}),\d+|[+-]?\d+,(\d{1,2}|\d{4,})", text) for text in marked)
    pointed = any(re.fullmatch(r"[+-]?\d+\.\d+", text) for text in column.distinct)
    if sure or (unsure and (pointed or not decimal)):
        text = (sure or unsure)[0]
        kind = (
            "holds a thousands separator"
            if sure
            else "may be a number with a thousands separator or with a decimal comma"
        )
        raise ValueError(
            f"{column.path}, line {column.line_of(text)}: {text!r} in column {column.name!r} {kind}; "
            "write all numbers of the column without thousands separators and with a decimal point"
        )
    if pointed and decimal and column.decimal_comma:
        text = marked[0]
        raise ValueError(
            f"{column.path}, line {column.line_of(text)}: column {column.name!r} holds numbers with a decimal comma ({text!r}) and "
            "others with a point; write all with a decimal point"
        )


def refuse_dates(column: Column, values: np.ndarray | None = None) -> None:
    """Refuse a column of dates, as text or as whole numbers such as 20240131: their levels or sizes mean nothing."""
    if values is None:
        texts = [text for text in column.distinct if text]
        dates = [text for text in texts if _DATE.fullmatch(text)]
        if not texts or len(dates) < 0.9 * len(texts):
            return
        example = dates[0]
    else:
        known = np.unique(values[~np.isnan(values)])
        if len(known) < 5 or known[0] < 19000101 or known[-1] > 21001231 or not all(map(_is_day, known.tolist())):
            return
        example = f"{known[0]:.0f}"
    raise ValueError(
        f"{column.path}: column {column.name!r} holds dates, as on line {column.lines[_first(column, example)]}; turn them into "
        f"a number (an age, days since a fixed day), or {leave_out(column.name)}"
    )


def refuse_identifier(column: Column, values: np.ndarray | None) -> None:
    """Refuse a column whose values identify records instead of describing them.

    Whole numbers that all differ in 30 records or more, or nearly all (97 %) in 100 or more; text that differs in more than half of the
    records; a column called like an identifier with more than 20 different values.

    Args:
        column: The column, for which nothing was declared.
        values: float64 `[n]` where it is a number, NaN where missing; None where it is text.
    """
    present = int((~column.missing).sum())
    different = len(column.distinct) - (1 if column.missing.any() else 0)
    if values is None:
        unique = different > 10 and different > 0.5 * present
    else:
        known = values[~np.isnan(values)]
        if not np.array_equal(known, np.round(known)):
            return
        different = len(np.unique(known))
        unique = present >= _LEAST_RECORDS and (
            different == present or (present >= 100 and different >= 0.97 * present)
        )
    kind = "text" if values is None else "whole number"
    if unique or (_ID_NAME.search(column.name) and different > 20):
        keep = (
            declare_bounds(column.name, 0, 1000) if values is not None else declare_levels(column.name, ["A", "other"])
        )
        what = (
            f"is a different {kind} in nearly every record"
            if unique
            else "is called like an identifier and has many values"
        )
        raise ValueError(
            f"{column.path}: column {column.name!r} {what}, as an identifier is; {leave_out(column.name)}, or use it as "
            f"{option('patient', column.name)}, or keep it by declaring what is public about it: {keep}{_number_hint(column, values)}"
        )


def _number_hint(column: Column, values: np.ndarray | None) -> str:
    """Where to look if a column of text was meant as a number: "12 %" is none."""
    text = next((text for text in column.distinct if text), "")
    if values is not None or not any(mark.isdigit() for mark in text):
        return ""
    return f". If it should be a number, look at line {column.line_of(text)}: {text!r}"


def refuse_number_as_text(column: Column, parsed: Sequence[bool]) -> None:
    """Refuse to take levels from a column that is a number but for a few values.

    Args:
        column: The column.
        parsed: For each of its different values, whether it is a number (or missing).
    """
    texts = [text for text, good in zip(column.distinct, parsed, strict=True) if not good]
    filled = sum(1 for text in column.distinct if text)
    if not texts or filled < 10 or len(texts) > 0.2 * filled:
        return
    raise ValueError(
        f"{column.path}: column {column.name!r} is a number but for {texts[0]!r} on line {column.line_of(texts[0])}"
        f"{' and others' if len(texts) > 1 else ''}; correct it or leave the field empty there, or declare all levels: "
        + declare_levels(column.name, [*[t for t in column.distinct if t][:3], "other"])
    )


def refuse_constants(columns: Sequence[Column]) -> None:
    """Refuse columns of one value each, all at once: nothing can be learned from them, and each costs noise."""
    constant = [column.name for column in columns if len([text for text in column.distinct if text]) == 1]
    if constant:
        raise ValueError(
            f"{columns[0].path}: the same value in every record of {listed(constant)}: nothing can be learned from that; "
            f"{leave_out(*constant)}, or keep it by declaring its levels or bounds"
        )


def label_copies(columns: Sequence[Column], label: TableLabel) -> list[str]:
    """Refuse columns that are a label in other words, and say which ones nearly are.

    A column with few different values (a fifth of the records at most) that determines the label of every record which has one is a
    copy, however it is coded; so is one with more than one value for a label. The rarer label must occur five times, so that
    an accident is unlikely. Of several classes a copy gives every one that occurs five times. A copy of a number is a column that orders the records in
    the same way, or in the opposite one.

    Args:
        columns: The columns to learn from.
        label: Of every record.

    Returns:
        Warnings about columns that give the label of 99 % of the records.

    Raises:
        ValueError: With all such columns.
    """
    if label.bounds is not None:
        return _number_copies(columns, label.values)
    if label.values.ndim == 2:
        each = [
            _copies(columns, [own], f"the label {name!r}")
            for name, own in zip(label.names, label.values.T, strict=True)
        ]
        return [warning for own in each for warning in own]
    if len(label.names) == 2:
        return _copies(columns, [label.values], "the label")
    counts = np.bincount(label.values, minlength=len(label.names))
    return _copies(columns, [(label.values == k).astype(np.int32) for k in np.flatnonzero(counts >= 5)], "the label")


def _copies(columns: Sequence[Column], splits: Sequence[np.ndarray], what: str) -> list[str]:
    """Columns from which all of some 0/1 labels can be read off; see `label_copies`."""
    copies, near = [], []
    for column in columns:
        known = ~column.missing
        codings = [(column.codes, known, len(column.distinct))]
        if not known.all():  # whether there is a value tells as well: a cause of death is there for the dead
            codings.append((known.astype(np.int64), np.ones(len(known), bool), 2))
        wrongs = [max(_wrong(codes[of], own[of], kinds) for own in splits) for codes, of, kinds in codings]
        if 0.0 in wrongs:
            copies.append(column.name)
        elif min(wrongs) <= 0.01:
            near.append(column.name)
    if copies:
        raise ValueError(
            f"{columns[0].path}: {what} can be read off {listed(copies)} in every record, as off a copy of it; {leave_out(*copies)}"
        )
    if not near:
        return []
    return [
        f"{what} can be read off {listed(near)} in 99 % of the records or more: was that known before the outcome? "
        f"If not, {leave_out(*near)}"
    ]


def _number_copies(columns: Sequence[Column], label: np.ndarray) -> list[str]:
    """Columns of numbers that order the records as the label does."""
    copies, near = [], []
    for column in columns:
        numbers = numeric(column.distinct, column.decimal_comma)
        if numbers is None or len(column.distinct) < 10:
            continue
        values = np.array(numbers)[column.codes]
        known = ~np.isnan(values)
        if known.sum() < _LEAST_RECORDS or len(np.unique(label[known])) < 10:
            continue
        _, own = np.unique(values[known], return_inverse=True)
        _, theirs = np.unique(label[known], return_inverse=True)
        alike = abs(float(np.corrcoef(own, theirs)[0, 1]))
        if alike > 1 - 1e-9:
            copies.append(column.name)
        elif alike > 0.995:
            near.append(column.name)
    if copies:
        raise ValueError(
            f"{columns[0].path}: {listed(copies)} orders the records exactly as the label does, as a copy of it would; {leave_out(*copies)}"
        )
    return [
        f"the label can almost be read off {name!r}: was that known before the outcome? If not, {leave_out(name)}"
        for name in near
    ]


def value_warnings(column: Column, values: np.ndarray, bounds: tuple[float, float] | None) -> list[str]:
    """Refuse a declared range that leaves nothing of a number, and say what looks like a code for "missing".

    Args:
        column: The column.
        values: float64 `[n]`, NaN where missing.
        bounds: The declared range, None if it is from the data.

    Raises:
        ValueError: Every value is clipped to the same one.
    """
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return []
    smallest, largest = float(known.min()), float(known.max())
    found = []
    if bounds is not None:
        low, high = bounds
        if smallest < largest and (smallest >= high or largest <= low):
            raise ValueError(
                f"{column.path}: the range {low:g} to {high:g} of column {column.name!r} clips every value to "
                f"{high if smallest >= high else low:g}; is it in another unit? Correct {declare_bounds(column.name)}"
            )
        if np.mean((known < low) | (known > high)) > 0.25:
            found.append(
                f"column {column.name!r}: its range {low:g} to {high:g} clips more than a quarter of the values"
            )
    if smallest >= 0 and largest < 99:
        return found
    others = known[~np.isin(known, _SENTINELS)]
    if len(others) < 2:
        return found
    low, high = float(others.min()), float(others.max())
    codes = [
        value for value in _SENTINELS if (value in known) and (value < 0 <= low or value > high + max(high - low, 1.0))
    ]
    if codes:
        found.append(
            f"column {column.name!r} holds {', '.join(f'{value:g}' for value in codes)}, which may stand for a missing value and is taken "
            "as a number; leave such fields empty in the file"
        )
    return found


def spelling_groups(texts: Sequence[str]) -> list[list[str]]:
    """Different texts that differ by case, spaces or leading zeros only, grouped; names of one thing, most likely.

    >>> spelling_groups(["Mercy", "mercy ", "St. John", "07", "7"])
    [['Mercy', 'mercy '], ['07', '7']]
    """
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for text in dict.fromkeys(texts):
        folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
        groups[(folded.lstrip("0") or "0") if folded.isdigit() else folded].append(text)
    return [group for group in groups.values() if len(group) > 1]


def refuse_spellings(path: str, role: str, texts: Sequence[str], lines: Sequence[int]) -> None:
    """Refuse names that differ by case, spaces or leading zeros only.

    Raises:
        ValueError: With the names of the first such thing, and a line of each.
    """
    groups = spelling_groups(texts)
    if groups:
        where = [lines[list(texts).index(name)] for name in groups[0]]
        raise ValueError(
            f"{path}: {', '.join(map(repr, groups[0]))} ({line_list(where)}) differ by case, spaces or leading zeros only, and would be "
            f"{len(groups[0])} {role}s; write one of them everywhere"
        )


def _wrong(codes: np.ndarray, labels: np.ndarray, kinds: int) -> float:
    """Share of records whose label is not the commonest of their value; 1 where that says nothing (see `label_copies`)."""
    ones, count = int(labels.sum()), len(labels)
    rare = min(ones, count - ones)
    if rare < 5 or kinds > max(3, count // 5):
        return 1.0
    wrong = int(np.bincount(2 * codes + labels, minlength=2 * kinds).reshape(-1, 2).min(axis=1).sum())
    return wrong / count if wrong < 0.1 * rare else 1.0


def _is_day(number: float) -> bool:
    text = f"{number:.0f}"
    if number != round(number) or len(text) != 8:
        return False
    try:
        datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _first(column: Column, text: str) -> int:
    code = next((k for k, value in enumerate(column.distinct) if value.split(".")[0] == text.split(".")[0]), 0)
    return int(np.argmax(column.codes == code))
