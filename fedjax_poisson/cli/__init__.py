"""The command line: `fedjax-poisson run | predict | report | ... | site ... | consortium ...`; `--help` on each lists its options."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import tyro

from fedjax_poisson.cli import completion, consortium, site
from fedjax_poisson.cli.calculations import account, bench
from fedjax_poisson.cli.finished_runs import attack, compare, export, ledger, list_runs, report, verify
from fedjax_poisson.cli.training import predict, run
from fedjax_poisson.runs.config import Config

_FAILED = 2
_INTERRUPTED = 130  # as shells report a Ctrl-C
_NO_READER = 141  # as they report a program that wrote to a closed pipe


def _spelt_out(arguments: list[str]) -> list[str]:
    """Switches of `run` as the parser takes them: `--public-data` is `--public-data True`, `--no-public-data` is `--public-data False`."""
    switches = {
        f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Config) if "bool" in str(field.type)
    }
    found: list[str] = []
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name = argument.replace("_", "-")
        if name in switches and after not in ("True", "False", "None"):
            found += [name, "True"]
        elif name.startswith("--no-") and f"--{name[5:]}" in switches:
            found += [f"--{name[5:]}", "False"]
        else:
            found.append(argument)
    return found


_ABOUT = f"Private, encrypted federated learning. Each command has its own --help. {completion.HELP}"

_GROUPS: dict[str, dict[str, Any]] = {"site": site.COMMANDS, "consortium": consortium.COMMANDS}


def _group(name: str, about: str) -> Callable[[], int]:
    """A group in the list of commands; `main` takes what follows its name."""

    def command() -> int:
        raise ValueError(f"give one of {', '.join(_GROUPS[name])}: fedjax-poisson {name} --help")

    command.__doc__ = about
    return command


def main(arguments: list[str] | None = None) -> None:
    """Entry point; user errors end in a single message instead of a traceback."""
    commands: dict[str, Any] = {
        "run": run,
        "predict": predict,
        "list": list_runs,
        "compare": compare,
        "report": report,
        "export": export,
        "attack": attack,
        "ledger": ledger,
        "verify": verify,
        "account": account,
        "bench": bench,
        "site": _group("site", "A hospital's own commands: its key, what it approves, its log."),
        "consortium": _group(
            "consortium", "What parties of a consortium do together: the roster, and a check of all logs."
        ),
    }
    arguments = sys.argv[1:] if arguments is None else arguments
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # where module:name is looked for after everything that is installed
    if arguments == ["--version"]:
        print(f"fedjax-poisson {metadata.version('fedjax_poisson')}")
        sys.exit(0)
    try:
        code: int
        if completion.asked_for(arguments):
            code = completion.write_completion(commands, _GROUPS, arguments)
        elif arguments and arguments[0] in _GROUPS:
            name, rest = arguments[0], arguments[1:] or ["--help"]
            code = tyro.extras.subcommand_cli_from_dict(_GROUPS[name], prog=f"fedjax-poisson {name}", args=rest)
        else:
            code = tyro.extras.subcommand_cli_from_dict(
                commands, prog="fedjax-poisson", description=_ABOUT, args=_spelt_out(arguments)
            )
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough (`| head`): no fault, and nobody to write to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _NO_READER
    except KeyboardInterrupt:
        print("fedjax-poisson: interrupted", file=sys.stderr)
        code = _INTERRUPTED
    except (ValueError, OSError, RuntimeError) as error:
        print(f"fedjax-poisson: {error}", file=sys.stderr)
        code = _INTERRUPTED if getattr(error, "interrupted", False) else _FAILED
    sys.exit(code)
