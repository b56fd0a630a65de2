"""WCAG 2.1, AA: contrast of the page's colours, light and dark, and of the figures'; tables with headings, pictures with words."""

from __future__ import annotations

import html.parser
import importlib.resources
import re

import pytest

from fedjax_poisson.reports import plotting
from fedjax_poisson.reports.page import write_report
from tests.helpers.example_run import write_example_run

STYLE = importlib.resources.files("fedjax_poisson.reports").joinpath("report.css").read_text(encoding="utf-8")
PAIRS = [
    *((text, "paper") for text in ("ink", "soft", "accent", "wrong", "care", "right")),
    *((text, "pale") for text in ("ink", "soft", "accent", "wrong", "care", "right")),
    *(
        ("ink", "wrong-paper"),
        ("wrong", "wrong-paper"),
        ("ink", "care-paper"),
        ("care", "care-paper"),
        ("right", "right-paper"),
    ),
]


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.1)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """The colours by theme, in the order of the style sheet: light, dark, print."""
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", body)) for body in re.findall(r":root \{([^}]*)\}", STYLE)]
    return dict(zip(("light", "dark", "print"), found, strict=True))


def test_the_formula_is_that_of_the_guideline():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known grey that just fails


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_words_have_a_contrast_of_4_5(theme):
    colours = themes()[theme]
    for text, paper in PAIRS:
        assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
    assert themes()["print"] == themes()["light"]


def test_no_colour_of_the_style_sheet_is_outside_the_themes():
    outside = re.sub(r":root \{[^}]*\}", "", STYLE)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", outside)) <= {"#ffffff"}  # the paper of pictures


@pytest.mark.parametrize("name", ["PRIVATE", "PLAIN", "PUBLISHED", "EPSILON"])
def test_colours_that_words_of_figures_have(name):
    assert contrast(getattr(plotting, name), "#ffffff") >= 4.5


@pytest.mark.parametrize("name", ["PUBLISHED_LIGHT", "PALE"])
def test_colours_that_only_shapes_have(name):
    assert contrast(getattr(plotting, name), "#ffffff") >= 3
    assert contrast("#E69F00", "#ffffff") < 3  # the twin: the palette's own orange fails


class Structure(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[dict[str, list[dict[str, str | None]]]] = []
        self.levels: list[int] = []
        self.alts: list[str] = []
        self.language = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        facts = dict(attrs)
        if tag == "html":
            self.language = facts.get("lang") or ""
        elif tag == "table" and "modelcard" not in str(facts):
            self.tables.append({"th": [], "thead": []})
        elif tag in ("th", "thead") and self.tables:
            self.tables[-1][tag].append(facts)
        elif re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        elif tag == "img":
            self.alts.append(facts.get("alt") or "")


def test_tables_have_headings_pictures_have_words_and_no_level_is_skipped(tmp_path):
    write_example_run(tmp_path)
    found = Structure(write_report(tmp_path).read_text(encoding="utf-8"))
    assert found.language == "en" and len(found.tables) > 10
    for own in found.tables:
        assert len(own["thead"]) == 1 and all(each.get("scope") in ("col", "row") for each in own["th"])
        assert {"col", "row"} <= {each["scope"] for each in own["th"]}
    assert found.alts and all(len(alt) > 30 for alt in found.alts)
    assert any(re.search(r"at 5\.0 % false alarms at most \d", alt) for alt in found.alts)  # the curve in words
    assert found.levels[0] == 1 and all(
        after - before <= 1 for before, after in zip(found.levels, found.levels[1:], strict=False)
    )
