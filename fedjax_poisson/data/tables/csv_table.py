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

from fedjax_poisson.data.tables.declarations import file_name
from fedjax_poisson.data.tables.remedies import option

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
            raise ValueError(f"{self.path}: no column {name!r}{as_role}; the columns are: {listed(list(self.columns))}")
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
        ValueError: The delimiter or encoding is none; the file is empty, a folder, not text in the encoding, has a nameless
            or repeated column, or a record with more or fewer fields than the header.
    """
    name = file_name(path)
    _check_format(delimiter, encoding)
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
    values = list(values)
    try:  # the usual case, ten times as fast
        plain = [float(value) if value else math.nan for value in values]
        if "_" not in "".join(values) and all(map(math.isfinite, (n for n, v in zip(plain, values, strict=True) if v))):
            return plain
    except ValueError:
        pass
    parsed = []
    for value in values:
        number = numeric_or_none(value, decimal_comma)
        if number is None:
            return None
        parsed.append(number)
    return parsed


def numeric_or_none(value: str, decimal_comma: bool = False) -> float | None:
    """One value of `numeric`: a finite number, NaN where missing, None where it is something else."""
    if value == "":
        return math.nan
    if decimal_comma and _DECIMAL_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in value else None


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


def listed(names: Sequence[str], most: int = 40) -> str:
    """Names for an error message, the first of very many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def line_list(lines: Sequence[int], most: int = 5) -> str:
    """Line numbers for an error message, the first few of many."""
    shown = ", ".join(map(str, lines[:most]))
    return f"line{'s' if len(lines) > 1 else ''} {shown}" + (
        f" and {len(lines) - most} more" if len(lines) > most else ""
    )


def _check_format(delimiter: object, encoding: object) -> None:
    if delimiter is not None and (not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError(
            f"delimiter is {delimiter!r}; expected one character between fields, such as " + option("delimiter", ";")
        )
    try:
        known = isinstance(encoding, str) and "a".encode(encoding) is not None
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ValueError(
            f"encoding is {encoding!r}, which is no text encoding; for example " + option("encoding", "latin-1")
        )


def _read_bytes(name: str) -> bytes:
    file = pathlib.Path(name)
    if file.is_dir():
        raise ValueError(f"{name}: is a folder; expected one file with a header line and one line for each record")
    if not file.is_file():
        raise FileNotFoundError(f"{name}: no such file (looked in {file.absolute().parent})")
    data = file.read_bytes()
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name}: a gzip file that does not unpack ({error}); it may be truncated") from error


_BINARY = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
}


def _decode(data: bytes, name: str, encoding: str) -> str:
    kind = next((what for start, what in _BINARY.items() if data.startswith(start)), None)
    if kind is not None:
        raise ValueError(f"{name}: is {kind}, not a text table; export it as CSV in UTF-8")
    if encoding == "utf-8-sig" and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(
            f"{name}: is UTF-16, not UTF-8; save it as CSV in UTF-8 or give its encoding: "
            + option("encoding", "utf-16")
        )
    if b"\0" in data[:4096] and encoding == "utf-8-sig":
        raise ValueError(f"{name}: holds zero bytes, so it is not a UTF-8 text table; export it as CSV in UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name}, line {line}: byte 0x{data[error.start]:02x} is not {encoding.removesuffix('-sig')}; "
            "save the file as UTF-8 or give its encoding, for example " + option("encoding", "latin-1")
        ) from error
    except UnicodeError as error:
        raise ValueError(
            f"{name}: is not {encoding} ({error}); give its encoding: " + option("encoding", "latin-1")
        ) from error


def _find_delimiter(header: str) -> str:
    widths = {candidate: len(next(csv.reader([header], delimiter=candidate))) for candidate in _DELIMITERS}
    return max(_DELIMITERS, key=lambda candidate: widths[candidate])


def _check_header(name: str, header: list[str]) -> None:
    seen: set[str] = set()
    for place, column in enumerate(header, 1):
        if not column:
            raise ValueError(f"{name}: column {place} of {len(header)} has no name in the header line; name it")
        if column in seen:
            raise ValueError(f"{name}: two columns are called {column!r}; rename one of them")
        seen.add(column)


def _clean(field: str) -> str:
    field = field.strip()
    return "" if field.lower() in MISSING_TOKENS else field
