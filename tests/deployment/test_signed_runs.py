"""Terms that are signed once a run, and runs that are taken up again: each refusal with its twin."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedjax_poisson.aggregation.refusals import BadTerms
from fedjax_poisson.deployment.run_terms import check_in_time, check_signatures, sign_run_terms
from fedjax_poisson.deployment.signed_runs import (
    SignedRun,
    begun,
    check_signed,
    current_run,
    folder_of,
    keep_run,
    sign_once,
    signed,
)
from fedjax_poisson.deployment.site_log import open_log
from tests.deployment.identities import people, roster_of, terms_of

WHO = people()
ROSTER = roster_of(WHO)
TERMS = terms_of(ROSTER)
NOW = datetime.now(UTC)
RUN = SignedRun(TERMS, {name: sign_run_terms(one, TERMS) for name, one in WHO.items()})


def test_a_run_of_one_name_has_one_set_of_terms_also_after_a_restart(tmp_path: Path) -> None:
    log = open_log(tmp_path / "site.log", WHO["east"])
    assert not signed(log, TERMS)
    signature = sign_once(log, WHO["east"], TERMS)
    check_signatures(ROSTER, TERMS, {**RUN.signatures, "east": signature})
    assert sign_once(log, WHO["east"], TERMS) == signature and signed(log, TERMS)
    other = dataclasses.replace(TERMS, most_rounds=7)
    log.close()
    log = open_log(tmp_path / "site.log", WHO["east"])
    with pytest.raises(BadTerms, match="one set of terms"):
        sign_once(log, WHO["east"], other)
    assert not signed(log, other)
    assert sign_once(log, WHO["east"], dataclasses.replace(other, run=bytes(16)))  # the twin: another name
    assert [entry.kind for entry in log.entries()] == ["terms", "terms"]
    log.close()


def test_a_run_that_began_is_taken_up_where_it_was_kept_and_its_beginning_is_noted_once(tmp_path: Path) -> None:
    log = open_log(tmp_path / "site.log", WHO["east"])
    assert current_run(tmp_path) is None
    for _ in range(2):
        keep_run(tmp_path, log, RUN)
    assert current_run(tmp_path) == RUN
    assert [entry.kind for entry in log.entries()] == ["started"]
    log.close()
    (folder_of(tmp_path, TERMS) / "signatures.json").unlink()
    with pytest.raises(FileNotFoundError):
        current_run(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"run": 7}', '{"run": "../other"}', "no JSON"])
def test_a_file_that_names_no_run_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "current.json").write_text(text)
    with pytest.raises(ValueError, match="Expecting value" if text == "no JSON" else "does not name a run"):
        current_run(tmp_path)


def test_a_run_is_the_current_one_only_after_the_log_says_that_it_began(tmp_path: Path) -> None:
    log = open_log(tmp_path / "site.log", WHO["east"])
    sign_once(log, WHO["east"], TERMS)
    assert not begun(log, TERMS)
    with pytest.raises(OSError, match="disk full"):
        keep_run(tmp_path, log._replace(append=_stop), RUN)
    assert current_run(tmp_path) is None and not begun(log, TERMS)
    keep_run(tmp_path, log, RUN)
    assert current_run(tmp_path) == RUN and begun(log, TERMS)
    assert not begun(log, dataclasses.replace(TERMS, most_rounds=7))
    log.close()


def _stop(kind: str, **facts: object) -> None:
    raise OSError("disk full")


def test_a_run_is_refused_where_roster_version_signatures_or_time_do_not_fit() -> None:
    check_signed(RUN, ROSTER, now=NOW)
    with pytest.raises(BadTerms, match="has pinned"):
        check_signed(RUN, roster_of(WHO, minimum=5), now=None)
    old = dataclasses.replace(TERMS, version="0.0.1")
    with pytest.raises(BadTerms, match="version"):
        check_signed(SignedRun(old, {name: sign_run_terms(one, old) for name, one in WHO.items()}), ROSTER, now=None)
    for name in WHO:
        lacking = {key: value for key, value in RUN.signatures.items() if key != name}
        with pytest.raises(BadTerms, match=name):
            check_signed(RUN._replace(signatures=lacking), ROSTER, now=None)
    late = NOW + timedelta(days=301)
    with pytest.raises(BadTerms, match="propose it again"):
        check_signed(RUN, ROSTER, now=late)
    check_signed(RUN, ROSTER, now=None)  # a run that has begun goes on


def test_terms_hold_until_their_last_second_and_not_for_years() -> None:
    end = datetime.fromtimestamp(TERMS.begin_before, UTC)
    check_in_time(TERMS, end)
    with pytest.raises(BadTerms, match="propose it again"):
        check_in_time(TERMS, end + timedelta(seconds=1))
    check_in_time(TERMS, end - timedelta(days=366))
    with pytest.raises(BadTerms, match="a year at most"):
        check_in_time(TERMS, end - timedelta(days=367))
