"""The model card: filled in from the run, never overwritten once somebody edited it, and harmless whatever is written into it."""

from __future__ import annotations

import json

from fedjax_poisson.reports.model_card import NAME, card_section, card_text, read_card, update_card
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.runs.run_folder import read_run
from tests.helpers.example_run import write_example_run


def change(folder, **changes):
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_card_has_the_run_s_facts_and_asks_for_what_only_people_know(tmp_path):
    write_example_run(tmp_path)
    text = card_text(read_run(tmp_path), None)
    for words in (
        "# Model card: heart",
        "## Purpose",
        "## Limits",
        "486 records for training",
        "81.9 %",
        "Epsilon",
        "To be completed",
    ):
        assert words in text, words
    write_example_run(tmp_path / "b", aggregator="plain")
    assert "is not private" in card_text(read_run(tmp_path / "b"), None)


def test_an_edited_card_is_kept_and_shown_and_an_untouched_one_is_filled_in_anew(tmp_path):
    write_example_run(tmp_path)
    write_report(tmp_path)
    first = (tmp_path / NAME).read_text()
    change(tmp_path, pooled_accuracy=0.5)
    write_report(tmp_path)
    second = (tmp_path / NAME).read_text()
    assert "81.9 %" in first and "50.0 %" in second
    edited = second.replace("*To be completed: who answers questions about this model.*", "The clinic’s statistician.")
    assert edited != second
    (tmp_path / NAME).write_text(edited)
    change(tmp_path, pooled_accuracy=0.7)
    page = write_report(tmp_path).read_text()
    assert (
        (tmp_path / NAME).read_text() == edited
        and "The clinic’s statistician." in page
        and "50.0 %" in read_card(read_run(tmp_path), None)
    )


def test_a_card_without_its_mark_is_somebody_s(tmp_path):
    write_example_run(tmp_path)
    (tmp_path / NAME).write_text("# Ours\n")
    assert update_card(read_run(tmp_path), None) == "# Ours\n" and (tmp_path / NAME).read_text() == "# Ours\n"


def test_nothing_in_a_card_runs_or_loads(tmp_path):
    text = "# A\n\n<script>alert(1)</script>\n\n![p](http://x/y.png) [l](javascript:alert(1)) <http://z>\n\n**bold** | a\n\n| h |\n|---|\n| c |\n"
    shown = card_section(text).markup
    assert "<script" not in shown and "<img" not in shown and "href" not in shown and "&lt;script&gt;" in shown
    assert "<strong>bold</strong>" in shown and "<table>" in shown and "<h3>A</h3>" in shown


def test_names_from_the_data_are_shown_as_they_are(tmp_path):
    write_example_run(tmp_path, dataset="my_*table*_<b>", classes=["a_b_", "[c](d)"])
    shown = card_section(card_text(read_run(tmp_path), None)).markup
    assert "my_*table*_&lt;b&gt;" in shown and "<em>table" not in shown and "[c](d)" in shown
