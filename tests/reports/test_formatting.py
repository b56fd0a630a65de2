"""Numbers in words: units, dates, and an epsilon that is never rounded down."""

from __future__ import annotations

from fedjax_poisson.reports.formatting import (
    format_bound,
    format_bytes,
    format_epsilon,
    format_seconds,
    in_hundred,
    interval_text,
    moment,
)
from fedjax_poisson.runs.run_folder import number


def test_epsilon_is_rounded_up_and_never_down():
    assert format_epsilon(0.99991) == "1.0000"
    assert format_epsilon(0.83660001) == "0.8367"
    assert format_epsilon(0.8366) == "0.8366"
    assert format_epsilon(0.5) == "0.5000"


def test_bounds_are_rounded_up_and_intervals_say_their_unit_once():
    assert (format_bound(0.19101), format_bound(0.191), in_hundred(0.0912)) == ("19.2 %", "19.1 %", "9.2 in 100")
    assert interval_text([0.759, 0.854], "{:.1%}".format) == "75.9% to 85.4%"
    assert interval_text([0.1, 0.2], "{:.2f}".format) == "0.10 to 0.20"
    assert interval_text([0.1], str) == interval_text(None, str) == interval_text(["a", 2], str) == "–"


def test_wording():
    assert [format_bytes(v) for v in (56, 66_700, 1.5e6, 2e9)] == ["56 B", "66.7 kB", "1.5 MB", "2 GB"]
    assert [format_seconds(v) for v in (2e-5, 0.0135, 1.13, 1200)] == ["20 µs", "13.5 ms", "1.13 s", "20 min"]
    assert moment("2026-11-24T09:30:00+00:00") == "24 November 2026, 09:30 UTC"
    assert moment("yesterday") == "yesterday" and moment(None) == "not recorded"
    assert [number(v) for v in (True, "1", float("nan"), None, 2)] == [None, None, None, None, 2.0]
