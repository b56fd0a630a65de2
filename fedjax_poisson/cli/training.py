"""`run` and `predict`: from a table to a model, and from a model to the labels of new rows."""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fedjax_poisson.runs.config import Config, read_config, recipe

if TYPE_CHECKING:
    from fedjax_poisson.runs.build import Prepared
    from fedjax_poisson.runs.start_time import Start

__all__ = ["Settings", "predict", "run"]


def _setting_fields() -> list[Any]:
    """Config's fields as optional arguments: anything not given comes from the TOML file or the default; the help is Config's docstring."""
    sentences = re.findall(r"^ {6}(\w+): (.+(?:\n {8}.+)*)$", Config.__doc__ or "", re.MULTILINE)
    help_of = {name: " ".join(text.split()) for name, text in sentences}
    fields = []
    for field in dataclasses.fields(Config):
        if field.name == "dataset":
            continue
        kind = str(field.type)
        if kind.startswith("list[float]"):
            kind = "tuple[float, float] | None"
        kind = "str | None" if "dict" in kind or "list" in kind else kind  # tables and lists are given in a TOML file
        kind = kind if "None" in kind else f"{kind} | None"
        default = "" if field.default is None else f" (default: {field.default})"
        if "bool" in kind:
            default += f" --no-{field.name.replace('_', '-')} turns it off."
        metavar = "|".join(re.findall(r"['\"](\w+)['\"]", kind)) or re.match(r"\w+", kind).group().upper()  # type: ignore[union-attr]
        metavar = "LOW HIGH" if "tuple" in kind else metavar
        argument = tyro.conf.arg(help=help_of.get(field.name, "") + default, help_behavior_hint="", metavar=metavar)
        annotated: Any = Annotated[eval(kind, {"Literal": Literal}), argument]
        fields.append((field.name, annotated, dataclasses.field(default=None)))
    return fields


Settings = dataclasses.make_dataclass("Settings", _setting_fields(), frozen=True, kw_only=True)
"""Settings given on the command line; None where not given."""


def run(
    name: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings(),  # type: ignore[valid-type]  # noqa: B008
    *,
    out: Path | None = None,
    resume: Path | None = None,
    quiet: bool = False,
    json: bool = False,
) -> int:
    """Train one model across several sites, privately and under encryption, and write a run folder with a report.

    Programs and sampling tables (never records or keys) are kept in ~/.cache/fedjax_poisson, so the next run starts sooner; --no-cache keeps none.

    Args:
      name: a data set that ships (heart, thyroid, or xray: synthetic images), one that needs --data (pneumonia, medmnist, covid), or a TOML
        file of settings. Each data set has a recipe; settings given here override it. Default: heart, unless --csv names a table.
      settings: settings of the run.
      out: run folder; default: runs/NAME-DATE-TIME.
      resume: continue the run in this folder, with its settings.
      quiet: show no progress and no summary.
      json: for scripts: standard output holds one JSON object a release, {"event": "round", ...} as in rounds.jsonl, and one at the end, {"event": "end",
        "folder": ..., "report": ..., "summary": ...} as in summary.json, and nothing else. What people are told goes to standard error, unless --quiet.
    """
    import contextlib
    import sys

    from rich.console import Console

    from fedjax_poisson.federated.stopping import stop_requested
    from fedjax_poisson.reports.writer import report_writer
    from fedjax_poisson.runs import progress
    from fedjax_poisson.runs.run import run as run_experiment
    from fedjax_poisson.runs.terminal import print_summary

    given = {key: value for key, value in dataclasses.asdict(settings).items() if value is not None}
    if resume is not None:
        if given or out is not None or name is not None:
            raise ValueError("--resume continues with the settings of its folder; give no other settings.")
        if not (resume / "config.toml").exists():
            raise ValueError(f"{resume} holds no config.toml: there is no run to resume.")
        config, folder = read_config(resume / "config.toml"), resume
    else:
        config = _config(name, given)
        label = Path(config.csv).stem if config.csv else config.dataset.replace(":", "-")
        folder = out or Path("runs") / f"{label}-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S')}"
    console = Console(quiet=quiet, stderr=json)
    if config.seed is not None:
        console.print(f"[bold yellow]seed {config.seed}: reproducible, and therefore NOT private.[/]")
    if config.aggregator == "plain":
        console.print("[bold yellow]aggregator plain: NOTHING is encrypted.[/]")
    with report_writer() as write_report:  # before anything starts a thread or a device
        with (
            stop_requested(lambda text: console.print(f"[yellow]{text}[/]")) as stop,
            contextlib.nullcontext(progress.json_lines(sys.stdout)) if json else progress.progress(console) as bar,
        ):

            def planned(prepared: Prepared) -> None:
                bar.plan(prepared.recipe.rounds, _start(prepared.config))
                console.print("\n".join(prepared.recipe.reasons), highlight=False)

            summary = run_experiment(
                config, folder, resume=resume is not None, report=bar.report, stop=stop, planned=planned
            )
        page = write_report(folder)
    if json:
        end = {"event": "end", "folder": str(folder), "report": str(page), "summary": summary}
        print(progress.to_strict_json(end), flush=True)
    else:
        print_summary(console, summary, page)
    return 0


def _start(config: Config) -> Start:
    """The start that is under way, with what is on record of earlier ones."""
    import jax

    from fedjax_poisson import __version__
    from fedjax_poisson.runs import start_time

    device = jax.devices()[0]
    versions = f"fedjax_poisson {__version__}, jax {jax.__version__}"
    key = start_time.key_of(config, f"{device.platform} {device.device_kind}")
    return start_time.begin(start_time.programs_folder(), key, versions)


def _config(name: str | None, given: dict[str, Any]) -> Config:
    """The settings of `run`: those of a TOML file or of a data set's recipe, overridden by those given."""
    if name is not None and Path(name).suffix.lower() == ".toml":
        return read_config(name, **given)
    if name is not None and "csv" in given:
        raise ValueError(f"{name} and --csv {given['csv']} are two sources of data; leave the name or --csv out.")
    return recipe("heart" if name is None else name, **given)


def predict(
    model: Annotated[Path, tyro.conf.Positional],
    rows: Annotated[Path, tyro.conf.Positional],
    *,
    site: str | None = None,
    out: Path | None = None,
) -> int:
    """Predict the label of new rows with the model of a finished run: a class and the probability of each, yes or no for several labels, or a number.

    The rows are a CSV file with the columns on which the model was trained; no label is needed, and other columns are ignored.

    Args:
      model: folder of the run, or its model.npz.
      rows: CSV file with the rows.
      site: site that the rows come from; needed if the run standardised each site separately.
      out: CSV file for the predictions; printed if left out.
    """
    import csv
    import io

    from fedjax_poisson.federated.checkpoints import write_atomic
    from fedjax_poisson.federated.saved_model import predict as predict_rows
    from fedjax_poisson.federated.saved_model import table_of

    found = predict_rows(model, str(rows), site=site)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(table_of(found))
    if out is None:
        print(text.getvalue(), end="")
    else:
        write_atomic(out, text.getvalue().encode())
        print(f"{len(found.labels)} predictions: {out}")
    return 0
