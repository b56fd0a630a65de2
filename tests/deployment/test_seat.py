"""A seat in the committee: an answer is in the log before it is said, once; the twin of each test is the log that can be written."""

from __future__ import annotations

from typing import Any

import pytest

from fedjax_poisson.aggregation import member
from fedjax_poisson.aggregation.messages import parts_of
from fedjax_poisson.deployment.requests import decode
from fedjax_poisson.deployment.seat import take_seat
from tests.deployment.test_exchange import Group, group, held, wanted, watched

__all__ = ["group"]


def notices(group: Group) -> list[bytes]:
    """All that east was told as a member in one whole round."""
    seen: dict[str, list[bytes]] = {}
    held(group, wanted(group), link=watched(group.link, "notice", seen), seconds=200)
    return [decode(blob).parts[0] for blob in seen["east"]]


def sitting(group: Group) -> member.Member:
    found = group.sites["east"].exchange.party.member
    assert found is not None
    return found


def test_an_answer_is_told_once_and_before_it_leaves(group: Group) -> None:
    blobs = notices(group)
    answers = [(kind, facts) for kind, facts in group.sites["east"].told if kind == "answer"]
    assert len(answers) == 1 and answers[0][1]["round"] == 1
    seat = group.sites["east"].exchange._seat
    assert seat is not None and seat.round() == 1
    again = seat.notice(blobs[-1])
    assert answers[0][1] == {"round": 1, "included": parts_of(again).body[:32].hex(), "bytes": len(again)}
    assert [kind for kind, _ in group.sites["east"].told].count("answer") == 1


def test_a_seat_that_is_taken_again_stands_where_its_store_stands_and_says_the_same(group: Group) -> None:
    blobs = notices(group)
    before = group.sites["east"].exchange._seat
    assert before is not None
    told: list[str] = []
    after = take_seat(sitting(group), lambda kind, **facts: told.append(kind))
    assert after.round() == 1 and after.notice(blobs[-1]) == before.notice(blobs[-1]) and told == ["answer"]


@pytest.mark.parametrize("full", [False, True])
def test_what_cannot_be_written_down_is_not_said_however_often_it_is_asked(group: Group, full: bool) -> None:
    last = notices(group)[-1]
    asked = []

    def tell(kind: str, **facts: Any) -> None:
        asked.append(kind)
        if full:
            raise OSError("no space left")

    seat = take_seat(sitting(group), tell)
    for _ in range(2):
        if full:
            with pytest.raises(OSError, match="no space"):
                seat.notice(last)
        else:
            assert seat.notice(last)
    assert asked == ["answer"] * (2 if full else 1)
