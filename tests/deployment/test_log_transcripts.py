"""What a transcript shows in the form of logs is what the round's server and clients had."""

from __future__ import annotations

import hashlib

import pytest

from fedjax_poisson.aggregation.refusals import BadTerms
from fedjax_poisson.deployment.log_transcripts import check_transcripts, shown_by
from fedjax_poisson.deployment.roster import pinned_of
from tests.deployment.logs import SITES, consortium


def test_a_transcript_shows_the_rounds_own_names() -> None:
    made = consortium()
    shown = shown_by("a", made.transcript, pinned_of(made.roster))
    server = made.world.server
    assert (shown.run, shown.round) == (made.world.run.hex(), 1)
    assert shown.terms == made.world.digest.hex() and shown.counts == made.counts
    assert shown.included == hashlib.sha256(server.included).hexdigest()
    expected = sorted((made.who[name].public, server.clients[made.who[name].public].digest) for name in SITES)
    assert list(shown.clients) == expected


def test_what_does_not_hold_is_refused_by_name_and_the_rest_is_read() -> None:
    made = consortium()
    with pytest.raises(BadTerms):
        shown_by("a", made.transcript, pinned_of(made.roster)._replace(malicious=0))
    holding, refused = check_transcripts(made.roster, {"b": b"junk", "a": made.transcript})
    assert list(holding) == ["a"] and refused == [("b", "BadTerms: This is no transcript of a round.")]
