"""What is said of a table that is taken."""

from __future__ import annotations

from fedjax_poisson.data.tables.warnings import learned_facts
from tests.data.tables.healthy_table import columns, load, write


def test_names_of_patients_in_two_spellings_are_said(tmp_path):
    table = columns(person=lambda i: ("Ann", "ANN")[i // 3 % 2] if i % 3 == 0 else f"p{i}")
    warnings = load(write(tmp_path, table), patient="person").warnings
    assert any("names of patients differ by case" in warning for warning in warnings)


def test_facts_that_were_learned_are_listed_by_kind_with_what_would_replace_them():
    found = learned_facts([("fill", "age"), ("bounds", "age"), *(("categorical", f"c{k}") for k in range(42))])
    assert [fact.split(" were taken from the records: ")[0] for fact, _ in found] == [
        "ranges of numbers",
        "levels of text columns",
        "values for missing numbers",
    ]
    assert "c39 and of 2 more columns" in found[1][0] and "c40" not in found[1][0]
    assert all("public values" in remedy and "in a TOML file" in remedy for _, remedy in found)
    assert learned_facts([]) == []
