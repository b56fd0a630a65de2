"""The section on who saw what: only for runs of a consortium, with the sums that a site checked."""

from __future__ import annotations

import re
from pathlib import Path

from fedjax_poisson.aggregation import transcript
from fedjax_poisson.reports.consortium import who_saw_what
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.runs.run_folder import RunFolder
from tests.aggregation.rounds import opened
from tests.helpers.example_run import write_example_run

CONFIG = 'sites = ["north", "south <b>", "west"]\nhere = "south <b>"\n'


def test_a_run_of_one_process_has_no_such_section(tmp_path: Path) -> None:
    assert who_saw_what(RunFolder(tmp_path, {}, [], 'label = "ill"\n')).markup == ""
    assert who_saw_what(RunFolder(tmp_path, {}, [], None)).markup == ""


def test_parties_and_checked_sums_are_shown_and_a_changed_transcript_is_named(tmp_path: Path) -> None:
    world = opened()
    blob = transcript.write_transcript(world.server)
    folder = tmp_path / "transcripts"
    folder.mkdir()
    (folder / "00000-train-1.round").write_bytes(blob)
    whole = who_saw_what(RunFolder(tmp_path, {}, [], CONFIG)).markup
    assert "train 1" in whole and "DOES NOT HOLD" not in whole
    assert "south &lt;b&gt; (this site)" in whole and "south <b>" not in whole
    assert "viewBox" in whole
    (folder / "00001-train-2.round").write_bytes(blob[:-40] + bytes(40))
    assert "DOES NOT HOLD" in who_saw_what(RunFolder(tmp_path, {}, [], CONFIG)).markup


def test_no_page_of_a_consortium_calls_it_a_simulation_and_one_of_a_simulation_does(tmp_path: Path) -> None:
    write_example_run(tmp_path)
    alone = re.sub(r"\s+", " ", write_report(tmp_path).read_text())
    assert "This run is a simulation" in alone and "This run plays all" in alone and "process of its own" not in alone
    (tmp_path / "config.toml").write_text(CONFIG)
    several = re.sub(r"\s+", " ", write_report(tmp_path).read_text())
    assert "This run is a simulation" not in several and "This run plays all" not in several
    assert "process of its own" in several and "The machines." in several


def test_the_caption_of_scores_says_whether_epsilon_covers_them(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    write_example_run(tmp_path)
    assert "epsilon does not cover them" in write_report(tmp_path).read_text()
    write_example_run(tmp_path / "private", evaluation="private", sites=[{"name": "north"}])
    page = write_report(tmp_path / "private").read_text()
    assert "epsilon does not cover them" not in page and "inside epsilon" in page
    assert "0 test records" not in page and "records of the same sites" in page
