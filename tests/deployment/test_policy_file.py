"""A policy's file: what is missing, misspelt or impossible is named, and paths are relative to the file."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from fedjax_poisson.deployment.policy_file import read_policy

TEXT = """
[consortium]
roster = "roster.toml"
name = "north"
[data]
csv = "../data/visits.csv"
labels = ["died"]
columns = "all"
[privacy]
unit = "patient"
epsilon = 3
delta = 1e-5
least_honest_others = 2
minimum_senders = 4
[limits]
hours = "07:00-19:00"
"""


def read(folder: Path, text: str):
    path = folder / "POLICY.toml"
    path.write_text(text)
    return read_policy(path)


def test_a_policy_is_read_with_careful_defaults(tmp_path: Path) -> None:
    policy = read(tmp_path, TEXT)
    assert policy.consortium.roster == str(tmp_path / "roster.toml")
    assert Path(policy.data.csv) == tmp_path / "../data/visits.csv" and policy.data.images == ""
    assert policy.privacy.epsilon == 3.0 and policy.privacy.adjacency == "zero_out"
    assert policy.approval.mode == "by hand" and policy.limits.algorithms == ["fedsgd"]
    for old, new in (
        ("epsilon = 3", "epsilon = 0.5"),
        ("minimum_senders = 4", "minimum_senders = 2"),
        ("1e-5", "0.01"),
    ):
        read(tmp_path, TEXT.replace(old, new))
    assert read(tmp_path, TEXT.replace("../data", "/data")).data.csv == "/data/visits.csv"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epsilon = 3", "epsilom = 3", r"sets privacy.epsilom, which is no key of a policy; do you mean epsilon\?"),
        ("[limits]", "[limit]", r"has \[limit\], which is no table of a policy; do you mean limits\?"),
        ("[limits]", "[zzz]", "known are consortium, data, privacy, limits, approval"),
        ("epsilon = 3\n", "", "must set privacy.epsilon: this is for the site to say"),
        ("minimum_senders = 4\n", "", "must set privacy.minimum_senders"),
        ("least_honest_others = 2\n", "", "must set privacy.least_honest_others"),
        ('labels = ["died"]\n', "", "must set data.labels"),
        ('columns = "all"', 'columns = "age"', 'data.columns = \'age\': it must be a list of text, or \'all\''),
        ('unit = "patient"', 'unit = "person"', "it must be one of 'record', 'patient', 'client'"),
        ("epsilon = 3", "epsilon = nan", "it must be a number"),
        ("epsilon = 3", "epsilon = true", "it must be a number"),
        ("epsilon = 3", "epsilon = 0", "epsilon = 0 must be above 0"),
        ("delta = 1e-5", "delta = 0", "delta = 0 must lie in"),
        ("delta = 1e-5", "delta = 0.1", "delta = 0.1 must lie in"),
        ("minimum_senders = 4", "minimum_senders = 4.5", "it must be a whole number"),
        ("minimum_senders = 4", "minimum_senders = 1", "a sum over one site hides nothing"),
        ("least_honest_others = 2", "least_honest_others = -1", "it must be a whole number"),
        ('name = "north"', 'name = "North"', "is no name of a party"),
        ('roster = "roster.toml"', 'roster = ""', "roster is empty"),
        ('csv = "../data/visits.csv"', 'csv = ""', "neither data.csv nor data.images"),
        ('hours = "07:00-19:00"', 'hours = "7-19"', "limits.hours = '7-19'"),
        ('hours = "07:00-19:00"', 'evaluation = ["clear"]', "held-out records stay"),
        ('hours = "07:00-19:00"', "algorithms = [3]", "it must be a list of text"),
        ('hours = "07:00-19:00"', "hours =", "not valid TOML"),
        ("[limits]\n", "[approval]\nmode = \"maybe\"\n[limits]\n", "'by hand', 'automatic'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(ValueError, match=words) as found:
        read(tmp_path, TEXT.replace(old, new))
    assert "POLICY.toml" in str(found.value)
    read(tmp_path, TEXT)


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"limits must be a table, \[limits\]"):
        read(tmp_path, "limits = 3\n" + TEXT.replace("[limits]\nhours", "# "))


def test_the_documented_policy_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```toml\n(# POLICY.toml.*?)^```", page, re.MULTILINE | re.DOTALL)
    policy = read(tmp_path, text)
    assert policy.privacy.unit == "patient" and policy.data.csv == "/data/visits.csv"
    named = set(re.findall(r"^(\w+) = ", text, re.MULTILINE))
    tables = (policy.consortium, policy.data, policy.privacy, policy.limits, policy.approval)
    known = {field.name for table in tables for field in dataclasses.fields(table)}
    assert known - named == {"images", "adjacency"}, "the page shows every key but these"
