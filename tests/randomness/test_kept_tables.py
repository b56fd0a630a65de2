"""Kept tables: read instead of made, the same integers, never another law's, another source's or damaged ones, and no more once foreign code is there."""

from __future__ import annotations

import contextlib
import math
import os
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest

from fedjax_poisson import extensions, kept_files, start
from fedjax_poisson.randomness import kept_tables, laws, table_plan, tables

LAW = ("push_pull", Fraction(8), Fraction(1, 20))
SUM = ("digits_of_both", Fraction(3), Fraction(1))
OTHERS = [
    ("push_pull", Fraction(8.0000001), Fraction(1, 20)),
    ("push_pull", Fraction(8), Fraction(1, 19)),
    ("single_channel", Fraction(8), Fraction(1, 20)),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(kept_files.TABLES, str(tmp_path))
    return tmp_path


@pytest.fixture
def unmakeable(monkeypatch: pytest.MonkeyPatch):
    """A switch: from its call on, whoever computes a law fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("made again")

    return lambda: monkeypatch.setattr(laws, "skellam_pmf", refuse)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _same(one: tables.SamplingTables, other: tables.SamplingTables) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other) and one.distance == other.distance
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype == np.uint32
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("law", [LAW, ("poisson", Fraction(3), Fraction(0)), ("skellam", Fraction(2), Fraction(2))])
def test_kept_tables_are_read_and_are_those_that_were_made(law, folder: Path, unmakeable, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv(kept_files.TABLES)
        wanted = tables.exact_tables(*law)
    assert not _files(folder)
    first = tables.exact_tables(*law)
    assert len(_files(folder)) == 1
    unmakeable()
    for found in (first, tables.exact_tables(*law)):
        _same(found, wanted)
    monkeypatch.delenv(kept_files.TABLES)
    with pytest.raises(AssertionError, match="made again"):
        tables.exact_tables(*law)


@pytest.mark.parametrize("other", OTHERS)
def test_another_law_has_tables_of_its_own(other, folder: Path, unmakeable) -> None:
    tables.exact_tables(*LAW)
    unmakeable()
    with pytest.raises(AssertionError, match="made again"):
        tables.exact_tables(*other)


def test_another_span_has_tables_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [tables.exact_tables(*SUM, span) for span in (24, 25)]
    assert len(_files(folder)) == 2
    monkeypatch.delenv(kept_files.TABLES)
    for one, span in zip(found, (24, 25), strict=True):
        _same(one, tables.exact_tables(*SUM, span))


def test_another_plan_never_reads_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays are another process's, the plan is this one's."""
    usual = tables.exact_tables(*LAW)
    monkeypatch.setattr(table_plan, "_ENTRY_BUDGET", 1000)
    table_plan.table_plan.cache_clear()
    try:
        other = tables.exact_tables(*LAW)
        assert other.levels != usual.levels and len(_files(folder)) == 2
        monkeypatch.delenv(kept_files.TABLES)
        _same(other, tables.exact_tables(*LAW))
    finally:
        table_plan.table_plan.cache_clear()


@pytest.mark.parametrize("wrong", ["length", "distance", "nan", "words"])
def test_tables_that_do_not_fit_are_made_again(wrong: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a file of the right name and hash holds."""
    wanted = tables.exact_tables(*LAW)
    (file,) = _files(folder)
    good = kept_tables._parsed(kept_files.read(file) or b"")
    assert good is not None
    bad = {
        "length": good._replace(low=good.low[:-1]),
        "distance": good._replace(distance=2.0**-50),
        "nan": good._replace(distance=math.nan),
        "words": good,
    }[wrong]
    body = kept_tables._in_bytes(bad)
    kept_files.write(file, b"[1]\n" if wrong == "words" else body, "a table")
    _same(tables.exact_tables(*LAW), wanted)
    assert kept_files.read(file) == kept_tables._in_bytes(good)


def test_another_source_makes_them_anew(folder: Path, unmakeable, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.exact_tables(*LAW)
    monkeypatch.setattr(kept_files, "SOURCE", "one line more")
    unmakeable()
    with pytest.raises(AssertionError, match="made again"):
        tables.exact_tables(*LAW)


def test_a_package_that_was_replaced_under_the_process_keeps_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_files, "_stamps", lambda: [("a.py", 1, 1)])
    tables.exact_tables(*LAW)
    assert not _files(folder)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-4], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: raw[4:], lambda raw: b""],
)
def test_damaged_ones_are_made_again_and_replaced(damage, folder: Path) -> None:
    wanted = tables.exact_tables(*LAW)
    (file,) = _files(folder)
    good = file.read_bytes()
    file.write_bytes(damage(good))
    _same(tables.exact_tables(*LAW), wanted)
    assert file.read_bytes() == good


def test_a_full_folder_takes_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.exact_tables(*LAW)
    (file,) = _files(folder)
    monkeypatch.setattr(kept_tables, "MOST_BYTES", file.stat().st_size + 1000)
    tables.exact_tables(*OTHERS[0])
    assert _files(folder) == [file]


def test_what_could_not_be_written_whole_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tables.exact_tables(*LAW)
    assert not _files(folder)


def test_a_law_that_is_refused_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_DISTANCE", 2.0**-90)
    with pytest.raises(ValueError, match="from the law"):
        tables.exact_tables(*LAW)
    assert not _files(folder)


@pytest.mark.parametrize("name", ["fedjax_poisson.platforms:for_only", "no_such_module:part"])
def test_from_a_part_of_somebody_elses_on_none_are_kept_or_read(name: str, folder: Path) -> None:
    """It may have replaced functions of this package, which no name would show."""
    with contextlib.suppress(ValueError):
        extensions.find(name, {}, "part")
    tables.exact_tables(*LAW)
    assert not _files(folder)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kept_files.TABLES, str(tmp_path / "missing"))
    with pytest.warns(UserWarning, match="a sampling table is not kept"):
        tables.exact_tables(*LAW)


def test_the_command_names_the_folder() -> None:
    assert start.TABLES == kept_files.TABLES
