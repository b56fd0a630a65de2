"""Commands that read a finished run, when a file of it had an accident: an answer, or one line that says what is wrong."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from fault_campaign import verdicts
from fault_campaign.harm import HARM, harm
from fault_campaign.verdicts import Row
from fedjax_poisson import cli, data
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run

__all__ = ["COMMANDS", "commands", "finished"]

COMMANDS = {
    "ledger --verify": ("ledger.sqlite", "summary.json", "rounds.jsonl"),
    "verify": ("ledger.sqlite", "summary.json", "*.round"),
    "predict": ("model.npz",),
    "report": ("summary.json", "ledger.sqlite", "rounds.jsonl", "config.toml"),
}
"""Commands, and the files that they read."""


def finished(base: Path) -> tuple[Path, Path]:
    """Two finished runs, and rows for `predict` in the first."""
    for seed in (1, 2):
        config = Config(rounds=2, seed=seed, aggregator="round", yardstick=False, controller="constant")
        run(config, base / f"finished {seed}")
    folder = base / "finished 1"
    sites = data.load("heart")
    table = [sites.feature_names, *sites.features[:4].tolist()]
    (folder / "rows.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in table))
    return folder, base / "finished 2"


def _called(arguments: list[str]) -> tuple[str, list[str]]:
    """The outcome of a command, and what is wrong with how it ended."""
    said, told = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            cli.main(arguments)
    except SystemExit as ended:
        words = told.getvalue()
        if ended.code in (0, None):
            return "answered", []
        if ended.code == 1 and "DOES NOT HOLD" in said.getvalue():
            return "says what does not hold", []
        if words.startswith("fedjax-poisson: ") and words.count("\n") == 1 and len(words) > 40:
            return "refused in one line", []
        return f"status {ended.code}", [f"status {ended.code} with: {words or said.getvalue()}"]
    except BaseException as error:
        return type(error).__name__, [
            f"{type(error).__name__} would be a traceback: {error}",
            *verdicts.own_refusal(error),
        ]
    return "answered", []


def commands(
    folders: tuple[Path, Path], base: Path, rng: random.Random, kinds: tuple[str, ...] = HARM
) -> Iterator[Row]:
    """Every command with every file that it reads under every accident."""
    folder, other = folders
    for command, names in COMMANDS.items():
        for pattern in names:
            for kind in kinds:
                if kind == "older":
                    continue  # a finished run has one age
                copy = base / "read"
                shutil.copytree(folder, copy)
                name = sorted(copy.rglob(pattern))[0].relative_to(copy)
                stranger = sorted(other.rglob(pattern))[0]
                harm(copy / name, kind, rng, stranger if kind == "foreign" else None)
                arguments = [*command.split()[:1], str(copy), *command.split()[1:]]
                if command == "predict":
                    arguments.append(str(copy / "rows.csv"))
                outcome, wrong = _called(arguments)
                shutil.rmtree(copy)
                yield Row(command, pattern, kind, outcome, wrong)
