"""Two processes write the report that one would have written, and one does where two cannot."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import pytest

from fedjax_poisson.reports import writer
from fedjax_poisson.reports.page import write_report
from fedjax_poisson.reports.writer import report_writer
from tests.helpers.example_run import write_example_run

forks = pytest.mark.skipif(sys.platform != "linux", reason="only where a process can part safely")


def _in_a_process(code: str, *arguments: str) -> str:
    """Run code in a process that has neither threads nor devices, on two cores or as if."""
    head = """
        import os, sys, warnings
        from pathlib import Path
        from fedjax_poisson.reports import writer
        writer.usable_cores = lambda: 2
        folder = Path(sys.argv[1])
        warnings.simplefilter("error")
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _files(folder: Path) -> dict[str, bytes]:
    """The page, its figures and what is written beside it."""
    names = ["report.html", "report.json", "model_card.md"]
    return {path.name: path.read_bytes() for path in [*(folder / name for name in names), *folder.glob("figures/*")]}


@forks
def test_another_process_writes_the_same_bytes_and_leaves_nothing_behind(tmp_path: Path) -> None:
    write_example_run(tmp_path / "one" / "run")
    shutil.copytree(tmp_path / "one", tmp_path / "two")  # the page holds the folder's name, and the ledger times
    write_report(tmp_path / "one" / "run")
    code = """
        with writer.report_writer() as write:
            page = write(folder)
        assert page == folder / "report.html"
        assert "matplotlib" not in sys.modules  # it was not this process that drew
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child is left")
    """
    assert _in_a_process(code, str(tmp_path / "two" / "run")) == "no child is left\n"
    one, two = (_files(tmp_path / name / "run") for name in ("one", "two"))
    assert len(one) > 6 and one == two


@forks
@pytest.mark.parametrize("failure", ["os._exit(1)", "os.close(answer)", "signal.raise_signal(signal.SIGKILL)"])
def test_where_the_other_process_fails_it_is_said_and_the_report_is_written_here(failure: str, tmp_path: Path) -> None:
    write_example_run(tmp_path / "run")
    code = f"""
        import signal
        def serve(asked, answer):
            {failure}
            os._exit(1)
        writer._serve = serve
        with warnings.catch_warnings(record=True) as said, writer.report_writer() as write:
            warnings.simplefilter("always")
            page = write(folder)
        print([str(one.message) for one in said if "failed" in str(one.message)], "matplotlib" in sys.modules, page.is_file())
    """
    found = _in_a_process(code, str(tmp_path / "run"))
    assert "written here" in found and found.endswith("True True\n")


@forks
def test_what_is_wrong_with_the_folder_is_raised_here(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("[1]")
    code = """
        with warnings.catch_warnings(), writer.report_writer() as write:
            warnings.simplefilter("ignore")
            try:
                write(folder)
            except ValueError as error:
                print(error)
    """
    with pytest.raises(ValueError, match="expected an object"):
        write_report(tmp_path)
    assert "expected an object" in _in_a_process(code, str(tmp_path))


@forks
def test_a_run_that_fails_leaves_no_process(tmp_path: Path) -> None:
    code = """
        try:
            with writer.report_writer():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child is left")
    """
    assert _in_a_process(code, str(tmp_path)) == "no child is left\n"


@forks
def test_half_of_the_figures_that_fails_is_drawn_again(tmp_path: Path) -> None:
    write_example_run(tmp_path / "run")
    code = """
        from fedjax_poisson.reports import figures
        real, own = figures.write_figures, os.getpid()
        def draw(folder, names=None):
            if os.getpid() != own:
                raise RuntimeError("the other half")
            print(len(names), len(real(folder, names)), flush=True)
        figures.write_figures = draw
        writer._half_drawn(folder)(folder)
    """
    counts = [line.split() for line in _in_a_process(code, str(tmp_path / "run")).splitlines()]
    assert len(counts) == 2 and len(list((tmp_path / "run" / "figures").iterdir())) == sum(int(n) for _, n in counts)


@forks
@pytest.mark.parametrize("ends", [True, False])
def test_the_other_process_ends_with_this_one_however_that_comes(ends: bool) -> None:
    code = f"""
        import signal, time
        def serve(asked, answer):
            print(os.getpid(), flush=True)
            os.close(1), os.close(2)  # or who reads them would wait for it
            time.sleep(60)
        writer._serve = serve
        if not {ends}:  # the twin
            writer._end_with = lambda parent: None
        number = os.fork()
        if number == 0:
            with writer.report_writer():
                time.sleep(60)
        time.sleep(1)
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    """
    other = int(_in_a_process(code, "."))
    deadline = time.monotonic() + 20
    while ends and _lives(other) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _lives(other) == (not ends)
    if not ends:
        os.kill(other, signal.SIGKILL)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@forks
def test_an_interruption_at_any_moment_of_the_asking_ends_both(tmp_path: Path) -> None:
    write_example_run(tmp_path / "run")
    code = """
        real, own = os.write, os.getpid()
        def interrupted(end, data):
            done = real(end, data)
            if os.getpid() == own:
                raise KeyboardInterrupt
            return done
        try:
            with writer.report_writer() as write:
                os.write = interrupted
                write(folder)
        except KeyboardInterrupt:
            print("interrupted")
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("no child is left")
    """
    assert _in_a_process(code, str(tmp_path / "run")) == "interrupted\nno child is left\n"


@forks
def test_without_room_for_a_process_or_a_standard_output_the_report_is_written_all_the_same(tmp_path: Path) -> None:
    write_example_run(tmp_path / "run")
    code = """
        def no_room():
            raise BlockingIOError(11, "Resource temporarily unavailable")
        fork, os.fork, kept = os.fork, no_room, sys.stdout
        with writer.report_writer() as write:
            assert write(folder).is_file()
        os.fork, sys.stdout = fork, None
        with writer.report_writer() as write:
            assert write(folder).is_file()
        sys.stdout = kept
        print(len(os.listdir("/proc/self/fd")))
    """
    assert int(_in_a_process(code, str(tmp_path / "run"))) < 12  # no end of a pipe stays open


def test_a_process_with_devices_or_threads_or_one_core_writes_it_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax.devices()
    monkeypatch.setattr(writer, "usable_cores", lambda: 2)
    assert not writer._can_part()
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process with devices must not part"))
    write_example_run(tmp_path / "run")
    with report_writer() as write:
        assert write(tmp_path / "run") == tmp_path / "run" / "report.html"


@forks
def test_one_core_or_a_thread_is_reason_enough() -> None:
    code = """
        import threading
        import jax
        print(writer._can_part())
        done = threading.Event()
        other = threading.Thread(target=done.wait)
        other.start()
        print(writer._can_part())
        done.set()
        other.join()
        writer.usable_cores = lambda: 1
        print(writer._can_part())
    """
    assert _in_a_process(code, ".") == "True\nFalse\nFalse\n"
