"""Light or norm: the numbers of both ways follow from l / h and the honest clients, and the choice follows from the numbers."""

from __future__ import annotations

import functools

import pytest

from fedjax_poisson.federated.screening_plan import plan_screening

SETTING = {
    "clients": 60,
    "dimension": 421_642,
    "epsilon": 3.0,
    "delta": 1e-5,
    "rounds": 30,
    "members": 6,
    "malicious": 1,
}


@functools.cache
def _plan(**changes):
    return plan_screening(**{**SETTING, **changes})


def test_noise_is_paid_for_honest_clients_or_for_the_committee() -> None:
    for corrupt in (0, 6, 30):
        plan = _plan(corrupt=corrupt)
        assert plan.light.variance == pytest.approx(60 / (60 - corrupt), rel=0.02)
        assert plan.norm.variance == pytest.approx(2.13, abs=0.01)  # whoever the clients are
    assert _plan(members=20, malicious=6).norm.variance == pytest.approx(3.04, abs=0.02)


def test_less_noise_decides_where_nothing_must_be_bounded() -> None:
    assert _plan(corrupt=6).chosen == "light" and "less noise" in _plan(corrupt=6).reasons[0]
    assert _plan(corrupt=40).chosen == "norm", "two thirds corrupt: their own noise would cost a factor of three"
    assert _plan(corrupt=6, must_bound=True).chosen == "norm"
    assert _plan(corrupt=40, must_bound=False).chosen == "light"


def test_both_ways_are_printed_with_their_numbers() -> None:
    plan = _plan(corrupt=6)
    assert "54 of 60" in plan.reasons[1] and "nobody is bounded" in plan.reasons[1]
    assert "6 noise senders, 3 counted on" in plan.reasons[2] and "clips in the mean" in plan.reasons[2]
    assert f"{plan.norm.bytes_up:.2f} bytes" in plan.reasons[2]
    assert 1.2 < plan.light.bytes_up < plan.norm.bytes_up < 4.5


@pytest.mark.parametrize(
    ("changes", "words"), [({"corrupt": 60}, "somebody must be honest"), ({"members": 21}, "1 to 20"), ({"malicious": 6}, "2 t > m")]
)  # fmt: skip
def test_wrong_arguments_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_screening(**{**SETTING, **changes})
