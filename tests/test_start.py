"""The command's entry point: compiled programs are kept where the user can see, by nobody's leave but the user's, and hold no record."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import zlib
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from fedjax_poisson import data, start

RECORDS, COLUMNS = 60, 4


def _kept(environment: dict[str, str], home: Path) -> Path | None:
    return start.keep_programs(environment, home)


def test_programs_are_kept_in_a_folder_that_only_the_user_can_write(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    assert _kept(environment, tmp_path) == tmp_path / ".cache" / "fedjax_poisson" / "xla"
    assert Path(environment["JAX_COMPILATION_CACHE_DIR"]).stat().st_mode & 0o777 == 0o700
    elsewhere = {"XDG_CACHE_HOME": str(tmp_path / "other")}
    assert _kept(elsewhere, tmp_path) == tmp_path / "other" / "fedjax_poisson" / "xla"
    relative = {"XDG_CACHE_HOME": "not/absolute"}
    assert _kept(relative, tmp_path) == tmp_path / ".cache" / "fedjax_poisson" / "xla"


def test_the_oldest_programs_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _kept({}, tmp_path)
    assert folder is not None
    traces = folder.parent / "traces"
    own = {folder: ("new-cache", "older-cache", "oldest-cache"), traces: ("1" * 64, "writing-ab_1", "3" * 64)}
    for place, names in own.items():
        for age, name in enumerate((*names, "table.csv", "0" * 63)):
            (place / name).write_bytes(bytes(100))
            os.utime(place / name, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(start, "MOST_BYTES", 250)
    monkeypatch.setattr(start, "MOST_TRACED_BYTES", 150)
    _kept({}, tmp_path)
    others = {"table.csv", "0" * 63}  # not ours
    assert {file.name for file in folder.iterdir()} == {"new-cache", "older-cache"} | others
    assert {file.name for file in traces.iterdir()} == {"1" * 64} | others


def test_a_program_that_another_process_removes_meanwhile_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _kept({}, tmp_path)
    assert folder is not None
    for name in ("one-cache", "two-cache", "three-cache"):
        (folder / name).write_bytes(bytes(100))
    real, gone = Path.unlink, []

    def unlink(path: Path, missing_ok: bool = False) -> None:
        gone.append(path)
        if len(gone) == 1:
            raise PermissionError("held by another process")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(start, "MOST_BYTES", 0)
    environment: dict[str, str] = {}
    assert _kept(environment, tmp_path) == folder and "JAX_COMPILATION_CACHE_DIR" in environment
    assert len(gone) == 3 and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("place", ["", "xla", "traces", "tables"])
@pytest.mark.parametrize("wrong", ["others", "group", "link", "owner", "nothing"])
def test_a_folder_that_is_not_the_users_alone_is_left_as_it_is_and_nothing_is_kept(
    place: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".cache" / "fedjax_poisson" / place
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    folder.parent.mkdir(parents=True, mode=0o700)
    if wrong == "link":
        folder.symlink_to(elsewhere, target_is_directory=True)
    else:
        folder.mkdir(mode=0o700)
        folder.chmod({"others": 0o707, "group": 0o770}.get(wrong, 0o755))
    if wrong == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    before = folder.stat().st_mode
    environment = {start.TRACES: "/kept"}
    if wrong == "nothing":  # the twin
        assert _kept(environment, tmp_path) is not None and start.TRACES in environment
        return
    assert _kept(environment, tmp_path) is None and environment == {}
    assert "compiled programs are not kept" in capsys.readouterr().err
    assert folder.stat().st_mode == before and not list(elsewhere.iterdir())


def test_traced_programs_are_beside_them_and_never_where_the_user_has_chosen(tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers", reason="without it nothing is traced for keeps")
    environment: dict[str, str] = {}
    folder = _kept(environment, tmp_path)
    assert folder is not None and environment[start.TRACES] == str(folder.parent / "traces")
    assert environment[start.TABLES] == str(folder.parent / "tables")
    assert (folder.parent / "traces").stat().st_mode & 0o777 == 0o700
    chosen = {"JAX_COMPILATION_CACHE_DIR": "/mine"}
    _kept(chosen, tmp_path)
    assert start.TRACES not in chosen


@pytest.mark.parametrize(
    "settled",
    [{"JAX_COMPILATION_CACHE_DIR": "/mine"}, {"JAX_ENABLE_COMPILATION_CACHE": "false"}],
    ids=["folder", "off"],
)
def test_what_the_user_has_settled_stays(settled: dict[str, str], tmp_path: Path) -> None:
    environment = dict(settled)
    assert _kept(environment, tmp_path) is None
    assert environment == settled and not (tmp_path / ".cache").exists()


def test_where_compiled_programs_are_switched_off_traced_ones_are_too(tmp_path: Path) -> None:
    environment = {"JAX_ENABLE_COMPILATION_CACHE": "0", start.TRACES: "/kept"}
    assert _kept(environment, tmp_path) is None and start.TRACES not in environment
    named = {"JAX_COMPILATION_CACHE_DIR": "/mine", start.TRACES: "/kept"}  # the twin: the user keeps both, elsewhere
    assert _kept(named, tmp_path) is None and named[start.TRACES] == "/kept"


def test_a_folder_that_cannot_be_made_is_said_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".cache").write_text("a file")
    environment: dict[str, str] = {}
    assert _kept(environment, tmp_path) is None and environment == {}
    assert "compiled programs are not kept" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list", "--no-cache"], ["--no-cache", "list"], ["list"]])
def test_the_switch_is_for_every_command(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedjax_poisson import cli

    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "main", seen.append)
    monkeypatch.setattr(sys, "argv", ["fedjax-poisson", *arguments])
    environment = {"XDG_CACHE_HOME": str(tmp_path), start.TRACES: "/kept", start.TABLES: "/kept"}
    monkeypatch.setattr(os, "environ", environment)
    start.main()
    gc.unfreeze()
    assert seen == [["list"]] and gc.isenabled()
    for name in (start.TRACES, start.TABLES):
        assert (name in environment) == (start.NO_CACHE not in arguments)
    assert (tmp_path / "fedjax_poisson").exists() == (start.NO_CACHE not in arguments)


def _texts(folder: Path) -> list[bytes]:
    """What the kept programs hold, unpacked."""
    import zstandard

    found = []
    for path in sorted(folder.glob("*-cache")):
        packed = path.read_bytes()
        if packed[:4] == b"\x28\xb5\x2f\xfd":
            found.append(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
        else:
            found.append(zlib.decompress(packed))
    return found


def _held(texts: list[bytes], values: np.ndarray) -> bool:
    """Whether two neighbouring values of a row stand in a program, either as float32 or as float64."""
    pairs = [row[k : k + 2] for row in values for k in range(values.shape[1] - 1)]
    patterns = {pair.astype(kind).tobytes() for pair in pairs for kind in ("<f4", "<f8")}
    return any(pattern in text for text in texts for pattern in patterns)


@pytest.mark.slow
def test_what_is_kept_of_a_run_holds_no_record(tmp_path: Path) -> None:
    """Records and keys are arguments of the programs. A constant would be written to the user's disk, where no one expects patients."""
    rng = np.random.default_rng(0)
    table = rng.uniform(0.1, 0.9, (RECORDS, COLUMNS)).round(6)
    rows = [f"{'ABC'[i % 3]},{','.join(map(str, row))},{int(rng.random() < row[0])}" for i, row in enumerate(table)]
    names = [f"x{k}" for k in range(COLUMNS)]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([f"site,{','.join(names)},label", *rows]) + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    bounds = ["--standardize", "bounds", "--aggregator", "plain", "--rounds", "2", "--quiet"]
    options = ["--csv", str(path), "--label", "label", "--site", "site", "--out", str(tmp_path / "run"), *bounds]
    command = [sys.executable, "-m", "fedjax_poisson", "run", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "cache" / "fedjax_poisson"
    texts = _texts(kept / "xla")
    assert len(texts) > 10
    if util.find_spec("flatbuffers") is not None:
        traced = [path.read_bytes() for path in (kept / "traces").iterdir()]
        assert traced
        texts += traced
    tables = [path.read_bytes() for path in (kept / "tables").iterdir()]
    assert tables
    texts += tables
    sites = data.from_csv(path, label="label", site="site")
    for values in (table, sites.features, 2 * sites.features - 1):
        assert not _held(texts, np.asarray(values, np.float64))

    # The search finds a record where there is one.
    careless = f"""
        import jax, jax.numpy as jnp, numpy as np
        table = jnp.asarray(np.load({str(tmp_path / "table.npy")!r}))
        jax.jit(lambda w: (table @ w).sum())(jnp.ones({COLUMNS}))
    """
    np.save(tmp_path / "table.npy", table.astype(np.float32))
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "careless")}
    environment |= {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    subprocess.run([sys.executable, "-c", textwrap.dedent(careless)], env=environment, check=True)
    assert _held(_texts(tmp_path / "careless"), table)
