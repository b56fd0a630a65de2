"""scripts/offline on a project of three tiny packages and an index that is a folder: what is installed is what the lock states, or nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import tiny_wheels
from tests.deployment.tiny_wheels import wheel

SCRIPTS = Path(__file__).parent.parent.parent / "scripts" / "offline"


def script(name: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", **environment}
    command = ["bash", str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that make_wheels.sh made."""
    place = tmp_path_factory.mktemp("offline")
    index, project = place / "index", place / "project"
    index.mkdir()
    project.mkdir()
    wheel(index, "dep")
    wheel(index, "more")
    wheel(index, "unwanted")
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "demo"\nversion = "1.0"\n'
    )
    shutil.copy(tiny_wheels.__file__, project / "backend.py")
    done = script("make_wheels.sh", place / "made", project, PIP_FIND_LINKS=str(index))
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "made"


def test_locks_name_each_sets_packages_with_the_hash_of_their_wheels(made: Path) -> None:
    def line(name: str) -> str:
        digest = hashlib.sha256((made / f"{name}-1.0-py3-none-any.whl").read_bytes()).hexdigest()
        return f"{name}==1.0 --hash=sha256:{digest}"

    assert (made / "base.lock").read_text().splitlines() == [line("demo"), line("dep")]
    assert (made / "flower.lock").read_text().splitlines() == [line("demo"), line("dep"), line("more")]
    assert not list(made.glob("unwanted*"))


@pytest.mark.parametrize(("which", "more"), [("base", False), ("flower", True)])
def test_it_installs_with_the_index_switched_off(made: Path, tmp_path: Path, which: str, more: bool) -> None:
    done = script("install.sh", made, which, tmp_path / "venv", PIP_FIND_LINKS="/nowhere")
    assert done.returncode == 0, done.stdout + done.stderr
    python = str(tmp_path / "venv" / "bin" / "python")
    assert subprocess.run([python, "-c", "import demo, dep"], check=False).returncode == 0
    assert (subprocess.run([python, "-c", "import more"], check=False, capture_output=True).returncode == 0) is more


def test_a_wheel_that_was_exchanged_is_refused_and_without_the_lock_it_would_be_taken(
    made: Path, tmp_path: Path
) -> None:
    exchanged = tmp_path / "made"
    shutil.copytree(made, exchanged)
    wheel(exchanged, "dep", value=666)
    done = script("install.sh", exchanged, "base", tmp_path / "venv")
    assert done.returncode != 0 and "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    target = ["--target", str(tmp_path / "plain"), "--no-index", "--find-links", str(exchanged), "demo"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *target], check=True)
    assert "666" in (tmp_path / "plain" / "dep.py").read_text()


def test_a_package_that_is_not_in_the_lock_is_not_taken(made: Path, tmp_path: Path) -> None:
    shorter = tmp_path / "made"
    shutil.copytree(made, shorter)
    lines = (shorter / "base.lock").read_text().splitlines()
    (shorter / "base.lock").write_text(lines[0] + "\n")
    done = script("install.sh", shorter, "base", tmp_path / "venv")
    assert done.returncode != 0 and "dep" in done.stdout + done.stderr  # pip check misses it


def test_nothing_that_exists_is_replaced(made: Path, tmp_path: Path) -> None:
    assert "is not empty" in script("make_wheels.sh", made).stderr
    (tmp_path / "venv").mkdir()
    assert "exists" in script("install.sh", made, "base", tmp_path / "venv").stderr
    assert "usage" in script("install.sh", made, "all").stderr
