"""How long a start will take is said only where an earlier start with the same settings is on record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fedjax_poisson.runs import start_time
from fedjax_poisson.runs.config import Config

KEY, VERSIONS = "a" * 32, "fedjax_poisson 1, jax 2"


def programs(folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"jit_f-{number}-cache").write_bytes(b"x")


def started(folder: Path, versions: str = VERSIONS) -> start_time.Start:
    return start_time.begin(folder, KEY, versions)


def test_no_number_is_invented(tmp_path: Path) -> None:
    assert start_time.expected(start_time.begin(None, KEY, VERSIONS)) == ("compiling, not cached", None)
    assert start_time.expected(started(tmp_path)) == ("compiling (first time), cached afterwards", None)
    programs(tmp_path, 3)  # of other settings
    assert start_time.expected(started(tmp_path)) == ("compiling (first time), cached afterwards", None)


def test_a_start_that_compiled_is_told_from_one_that_found_everything(tmp_path: Path) -> None:
    first = started(tmp_path)
    programs(tmp_path, 3)
    start_time.finish(first, 20.0)
    assert start_time.expected(started(tmp_path)) == (
        "loading compiled programs",
        None,
    )  # how long that takes is unknown
    start_time.finish(started(tmp_path), 5.0)
    assert start_time.expected(started(tmp_path)) == ("loading compiled programs", 5.0)
    # A new jax compiles again; what the old one took is the estimate.
    assert start_time.expected(started(tmp_path, "other")) == ("compiling, cached afterwards", 20.0)
    newer = started(tmp_path, "other")
    programs(tmp_path, 6)
    start_time.finish(newer, 30.0)
    assert start_time.expected(started(tmp_path, "other")) == ("loading compiled programs", None)
    assert start_time.expected(started(tmp_path, "third")) == ("compiling, cached afterwards", 30.0)


def test_programs_that_were_deleted_are_compiled_again(tmp_path: Path) -> None:
    first = started(tmp_path)
    programs(tmp_path, 3)
    start_time.finish(first, 20.0)
    for file in tmp_path.glob("*-cache"):
        file.unlink()
    assert start_time.expected(started(tmp_path)) == ("compiling, cached afterwards", 20.0)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"' + KEY.encode() + b'": {"seconds": 1}}', b'{"' + KEY.encode() + b'": 3}']
)
def test_a_damaged_record_counts_as_none_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "start_seconds.json").write_bytes(content)
    first = started(tmp_path)
    assert first.earlier is None
    programs(tmp_path, 1)
    start_time.finish(first, 4.0)
    assert json.loads((tmp_path / "start_seconds.json").read_bytes())[KEY]["compiled_seconds"] == 4.0


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"not a folder")
    first = started(blocked)
    start_time.finish(first, 4.0)
    assert started(blocked).earlier is None and blocked.read_bytes() == b"not a folder"


def test_settings_that_need_other_programs_have_another_key() -> None:
    config = Config(epsilon=3.0)
    key = start_time.key_of(config, "cpu")
    assert key == start_time.key_of(dataclasses.replace(config, epsilon=1.0, rounds=7, seed=3), "cpu")
    assert key != start_time.key_of(dataclasses.replace(config, aggregator="plain"), "cpu")
    assert key != start_time.key_of(config, "gpu")
