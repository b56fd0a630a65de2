"""`fedjax-poisson consortium ...`: from the parties' keys to a roster that all have signed, and a check of all their logs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.roster import check_signatures, sign_roster
from fedjax_poisson.deployment.roster_file import read_roster, roster_text
from tests.deployment.logs import change, clean, consortium, logs_of
from tests.test_cli import call, refused

NAMES = ("east", "north", "west")


@pytest.fixture
def states(tmp_path: Path) -> dict[str, Path]:
    for name in NAMES:
        identity.create(tmp_path / name)
    return {name: tmp_path / name for name in NAMES}


def init(states: dict[str, Path], out: Path, *more: object) -> int:
    given = [f"{name}={folder / identity.PUBLIC_FILE}" for name, folder in states.items()]
    return call("consortium", "init", "--name", "Three hospitals", "--site", *given, "--out", out, *more)


def test_a_roster_is_made_signed_by_each_on_a_copy_and_gathered(states, tmp_path: Path, capsys) -> None:
    out = tmp_path / "roster.toml"
    assert init(states, out) == 0
    roster = read_roster(out).roster
    assert (roster.threshold, roster.malicious, roster.minimum, roster.corrupt) == (2, 0, 3, 1)
    copies = []
    for name, folder in states.items():
        copies.append(shutil.copy(out, tmp_path / f"{name}.toml"))
        assert call("consortium", "sign-roster", copies[-1], "--state", folder) == 0
        assert f"signed by {name}" in capsys.readouterr().out
    assert call("consortium", "sign-roster", out, *copies[:2]) == 0
    assert "signatures lacking: west" in capsys.readouterr().out
    assert call("consortium", "sign-roster", out, *copies) == 0
    assert "signed by all" in capsys.readouterr().out
    signed = read_roster(out)
    check_signatures(signed.roster, signed.signatures)
    assert signed.roster == roster


def test_a_copy_that_somebody_changed_is_refused(states, tmp_path: Path, capsys) -> None:
    out = tmp_path / "roster.toml"
    assert init(states, out) == 0
    other = tmp_path / "other.toml"
    assert init(states, other, "--corrupt", 0) == 0
    before = out.read_bytes()
    assert "copy 2 is of another roster" in refused(capsys, "consortium", "sign-roster", out, other)
    assert out.read_bytes() == before


def test_keys_may_be_digits_and_operators_form_the_committee(states, tmp_path: Path) -> None:
    out = tmp_path / "roster.toml"
    labs = {name: identity.create(tmp_path / name).public.hex() for name in ("lab-a", "lab-b", "lab-c", "lab-d")}
    assert init(states, out, "--operator", *(f"{name}={key}" for name, key in labs.items())) == 0
    roster = read_roster(out).roster
    assert roster.members == tuple(labs) and (roster.malicious, roster.threshold) == (1, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--threshold", 1), "2 t > m + f is needed"),
        (("--corrupt", 3), "minimum - corrupt >= 1"),
        (("--members", "east", "nobody"), "'nobody' is neither a site nor an operator"),
        (("--operator", "lab"), "is not NAME=KEY"),
        (("--operator", "lab=zz"), "neither a file nor 64 hexadecimal digits"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(states, tmp_path: Path, capsys, more, words: str) -> None:
    given = [f"{name}={folder / identity.PUBLIC_FILE}" for name, folder in states.items()]
    out = tmp_path / "roster.toml"
    arguments = ("consortium", "init", "--name", "x", "--site", *given, "--out", out)
    assert words in refused(capsys, *arguments, *more)
    assert not out.exists()
    assert call(*arguments) == 0
    assert "is not replaced" in refused(capsys, *arguments)


def test_a_key_that_is_not_on_the_roster_signs_nothing(states, tmp_path: Path, capsys) -> None:
    out = tmp_path / "roster.toml"
    assert init(states, out) == 0
    identity.create(tmp_path / "stranger")
    assert "is not on the roster" in refused(capsys, "consortium", "sign-roster", out, "--state", tmp_path / "stranger")
    assert read_roster(out).signatures == {}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed roster, everybody's clean logs, and the transcript of their round."""
    folder, made = tmp_path_factory.mktemp("evidence"), consortium()
    signatures = {name: sign_roster(who, made.roster) for name, who in made.who.items()}
    (folder / "roster.toml").write_text(roster_text(made.roster, signatures))
    (folder / "unsigned.toml").write_text(roster_text(made.roster))
    for name, blob in logs_of(clean()).items():
        (folder / name).write_bytes(blob)
    (folder / "changed.log").write_bytes(logs_of(change(clean(), "west", "opened", 2, counts="99" * 32))["west.log"])
    (folder / "transcripts").mkdir()
    (folder / "transcripts" / "train-1.round").write_bytes(made.transcript)
    return folder


def test_verify_says_sound_with_0_and_not_sound_with_1(evidence: Path, capsys) -> None:
    logs = [evidence / f"{name}.log" for name in consortium().who]
    assert call("consortium", "verify", evidence / "roster.toml", *logs, "--transcripts", evidence / "transcripts") == 0
    assert "sound: the logs agree; 2 opened rounds, 1 transcripts that hold" in capsys.readouterr().out
    others = [path for path in logs if path.name != "west.log"]
    assert call("consortium", "verify", evidence / "roster.toml", *others, evidence / "changed.log") == 1
    shown = capsys.readouterr().out
    assert "west saw" in shown and "NOT SOUND" in shown
    assert call("consortium", "verify", evidence / "roster.toml", *others, evidence / "changed.log", "--json") == 1
    value = json.loads(capsys.readouterr().out)
    assert value["sound"] is False and value["findings"][0]["kind"] == "equivocation"


def test_verify_needs_a_roster_that_all_have_signed(evidence: Path, capsys) -> None:
    log = evidence / "west.log"
    assert "not signed by all" in refused(capsys, "consortium", "verify", evidence / "unsigned.toml", log)
    assert "no such folder" in refused(
        capsys, "consortium", "verify", evidence / "roster.toml", log, "--transcripts", evidence / "nowhere"
    )
