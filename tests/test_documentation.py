"""Every code block of the README and of docs/ runs as pasted, page by page, in the order of the page, and prints what the page says that it prints.

Python blocks of all pages run. Of `SHELL_PAGES` the shell blocks run too: `fedjax-poisson` in this process, everything else in a shell. Blocks with a title
are files, saved as they come. An HTML comment above a block says more of it:

    <!-- not run: REASON -->           it is only read
    <!-- run with: --rounds 2 -->      `fedjax-poisson run` gets these arguments as well, so that a test is short
    <!-- refused -->                   its command must end with exit code 2
    <!-- not checked: REASON -->       above a `text` block

A `text` block is what the shell blocks before it print: each of its lines must have been printed, numbers aside, with `...` for whatever is left out.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from fedjax_poisson import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHELL_PAGES = (DOCS / "tutorial.md", DOCS / "faq.md", *sorted((DOCS / "howto").glob("*.md")))
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
IN_THE_TUTORIALS_FOLDER = ("audit_a_run.md", "add_up_budgets.md")  # they go on with what it left there
_BLOCK = re.compile(
    r'(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w+)(?: title="(?P<title>[\w.]+)")?\n(?P<text>.*?)^```',
    re.MULTILINE | re.DOTALL,
)
_MARKS = {
    **dict.fromkeys(("python", "sh"), re.compile(r"not run: \S.*|run with: --\S.*|refused")),
    "text": re.compile(r"not checked: \S.*"),
}
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


class Block(NamedTuple):
    """A fenced block: its language, the file that it is a part of or "", the comment above it or "", its text."""

    language: str
    title: str
    mark: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(one["language"], one["title"] or "", one["mark"] or "", one["text"]) for one in found]


def is_run(page: Path, block: Block) -> bool:
    runs = block.language == "python" or (block.language == "sh" and page in SHELL_PAGES)
    return bool(block.title) or (runs and not block.mark.startswith("not run: "))


def plain(text: str) -> str:
    """Without what differs from run to run, or from screen to screen."""
    return " ".join(_NUMBER.sub("#", text).split())


def commands_of(block: Block) -> list[str]:
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"]


def run_command(line: str, mark: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What one line of a shell block prints; it must succeed, or be refused where the page says so."""
    words, expected = shlex.split(line, comments=True), 2 if mark == "refused" else 0
    if words[0] != "fedjax-poisson":
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode == expected, f"{line}: exit code {done.returncode}\n{done.stderr}"
        return done.stdout
    if words[1] == "run" and mark.startswith("run with: "):
        words += shlex.split(mark.removeprefix("run with: "))
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(words[1:])
    printed = "\n".join(capfd.readouterr())
    assert (stop.value.code or 0) == expected, f"{line}: exit code {stop.value.code}\n{printed}"
    return printed


def run_page(page: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Run a page in the folder of the process; returns the names that its Python blocks have made."""
    names: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for number, block in enumerate(blocks_of(page), 1):
        if block.title:
            with open(block.title, "a", encoding="utf-8") as part:
                part.write(block.text + ("\n\n" if block.language == "python" else ""))
        elif not is_run(page, block):
            if block.language == "text" and printed and not block.mark:
                check_printed(block.text, printed, f"{page.name}, block {number}")
            elif block.language in ("python", "sh"):
                printed = ""  # what follows is its output
        elif block.language == "python":
            capfd.readouterr()
            exec(compile(block.text, f"{page.name}, block {number}", "exec"), names)
            printed = capfd.readouterr().out
        else:
            printed = "\n".join(run_command(line, block.mark, capfd) for line in commands_of(block))
    return names


def check_printed(said: str, printed: str, where: str) -> None:
    found = plain(printed)
    for line in said.splitlines():
        for piece in line.split("..."):
            assert plain(piece) in found, (
                f"{where} says that this is printed, and it is not: {piece.strip()!r}\n{printed}"
            )


def started(page: Path) -> bool:
    """Whether a page has a test of its own."""
    return page.name not in IN_THE_TUTORIALS_FOLDER and any(is_run(page, block) for block in blocks_of(page))


@pytest.mark.parametrize("page", [page for page in PAGES if started(page)], ids=lambda page: page.name)
def test_blocks_run_as_pasted(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")  # nothing that is printed is broken into lines
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a reader's session
        names = run_page(page, capfd)
        if page.name == "tutorial.md":
            for name in IN_THE_TUTORIALS_FOLDER:
                run_page(DOCS / "howto" / name, capfd)
    if page.name == "README.md":
        assert 0 < names["result"].epsilon <= 1  # type: ignore[attr-defined]
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 135


def test_a_page_that_says_something_else_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    right = "```python\nprint('epsilon', 1.5, 'of', 'two')\n```\n\n```text\nepsilon 1.25 ... two\n```\n"
    page.write_text(right)
    run_page(page, capfd)
    for wrong in (right.replace("... two", "... three"), right.replace("text\nepsilon", "text\ndelta")):
        page.write_text(wrong)
        with pytest.raises(AssertionError, match="is not"):
            run_page(page, capfd)
    monkeypatch.setattr("tests.test_documentation.SHELL_PAGES", (page,))
    page.write_text("```sh\nfalse\n```\n")
    with pytest.raises(AssertionError, match="exit code 1"):
        run_page(page, capfd)
    page.write_text("<!-- not run: it fails -->\n```sh\nfalse\n```\n\n```sh\ntrue\n```\n")
    run_page(page, capfd)


def test_what_is_not_run_says_why() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            if block.mark and block.language in _MARKS:
                known = _MARKS[block.language].fullmatch(block.mark)
                assert known, f"{page.name}: {block.mark!r} is no mark that this module knows"


def test_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)|`((?:docs|experiments|notebooks)/[\w/.]+\.\w+)`", page.read_text()):
            path = target[0] or target[1]
            here = page.parent / path if target[0] else ROOT / path
            assert path.startswith("http") or here.exists(), f"{page.name} names {path}, which is not there"


def test_blocks_use_public_names_only() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            imports = re.findall(r"^\s*(?:from|import) (fedjax_poisson\.\S+)", block.text, re.MULTILINE)
            assert not imports, f"{page.name} imports {imports}: use `import fedjax_poisson as fp`"
