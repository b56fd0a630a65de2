"""Every opened round of a run leaves what anyone needs to check it again; whatever is changed in it is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedjax_poisson import cli
from fedjax_poisson.aggregation import transcript
from fedjax_poisson.aggregation.refusals import BadTerms, RoundRefused
from fedjax_poisson.aggregation.terms import Pinned
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.transcripts import FOLDER, verify_rounds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rounds") / "run"
    run(Config(rounds=2, seed=5, yardstick=False), out)
    return out


def files(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.round"))


def test_every_opened_round_is_kept_and_holds(folder, capsys):
    names = [path.name.split("-")[0] for path in files(folder)]
    assert names == ["standardise", "train", "train"]
    found = verify_rounds(folder)
    assert all(one.checked is not None for one in found)
    summary = json.loads((folder / "summary.json").read_text())
    for one in found:
        assert len(one.checked.clients) == summary["senders"] == 4 and one.checked.terms.minimum == 4
        assert (len(one.checked.terms.members), one.checked.terms.threshold, one.checked.wrong) == (5, 4, ())
    assert found[1].checked.counts.size == summary["dimension"]
    assert cli.verify(folder) == 0
    assert "rounds: 3 of 3 hold, 3 releases are charged" in capsys.readouterr().out


def test_terms_state_the_mechanism_and_the_honest_senders(folder):
    terms = verify_rounds(folder)[1].checked.terms
    facts = json.loads(terms.mechanism)
    assert facts["name"] == "poisson_embedding" and facts["purpose"] == "train" and float(facts["dark_count"]) > 0
    assert terms.minimum - terms.corrupt == 3


@pytest.mark.parametrize("where", [0.02, 0.2, 0.5, 0.7, 0.95, 0.9999])
def test_a_changed_byte_anywhere_is_noticed(folder, where):
    blob = bytearray(files(folder)[0].read_bytes())
    blob[int(where * (len(blob) - 1))] ^= 4
    with pytest.raises(RoundRefused):
        transcript.check_transcript(bytes(blob))


def test_every_length_but_the_right_one_is_refused_by_name(folder):
    blob = files(folder)[0].read_bytes()
    for cut in (0, 4, 5, 100, len(blob) // 2, len(blob) - 1):
        with pytest.raises(RoundRefused):
            transcript.check_transcript(blob[:cut])
    with pytest.raises(RoundRefused):
        transcript.check_transcript(blob + b"\0")


def test_what_a_reader_knows_is_held_against_it(folder):
    blob = files(folder)[0].read_bytes()
    terms = transcript.check_transcript(blob).terms
    known = Pinned(terms.members, 4, 1, terms.roster, 3, 1)
    assert transcript.check_transcript(blob, known).terms == terms
    for wrong in (
        known._replace(members=known.members[::-1]),
        known._replace(malicious=0),
        known._replace(threshold=5),
        known._replace(roster=bytes(32)),
        known._replace(least_honest=4),
        known._replace(corrupt=2),
    ):
        with pytest.raises(BadTerms):
            transcript.check_transcript(blob, wrong)


def test_a_run_whose_files_were_changed_does_not_verify(folder, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = files(copy)[1]
    path.write_bytes(path.read_bytes()[:-33] + bytes(33))
    assert cli.verify(copy) == 1
    shown = capsys.readouterr().out
    assert f"{path.name}: DOES NOT HOLD" in shown and "2 of 3 hold" in shown


def test_a_folder_without_transcripts_says_why(tmp_path):
    run(Config(rounds=1, seed=5, yardstick=False, aggregator="plain"), tmp_path / "run")
    with pytest.raises(FileNotFoundError, match='aggregator is "round"'):
        cli.verify(tmp_path / "run")
