"""A run's report inside a notebook: the whole page, in a frame that runs nothing, and one line where there is no browser."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

import fedjax_poisson as fp


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook") / "run"
    fp.run(fp.Config(epsilon=3.0, rounds=2, seed=7, aggregator="plain", yardstick=False), folder)
    return folder


def test_the_frame_holds_the_page_and_nothing_that_runs(run: Path) -> None:
    shown = fp.show_report(run, height=400)
    frame = shown._repr_html_()
    inside = re.fullmatch(
        r'<iframe sandbox="" title="[^"]*" style="[^"]*height:400px[^"]*" srcdoc="([^"]*)"></iframe>', frame
    )
    assert inside is not None and html.unescape(inside.group(1)) == (run / "report.html").read_text(encoding="utf-8")


def test_the_text_says_first_whether_it_is_private(run: Path) -> None:
    text = repr(fp.show_report(run))
    assert (
        text.startswith("not private: epsilon ")
        and "accuracy" in text
        and "run/report.html" in text
        and "[bold]" not in text
    )
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['mean_client_accuracy']:.3f}" in text


def test_what_cannot_be_shown_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fp.show_report(tmp_path)
    with pytest.raises(ValueError, match="height is 20"):
        fp.show_report(run, height=20)
