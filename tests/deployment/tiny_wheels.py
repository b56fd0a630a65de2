"""Wheels of one module each, and the build backend of a project of one: what `test_offline` gives to pip instead of an index."""

from __future__ import annotations

import zipfile
from pathlib import Path


def wheel(
    folder: str | Path, name: str, *, requires: tuple[str, ...] = (), extras: tuple[str, ...] = (), value: int = 1
) -> str:
    """A wheel of one module."""
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0"]
    lines += [f"Provides-Extra: {one}" for one in extras] + [f"Requires-Dist: {one}" for one in requires]
    files = {
        f"{name}.py": f"VALUE = {value}\n",
        f"{name}-1.0.dist-info/METADATA": "\n".join(lines) + "\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in files) + f"{name}-1.0.dist-info/RECORD,,\n"
    with zipfile.ZipFile(Path(folder) / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{name}-1.0.dist-info/RECORD": record}.items():
            archive.writestr(path, text)
    return f"{name}-1.0-py3-none-any.whl"


def build_wheel(folder: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """The hook of PEP 517."""
    return wheel(folder, "demo", requires=("dep", "more; extra == 'flower'"), extras=("consortium", "flower"))
