"""What an entry may say, and what its chain and signature show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.log_entries import (
    KINDS,
    LogDamaged,
    check_chain,
    check_facts,
    entry_of,
    genesis,
    line_of,
    make_entry,
)

RUN, HASH, TIME = "ab" * 16, "cd" * 32, "2026-01-02T03:04:05+00:00"
GOOD: dict[str, dict[str, Any]] = {
    "terms": {"run": RUN, "terms": HASH, "roster": HASH},
    "started": {"run": RUN, "version": "0.1.0"},
    "charge": {"run": RUN, "round": 1, "label": "train 3", "epsilon": 0.25, "rows": 1, "ledger": HASH},
    "contribution": {"run": RUN, "round": 1, "terms": HASH, "digest": HASH, "bytes": 100},
    "answer": {"run": RUN, "round": 1, "included": HASH, "bytes": 100},
    "opened": {
        **{"run": RUN, "round": 1, "terms": HASH, "label": "standardise 1", "transcript": HASH, "counts": HASH},
        **{"clients": [HASH], "epsilon": 0.25},
    },
    "refused": {"reasons": ["privacy.epsilon", "BadTerms"], "run": RUN, "round": 2},
    "dead": {"run": RUN, "round": 1, "terms": HASH},
    "ended": {"run": RUN, "model": HASH},
    "repaired": {"bytes": 3, "removed": HASH},
}


def test_every_kind_takes_its_facts_and_no_others() -> None:
    assert set(GOOD) == set(KINDS)
    for kind, facts in GOOD.items():
        check_facts(kind, facts)
        with pytest.raises(ValueError, match="has no 'patient'"):
            check_facts(kind, {**facts, "patient": "x"})
        for name in facts:
            if kind == "refused" and name != "reasons":
                continue
            with pytest.raises(ValueError, match=f"needs {name}"):
                check_facts(kind, {key: value for key, value in facts.items() if key != name})
    with pytest.raises(ValueError, match="no kind of entry"):
        check_facts("note", {})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("refused", "reasons", ["ValueError: could not convert 'Doe, Jane' to a number"]),
        ("refused", "reasons", ["12345678"]),
        ("refused", "reasons", "BadTerms"),
        ("charge", "label", "train 3 of patient 7"),
        ("charge", "epsilon", float("nan")),
        ("charge", "epsilon", "0.5"),
        ("charge", "round", -1),
        ("charge", "round", True),
        ("terms", "terms", HASH[:-2]),
        ("terms", "terms", HASH.upper()),
        ("opened", "clients", ["north"]),
        ("contribution", "bytes", 1.5),
        ("started", "version", "by Jane Doe"),
    ],
)
def test_free_text_and_other_forms_are_refused(kind: str, name: str, value: Any) -> None:
    check_facts(kind, GOOD[kind])
    with pytest.raises(ValueError, match=f'{name} of an entry "{kind}" is not of its form'):
        check_facts(kind, {**GOOD[kind], name: value})


def test_a_line_is_read_as_the_entry_that_was_written(tmp_path: Path) -> None:
    who = identity.create(tmp_path)
    previous = genesis(who.public)
    entries = []
    for number, (kind, facts) in enumerate(GOOD.items(), 1):
        entries.append(make_entry(who, number, TIME, kind, facts, previous))
        previous = entries[-1].hash
    assert [entry_of(line_of(entry), 1) for entry in entries] == entries
    check_chain(entries, who.public)
    check_chain([], who.public)


def test_every_field_is_under_the_hash_and_the_hash_under_the_signature(tmp_path: Path) -> None:
    who, other = identity.create(tmp_path / "a"), identity.create(tmp_path / "b")
    one = make_entry(who, 1, TIME, "ended", GOOD["ended"], genesis(who.public))
    check_chain([one], who.public)
    for changed in (
        one._replace(time="2026-01-02T03:04:06+00:00"),
        one._replace(kind="dead"),
        one._replace(facts={**GOOD["ended"], "model": "00" * 32}),
        one._replace(hash=bytes(32)),
    ):
        with pytest.raises(LogDamaged, match="was changed"):
            check_chain([changed], who.public)
    with pytest.raises(LogDamaged, match="does not follow"):
        check_chain([one._replace(previous=bytes(32))], who.public)
    foreign = make_entry(other, 1, TIME, "ended", GOOD["ended"], genesis(who.public))
    with pytest.raises(LogDamaged, match="not signed by the site's key"):
        check_chain([foreign], who.public)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'{"number": 1}',
        b'{"number":1,"time":"yesterday","kind":"ended","facts":{},"previous":"","hash":"","signature":""}',
        b'{"number":NaN,"time":"2026-01-02T03:04:05+00:00","kind":"ended","facts":{},"previous":"","hash":"","signature":""}',
        b" " * (1 << 20) + b"{}",
    ],
)
def test_foreign_lines_are_refused_by_their_place(line: bytes) -> None:
    with pytest.raises(LogDamaged, match="line 7 is no entry"):
        entry_of(line, 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", "1"),
        ("number", -1),
        ("time", 3),
        ("time", "2026-01-02 03:04"),
        ("kind", ["ended"]),
        ("facts", []),
        ("facts", {"run": RUN, "model": HASH, "name": "Jane Doe"}),
        ("previous", "00"),
        ("hash", HASH[:-1]),
        ("signature", HASH),
        ("signature", 64),
    ],
)
def test_a_line_with_one_field_of_another_form_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    who = identity.create(tmp_path)
    line = json.loads(line_of(make_entry(who, 1, TIME, "ended", GOOD["ended"], genesis(who.public))))
    entry_of(json.dumps(line).encode(), 1)
    with pytest.raises(LogDamaged, match="line 1 is no entry"):
        entry_of(json.dumps({**line, name: value}).encode(), 1)
