"""The README's Python runs as pasted, block after block, as a reader would paste it."""

from __future__ import annotations

import re
from pathlib import Path

import jax

README = Path(__file__).parent.parent / "README.md"


def test_the_library_blocks_run_as_pasted() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):  # a reader's session, not the tests' strict one
        _run(blocks, names)
    info = names["info"]
    assert 0 < info.epsilon < float("inf")  # type: ignore[attr-defined]


def _run(blocks: list[str], names: dict[str, object]) -> None:
    for number, block in enumerate(blocks):
        exec(compile(block, f"README block {number}", "exec"), names)
