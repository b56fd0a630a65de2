"""The command line: `fedjax-poisson run | predict | report | attack | ledger | account | bench`; `--help` on each lists its options."""

from __future__ import annotations

import dataclasses
import sys
from importlib import metadata
from typing import Any

import tyro

from fedjax_poisson.cli.calculations import account, bench
from fedjax_poisson.cli.finished_runs import attack, ledger, report, verify
from fedjax_poisson.cli.training import predict, run
from fedjax_poisson.runs.config import Config

_FAILED = 2
_INTERRUPTED = 130  # as shells report a Ctrl-C


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


def main(arguments: list[str] | None = None) -> None:
    """Entry point; user errors end in a single message instead of a traceback."""
    commands: dict[str, Any] = {
        "run": run,
        "predict": predict,
        "report": report,
        "attack": attack,
        "ledger": ledger,
        "verify": verify,
        "account": account,
        "bench": bench,
    }
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"fedjax-poisson {metadata.version('fedjax_poisson')}")
        sys.exit(0)
    try:
        code: int = tyro.extras.subcommand_cli_from_dict(commands, prog="fedjax-poisson", args=_spelt_out(arguments))
    except KeyboardInterrupt:
        print("fedjax-poisson: interrupted", file=sys.stderr)
        code = _INTERRUPTED
    except (ValueError, OSError, RuntimeError) as error:
        print(f"fedjax-poisson: {error}", file=sys.stderr)
        code = _INTERRUPTED if getattr(error, "interrupted", False) else _FAILED
    sys.exit(code)
