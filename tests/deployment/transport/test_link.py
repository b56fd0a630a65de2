"""The seam: names, the time that everybody has, what may be said of a failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Unreached, check_site_names, failure_words, gather


@pytest.mark.parametrize("names", [("",), ("Ulm",), ("-ulm",), ("u" * 33,), ("ulm\n",), ("../ulm",), ("ulm", "ulm")])
def test_names_that_are_none(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name"):
        check_site_names(names)


def test_names_at_the_border_are_good() -> None:
    assert check_site_names(("u" * 32, "0", "a_b-c")) == ("u" * 32, "0", "a_b-c")


def test_a_failure_says_its_class_and_a_mark_and_keeps_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "fedjax_poisson"):
        words = failure_words(KeyError("/home/ulm/patients.csv, row of Mrs K."))
    assert words.startswith("the site failed: KeyError") and "ulm" not in words and "Mrs" not in words
    assert words[-8:] in caplog.text and "Mrs K." in caplog.text  # the site's own log has all of it


def test_whoever_is_slow_is_unreached_and_delays_nobody() -> None:
    release = threading.Event()

    def slow(_seconds: float) -> bytes:
        release.wait(20)
        return b"late"

    started = time.monotonic()
    arrivals = [
        (site, reply, time.monotonic() - started)
        for site, reply in gather({"slow": slow, "quick": lambda _seconds: b"now"}, 0.5)
    ]
    release.set()
    assert [one[:2] for one in arrivals] == [("quick", b"now"), ("slow", Unreached("no reply in 0.5 s"))]
    assert arrivals[0][2] < 0.4 < arrivals[1][2] < 5


def test_everybody_is_asked_at_once_and_before_anything_is_read() -> None:
    together = threading.Barrier(3, timeout=10)

    def asker(name: str) -> Callable[[float], str]:
        def call(_seconds: float) -> str:
            together.wait()  # nobody passes unless all are here
            return name

        return call

    replies = gather({name: asker(name) for name in ("a", "b", "c")}, 10)
    time.sleep(0.2)
    assert together.broken is False
    assert sorted(replies) == [("a", "a"), ("b", "b"), ("c", "c")]


def test_a_link_refuses_sites_that_it_does_not_have_and_asks_after_its_end() -> None:
    link = in_process({"ulm": bytes.upper})
    with pytest.raises(ValueError, match="no way to bonn; this link reaches ulm"):
        link.ask({"bonn": b""}, 1)
    assert list(link.ask({"ulm": b"x"}, 5)) == [("ulm", b"X")]
    link.close()
    with pytest.raises(ValueError, match="closed"):
        link.ask({"ulm": b"x"}, 1)
