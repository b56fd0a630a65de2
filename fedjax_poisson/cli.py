"""The command line: `fedjax-poisson run | predict | report | attack | ledger | account | bench`; `--help` on each lists its options."""

from __future__ import annotations

import dataclasses
import re
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fedjax_poisson.runs.config import Config, read_config, recipe
from fedjax_poisson.runs.config_checks import check_ranges

if TYPE_CHECKING:
    from fedjax_poisson.runs.build import Prepared

_FAILED = 2
_INTERRUPTED = 130  # as shells report a Ctrl-C


def _setting_fields() -> list[Any]:
    """Config's fields as optional arguments: anything not given comes from the TOML file or the default; the help is Config's docstring."""
    sentences = re.findall(r"^ {6}(\w+): (.+(?:\n {8}.+)*)$", Config.__doc__ or "", re.MULTILINE)
    help_of = {name: " ".join(text.split()) for name, text in sentences}
    fields = []
    for field in dataclasses.fields(Config):
        if field.name == "dataset":
            continue
        kind = str(field.type)
        kind = "str | None" if "dict" in kind or "list" in kind else kind  # tables and lists are given in a TOML file
        kind = kind if "None" in kind else f"{kind} | None"
        default = "" if field.default is None else f" (default: {field.default})"
        if "bool" in kind:
            default += f" --no-{field.name.replace('_', '-')} turns it off."
        metavar = "|".join(re.findall(r"['\"](\w+)['\"]", kind)) or re.match(r"\w+", kind).group().upper()  # type: ignore[union-attr]
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
) -> int:
    """Train one model across several sites, privately and under encryption, and write a run folder with a report.

    Args:
      name: a data set that ships (heart, thyroid, or xray: synthetic images), one that needs --data (pneumonia, medmnist, covid), or a TOML
        file of settings. Each data set has a recipe; settings given here override it. Default: heart, unless --csv names a table.
      settings: settings of the run.
      out: run folder; default: runs/NAME-DATE-TIME.
      resume: continue the run in this folder, with its settings.
      quiet: show no progress and no summary.
    """
    from rich.console import Console

    from fedjax_poisson.federated.stopping import stop_requested
    from fedjax_poisson.reports.page import write_report
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
    console = Console(quiet=quiet)
    if config.seed is not None:
        console.print(f"[bold yellow]seed {config.seed}: reproducible, and therefore NOT private.[/]")
    if config.aggregator == "plain":
        console.print("[bold yellow]aggregator plain: NOTHING is encrypted.[/]")
    with (
        stop_requested(lambda text: console.print(f"[yellow]{text}[/]")) as stop,
        progress.progress(console) as bar,
    ):

        def planned(prepared: Prepared) -> None:
            bar.plan(prepared.recipe.rounds)
            console.print("\n".join(prepared.recipe.reasons), highlight=False)

        summary = run_experiment(
            config, folder, resume=resume is not None, report=bar.report, stop=stop, planned=planned
        )
    page = write_report(folder)
    print_summary(console, summary, page)
    return 0


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
    """Predict the label of new rows with the model of a finished run.

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

    found = predict_rows(model, str(rows), site=site)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "predicted", *(f"probability of {name}" for name in found.class_names)])
    for number, (label, chances) in enumerate(zip(found.labels, found.probabilities, strict=True), 1):
        writer.writerow([number, found.class_names[label], *(f"{chance:.6f}" for chance in chances)])
    if out is None:
        print(text.getvalue(), end="")
    else:
        write_atomic(out, text.getvalue().encode())
        print(f"{len(found.labels)} predictions: {out}")
    return 0


def report(folder: Annotated[Path, tyro.conf.Positional], *, section: tuple[str, ...] = ()) -> int:
    """Regenerate the figures and report.html of a finished run.

    Args:
      folder: run folder.
      section: sections of your own to add, module:name of a function of the run.
    """
    from fedjax_poisson.reports.page import write_report

    print(write_report(folder, sections=section))
    return 0


def attack(
    folder: Annotated[Path, tyro.conf.Positional],
    *,
    attack: str = "all",
    quick: bool = False,
) -> int:
    """Attack a finished run using its settings, and add what leaked to its folder and report.

    Args:
      folder: run folder.
      attack: membership (LiRA and the loss), audit (the mechanism against the ledger), one_run (canary records through the pipeline), inversion
        (records from updates, in four views), property (which site an update came from), all, or module:name of your own.
      quick: use small sizes, for a first look within a minute or two, with wide intervals.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from fedjax_poisson.leakage.measure import attack_run
    from fedjax_poisson.reports import leakage
    from fedjax_poisson.reports.page import write_report

    console = Console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        found = attack_run(folder, attack, quick=quick, report=told)
    page = write_report(folder)
    console.print(leakage.text_table(found))
    for note in (*found["notes"], leakage.SITES, leakage.NO_PROOF):
        console.print(note, highlight=False)
    console.print(f"numbers: {folder / 'leakage.json'}, report: {page}", highlight=False)
    return 0


def ledger(folder: Annotated[Path, tyro.conf.Positional], *, verify: bool = False) -> int:
    """Show the privacy ledger of a run. Nothing is written, so a read-only copy is enough.

    Args:
      folder: run folder (or a ledger file).
      verify: recompute the hash chain and compare it with the values pinned in summary.json.
    """
    from fedjax_poisson.runs.show import print_ledger

    print_ledger(folder, verify=verify)
    return 0


def verify(folder: Annotated[Path, tyro.conf.Positional]) -> int:
    """Check a run again from its files alone: the ledger's chain, and every opened round's signatures, quorums, screening and opening.

    Args:
      folder: run folder.
    """
    from fedjax_poisson.runs.show import print_rounds

    return print_rounds(folder)


def account(
    *,
    senders: int,
    dimension: int,
    epsilon: float | None = None,
    rounds: int | None = None,
    dark_count: float | None = None,
    delta: float = 1e-5,
    honest_senders: int | None = None,
    sampling_rate: float = 1.0,
    modulation: float = 0.05,
    norm_ratio: float = 1.0,
    step_ratio: float = 1.0,
    adjacency: Literal["zero_out", "replace_one"] = "zero_out",
    members: int = 5,
    lines: int = 10,
) -> int:
    """Compute the privacy of the Poisson embedding: give two of --epsilon, --rounds and --dark-count to get the third.

    Args:
      senders: senders in every sum.
      dimension: coordinates of an update.
      epsilon: budget over all rounds.
      rounds: number of releases.
      dark_count: mean events per channel, coordinate and sender.
      delta: delta of the budget.
      honest_senders: senders whose noise is counted; default: all but one.
      sampling_rate: rate of secret Poisson sampling of units; every sender always sends its noise.
      modulation: modulation depth r.
      norm_ratio: clip_norm / coordinate_bound.
      step_ratio: coordinate_bound / total_bound (1 at client level).
      adjacency: neighbouring relation.
      members: committee of a round, for the cost of encryption.
      lines: rows of the per-round table.
    """
    from fedjax_poisson.accounting import account as tables
    from fedjax_poisson.mechanisms.types import check_honest
    from fedjax_poisson.runs.show import print_round_cost

    if senders < 1 or lines < 1:
        raise ValueError(f"senders={senders} and lines={lines}: give at least one of each.")
    check_ranges({"epsilon": epsilon, "delta": delta, "sampling_rate": sampling_rate, "modulation": modulation})
    check_honest(senders - 1 if honest_senders is None else honest_senders, senders)
    setting = tables.AccountedRounds(
        delta=delta,
        senders=senders,
        honest_senders=honest_senders,
        modulation=modulation,
        norm_ratio=norm_ratio,
        dimension=dimension,
        step_ratio=step_ratio,
        sampling_rate=sampling_rate,
        adjacency=adjacency,
    )
    result = tables.make_account(setting, epsilon=epsilon, rounds=rounds, dark_count=dark_count)
    for what, value in tables.account_table(result):
        print(f"{what:<26} {value}")
    print(f"\n{'round':>8} {'epsilon':>10} {'order':>6} {'events':>12}")
    for row in tables.round_table(result, lines=lines):
        print(f"{row.round:>8} {row.epsilon:>10.4f} {row.order:>6g} {row.events:>12.5g}")
    print_round_cost(setting, result.dark_count, members)
    return 0


def bench(
    what: Annotated[Literal["sampling", "encryption", "aggregation", "simulation"], tyro.conf.Positional],
    *,
    quick: bool = False,
    size: int | None = None,
    senders: int | None = None,
    members: int | None = None,
    workload: Literal["W1", "W2", "W3"] | None = None,
    privacy: Literal["on", "off"] | None = None,
    encryption: Literal["every_client", "sum_only", "off"] | None = None,
    chunk: int | None = None,
    transforms: Literal["summed", "each"] | None = None,
    rounds_per_call: int | None = None,
    devices: int | None = None,
) -> int:
    """Benchmark this machine and print JSON lines.

    Args:
      what: samplers compared with jax.random, encryption compared with TenSEAL, the parties of one aggregation round compared with
        peers, or whole rounds of many clients.
      quick: use smaller sizes and fewer repetitions.
      size: aggregation: length of the vector.
      senders: aggregation: clients of a round.
      members: aggregation: members of the committee.
      workload: simulation: which of the three workloads; default: all.
      privacy: simulation: embed every update or not; default: both.
      encryption: simulation: level of encryption.
      chunk: simulation: clients vmapped at once.
      transforms: simulation: ciphertexts summed before or after their transforms (the same bits).
      rounds_per_call: simulation: rounds fused into one program.
      devices: simulation: devices of the mesh (on a CPU: host devices).
    """
    import importlib

    only_simulation = {
        "workload": workload, "privacy": privacy, "encryption": encryption, "chunk": chunk,
        "transforms": transforms, "rounds-per-call": rounds_per_call, "devices": devices,
    }  # fmt: skip
    only_aggregation = {"size": size, "senders": senders, "members": members}
    given: dict[str, str] = {}
    for kind, options in (("simulation", only_simulation), ("aggregation", only_aggregation)):
        found = {name: str(value) for name, value in options.items() if value is not None}
        if found and what != kind:
            raise ValueError(f"--{', --'.join(found)}: only `bench {kind}` takes these; leave them out.")
        given |= found
    counts = {"chunk": chunk, "rounds-per-call": rounds_per_call, "devices": devices, **only_aggregation}
    for option, count in counts.items():
        if count is not None and not 1 <= count <= 10**8:
            raise ValueError(f"--{option} {count}: give a whole number between 1 and 100000000.")
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    importlib.import_module(f"fedjax_poisson.benchmarks.{what}").main([*arguments, *(["--quick"] if quick else [])])
    return 0


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
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # where module:name is looked for after everything that is installed
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
