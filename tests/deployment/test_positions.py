"""Where sites are: who is waited for, and how long a silent one keeps the others."""

from __future__ import annotations

import json
import time

from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.positions import At, Pace, ask_positions, waited_for
from fedjax_poisson.deployment.requests import Spoken, encode
from fedjax_poisson.deployment.transport.in_process import in_process

THERE = encode(Spoken("at", (u64(2), json.dumps({"state": "running", "label": "train 1"}).encode(), b"")))


def test_a_silent_site_costs_one_whole_wait_and_is_heard_again(monkeypatch) -> None:
    from fedjax_poisson.deployment import positions

    monkeypatch.setattr(positions, "_LEAST_SECONDS", 0.2)
    silent = [True]

    def south(blob: bytes) -> bytes:
        if silent[0]:
            time.sleep(2.0)
        return THERE

    link, names = in_process({"north": lambda blob: THERE, "south": south}), ("north", "south")
    at, away, pace = ask_positions(link, names, Pace(1.0, 1.0))
    assert set(at) == {"north"} and "no reply in 1 s" in away["south"] and pace.now == 0.2
    began = time.monotonic()
    at, away, pace = ask_positions(link, names, pace)
    assert set(away) == {"south"} and time.monotonic() - began < 0.8  # the twin: the first look took a second
    silent[0] = False
    at, away, pace = ask_positions(link, names, pace)
    assert set(at) == {"north", "south"} and not away and pace == Pace(1.0, 1.0)
    assert at["south"].position == 2 and at["south"].label == "train 1"


def test_if_nobody_speaks_all_get_the_whole_time_again() -> None:
    link = in_process({"north": lambda blob: b"junk"})
    at, away, pace = ask_positions(link, ("north",), Pace(30.0, 5.0))
    assert not at and "Malformed" in away["north"] and pace.now == 30.0


def test_what_a_site_says_in_a_refused_reply_cannot_steer_a_terminal() -> None:
    link = in_process({"north": lambda blob: encode(Spoken("\x1b[2J\x07OK", ()))})
    _, away, _ = ask_positions(link, ("north",), Pace(30.0, 5.0))
    assert "OK" in away["north"] and away["north"].isprintable()


def test_who_iswaited_for_is_named_with_what_it_does() -> None:
    def at(label: str | None) -> At:
        return At(3, "running", label, None, "", None, False)

    names = ["north", "south", "west"]
    all_busy = {name: at("train 1") for name in names}
    assert waited_for(names, all_busy, ["north"]) == "train 1: south, west compute or compile"
    assert waited_for(names, all_busy, ["north", "south"]) == "train 1: west computes or compiles"
    there = {"north": at(None)}
    assert waited_for(names, there, []) == "the first sum: north computes or compiles; away: south, west"
    assert waited_for(names, all_busy, names) == "waiting for the sites"
