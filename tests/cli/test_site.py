"""`fedjax-poisson site ...` as a hospital's IT meets it."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedjax_poisson.cli import site
from fedjax_poisson.deployment import approvals, identity
from fedjax_poisson.deployment.run_terms import run_terms_hash
from fedjax_poisson.deployment.site_log import open_log
from fedjax_poisson.deployment.status import STATUS_FILE, write_status
from tests.deployment.identities import people, roster_of, terms_of
from tests.test_cli import call, refused

RUN, HASH = "ab" * 16, "cd" * 32


def test_init_makes_a_key_once_and_says_what_to_send(tmp_path: Path, capsys) -> None:
    state = tmp_path / "state"
    assert call("site", "init", "--state", state) == 0
    shown = capsys.readouterr().out
    public = identity.load(state).public.hex()
    assert f"public key: {public}" in shown and "never leaves this machine" in shown
    assert "holds a key already" in refused(capsys, "site", "init", "--state", state)
    assert identity.load(state).public.hex() == public


def test_init_takes_a_passphrase_from_a_private_file(tmp_path: Path, capsys) -> None:
    file = tmp_path / "passphrase"
    file.write_text("correct horse\nsecond line\n")
    file.chmod(0o644)
    if os.name == "posix":
        assert "chmod 600" in refused(capsys, "site", "init", "--state", tmp_path / "state", "--passphrase-file", file)
    file.chmod(0o600)
    assert call("site", "init", "--state", tmp_path / "state", "--passphrase-file", file) == 0
    identity.load(tmp_path / "state", b"correct horse")


def test_log_checks_what_it_prints(tmp_path: Path, capsys) -> None:
    state = tmp_path / "state"
    who = identity.create(state)
    log = open_log(state / "site.log", who)
    log.append("terms", run=RUN, terms=HASH, roster=HASH)
    log.append("charge", run=RUN, round=1, label="train 1", epsilon=0.25, rows=1, ledger=HASH)
    assert call("site", "log", "--state", state) == 0  # also while a worker has it open
    shown = capsys.readouterr().out
    assert "label train 1, epsilon 0.25, rows 1" in shown and "verified: 2 entries" in shown
    assert call("site", "log", "--state", state, "--json", "--last", 1) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["kind"] == "charge"
    log.close()
    path = state / "site.log"
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.05"))
    assert "entry 2 was changed" in refused(capsys, "site", "log", "--state", state)


def test_approve_shows_first_and_approves_only_with_yes(tmp_path: Path, capsys) -> None:
    terms = terms_of(roster_of(people()))
    digest = approvals.wait_for_approval(tmp_path, terms, datetime.now(UTC)).hex()
    assert call("site", "approve", "--state", tmp_path) == 0
    shown = capsys.readouterr().out
    assert (
        f"{digest[:16]}  run " in shown and "epsilon 2, delta 0.0001" in shown and "1 run waits for approval" in shown
    )
    assert call("site", "approve", digest[:8], "--state", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "epsilon 2, delta 0.0001" in shown and "Nothing was changed" in shown
    assert not approvals.is_approved(tmp_path, terms)
    assert call("site", "approve", digest[:8], "--state", tmp_path, "--yes") == 0
    assert approvals.is_approved(tmp_path, terms) and run_terms_hash(terms).hex() == digest
    capsys.readouterr()
    assert call("site", "approve", digest, "--state", tmp_path) == 0
    assert "approved already" in capsys.readouterr().out
    assert "neither a file nor the start" in refused(capsys, "site", "approve", "zzzz", "--state", tmp_path)


def test_status_is_shown_in_three_forms_and_its_age_is_an_exit_code(tmp_path: Path, capsys) -> None:
    assert "no worker has run here yet" in refused(capsys, "site", "status", "--state", tmp_path)
    write_status(tmp_path, "waiting", round=3)
    assert call("site", "status", "--state", tmp_path, "--stale-after", 60) == 0
    assert "waiting" in capsys.readouterr().out
    assert call("site", "status", "--state", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["round"] == 3
    assert call("site", "status", "--state", tmp_path, "--prometheus") == 0
    assert "fedjax_poisson_site_round 3" in capsys.readouterr().out
    old = {**json.loads((tmp_path / STATUS_FILE).read_text()), "updated": 0}
    (tmp_path / STATUS_FILE).write_text(json.dumps(old))
    assert call("site", "status", "--state", tmp_path, "--stale-after", 60) == 1
    assert call("site", "status", "--state", tmp_path) == 0


def test_a_worker_that_waits_writes_its_status_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(site, "_BEAT_SECONDS", 0.0)
    beats: list[float] = []

    def beat() -> None:
        beats.append(time.monotonic())
        if len(beats) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    closed: list[str] = []
    site._answer(bytes.upper, lambda: closed.append("closed"), beat, tmp_path / "worker.socket", "north")
    assert len(beats) >= 2 and closed == ["closed"]


def test_serve_refuses_a_table_that_is_not_there_and_a_key_that_others_may_read(tmp_path: Path, capsys) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[consortium]\nroster = "roster.toml"\nname = "north"\n[data]\ncsv = "visits.csv"\nlabels = "all"\ncolumns = "all"\n'
        '[privacy]\nunit = "record"\nepsilon = 1.0\ndelta = 1e-5\nleast_honest_others = 1\nminimum_senders = 2\n[approval]\nmode = "automatic"\n'
    )
    assert "data.csv = " in (words := refused(capsys, "site", "serve", policy)) and "no such file" in words
    (tmp_path / "visits.csv").write_text("died\n1\n")
    assert "data.csv" not in refused(capsys, "site", "serve", policy)  # the next thing that is missing is the roster
    for name in ("ca.crt", "north.crt", "north.key"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    assert site._address("localhost:1", tmp_path, "north")[0] == ("localhost", 1)
    if os.name == "posix":
        (tmp_path / "north.key").chmod(0o644)
        with pytest.raises(identity.IdentityRefused, match="chmod 600"):
            site._address("localhost:1", tmp_path, "north")


@pytest.mark.parametrize("group", ["site", "consortium"])
def test_a_group_alone_shows_its_commands(group: str, capsys) -> None:
    assert call(group) == 0
    shown = capsys.readouterr().out
    assert "init" in shown and f"fedjax-poisson {group}" in shown
