"""Reading a delimited text file strictly: every defect is an error that names the file, the line and what to do."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

MISSING_TOKENS = frozenset({"", "na", "n/a", "nan", "null", "?", ".", "-nan"})
_DELIMITERS = ",;\t|"
_WHOLE = re.compile(r"-?\d+\.0+")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


class Table(NamedTuple):
    """A file's columns as stripped text.

    Attributes:
        path: Where it was read from.
        columns: Column name to its n values; a missing value is the empty string.
        lines: Line of the file on which each record ends, n numbers from 1, for error messages.
        delimiter: The one that was found.
    """

    path: str
    columns: dict[str, list[str]]
    lines: list[int]
    delimiter: str

    def column(self, name: str, role: str = "") -> list[str]:
        """Values of a column.

        Raises:
            ValueError: There is no such column; the message lists those that exist.
        """
        if name not in self.columns:
            as_role = f" (given as {role})" if role else ""
            raise ValueError(f"{self.path}: no column {name!r}{as_role}; the columns are: {', '.join(self.columns)}")
        return self.columns[name]


def read_table(path: str | os.PathLike[str], *, delimiter: str | None = None, encoding: str = "utf-8-sig") -> Table:
    """Read a CSV file: comma, semicolon, tab or bar, quoted fields, an optional byte-order mark, gzip unpacked.

    Args:
        path: The file.
        delimiter: One character; found from the header line if None.
        encoding: Text encoding. The default is UTF-8 with or without a byte-order mark.

    Returns:
        The table; blank lines are skipped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is empty, not text in the encoding, has a nameless or repeated column, or a record with more
            or fewer fields than the header.
    """
    name = os.fspath(path)
    text = _decode(_read_bytes(name), name, encoding)
    lines = text.splitlines()
    if not lines or not text.strip():
        raise ValueError(f"{name}: the file is empty; expected a header line and one line for each record")
    delimiter = delimiter or _find_delimiter(lines[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [field.strip() for field in next(reader)]
        _check_header(name, header)
        rows, numbers = [], []
        for row in reader:
            if not any(field.strip() for field in row) and len(row) <= 1:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{name}, line {reader.line_num}: {len(row)} fields where the header has {len(header)}; "
                    f"quote fields that contain {delimiter!r}"
                )
            rows.append([_clean(field) for field in row])
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: {error}; check the quotes there") from error
    if not rows:
        raise ValueError(f"{name}: there is a header but no record below it")
    columns = dict(zip(header, (list(column) for column in zip(*rows, strict=True)), strict=True))
    return Table(name, columns, numbers, delimiter)


def numeric(values: Iterable[str], decimal_comma: bool = False) -> list[float] | None:
    """Parse a column as finite numbers, NaN where missing; None if any value is not a number.

    Args:
        values: Stripped text, the empty string where missing.
        decimal_comma: Read "3,5" as 3.5 (files with another delimiter than the comma).
    """
    parsed = []
    for value in values:
        if value == "":
            parsed.append(math.nan)
            continue
        if decimal_comma and _DECIMAL_COMMA.fullmatch(value):
            value = value.replace(",", ".")
        try:
            number = float(value)
        except ValueError:
            return None
        if not math.isfinite(number) or "_" in value:
            return None
        parsed.append(number)
    return parsed


def canonical(value: str) -> str:
    """One spelling for one value: "1.0" is "1"; other text, "007" and "1e3" included, stays as it is."""
    return value.split(".")[0] if _WHOLE.fullmatch(value) else value


def csv_in(folder: pathlib.Path, name: str, title: str) -> pathlib.Path:
    """The file `<name>.csv` or `<name>.csv.gz` in a folder.

    Raises:
        FileNotFoundError: Neither is there; the message names the data set.
    """
    for end in (".csv", ".csv.gz"):
        if (folder / f"{name}{end}").is_file():
            return folder / f"{name}{end}"
    raise FileNotFoundError(f"{folder}: neither {name}.csv nor {name}.csv.gz is there; {title} has this table")


def text_lines(path: pathlib.Path) -> Iterator[str]:
    """Lines of a UTF-8 text file, unpacked if its name ends in .gz, one at a time for files too large to hold.

    Raises:
        ValueError: It does not unpack or is not UTF-8; the message names the file and the last good line.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
            for line in raw:
                yield line.decode("utf-8-sig" if number == 0 else "utf-8")
                number += 1
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, after line {number}: not UTF-8 text ({error}); export the file again") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}, after line {number}: does not unpack ({error}); it may be truncated") from error


def line_list(lines: Sequence[int], most: int = 5) -> str:
    """Line numbers for an error message, the first few of many."""
    shown = ", ".join(map(str, lines[:most]))
    return f"line{'s' if len(lines) > 1 else ''} {shown}" + (
        f" and {len(lines) - most} more" if len(lines) > most else ""
    )


def _read_bytes(name: str) -> bytes:
    file = pathlib.Path(name)
    if not file.is_file():
        raise FileNotFoundError(f"{name}: no such file (looked in {file.absolute().parent})")
    data = file.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: a gzip file that does not unpack ({error}); it may be truncated") from error


def _decode(data: bytes, name: str, encoding: str) -> str:
    if b"\0" in data[:4096] and encoding == "utf-8-sig":
        raise ValueError(f"{name}: holds zero bytes, so it is not a UTF-8 text table; export it as CSV in UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name}, line {line}: byte 0x{data[error.start]:02x} is not {encoding.removesuffix('-sig')}; "
            "save the file as UTF-8 or give its encoding, for example encoding='latin-1'"
        ) from error


def _find_delimiter(header: str) -> str:
    widths = {candidate: len(next(csv.reader([header], delimiter=candidate))) for candidate in _DELIMITERS}
    return max(_DELIMITERS, key=lambda candidate: widths[candidate])


def _check_header(name: str, header: list[str]) -> None:
    for place, column in enumerate(header, 1):
        if not column:
            raise ValueError(f"{name}: column {place} of {len(header)} has no name in the header line")
        if header.index(column) != place - 1:
            raise ValueError(f"{name}: two columns are called {column!r}; rename one of them")


def _clean(field: str) -> str:
    field = field.strip()
    return "" if field.lower() in MISSING_TOKENS else field
