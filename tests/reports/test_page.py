"""The report: well-formed, self-contained, safe with any name, and never more private than the run was."""

from __future__ import annotations

import base64
import html.parser
import json
import math
import re
import sqlite3
import statistics

import pytest

from fedjax_poisson import accounting
from fedjax_poisson.reports.formatting import (
    format_bound,
    format_bytes,
    format_epsilon,
    format_seconds,
    format_share,
    interval_text,
)
from fedjax_poisson.reports.page import render, write_report
from fedjax_poisson.reports.trade_off import trade_off
from fedjax_poisson.runs.published_scores import published
from fedjax_poisson.runs.run_folder import check_ledger, read_run
from tests.helpers.example_run import write_example_run

VOID = {"meta", "img", "br"}


class Page(html.parser.HTMLParser):
    """A page that is closed tag by tag: text by tag, images, attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.tags, self.attributes, self.chunks, self.banners = [], [], [], [], [], 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.images += [dict(attrs)["src"]] if tag == "img" else []
        self.banners += ("class", "banner") in attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.chunks.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.chunks))


def read_page(folder):
    """The page without the seconds that drawing the figures takes."""
    run = read_run(folder)
    return Page(render(run, check_ledger(run)))


def page_of(folder, **changes):
    write_example_run(folder, **changes)
    return read_page(folder)


def test_the_page_is_whole_and_self_contained(tmp_path):
    write_example_run(tmp_path)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.images) == 9
    for source in page.images:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    loaded = [value for name, value in page.attributes if name in ("src", "href", "srcset", "style")]
    assert all(value.startswith(("data:", "#")) for value in loaded)
    anchors = {value for name, value in page.attributes if name == "id"}
    assert {value[1:] for value in loaded if value.startswith("#")} <= anchors
    style = (tmp_path / "report.html").read_text(encoding="utf-8").split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "<" not in style


def test_the_numbers_are_those_of_the_summary(tmp_path):
    page = page_of(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    run = read_run(tmp_path)
    found = trade_off(run, check_ledger(run))
    assert found is not None
    for value in (
        format_epsilon(summary["epsilon"]),
        f"{100 * summary['mean_client_accuracy']:.1f} %",
        f"{100 * summary['nonprivate_mean_client_accuracy']:.1f} %",
        f"{100 * summary['pooled_accuracy']:.1f} %",
        f"{summary['auc']:.3f}",
        format_bytes(summary["bytes_up_per_client_per_round"]),
        format_bytes(summary["bytes_up_total_per_client"]),
        format_seconds(summary["encrypt_seconds"]),
        format_seconds(summary["total_seconds"]),
        summary["ledger_head"],
        "3 of 4",
        "486 training records",
        "21 encrypted messages",
        "1,191 times",
        "one class only",
        *(f"{100 * value:.1f} %" for value in summary["accuracy_by_site"].values()),
        *(f"{100 * value:.1f} %" for value in summary["nonprivate_accuracy_by_site"].values()),
        format_bound(found.at(0.05)),
        interval_text(summary["intervals"]["pooled_accuracy"], format_share),
        f"{100 / (1 + math.exp(-summary['epsilon'])):.1f} %",
    ):
        assert value in page.text, value
    assert page.banners == 0
    assert "not recorded" not in page.text


def test_pictures_of_several_classes_show_their_control_and_what_was_not_sent(tmp_path):
    border = {"width": 4, "accuracy": 0.904, "auc": 0.95, "majority_accuracy": 0.56, "why": "A border holds no lungs."}
    changes = {
        "dataset": "covid",
        "standardize": "bounds",
        "border_only": border,
        "classes": ["a", "b", "c"],
        "task": "multiclass",
        "model": "cnn",
    }
    page = page_of(tmp_path / "covid", **changes)
    for value in (
        "How much of the score does not come from anatomy?",
        "4-pixel border",
        "90.4 %",
        "56.0 %",
        "A border holds no lungs.",
    ):
        assert value in page.text, value
    assert "mean of each class against the rest" in page.text and "Nothing was sent" in page.text
    assert "not come from anatomy" not in page_of(tmp_path / "heart").text


def test_published_scores_are_labelled_and_only_shown_where_they_belong(tmp_path):
    page = page_of(tmp_path / "heart")
    assert "Published by FLamby" in page.text and "own mean and standard deviation" in page.text
    other = page_of(tmp_path / "other", dataset="my_table")
    assert "FLamby" not in other.text and "hospital" not in other.text and "What left each site" in other.text


NASTY = "<script>alert('x')</script>"


def test_every_text_from_the_run_is_escaped(tmp_path):
    summary = write_example_run(tmp_path)
    nasty = json.loads(json.dumps(summary), object_hook=lambda found: dict(found))

    def poison(value, key=""):
        if isinstance(value, dict):
            return {(NASTY + name if key in KEYED else name): poison(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [poison(entry) for entry in value]
        return NASTY + value if isinstance(value, str) and key not in KEPT else value

    KEYED = {
        "accuracy_by_site",
        "nonprivate_accuracy_by_site",
        "auc_by_site",
        "parameters",
        "aggregator_info",
        "versions",
    }
    KEPT = {"ledger_head"}
    nasty = poison(nasty)
    nasty["warnings"] = [NASTY]
    (tmp_path / "summary.json").write_text(json.dumps(nasty))
    (tmp_path / "config.toml").write_text(f"# {NASTY}\n")
    lines = (tmp_path / "rounds.jsonl").read_text().replace('"train"', json.dumps(NASTY))
    (tmp_path / "rounds.jsonl").write_text(lines)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert page.text.count("<script>alert") > 20  # all of it is there, as text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"private": False, "reproducible": True, "seed": 7, "privacy_note": "seeded"}, "is derived from the seed 7"),
        ({"reproducible": True, "seed": 7}, "is derived from the seed 7"),  # says private, cannot be
        ({"seed": 11}, "is derived from the seed 11"),
        ({"private": False, "aggregator": "plain"}, "Nothing was encrypted"),
        ({"aggregator": "plain"}, "Nothing was encrypted"),
        ({"private": False, "privacy_note": "an unusual reason"}, "an unusual reason"),
        ({"private": ...}, "does not state that this run is private"),
        ({"aggregator": ...}, "does not record whether anything was encrypted"),
        ({"epsilon": ...}, "no epsilon and delta"),
        ({"epsilon": float("inf")}, "no epsilon and delta"),
    ],
)
def test_a_run_that_is_not_private_gets_a_banner(tmp_path, changes, reason):
    page = page_of(tmp_path, **changes)
    assert page.banners >= 1
    assert "This run is NOT private" in page.text and reason in page.text
    assert "It was not private" in page.text and "These statements do not hold for this run" in page.text
    assert "Against whom" not in page.text and "at most" not in page.text[: page.text.index("How well it works")]


def test_a_plain_run_is_nowhere_called_encrypted(tmp_path):
    page = page_of(tmp_path, aggregator="plain", private=False)
    assert "NOT encrypted" in page.text and "A curious server: without encryption it reads" in page.text
    assert "never the content of a single" not in page.text and "in readable form" not in page.text


def test_warnings_stand_before_the_numbers(tmp_path):
    page = page_of(tmp_path, warnings=["The bounds of age were read from the data and are not covered by epsilon."])
    assert page.text.index("bounds of age were read") < page.text.index("What was learned?")


def test_an_empty_summary_makes_a_page_that_promises_nothing(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    page = read_page(tmp_path)
    assert page.banners == 2 and page.images == []
    assert page.text.count("not recorded") > 20


def test_any_missing_or_wrong_entry_is_survived(tmp_path):
    summary = write_example_run(tmp_path, rounds=3)
    for key in summary:
        for wrong in (..., None, "text", 3, [], {}, [1], {"a": "b"}):
            changed = {k: v for k, v in summary.items() if k != key} | ({} if wrong is ... else {key: wrong})
            (tmp_path / "summary.json").write_text(json.dumps(changed))
            read_page(tmp_path)


def test_ledger_is_verified_now_not_believed(tmp_path):
    write_example_run(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER releases_are_final")
        database.execute("UPDATE releases SET parameters = '{}' WHERE id = 5")
    database.close()
    page = read_page(tmp_path)
    assert "Verification failed" in page.text and "row 5" in page.text and page.banners == 1
    assert "Verified:" not in page.text and "Unrecorded spending" not in page.text


def test_rows_cut_from_the_end_are_noticed_through_the_pinned_head(tmp_path):
    write_example_run(tmp_path)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER releases_stay")
        database.execute("DELETE FROM releases WHERE id = 21")
    database.close()
    assert "cut from" in check_ledger(read_run(tmp_path)).problem


def test_a_summary_that_states_less_than_the_ledger_is_contradicted(tmp_path):
    page = page_of(tmp_path, epsilon=0.5)
    assert "more than the 0.5 that summary.json states" in page.text and page.banners == 1


def test_more_releases_than_ledger_rows_is_contradicted(tmp_path):
    write_example_run(tmp_path)
    lines = (tmp_path / "rounds.jsonl").read_text()
    (tmp_path / "rounds.jsonl").write_text(lines + lines.splitlines()[-1] + "\n")
    assert "22 releases were opened but only 21" in check_ledger(read_run(tmp_path)).problem


def test_ledger_readings_end_in_the_ledger_s_epsilon(tmp_path):
    summary = write_example_run(tmp_path)
    found = check_ledger(read_run(tmp_path))
    assert found.verified and found.pinned and len(found.readings) == 21
    assert found.readings[-1] == pytest.approx(found.epsilon) == pytest.approx(summary["epsilon"])


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 400])
def test_absent_or_foreign_ledgers_are_an_outcome(tmp_path, content):
    write_example_run(tmp_path, ledger=False)
    if content is not None:
        (tmp_path / "ledger.sqlite").write_bytes(content)
    found = check_ledger(read_run(tmp_path))
    assert not found.verified and found.problem
    assert read_page(tmp_path).banners == 1


def test_lost_releases_are_said(tmp_path):
    assert "2 more releases remain on the ledger" in page_of(tmp_path, lost_releases=2).text


def test_a_run_that_its_controller_ended_says_what_is_left_and_claims_no_less(tmp_path):
    ended = {"controller": "settle", "how": "settled", "share_left": 0.42}
    text = page_of(tmp_path, ended=ended, epsilon_spent=0.61, rounds_planned=60).text
    assert (
        "ended by itself after 20 of 60 rounds (settled). It spent what reads as epsilon 0.6100 ; 42"
        in text.replace("0.6100;", "0.6100 ;")
    )
    assert "the epsilon that is guaranteed is that of the whole plan" in text
    assert "ended by itself" not in page_of(tmp_path / "other").text


def test_unfinished_or_broken_folders_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="--resume"):
        write_report(tmp_path)
    for text in ("{", "[1]"):
        (tmp_path / "summary.json").write_text(text)
        with pytest.raises(ValueError, match="--resume"):
            write_report(tmp_path)


def test_published_means_agree_with_their_own_sites():
    known = published("heart")
    for score in (known.pooled, known.federated, *known.others):
        if score.by_site:
            assert sum(score.by_site.values()) / 4 == pytest.approx(score.mean_client_accuracy, abs=1e-3)
    assert published("mine") is None and published(None) is None


NORM_ROUNDS = {
    "unit": "client",
    "aggregator": "round",
    "aggregator_info": {"members": 5, "threshold": 4, "malicious": 1, "mode": "round"},
    "noise_senders": {"senders": 5, "honest": 3},
}


def test_in_norm_rounds_no_section_says_that_sites_add_noise(tmp_path):
    text = page_of(tmp_path / "norm", **NORM_ROUNDS).text
    assert (
        "clipped update of the hospital’s model, as integers without noise of their own; 5 noise senders add it before"
        in text
    )
    assert (
        "contribution of a training round as integers without noise of its own: 5 noise senders add random integers"
        in text
    )
    assert "drew its counts" not in text and "the noise as their spread" not in text
    assert "which only the noise of the noise senders protects" in text
    own = page_of(tmp_path / "own", **NORM_ROUNDS | {"noise_senders": None, "unit": "record"}).text
    assert "gradients of each record in a secret sample, as noisy integers" in own and "drew its counts" in own
    assert "the sum less theirs is the last one's, which only its own noise protects" in own


def test_delta_is_added_to_probabilities_and_is_not_the_chance_that_the_bound_fails(tmp_path):
    text = page_of(tmp_path).text
    assert "it is added to the probability of every event" in text and "that it fails" not in text
    assert "likely afterwards (but for rare outcomes, up to some tens of times delta likely)" in text
    assert "which does not depend on the counts" in text and "not disclosed to anyone" not in text
    found = []
    for epsilon in (0.5, 1.0, 3.0, 8.0):
        for delta in (1e-4, 1e-5, 1e-6):
            spent = accounting.variance_budget(epsilon, delta).total
            past = statistics.NormalDist().cdf(
                (spent / 2 - epsilon) / math.sqrt(spent)
            )  # of a likelihood ratio above e^epsilon
            found.append(past / delta)
    assert max(found) < 50 and min(found) > 2  # the twin: delta itself would be too small a bound


def test_what_neighbouring_runs_spent_is_for_orientation(tmp_path):
    text = page_of(tmp_path, earlier_runs={"folders": ["other"], "epsilon_together": 1.4321}).text
    assert (
        "together with this one, what was spent reads as epsilon 1.4321 (orientation; at up to twice this delta)"
        in text
    )
