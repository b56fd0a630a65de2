"""Bytes that are predicted from a sum's terms, against those that go through a link; the twin is a prediction of another sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from fedjax_poisson.aggregation.terms import decode_terms
from fedjax_poisson.deployment.requests import Spoken, decode, encode
from fedjax_poisson.deployment.round_at_server import hold_round
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Asked, Link, Unreached
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from fedjax_poisson.deployment.wire_bytes import Traffic, sum_traffic
from tests.deployment import test_exchange
from tests.deployment.test_exchange import NAMES, Group, group, until_ready

__all__ = ["group"]


def counted(link: Link, moved: dict[str, list[int]]) -> Link:
    """The link, adding up what goes to and comes from each site, with the lengths that stand before it on a stream."""

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        for name, reply in link.ask(asked, seconds):
            assert isinstance(reply, bytes), reply
            moved.setdefault(name, [0, 0])[0] += len(reply) + 5
            moved[name][1] += len(asked[name]) + 4
            yield name, reply

    return link._replace(ask=ask)


@pytest.mark.parametrize("size", [14, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_the_bytes_of_a_whole_sum_are_those_that_its_terms_predict(
    group: Group, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_exchange, "SIZE", size)
    moved: dict[str, list[int]] = {}
    small = in_process({name: parts_handler(lambda blob, name=name: _handle(group, name, blob)) for name in NAMES})
    link = in_parts(counted(small, moved))
    for site in group.sites.values():
        site.want(1, np.zeros(size, np.int32))
        until_ready(site)
    replies = [decode(reply) for _, reply in link.ask(dict.fromkeys(NAMES, encode(Spoken("next"))), 60)]  # type: ignore[arg-type]
    draft = decode_terms(replies[0].parts[2])
    members = dict(enumerate(NAMES, 1))
    terms = dataclasses.replace(draft, round=1)
    transcript, _ = hold_round(link, terms, members=members, sites=group.keys, seconds=60)
    asked = encode(Spoken("opened", (bytes(8), transcript)))
    assert len(dict(link.ask(dict.fromkeys(NAMES, asked), 60))) == 3
    up, down = (np.mean([one[k] for one in moved.values()]) for k in range(2))
    predicted = sum_traffic(draft, 3)
    assert abs(predicted.up / up - 1) < 0.03 and abs(predicted.down / down - 1) < 0.03, (predicted, up, down)
    other = sum_traffic(dataclasses.replace(draft, size=2 * size if size > 14 else 4000), 3)
    assert other.up / up > 1.05 and other.down / down > 1.05


def _handle(group: Group, name: str, blob: bytes) -> bytes:
    """A site's reply; the fixture's own link takes whole requests."""
    ((_, reply),) = group.link.ask({name: blob}, 60)
    assert isinstance(reply, bytes)
    return reply


def test_a_member_without_records_sends_no_rows_and_a_site_beside_the_committee_no_steps(group: Group) -> None:
    draft = decode_terms(until_ready(_wanting(group)))
    whole, member, site = (
        sum_traffic(draft, 3, sends=sends, sits=sits) for sends, sits in ((True, True), (False, True), (True, False))
    )
    assert Traffic(member.up + site.up, member.down + site.down) == pytest.approx(whole, abs=1)
    assert 0 < member.up < site.up


def _wanting(group: Group) -> test_exchange.Site:
    site = group.sites["east"]
    site.want(1, np.zeros(test_exchange.SIZE, np.int32))
    return site
