"""Sites in one process."""

from __future__ import annotations

import pytest

from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Unreached


def test_each_site_answers_once_and_one_that_raises_costs_itself_only() -> None:
    def broken(_request: bytes) -> bytes:
        raise RuntimeError("/a/path")

    link = in_process({"ulm": lambda request: request[::-1], "bonn": broken, "kiel": lambda request: request * 2})
    replies = dict(link.ask({"ulm": b"ab", "bonn": b"cd", "kiel": b"ef"}, 10))
    assert replies["ulm"] == b"ba" and replies["kiel"] == b"efef"
    failed = replies["bonn"]
    assert isinstance(failed, Unreached) and "RuntimeError" in failed.reason and "path" not in failed.reason
    assert dict(link.ask({"kiel": b"-"}, 10)) == {"kiel": b"--"}  # only those who are named


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="no name of a site"):
        in_process({"Klinikum Ulm": bytes.upper})
