"""Files of a table: delimiters, quotes, compression, encodings, and what is no table refused with its line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.tables.columns import flag_values
from fedjax_poisson.data.tables.csv_table import canonical, numeric, read_table
from tests.data.tables.example_table import DECLARED, HEADER, rows
from tests.data.tables.healthy_table import load


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_byte_order_marks(write, delimiter):
    lines = [delimiter.join(f'"{field}"' for field in line.split(",")) for line in rows()]
    path = write(lines, HEADER.replace(",", delimiter), encoding="utf-8-sig")
    assert read_table(path).delimiter == delimiter
    sites = data.from_csv(path, **DECLARED)
    np.testing.assert_array_equal(sites.features, data.from_csv(write(rows(), name="plain.csv"), **DECLARED).features)


def test_quoted_fields_may_hold_delimiters_and_line_ends(write):
    lines = [line.replace("St. John", '"St. John,\n the ""old"" one"') for line in rows()]
    sites = data.from_csv(write(lines), **DECLARED)
    assert sites.site_names[1] == 'St. John,\n the "old" one'


def test_gzip_is_unpacked_and_a_truncated_one_named(write, tmp_path):
    packed = gzip.compress(write(rows()).read_bytes())
    (tmp_path / "t.csv.gz").write_bytes(packed)
    assert len(data.from_csv(tmp_path / "t.csv.gz", **DECLARED).features) == 60
    (tmp_path / "t.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_table(tmp_path / "t.csv.gz")


def test_decimal_commas_are_read_and_said(write):
    lines = [f"{'AB'[i % 2]};{i % 7},5;{i % 3 % 2}" for i in range(60)]
    sites = data.from_csv(write(lines, "site;dose;y"), label="y", site="site", bounds={"dose": (0, 10)})
    assert sites.features[3, 0] == 3.5
    assert any("decimal commas" in note for note in sites.provenance.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"a,b\n", "no record below"),
        (b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
        (b"a,,c\n1,2,3\n", "column 2 of 3 has no name"),
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 fields where the header has 2"),
        (b"a,b\n1,2\n1\n", "line 3: 1 fields"),
        (b"a,b\n1,caf\xe9\n", r"line 2: byte 0xe9 is not utf-8.*latin-1"),
        (b'a,b\n1,"2\n3,4\n', r"line \d: .*check the quotes"),
        (b"a,b\n\0\0\0", "zero bytes"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "bad.csv")


def test_latin_1_is_read_when_declared(tmp_path):
    (tmp_path / "l.csv").write_bytes("a,b\n1,café\n".encode("latin-1"))
    assert read_table(tmp_path / "l.csv", encoding="latin-1").columns["b"] == ["café"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        data.from_csv(tmp_path / "nowhere.csv", label="a", site="b")


def test_flags_numbers_and_spellings():
    assert flag_values(["t", "F", "T"]) == [1.0, 0.0, 1.0]
    assert flag_values(["1.0", "0"]) == [1.0, 0.0]
    assert flag_values(["yes", "t"]) is None and flag_values(["2", "1"]) is None and flag_values(["", ""]) is None
    assert canonical("007") == "007" and canonical("-2.00") == "-2"
    assert canonical("3.0") == "3" and canonical("3.5") == "3.5" and canonical("x") == "x"
    assert numeric(["1", "2e3"]) == [1.0, 2000.0]
    assert numeric(["1", "inf"]) is None and numeric(["1_000"]) is None and numeric(["1,5"]) is None


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"clinic,age,ill\n", {}, "a header but no record"),
        (b"clinic,age,age,ill\nA,1,2,0\n", {}, "two columns are called 'age'"),
        (b"PK\x03\x04" + b"\0" * 40, {}, "an Excel workbook or a zip archive"),
        (b"PAR1" + bytes(range(256)), {}, "a Parquet file"),
        (bytes(range(1, 256)) * 4, {}, "is not utf-8"),
        ("clinic,age,ill\nA,1,0\n".encode("utf-16"), {}, "--encoding utf-16"),
        (gzip.compress(b"clinic,age,ill\n" * 300, mtime=0)[:-20], {}, "truncated"),
        (b"clinic,age,ill\nA,1,0\n", {"encoding": "no-such"}, "encoding is 'no-such'"),
        (b"clinic,age,ill\nA,1,0\n", {"encoding": "rot13"}, "which is no text encoding"),
        (b"clinic,age,ill\nA,1,0\n", {"encoding": 5}, "encoding is 5"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": ""}, "delimiter is ''"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": ";;"}, "--delimiter"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": 5}, "delimiter is 5"),
        (b"clinic,age,ill\nA,1,0\n", {"delimiter": ";"}, "no column 'ill'"),
    ],
)
def test_a_file_that_is_no_table_is_named(content, options, words, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load(path, **options)
    assert words in str(error.value) and "\n" not in str(error.value)
