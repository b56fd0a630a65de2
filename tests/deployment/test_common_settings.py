"""Settings that sites have in common: one text for one run, and nothing in them that would show a record."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fedjax_poisson.deployment.common_settings import (
    OWN,
    check_common,
    common_config,
    parse_common,
    read_settings,
    with_roster,
)
from fedjax_poisson.runs.config import Config
from tests.deployment.identities import NAMES, people, roster_of, settings

ROSTER = roster_of(people())
GOOD = with_roster(settings(), ROSTER)


def test_the_text_says_every_setting_and_nothing_of_one_site() -> None:
    text = common_config(GOOD)
    for field in dataclasses.fields(Config):
        said = any(line.startswith((f"{field.name} = ", f"[{field.name}]")) for line in text.splitlines())
        expected = getattr(GOOD, field.name) is not None and field.name not in (*OWN, "dataset")
        assert said == expected, field.name
    assert "visits" not in text and str(Path.cwd()) not in text
    other = dataclasses.replace(GOOD, csv="/elsewhere/table.csv", ledger="/a.sqlite", ledger_epsilon=4.0, seed=3)
    assert common_config(other) == text
    assert common_config(dataclasses.replace(GOOD, epsilon=2.5)) != text


def test_a_sites_settings_come_back_from_the_text() -> None:
    own = {"csv": "/data/mine.csv", "ledger": "/state/ledger.sqlite", "ledger_epsilon": 4.0, "seed": 3}
    assert parse_common(common_config(GOOD), own) == dataclasses.replace(GOOD, **own)
    assert common_config(parse_common(common_config(GOOD), {})) == common_config(GOOD)


def test_a_shipped_data_set_is_named_and_takes_no_table() -> None:
    shipped = Config(dataset="heart", public_data=False, evaluation="none", largest_site=300)
    text = common_config(shipped)
    assert 'dataset = "heart"' in text and parse_common(text, {}) == shipped
    with pytest.raises(ValueError, match="not on a table"):
        parse_common(text, {"csv": "/data/mine.csv"})


def test_texts_from_others_cannot_set_what_is_a_sites_own_or_load_code(tmp_path: Path, monkeypatch) -> None:
    text = common_config(GOOD)
    for line in ('csv = "/etc/passwd"', 'ledger = "/tmp/l"', "seed = 4", "nothing = 1"):
        with pytest.raises(ValueError, match="is not a setting that sites have in common"):
            parse_common(f"{line}\n{text}", {})
    (tmp_path / "loaded_by_terms.py").write_text("entry = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("dataset", "mechanism", "controller", "aggregator"):
        kept = [line for line in text.splitlines() if not line.startswith(f"{name} = ")]
        with pytest.raises(ValueError, match=f"{name} = .* is code from outside"):
            parse_common("\n".join([f'{name} = "loaded_by_terms:entry"', *kept]), {})
    assert "loaded_by_terms" not in sys.modules
    with pytest.raises(ValueError, match="not TOML"):
        parse_common("[" * 50_000, {})
    with pytest.raises(ValueError, match="epsilon"):
        parse_common(text.replace("epsilon = 2.0", "epsilon = 2000.0"), {})


def test_what_a_person_writes_is_completed_by_the_roster_and_refused_like_any_settings() -> None:
    written = {"label": "died", "bounds": "private", "epsilon": 2.0, "largest_site": 64}
    mine = Config(
        csv="mine.csv",
        sites=list(NAMES),
        label="died",
        bounds="private",
        epsilon=2.0,
        largest_site=64,
        min_site_records=1,
    )
    assert common_config(read_settings(written, "run.toml", ROSTER)) == common_config(with_roster(mine, ROSTER))
    shipped = read_settings({"dataset": "xray", "largest_site": 64, "training_units": 99}, "run.toml", ROSTER)
    assert shipped.dataset == "xray" and shipped.sites == list(NAMES)
    for values, words in (
        ({**written, "csv": "a.csv"}, "sets csv, which is each site's own"),
        ({**written, "lable": 3}, r"sets 'lable' in \[run\], which is not a setting; do you mean label\?"),
        ({**written, "site": "hospital"}, "without a column of sites"),
        ({**written, "largest_site": None}, "largest_site"),
        ({**written, "dataset": "heart"}, "only applies to your own table"),
    ):
        with pytest.raises(ValueError, match=words):
            read_settings(values, "run.toml", ROSTER)


def test_settings_that_show_nothing_are_allowed() -> None:
    check_common(GOOD, ROSTER)
    declared = {"age": [0, 110], "stay": "private"}
    check_common(dataclasses.replace(GOOD, bounds=declared, categorical="private", evaluation="none"), ROSTER)
    check_common(dataclasses.replace(GOOD, standardize="bounds", training_units=5000), ROSTER)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aggregator": "plain"}, "aggregator = 'plain'"),
        ({"aggregator": "tenseal"}, "aggregator = 'tenseal'"),
        ({"yardstick": True}, "yardstick = true"),
        ({"publish_site_sizes": True}, "publish_site_sizes = true"),
        ({"public_data": True}, "records between sites are not public"),
        ({"evaluation": "clear"}, "evaluation = 'clear'"),
        ({"algorithm": "mine:entry"}, "does not list it under limits.algorithms"),
        ({"mechanism": "gaussian"}, "no mechanism of encrypted rounds"),
        ({"largest_site": None}, "largest_site"),
        ({"standardize": "bounds"}, "training_units"),
        ({"bounds": None}, "bounds is not set"),
        ({"bounds": "from_data"}, "bounds of all columns are read from the data"),
        ({"bounds": {"age": "from_data", "stay": [0, 9]}}, "bounds of age are read"),
        ({"categorical": "from_data"}, "categorical of all columns"),
        ({"categorical": {"admission": "from_data"}}, "categorical of admission"),
        ({"classes": "from_data", "label": "diagnosis"}, "classes of all columns"),
        ({"min_site_records": 20}, "min_site_records = 20"),
        ({"members": 4}, "the committee of the roster has 5"),
        ({"honest_senders": 4}, "honest_senders = 4.*set honest_senders = 3"),
        ({"honest_senders": None}, "honest_senders = 4"),
    ],
)
def test_settings_that_show_something_or_count_on_too_much_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_common(dataclasses.replace(GOOD, **changes), ROSTER)


def test_a_shipped_data_set_counts_as_public_unless_it_is_said_otherwise() -> None:
    shipped = with_roster(Config(dataset="heart", evaluation="none", largest_site=300), ROSTER)
    with pytest.raises(ValueError, match="dataset = 'heart': records between sites are not public"):
        check_common(shipped, ROSTER)
    check_common(dataclasses.replace(shipped, public_data=False), ROSTER)


def test_an_algorithm_of_ones_own_needs_the_policys_word(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "own_algorithm.py").write_text(
        "from fedjax_poisson.runs import record_level\nentry = record_level.ENTRY\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = dataclasses.replace(GOOD, algorithm="own_algorithm:entry")
    with pytest.raises(ValueError, match=r"limits\.algorithms"):
        check_common(mine, ROSTER)
    assert "own_algorithm" not in sys.modules
    check_common(mine, ROSTER, foreign=["own_algorithm:entry"])
    assert "own_algorithm" in sys.modules


def test_paths_do_not_depend_on_where_the_process_runs(tmp_path: Path, monkeypatch) -> None:
    text, here = common_config(GOOD), os.getcwd()
    monkeypatch.chdir(tmp_path)
    assert common_config(parse_common(text, {})) == text and os.getcwd() != here
