"""The terms of a run: one encoding, every field under the hash, signed by all, and refused where this site must not take part."""

from __future__ import annotations

import dataclasses

import pytest

from fedjax_poisson.aggregation.refusals import BadTerms, Malformed, Oversize, RoundRefused
from fedjax_poisson.deployment.common_settings import common_config, with_roster
from fedjax_poisson.deployment.run_terms import (
    MOST_CONFIG,
    check_run_terms,
    check_signatures,
    common_of,
    decode_run_terms,
    encode_run_terms,
    in_words,
    run_terms_hash,
    sign_run_terms,
    site_config,
)
from fedjax_poisson.runs.config import Config
from tests.deployment.identities import VERSION, people, roster_of, settings, terms_of

WHO = people()
ROSTER = roster_of(WHO)
GOOD = terms_of(ROSTER)


def test_terms_are_read_as_they_were_written() -> None:
    blob = encode_run_terms(GOOD)
    assert decode_run_terms(blob) == GOOD
    for cut in range(0, len(blob), 37):
        with pytest.raises(RoundRefused):
            decode_run_terms(blob[:cut])
    with pytest.raises(Malformed, match="left over"):
        decode_run_terms(blob + b"\0")
    with pytest.raises(BadTerms, match="version 9"):
        decode_run_terms(b"\x09" + blob[1:])
    with pytest.raises(Oversize):
        decode_run_terms(bytes(MOST_CONFIG + 257))
    with pytest.raises(Oversize, match="A text"):
        decode_run_terms(encode_run_terms(dataclasses.replace(GOOD, version="1" * 65)))
    with pytest.raises(BadTerms, match="UTF-8"):
        decode_run_terms(encode_run_terms(dataclasses.replace(GOOD, version="é")))


def test_two_texts_for_one_run_are_not_taken() -> None:
    for text in (GOOD.config + "\n", "# a note\n" + GOOD.config, GOOD.config.replace("epsilon = 2.0", "epsilon = 2")):
        assert text != GOOD.config
        with pytest.raises(BadTerms, match="not in their one form"):
            decode_run_terms(encode_run_terms(dataclasses.replace(GOOD, config=text)))
    with pytest.raises(BadTerms, match="are refused"):
        decode_run_terms(encode_run_terms(dataclasses.replace(GOOD, config='csv = "/etc/passwd"\n')))


def test_every_field_is_under_the_hash() -> None:
    changes = {
        "roster": bytes(32),
        "run": bytes(16),
        "config": common_config(with_roster(settings(epsilon=1.0), ROSTER)),
        "version": "0.2.0",
        "protocol": 2,
        "deadline_seconds": 61,
        "most_rounds": 101,
        "begin_before": GOOD.begin_before + 1,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(GOOD)}
    hashes = {run_terms_hash(dataclasses.replace(GOOD, **{name: value})) for name, value in changes.items()}
    assert len(hashes | {run_terms_hash(GOOD)}) == len(changes) + 1
    assert run_terms_hash(dataclasses.replace(GOOD)) == run_terms_hash(GOOD)


def test_all_sign_and_who_did_not_is_named() -> None:
    signatures = {name: sign_run_terms(one, GOOD) for name, one in WHO.items()}
    check_signatures(ROSTER, GOOD, signatures)
    with pytest.raises(BadTerms, match="that of south is missing"):
        check_signatures(ROSTER, GOOD, {name: blob for name, blob in signatures.items() if name != "south"})
    with pytest.raises(BadTerms, match="east is wrong"):
        check_signatures(ROSTER, dataclasses.replace(GOOD, most_rounds=101), signatures)
    from fedjax_poisson.deployment import identity

    other_label = {**signatures, "east": identity.sign(WHO["east"], "roster", run_terms_hash(GOOD))}
    with pytest.raises(BadTerms, match="east is wrong"):
        check_signatures(ROSTER, GOOD, other_label)


def test_a_sites_settings_are_the_common_ones_and_its_own() -> None:
    found = site_config(GOOD, csv="/data/a.csv", ledger="/state/ledger.sqlite", ledger_epsilon=4.0)
    assert (found.csv, found.ledger, found.ledger_epsilon, found.seed) == (
        "/data/a.csv",
        "/state/ledger.sqlite",
        4.0,
        None,
    )
    assert common_config(found) == GOOD.config
    with pytest.raises(ValueError, match="set csv in its policy"):
        site_config(GOOD)
    shipped = terms_of(ROSTER, Config(dataset="heart", public_data=False, evaluation="none", largest_site=300))
    assert site_config(shipped).dataset == "heart"


def test_terms_are_held_against_this_site() -> None:
    config = check_run_terms(GOOD, ROSTER, VERSION)
    assert common_config(config) == GOOD.config and (config.members, config.honest_senders) == (5, 3)
    for change in (
        {"deadline_seconds": 1},
        {"deadline_seconds": 7 * 86400},
        {"most_rounds": 1},
        {"most_rounds": 1 << 20},
    ):
        check_run_terms(dataclasses.replace(GOOD, **change), ROSTER, VERSION)
    for change, words in (
        ({"roster": bytes(32)}, "of the consortium 0000"),
        ({"protocol": 2}, "protocol 2"),
        ({"version": "0.2.0"}, "version '0.2.0' of the package, this site has '0.1.0'"),
        ({"deadline_seconds": 0}, "deadline_seconds = 0"),
        ({"deadline_seconds": 7 * 86400 + 1}, "deadline_seconds = 604801"),
        ({"most_rounds": (1 << 20) + 1}, "most_rounds = 1048577"),
        ({"most_rounds": 0}, "most_rounds = 0"),
        ({"config": common_config(settings(members=5, honest_senders=3, evaluation="clear"))}, "evaluation = 'clear'"),
    ):
        with pytest.raises(BadTerms, match=words):
            check_run_terms(dataclasses.replace(GOOD, **change), ROSTER, VERSION)


def test_a_person_reads_what_would_be_approved() -> None:
    text = in_words(GOOD)
    assert run_terms_hash(GOOD).hex() in text and "epsilon 2, delta 0.0001" in text and "each site's own table" in text
    assert common_of(GOOD).label == "died" and GOOD.config.rstrip() in text


def test_what_is_shown_to_a_person_cannot_steer_the_terminal() -> None:
    nasty = "died\x1b[2Jepsilon 0.1"
    terms = terms_of(ROSTER, settings(label=nasty, bounds={nasty: "private"}), version="\x1b[2J")
    assert common_of(terms).label == nasty
    assert "\x1b" not in in_words(terms) and "\x1b" in f"{common_of(terms).label}"
