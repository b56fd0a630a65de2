"""The bundle in a real Flower network: TLS, node authentication, a process for each message, workers that stay. Needs the extra `flower`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedjax_poisson.deployment.transport.link import Link, Unreached
from fedjax_poisson.deployment.transport.parts import in_parts
from fedjax_poisson.deployment.transport.parts_handler import parts_handler
from tests.deployment.flower_network import SUPERLINK, flower_network, workers

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(SUPERLINK is None, reason="needs Flower: pip install 'fedjax-poisson[flower]'"),
]
SITES = ("ulm", "bonn", "kiel", "jena")


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    """Four sites; the SuperNode of jena says that it is kiel, and the worker of bonn fails at times."""

    def bonn(request: bytes) -> bytes:
        if request == b"fail":
            raise ValueError("/srv/bonn/patients.csv")
        return request[::-1]

    handlers = {site: parts_handler(bonn if site == "bonn" else bytes.upper) for site in SITES}
    with (
        tempfile.TemporaryDirectory(prefix="fp", dir="/tmp") as name,  # a socket's path is short
        workers(Path(name), handlers) as paths,
        flower_network(Path(name), paths, names={"jena": "kiel"}) as network,
    ):
        yield network.link


def test_small_and_large_messages_come_as_they_were_sent(link: Link) -> None:
    request = b"abc" * 300_000
    replies = dict(in_parts(link, part_bytes=500_000).ask({"ulm": request, "bonn": request}, 200))
    assert replies == {"ulm": request.upper(), "bonn": request[::-1]}


def test_a_node_with_another_sites_name_makes_it_unreached_and_nobody_else(link: Link) -> None:
    replies = dict(link.ask({"kiel": b"", "jena": b""}, 60))
    assert "several SuperNodes" in replies["kiel"].reason  # type: ignore[union-attr]
    assert "no SuperNode that is connected" in replies["jena"].reason  # type: ignore[union-attr]


def test_a_failure_at_a_site_is_said_without_its_message(link: Link) -> None:
    ((_, reply),) = in_parts(link).ask({"bonn": b"fail"}, 100)
    assert isinstance(reply, Unreached) and "ValueError" in reply.reason and "patients" not in reply.reason
