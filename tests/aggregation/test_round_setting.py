"""What follows from the setting of an aggregator: parameters and terms that agree, and messages as long as is said."""

from __future__ import annotations

import pytest

from fedjax_poisson import poisson_embedding
from fedjax_poisson.aggregation import server_state
from fedjax_poisson.aggregation.round_setting import (
    RoundSetting,
    draft_of,
    expected_of,
    message_bytes,
    parameters_for,
    run_name,
)
from fedjax_poisson.aggregation.terms import parameters_of
from fedjax_poisson.randomness import stream
from tests.aggregation.test_attacks import at
from tests.aggregation.test_parameters import made


def test_a_message_of_a_million_values_takes_two_bytes_each():
    mechanism = poisson_embedding(clip_norm=1.0, coordinate_bound=0.1, dark_count=8.0, modulation=0.1)
    size = 1 << 20
    p = made(size, 1000, mechanism.count_bound(1000, size), 5, corrupt=1)
    assert message_bytes(p) / size <= 2.1
    assert 1.8 < message_bytes(p) / size, "twelve bits of count and four of noise cannot take less"


SETTING = RoundSetting(
    run=b"r" * 16,
    count_bound=200,
    count_rms=3.0001,
    senders=6,
    minimum=3,
    corrupt=1,
    members=6,
    threshold=4,
    malicious=1,
    mechanism="{}",
    size=40,
)


def test_a_contribution_has_the_bytes_that_are_said():
    world = at("contribution")
    (invite,) = world.out
    assert len(world.contribute(0, invite.blob)) == message_bytes(world.params)


def test_the_terms_of_a_setting_have_its_parameters_and_bounds():
    members = tuple(bytes([k]) * 32 for k in range(1, 7))
    for rms in (None, 3.0001):
        setting = SETTING._replace(count_rms=rms)
        terms = draft_of(setting, 5, 40, members, bytes(32))
        assert parameters_of(terms) == parameters_for(setting, 40)
        assert (terms.round, terms.size, terms.members, terms.run) == (5, 40, members, setting.run)
        stated, own = server_state.expected_of(terms, 6), expected_of(setting, 6)
        assert stated._replace(count_rms=None) == own._replace(count_rms=None)
        # terms state thousandths, rounded up: an honest sum at the bound is not refused
        assert rms is None or rms <= stated.count_rms < rms + 0.001
    assert draft_of(SETTING, 5, 40, members, bytes(32)).count_rms == 3001


@pytest.mark.filterwarnings("ignore::fedjax_poisson.randomness.ReproducibleStreamWarning")
def test_processes_of_one_stream_agree_on_the_name_of_the_run_and_others_do_not():
    assert run_name(stream(7)) == run_name(stream(7)) != run_name(stream(8))
    assert len(run_name(stream(7))) == len(run_name(None)) == 16 and run_name(None) != run_name(None)
