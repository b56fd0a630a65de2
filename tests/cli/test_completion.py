"""The completion script knows every command, those of groups too, and the shell takes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fedjax_poisson import cli


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    return int(stop.value.code or 0)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_every_command_and_option_is_in_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--tyro-print-completion", shell) == 0
    script = capsys.readouterr().out
    for word in ("predict", "verify", "site", "serve-member", "consortium", "--epsilon", "--json", "--stale-after"):
        assert word in script, word
    assert "--not-an-option" not in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    assert ended("--tyro-write-completion", "bash", str(script)) == 0
    # What the shell does on a tab: the words so far, the cursor's word, then the function that the script registered.
    ask = (
        f"source {script}; COMP_WORDS=(fedjax-poisson ver); COMP_CWORD=1; "
        "set -- $(complete -p fedjax-poisson); while [ $1 != -F ]; do shift; done; $2; echo ${COMPREPLY[@]}"
    )
    found = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["verify"], found.stderr


@pytest.mark.parametrize("arguments", [["bash"], ["powershell", "file"], []])
def test_what_is_missing_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--tyro-write-completion", *arguments) == 2
    assert "bash" in capsys.readouterr().err


def test_the_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    assert "--tyro-write-completion" in capsys.readouterr().out
