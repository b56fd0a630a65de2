"""report.json: its documented keys, numbers at full precision, and every number that the page shows."""

from __future__ import annotations

import html
import json
import re

import pytest

from fedjax_poisson.reports import report_json as module
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.reports.page_content import page_content
from fedjax_poisson.runs.run_folder import check_ledger, read_run
from tests.helpers.example_run import write_example_run

NUMBER = re.compile(r"\d[\d,.]*")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    summary = write_example_run(folder)
    page = write_report(folder).read_text(encoding="utf-8")
    return summary, page, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def shown_numbers(page: str) -> set[str]:
    """Every number in the words of a page and in its pictures' alternative texts, found without the reader that wrote the JSON."""
    alts = " ".join(re.findall(r'alt="([^"]*)"', page))
    words = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return {found.rstrip(".,") for found in NUMBER.findall(html.unescape(alts + " " + re.sub(r"<[^>]+>", " ", words)))}


def all_numbers(value: object) -> set[str]:
    text = json.dumps(value, ensure_ascii=False)
    return {found.rstrip(".,") for found in NUMBER.findall(text)}


def test_every_number_on_the_page_is_in_the_file(written):
    _, page, found = written
    assert len(shown_numbers(page)) > 150
    assert shown_numbers(page) - all_numbers(found["page"]) == set()
    without = [block for block in found["page"] if block["kind"] != "table"]
    assert shown_numbers(page) - all_numbers(without)  # the twin: tables left out are missed


def test_what_a_program_reads_has_full_precision(written):
    summary, _, found = written
    assert found["privacy"]["epsilon"] == summary["epsilon"] and found["scores"]["auc"] == summary["auc"]
    assert found["scores"]["intervals"] == summary["intervals"] and found["scores"]["curves"] == summary["curves"]
    assert len(found["ledger"]["releases"]) == 21 and found["ledger"]["verified"] is True
    assert found["trade_off"]["detection"][-1] == 1 and len(found["trade_off"]["false_alarms"]) == len(
        found["trade_off"]["detection"]
    )
    assert found["model_card"].startswith("# Model card") and found["left"]["messages"][1]["messages"] == 20


def test_the_keys_are_those_that_the_module_documents(written):
    _, _, found = written
    documented = set(re.findall(r"^\* `(\w+)`", module.__doc__, re.MULTILINE))
    assert set(found) == documented | {"version"}
    assert (found["format"], found["version"]) == (module.FORMAT, module.VERSION)


def test_no_value_stops_a_reader_of_json(tmp_path):
    write_example_run(tmp_path, auc=float("nan"), epsilon=float("inf"))
    write_report(tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert found["scores"]["auc"] is None and found["privacy"]["epsilon"] is None


def test_blocks_keep_what_they_are():
    page = "<html><style>p{9}</style><body><h2>A &amp; B</h2><p>one <b>two</b></p><table><caption>c</caption><thead><tr><th>h</th></tr></thead>"
    page += "<tbody><tr><th>r</th><td><ul><li>x</li><li>y</li></ul></td></tr></tbody></table><figure><img alt='z'></figure></body></html>"
    assert page_content(page) == [
        {"kind": "heading", "level": 2, "text": "A & B"},
        {"kind": "text", "text": "one two"},
        {"kind": "table", "caption": "c", "head": ["h"], "rows": [["r", "x y"]]},
        {"kind": "figure", "alt": "z"},
    ]


def test_the_verdict_knows_attacks_that_came_after_the_run(tmp_path):
    def privacy(folder):
        run = read_run(folder)
        return module.report_json(run, check_ledger(run), None, "", "<html></html>")["privacy"]

    write_example_run(tmp_path, public_data=False)
    assert (privacy(tmp_path)["verdict"], privacy(tmp_path)["private"]) == ("private", True)
    (tmp_path / "leakage.json").write_text("{}")  # summary.json still says that the run is private
    found = privacy(tmp_path)
    assert (found["verdict"], found["private"], len(found["conditions"])) == ("conditional", False, 1)
    write_example_run(tmp_path / "seeded", public_data=False, assumed=["a mechanism"], seed=5)
    assert (privacy(tmp_path / "seeded")["verdict"], privacy(tmp_path / "seeded")["private"]) == ("not private", False)
