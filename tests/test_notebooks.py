"""The notebooks: what they have in common, what their installation does, and that what is stored is what a reader should see. nbmake runs them."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no notebooks beside these tests")


def shared() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shared_cells", FOLDER / "shared_cells.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_there_are_five() -> None:
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("name", NAMES)
def test_title_badge_and_installation_are_those_of_one_place(name: str) -> None:
    cells, common = notebook(name)["cells"], shared()
    assert cells == common.with_shared_cells(notebook(name), name)["cells"], "run python notebooks/shared_cells.py"
    assert source(cells[0]).startswith("# ") and source(cells[1]) == common.install_cell()
    if common.REPOSITORY is None:  # nothing that leads nowhere
        assert not re.search(r"colab\.research|github\.com", json.dumps(cells))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_was_run_from_top_to_bottom_without_an_error_and_has_pictures(name: str) -> None:
    cells = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert (FOLDER / name).stat().st_size < 700_000
    text = json.dumps(outputs)
    assert not re.search(r"/(work|root|home)/", text)  # no paths of the machine that ran it


def test_a_badge_appears_in_one_place_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    common = shared()
    monkeypatch.setattr(common, "REPOSITORY", "owner/name")
    once = common.with_shared_cells(notebook(NAMES[0]), NAMES[0])
    assert source(once["cells"][0]).count(f"github/owner/name/blob/main/notebooks/{NAMES[0]}") == 1
    assert 'SOURCE = "git+https://github.com/owner/name"' in source(once["cells"][1])
    assert common.with_shared_cells(once, NAMES[0]) == once  # writing it again changes nothing
    monkeypatch.setattr(common, "REPOSITORY", None)
    assert common.with_shared_cells(once, NAMES[0])["cells"] == notebook(NAMES[0])["cells"]


# The installation ----------------------------------------------------------------------------------------------------


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path, missing: bool) -> list[tuple[str, str]]:
    """What the cell would have given to pip in a folder, where the package is missing or not."""
    asked: list[tuple[str, str]] = []
    cell = shared().install_cell().replace("%pip install -q {source} -c {keep}", "pip(source, keep)")
    assert "%" not in cell
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if missing and name == "fedjax_poisson" else find(name)
    )
    monkeypatch.chdir(folder)
    exec(cell, {"pip": lambda given, keep: asked.append((given, keep.read_text()))})
    return asked


def test_the_installation_keeps_the_jax_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for version in ("0.1.0", "0.2.0"):
        (tmp_path / f"fedjax_poisson-{version}-py3-none-any.whl").touch()
    ((wheel, kept),) = installed(monkeypatch, tmp_path, missing=True)
    assert wheel == "fedjax_poisson-0.2.0-py3-none-any.whl"
    for name in ("jax", "jaxlib", "numpy"):
        assert f"{name}=={metadata.version(name)}\n" in kept
    assert not re.search(r"^(flax|optax|numpydoc)", kept, re.MULTILINE)


def test_the_installation_does_nothing_where_the_package_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert installed(monkeypatch, tmp_path, missing=False) == []


def test_a_missing_wheel_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if shared().REPOSITORY is not None:
        pytest.skip("the repository has an address")
    with pytest.raises(FileNotFoundError, match="upload the wheel"):
        installed(monkeypatch, tmp_path, missing=True)
