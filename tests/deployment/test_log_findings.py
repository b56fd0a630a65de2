"""Findings for people and for programs."""

from __future__ import annotations

import json

from fedjax_poisson.deployment.log_findings import as_json, in_words
from tests.deployment.logs import change, clean, found


def test_clean_logs_end_in_one_word() -> None:
    script = clean()
    del script["member-3"]
    lines = in_words(found(script))
    assert lines[-1].startswith("sound: the logs agree; 2 opened rounds, 0 transcripts")
    assert "missing  no log of member-3: nothing is known of what they wrote down" in lines
    assert any(
        line.startswith("epsilon  east: 0.7500 in the run ") and line.endswith(" by its own log") for line in lines
    )
    assert not any(line.startswith("WRONG") for line in lines)


def test_what_is_wrong_comes_with_who_and_with_the_signatures() -> None:
    findings = found(change(clean(), "west", "opened", 2, counts="99" * 32))
    lines = in_words(findings)
    assert any(line.startswith("WRONG") and "west saw" in line and "counts 999999999999" in line for line in lines)
    assert sum("signature" in line for line in lines) == 2
    assert lines[-1].startswith("NOT SOUND: 1 things are wrong")
    value = json.loads(json.dumps(as_json(findings)))
    assert value["sound"] is False and list(value["epsilon"]["west"].values()) == [0.75]
    (one,) = (one for one in value["findings"] if one["grave"])
    assert one["kind"] == "equivocation" and one["sites"] == ["west"] and len(one["proof"][0]["signature"]) == 128
