"""What all notebooks have in common, in one place: `python notebooks/shared_cells.py` writes it into each of them, a test compares.

The repository has no public address yet. Until it has, there is no Colab badge (it would lead nowhere) and the installation cell looks for an uploaded wheel.
Then set REPOSITORY to "owner/name" and run this file.
"""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY: str | None = None
"""GitHub's owner/name; None while there is no public address."""

_INSTALL = """# Installs fedjax_poisson where it is missing and leaves jax alone:
# an accelerator's plugin fits only the jax that came with it.
SOURCE = "{source}"  # {comment}

import importlib.util
import re
import tempfile
from importlib import metadata
from pathlib import Path

if importlib.util.find_spec("fedjax_poisson") is None:
    source = max(map(str, Path().glob(SOURCE)), default=None) if SOURCE.endswith(".whl") else SOURCE
    if source is None:
        raise FileNotFoundError(
            f"no {{SOURCE}} here: upload the wheel, or set SOURCE to the repository's git+https address"
        )
    kept = {{d.name: d.version for d in metadata.distributions() if re.match("jax|libtpu|numpy$", d.name)}}
    keep = Path(tempfile.mkdtemp()) / "keep.txt"
    keep.write_text("".join(f"{{name}}=={{version}}\\n" for name, version in kept.items()))
    %pip install -q {{source}} -c {{keep}}"""


def install_cell() -> str:
    """The cell that installs the package beside whatever jax is there."""
    if REPOSITORY is None:
        return _INSTALL.format(
            source="fedjax_poisson-*.whl", comment="a wheel uploaded beside this notebook, or a git+https address"
        )
    return _INSTALL.format(source=f"git+https://github.com/{REPOSITORY}", comment="or a wheel beside this notebook")


def badge(name: str) -> str | None:
    """The badge that opens a notebook in Colab; None while there is nothing to open."""
    if REPOSITORY is None:
        return None
    address = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def with_shared_cells(notebook: dict, name: str) -> dict:
    """The notebook with its badge at the end of the first cell and the installation as the second.

    Args:
      notebook: as in the file.
      name: of the file.

    Raises:
      ValueError: the first two cells are not a title and an installation cell.
    """
    title, install, *rest = notebook["cells"]
    if title["cell_type"] != "markdown" or install["cell_type"] != "code" or "SOURCE" not in "".join(install["source"]):
        raise ValueError(f"{name}: the first cell is to be the title, the second the one that installs (with SOURCE).")
    text = "".join(title["source"]).split("\n\n[![Open in Colab]")[0]
    mark = badge(name)
    title = title | {"source": (text if mark is None else f"{text}\n\n{mark}").splitlines(keepends=True)}
    install = install | {"source": install_cell().splitlines(keepends=True)}
    return notebook | {"cells": [title, install, *rest]}


def main() -> None:
    """Write the cells into every notebook beside this file."""
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(with_shared_cells(notebook, path.name), indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
