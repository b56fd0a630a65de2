"""Who takes part: under secret sampling everybody has to, or who is absent would tell who was sampled."""

from __future__ import annotations

import pytest

from fedjax_poisson.accounting import Participation


def test_everybody_has_to_be_there_exactly_under_sampling():
    facts = {"senders": 6, "minimum_senders": 3, "honest_senders": 2}
    plain = Participation(**facts)
    assert (plain.sampling_rate, plain.adjacency, plain.everybody) == (1.0, "zero_out", False)
    for rate, everybody in ((1.0, False), (1 - 2.0**-40, True), (0.5, True)):
        assert Participation(**facts, sampling_rate=rate).everybody is everybody


def test_facts_are_given_by_name_and_stay():
    with pytest.raises(TypeError):
        Participation(6, 3, 2)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Participation(senders=6, minimum_senders=3, honest_senders=2).senders = 7  # type: ignore[misc]
