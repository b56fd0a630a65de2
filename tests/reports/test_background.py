"""The data, the words and the settings: a page that is sent on does not say where files lay."""

from __future__ import annotations

from fedjax_poisson.reports.background import how_to_repeat, the_words
from fedjax_poisson.runs.run_folder import RunFolder


def test_settings_name_files_but_not_where_they_lie(tmp_path):
    config = 'csv = "/home/ward/secret study/visits.csv"\nledger = "/mnt/x/budget.sqlite"\nlabel = "died"\n'
    shown = how_to_repeat(RunFolder(tmp_path, {}, [], config)).markup
    assert "visits.csv" in shown and "budget.sqlite" in shown and "died" in shown
    assert "secret study" not in shown and "/mnt" not in shown


def test_the_words_of_the_first_screen_are_explained(tmp_path):
    shown = the_words(RunFolder(tmp_path, {}, [], None)).markup
    for word in ("epsilon", "delta", "round", "release", "ledger"):
        assert f">{word}<" in shown
