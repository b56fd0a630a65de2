"""Each reason against a run, with the nearest proposal that is allowed beside it."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

import pytest

from fedjax_poisson.deployment.policy import (
    ApprovalPolicy,
    ConsortiumPolicy,
    DataPolicy,
    LimitPolicy,
    Policy,
    PrivacyPolicy,
    Proposal,
    key_of,
    refusals,
    span,
)

POLICY = Policy(
    consortium=ConsortiumPolicy(roster="roster.toml", name="north"),
    data=DataPolicy(csv="visits.csv", labels=["died"], columns=["age", "stay"]),
    privacy=PrivacyPolicy(unit="patient", epsilon=3.0, delta=1e-5, least_honest_others=2, minimum_senders=4),
    limits=LimitPolicy(
        largest_model=1000, algorithms=["fedsgd"], evaluation=["private"], hours="07:00-19:00", rounds_per_day=100
    ),
    approval=ApprovalPolicy(mode="by hand"),
)
RUN = Proposal(
    unit="patient",
    adjacency="zero_out",
    epsilon=3.0,
    delta=1e-5,
    honest_senders=3,
    minimum=4,
    dimension=1000,
    algorithm="fedsgd",
    evaluation="private",
    columns=("age",),
    labels=("died",),
    rounds=60,
    rounds_today=40,
    remaining=3.0,
    fits=True,
    approved=True,
)
NOON = datetime(2026, 3, 2, 12, 0)


def test_a_run_at_every_limit_is_allowed() -> None:
    assert refusals(POLICY, RUN, NOON) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unit": "record"}, "privacy.unit = 'patient': the run's account is about a record"),
        ({"unit": "client"}, "privacy.unit = 'patient': the run's account is about a client"),
        ({"adjacency": "replace_one"}, "privacy.adjacency = 'zero_out': the run's account is for replace_one"),
        ({"epsilon": 3.001}, "privacy.epsilon = 3.0: the run would spend 3.001"),
        ({"epsilon": float("nan")}, "privacy.epsilon = 3.0: the run would spend nan"),
        ({"delta": 2e-5}, "privacy.delta = 1e-05: the run's account has delta 2e-05"),
        ({"fits": False, "remaining": 1.25}, "privacy.epsilon = 3.0: the run would spend 3, of which this site's ledger has 1.25 left"),
        ({"honest_senders": 4}, "privacy.least_honest_others = 2: the run's account counts on 3 honest sites beside this one"),
        ({"minimum": 3}, "privacy.minimum_senders = 4: the run opens sums of 3 sites"),
        ({"dimension": 1001}, "limits.largest_model = 1000: the run's model has 1001 parameters"),
        ({"algorithm": "fedavg"}, "limits.algorithms = ['fedsgd']: the run takes 'fedavg'"),
        ({"evaluation": "none"}, "limits.evaluation = ['private']: the run's is 'none'"),
        ({"columns": ("age", "name")}, "data.columns = ['age', 'stay']: the run would use 'name'"),
        ({"labels": ("died", "hiv")}, "data.labels = ['died']: the run would learn 'hiv'"),
        ({"rounds_today": 41}, "limits.rounds_per_day = 100: 41 sums were opened today, and the run would open 60 more"),
        ({"uncovered": ("the range of stay",)}, "data.uncovered = none: the run would show the range of stay"),
        ({"approved": False}, "approval.mode = 'by hand': nobody at this site has approved these terms (fedjax-poisson site approve)"),
    ],
)  # fmt: skip
def test_each_refusal_names_what_is_allowed_and_what_was_asked(changes: dict[str, Any], reason: str) -> None:
    found = refusals(POLICY, RUN._replace(**changes), NOON)
    assert found == (reason,)
    assert key_of(found[0]) == reason.split(" = ")[0]


def test_every_reason_is_given_at_once() -> None:
    bad = RUN._replace(unit="record", minimum=2, dimension=10**6)
    assert [key_of(reason) for reason in refusals(POLICY, bad, NOON)] == [
        "privacy.unit",
        "privacy.minimum_senders",
        "limits.largest_model",
    ]


def with_limits(**changes: Any) -> Policy:
    return dataclasses.replace(POLICY, limits=dataclasses.replace(POLICY.limits, **changes))


@pytest.mark.parametrize(
    ("hours", "hour", "minute", "allowed"),
    [
        ("07:00-19:00", 7, 0, True),
        ("07:00-19:00", 6, 59, False),
        ("07:00-19:00", 18, 59, True),
        ("07:00-19:00", 19, 0, False),
        ("22:00-06:00", 23, 30, True),
        ("22:00-06:00", 5, 59, True),
        ("22:00-06:00", 6, 0, False),
        ("22:00-06:00", 12, 0, False),
        ("", 3, 0, True),
    ],
)
def test_hours_of_the_machines_own_clock(hours: str, hour: int, minute: int, allowed: bool) -> None:
    found = refusals(with_limits(hours=hours), RUN, datetime(2026, 3, 2, hour, minute))
    assert found == (() if allowed else (f"limits.hours = '{hours}': it is {hour:02d}:{minute:02d}",))


def test_what_is_no_span_of_hours_is_refused() -> None:
    for wrong in ("7-19", "07:00-24:00", "07:60-08:00", "07:00 - 19:00", "07:00-07:00"):
        with pytest.raises(ValueError, match="any time"):
            span(wrong)


def test_all_columns_and_no_hand_are_for_the_site_to_say() -> None:
    open_data = dataclasses.replace(POLICY.data, labels="all", columns="all")
    policy = dataclasses.replace(POLICY, data=open_data, approval=ApprovalPolicy(mode="automatic"))
    asked = RUN._replace(columns=("age", "name"), labels=("hiv",), approved=False)
    assert refusals(policy, asked, NOON) == ()
    assert len(refusals(POLICY, asked, NOON)) == 3


def test_an_algorithm_of_another_package_is_allowed_by_its_full_name_only() -> None:
    asked = RUN._replace(algorithm="mine:entry")
    assert [key_of(each) for each in refusals(POLICY, asked, NOON)] == ["limits.algorithms"]
    assert refusals(with_limits(algorithms=["fedsgd", "mine:entry"]), asked, NOON) == ()
