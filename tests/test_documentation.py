"""Every Python block of the README and of docs/ runs as pasted, page by page, in the order of the page; blocks with a title are files, saved as they come."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r'^```python(?: title="([\w.]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """(file that the block is a part of, or "", its text)."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_blocks_run_as_pasted(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # a reader's session
        for number, (file, block) in enumerate(blocks_of(page), 1):
            if file:
                with open(file, "a", encoding="utf-8") as part:
                    part.write(block + "\n\n")
                continue
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    if page.name == "README.md":
        assert 0 < names["result"].epsilon <= 1  # type: ignore[attr-defined]
        assert len(page.read_text(encoding="utf-8").splitlines()) <= 135


def test_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)|`((?:docs|experiments|notebooks)/[\w/.]+\.\w+)`", page.read_text()):
            path = target[0] or target[1]
            here = page.parent / path if target[0] else ROOT / path
            assert path.startswith("http") or here.exists(), f"{page.name} names {path}, which is not there"


def test_blocks_use_public_names_only() -> None:
    for page in PAGES:
        for _, block in blocks_of(page):
            imports = re.findall(r"^\s*(?:from|import) (fedjax_poisson\.\S+)", block, re.MULTILINE)
            assert not imports, f"{page.name} imports {imports}: use `import fedjax_poisson as fp`"
