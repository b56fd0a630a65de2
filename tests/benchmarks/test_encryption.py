"""The benchmark's records are complete, and calls really take turns."""

from __future__ import annotations

import json

import pytest

from fedjax_poisson.benchmarks import encryption


def test_calls_take_turns_and_the_first_round_is_not_counted():
    made = []
    calls = [(lambda: made.append("a"), 3), (lambda: made.append("b"), 1)]
    times = encryption._taking_turns(calls, 2)
    assert "".join(made) == "ab" + 2 * "aaab"
    assert [len(t.wall) for t in times] == [len(t.cpu) for t in times] == [6, 2]
    assert all((t.wall > 0).all() and (t.cpu >= 0).all() for t in times)


def test_records_of_both_backends_are_complete():
    made = [encryption._one_call("seeded", 5000), encryption._tenseal("seeded", 16_384)]
    ours, theirs = encryption._calls(made, 2)
    needed = {"setting", "backend", "mode", "values", "median_s", "p10_s", "p90_s", "values_per_s", "bytes_per_value"}
    for row in (ours, theirs):
        assert needed | {"device", "cpu_s", "cores", "date"} <= set(json.loads(json.dumps(row)))
        assert 0 < row["p10_s"] <= row["median_s"] <= row["p90_s"]
        assert row["values_per_s"] == pytest.approx(row["values"] / row["median_s"])
    assert (ours["backend"], theirs["backend"], theirs["mode"]) == ("device", "tenseal", "symmetric")
    assert ours["bytes_per_value"] < theirs["bytes_per_value"]
    with pytest.raises(ValueError, match="unknown sections"):
        next(encryption.run(sections=("nothing",)))
