"""The section on who saw what: only for runs of a consortium, with the sums that a site checked."""

from __future__ import annotations

from pathlib import Path

from fedjax_poisson.aggregation import transcript
from fedjax_poisson.reports.consortium import who_saw_what
from fedjax_poisson.runs.run_folder import RunFolder
from tests.aggregation.rounds import opened

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
