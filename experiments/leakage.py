"""Leakage and accuracy against epsilon: membership, reconstruction from four views, and audits of the mechanism, all using the code of a real run.

    python experiments/leakage.py [tradeoff] [inversion] [audit] [--data pneumoniamnist.npz] [--toy]

Writes results/leakage.json and figures/leakage.png, leakage_pictures_*.png next to this file; parts and data sets that are not named keep their
results. Noise comes from the operating system. `tradeoff` trains shadow models with each data set's recipe at each epsilon, and without privacy until
they overfit; the accuracy is that of the attacked models, which train on half of the records. It uses fewer images and rounds (--pictures, --rounds),
since every point trains --picture-shadows models of the kind --picture-model. `inversion` attacks the CNN, whose gradient contains pixels, with 32
targets and four views. `audit` uses 20 runs for each epsilon, with the correct mechanism and four broken ones, and canary clients through the encrypted
sum.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optax
from common import machine, subset
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import fedjax_poisson as fp
from fedjax_poisson import accounting, attacks, data
from fedjax_poisson.federated.checkpoints import write_atomic
from fedjax_poisson.leakage import attack_runs, finished_run, reconstruction
from fedjax_poisson.randomness import stream
from fedjax_poisson.reports import leakage
from fedjax_poisson.reports.plotting import DPI, PLAIN, PRIVATE, PUBLISHED, WIDTH, clean, title
from fedjax_poisson.runs.config import Config, recipe
from fedjax_poisson.runs.run import run
from fedjax_poisson.runs.training import learned_model

HERE = Path(__file__).parent
TABLES, PICTURES = ("heart", "thyroid"), ("xray", "pneumonia")
COLOURS = {"clear": PUBLISHED, "summed": "#E69F00", "noisy": "#56B4E9", "noisy_sum": PRIVATE}
DELTA = 1e-5


def quiet(what: str, done: int, total: int) -> None:
    """Report no progress of individual steps, because every result is printed."""


def say(kind: str, **facts: Any) -> None:
    """Print one JSON line."""
    print(json.dumps({"what": kind} | attacks.to_json(facts)), flush=True)


# Data -----------------------------------------------------------------------------------------------------------------


def setting_of(name: str, epsilon: float, options: argparse.Namespace, model: str) -> tuple[Config, data.Sites]:
    """The recipe of a data set, pictures with fewer rounds, fewer records and this model, and its data."""
    small: dict[str, Any] = {"rounds": options.rounds} if name in PICTURES or options.toy else {}
    if name in PICTURES:
        small |= {"model": model, "width": 8, "sampling_rate": 0.1}
    config = recipe(name, epsilon=epsilon, aggregator="plain", yardstick=False, delta=1e-4, **small)
    if name == "xray":
        return config, data.load(
            "xray", size=32, patients=-(-options.pictures // 3), sites=4, second_image=0.0, binary=True
        )
    if name == "pneumonia":
        sites = fewer(data.from_medmnist(options.data, flag="pneumoniamnist", validation="drop"), options.pictures)
        return config, data.dirichlet(sites, 4, 10.0)
    return config, data.load(name)


def fewer(sites: data.Sites, training: int) -> data.Sites:
    """All test records and a random subset of the training records."""
    rng = np.random.default_rng(0)
    train = np.flatnonzero(sites.train)
    kept = np.sort(np.concatenate([rng.permutation(train)[:training], np.flatnonzero(~sites.train)]))
    return subset(sites, kept)


def attacked(config: Config, sites: data.Sites, folder: Path) -> tuple[finished_run.Attacked, dict[str, Any]]:
    """One run, ready to be attacked, and its summary. Encryption is left out because it changes no bit of what is attacked."""
    summary = run(config, folder, sites=sites)
    return finished_run.load(folder, sites), summary


def names_of(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Data sets to measure, and why another is skipped."""
    if options.data is None:
        return [name for name in options.datasets if name != "pneumonia"], {
            "pneumonia": "PneumoniaMNIST is not shipped: give --data pneumoniamnist.npz (https://zenodo.org/records/10519652)"
        }
    return list(options.datasets), {}


# Leakage against accuracy ---------------------------------------------------------------------------------------------


def tradeoff(options: argparse.Namespace) -> dict[str, Any]:
    """LiRA against the recipe at each epsilon, and against the same kind of model trained without privacy until it overfits."""
    names, skipped = names_of(options)
    rows = []
    for name in names:
        count = options.picture_shadows if name in PICTURES else options.shadows
        for epsilon in (*options.epsilons, None):
            config, sites = setting_of(name, epsilon or max(options.epsilons), options, options.picture_model)
            with tempfile.TemporaryDirectory() as folder:
                target, summary = attacked(config, sites, Path(folder) / "run")
            started = time.perf_counter()
            trainer = None
            if epsilon is None:
                target, trainer = overfitting(target, name, options)
            found = attack_runs.shadows(target, count, trainer)
            seconds = time.perf_counter() - started
            row = {
                "dataset": name,
                "epsilon": epsilon,
                "records": found.member.shape[1],
                "shadows": count,
                "model": config.model if epsilon or name in PICTURES else "mlp",
                "rounds": target.rounds if epsilon else None,
                "accuracy": float(found.accuracy.mean()),
                "run_accuracy": summary["pooled_accuracy"] if epsilon else None,
                "lira": attacks.lira(found.confidence, found.member),
                "loss_threshold": attacks.loss_threshold(found.confidence, found.member),
                "seconds": seconds,
            }
            rows.append(attacks.to_json(row))
            say("membership", **{key: row[key] for key in ("dataset", "epsilon", "accuracy", "seconds")}, auc=row["lira"].auc,
                tpr_at_1_percent=row["lira"].tpr_at_1_percent)  # fmt: skip
    return {"rows": rows, "skipped": skipped}


def overfitting(
    target: finished_run.Attacked, name: str, options: argparse.Namespace
) -> tuple[finished_run.Attacked, Callable[..., Any]]:
    """Training without privacy until members are memorised; tables get a wider model, since logistic regression cannot memorise them."""
    model = learned_model(target.setting) if name in PICTURES else fp.models.mlp((64, 32))
    shape = target.cohort.features.shape[2:]
    x, y = target.cohort.features.reshape(-1, *shape), target.cohort.labels.reshape(-1)
    steps, rate = (options.picture_steps, 3e-3) if name in PICTURES else (options.table_steps, 1e-2)
    trainer = attacks.plain_trainer(model, x, y, steps=steps, optimizer=optax.adam(rate))
    return target._replace(setting=target.setting._replace(model=model)), trainer


# Reconstruction -------------------------------------------------------------------------------------------------------


def inversion(options: argparse.Namespace) -> dict[str, Any]:
    """32 pictures from the four views; the first two do not depend on epsilon and are attacked once."""
    names, skipped = names_of(options)
    rows, kept = [], {}
    sizes = finished_run.QUICK._replace(targets=options.targets, steps=options.steps)
    for name in names:
        for number, epsilon in enumerate(sorted(options.inversion_epsilons, reverse=True)):
            config, sites = setting_of(name, epsilon, options, "cnn")
            with tempfile.TemporaryDirectory() as folder:
                target, _ = attacked(config, sites, Path(folder) / "run")
                views = attacks.VIEWS if number == 0 else ("noisy", "noisy_sum")
                started = time.perf_counter()
                found = reconstruction.inversion(target, sizes, quiet, views)
                seconds = time.perf_counter() - started
                saved = target.folder.path / reconstruction.ORIGINALS
                if number == 0 and saved.is_file():
                    with np.load(saved) as file:
                        kept |= {f"{name}/{key}": file[key] for key in file.files}
            for view in views:
                row = {"dataset": name, "view": view, "epsilon": epsilon if "noisy" in view else None, **found[view]}
                row |= {
                    "targets": found["targets"],
                    "senders": target.setting.plan.senders,
                    "steps": sizes.steps,
                    "seconds_all_views": seconds,
                }
                rows.append(attacks.to_json(row))
                say("inversion", **{key: value for key, value in row.items() if key not in ("needs", "try_next")})
    return {"rows": rows, "skipped": skipped, "pictures": kept}


# Audits ---------------------------------------------------------------------------------------------------------------


def embedding(epsilon: float, senders: int, dimension: int, kappa: float, rounds: int) -> fp.mechanisms.Mechanism:
    """The embedding calibrated to this budget."""
    modulation = 0.05 * min(1.0, senders / 10)
    dark = accounting.calibrate_dark_count(
        epsilon=epsilon, delta=DELTA, rounds=rounds, modulation=modulation, honest_senders=senders, norm_ratio=1 / kappa,
        dimension=dimension,
    )  # fmt: skip
    return fp.poisson_embedding(clip_norm=1.0, coordinate_bound=kappa, dark_count=dark, modulation=modulation)


def _same_stream(own: Any, number: int) -> Any:
    return own


def audit(options: argparse.Namespace) -> dict[str, Any]:
    """Audit the correct mechanism and four broken ones directly, and canary clients through the encrypted sum."""
    rows, senders, canaries = [], 4, options.canaries
    for epsilon in options.epsilons:
        right = embedding(epsilon, senders, 64, 1.0, 2)
        facts = {name: value for name, value in right.facts.parameters if value is not None}
        # What is announced has 1 / 0.8 times the noise, or rates that move 1 / 1.25 times as far, as what runs.
        louder = fp.poisson_embedding(**facts | {"dark_count": facts["dark_count"] * 0.64})
        nearer = fp.poisson_embedding(**facts | {"modulation": facts["modulation"] / 1.25})
        cases: dict[str, tuple[Any, dict[str, Any]]] = {
            "right": (right, {}),
            "noise x 0.8": (louder, {}),
            "biased sampler": (nearer, {}),
            "reused stream": (right, {"round_stream": _same_stream}),
            "n instead of honest": (right, {"senders": senders - 1, "claimed_senders": senders}),
        }
        for case, (claim, changes) in cases.items():
            honest, known = changes.pop("claimed_senders", senders), changes.pop("senders", senders)
            system = attacks.AuditedSystem(right, known, **changes)
            announced = attacks.PrivacyClaim(claim, 64, honest)
            results = [
                attacks.audit_mechanism(system, announced, stream(), draws=options.draws) for _ in range(options.runs)
            ]
            rows.append(_audit_row(f"mechanism, {case}", epsilon, results[0].epsilon_claimed, results))
        rows.append(canary_clients(epsilon, canaries, options.runs))
    return {"rows": rows}


def canary_clients(epsilon: float, count: int, runs: int) -> dict[str, Any]:
    """Run `private_sum` under encryption with every client a canary."""
    size = 4 * count
    mechanism = embedding(epsilon, count, size, 0.5, 1)
    aggregator = fp.aggregator("round", count_bound=mechanism.count_bound(count, size), senders=count, size=size)
    orders = accounting.integer_orders(512)
    claimed = accounting.epsilon(orders, mechanism.rdp(orders, count, size), DELTA)
    guesses = attacks.choose_guesses(count, 1 / np.sqrt(mechanism.variance(count)), DELTA)
    updates, results = attacks.canary_updates(mechanism, count, size), []
    for seed in range(runs):
        found = attacks.run_with_canary_clients(mechanism, aggregator, updates, attacks.coins(count, seed), stream())
        results.append(
            attacks.one_run_audit(
                found.white_box,
                found.included,
                epsilon_claimed=claimed,
                delta=DELTA,
                guesses=guesses,
                attack="white box",
                needs="",
            )
        )
    return _audit_row(f"{count} canary clients", epsilon, claimed, results)


def _audit_row(case: str, epsilon: float, claimed: float, results: list[Any]) -> dict[str, Any]:
    bounds = [result.epsilon_lower for result in results]
    row = {
        "case": case,
        "epsilon": epsilon,
        "claimed": claimed,
        "runs": len(results),
        "accused": sum(result.violated for result in results),
        "lower_least": min(bounds),
        "lower_median": float(np.median(bounds)),
        "lower_most": max(bounds),
    }
    say("audit", **row)
    return row


# Figures --------------------------------------------------------------------------------------------------------------


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw AUC and true-positive rate against accuracy, one line per data set, and the SSIM of the four views."""
    figure = Figure(figsize=(WIDTH * 1.25, 8.2), dpi=DPI, layout="constrained", facecolor="white")
    rows = result.get("tradeoff", {}).get("rows", [])
    names = [name for name in (*TABLES, *PICTURES) if any(row["dataset"] == name for row in rows)]
    panels = (("auc", "LiRA: AUC", 0.5), ("tpr_at_1_percent", "LiRA: members found at 1 % false positives", 0.01))
    for at, (score, text, chance) in enumerate(panels):
        axes = figure.add_subplot(2, 2, at + 1)
        clean(axes)
        axes.axhline(chance, color=PLAIN, linewidth=1.2, linestyle="--")
        for name, colour in zip(names, (PRIVATE, PUBLISHED, "#007A5A", "#CC79A7"), strict=False):
            own = [row for row in rows if row["dataset"] == name]
            x = [row["accuracy"] for row in own]
            value, low, high = ([row["lira"][score][key] for row in own] for key in ("value", "low", "high"))
            axes.vlines(x, low, high, color=colour, linewidth=1.2, alpha=0.6)
            axes.plot(x[:-1], value[:-1], "o-", color=colour, label=name)
            axes.plot(x[-1:], value[-1:], "*", color=colour, markersize=13)
            for row, across, up in zip(own, x, value, strict=True):
                label = "no privacy" if row["epsilon"] is None else f"{row['epsilon']:g}"
                axes.annotate(label, (across, up), (3, 5), textcoords="offset points", fontsize=8.5, color=colour)
        axes.set_xlabel("accuracy of the attacked models (half of the records)")
        title(axes, text)
        if names and at == 1:  # where no point is
            axes.legend(frameon=False, fontsize=9.5, loc="upper left")
    found = result.get("inversion", {}).get("rows", [])
    for at, (key, chance_key, text, kinds) in enumerate(
        (
            ("ssim", "chance_ssim", "SSIM (1: perfect; black: random images)", PICTURES),
            ("error", "chance_error", "Error (0: perfect; black: random records)", TABLES),
        )
    ):
        axes = figure.add_subplot(2, 2, at + 3)
        clean(axes)
        own = [row for row in found if row["dataset"] in kinds]
        labels, place = [], 0
        for name in dict.fromkeys(row["dataset"] for row in own):
            for row in (row for row in own if row["dataset"] == name):
                axes.bar(place, row[key], 0.7, color=COLOURS[row["view"]])
                axes.hlines(row[chance_key], place - 0.42, place + 0.42, color="black", linewidth=1.8)
                where = "" if row["epsilon"] is None else f", ε {row['epsilon']:g}"
                labels.append((place, f"{name}: {leakage.VIEWS[row['view']]}{where}"))
                place += 1
            place += 0.6
        axes.set_xticks([p for p, _ in labels], [text for _, text in labels], rotation=40, ha="right", fontsize=8.5)
        title(axes, text)
    FigureCanvasAgg(figure).print_png(path)


def draw_pictures(pictures: dict[str, np.ndarray], folder: Path) -> None:
    """Draw originals next to the reconstructions from each view, one figure per image data set."""
    for name in dict.fromkeys(key.split("/")[0] for key in pictures):
        own = {key.split("/")[1]: value for key, value in pictures.items() if key.startswith(f"{name}/")}
        FigureCanvasAgg(leakage.pictures_figure(own)).print_png(folder / f"leakage_pictures_{name}.png")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="tradeoff, inversion, audit; default all")
    parser.add_argument("--data", type=Path, help="pneumoniamnist.npz")
    parser.add_argument("--datasets", nargs="+", default=[*TABLES, *PICTURES])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument("--inversion-epsilons", type=float, nargs="+", default=[1.0, 8.0])
    parser.add_argument("--shadows", type=int, default=64)
    parser.add_argument("--picture-shadows", type=int, default=32)
    parser.add_argument(
        "--pictures", type=int, default=2000, help="training pictures of the trade-off and the reconstructions"
    )
    parser.add_argument("--picture-model", default="scattering", choices=["scattering", "cnn"], help="of the trade-off")
    parser.add_argument("--rounds", type=int, default=100, help="rounds on pictures")
    parser.add_argument("--table-steps", type=int, default=2000, help="steps of the overfitted models of tables")
    parser.add_argument("--picture-steps", type=int, default=300, help="steps of the overfitted models of pictures")
    parser.add_argument("--targets", type=int, default=32)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--canaries", type=int, default=128)
    parser.add_argument("--toy", action="store_true", help="seconds: proves that everything runs, measures nothing")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--machine", default=machine(), help="how to call this machine in the results")
    parser.add_argument("--draw", action="store_true", help="only draw leakage.png again from results/leakage.json")
    return parser


TOY = {
    "datasets": ["heart"], "epsilons": [8.0], "inversion_epsilons": [8.0], "shadows": 6, "rounds": 2, "table_steps": 20, "targets": 4,
    "steps": 5, "draws": 4000, "runs": 1, "canaries": 8,
}  # fmt: skip


def stored(path: Path) -> dict[str, Any]:
    """The results already in the file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def main(given: list[str] | None = None) -> None:
    """Measure the requested parts and draw."""
    options = arguments().parse_args(given)
    parts = {"tradeoff": tradeoff, "inversion": inversion, "audit": audit}
    if unknown := set(options.parts) - set(parts):
        raise SystemExit(f"{', '.join(sorted(unknown))}: parts are {', '.join(parts)}.")
    if options.toy:
        for name, value in TOY.items():
            setattr(options, name, value)
    warnings.simplefilter("ignore")
    path = options.out / "results" / "leakage.json"
    figures = options.out / "figures"
    for folder in (path.parent, figures):
        folder.mkdir(parents=True, exist_ok=True)
    for name in [] if options.draw else options.parts or list(parts):
        found = parts[name](options)
        draw_pictures(found.pop("pictures", {}), figures)
        measured = {
            "machine": options.machine,
            "date": datetime.now(UTC).date().isoformat(),
        }
        found["rows"] = [attacks.to_json(row) | measured for row in found["rows"]]
        before = stored(path).get(name, {}).get("rows", [])
        new = {row.get("dataset") for row in found["rows"]}
        found["rows"] += [row for row in before if row.get("dataset") not in new]
        result = stored(path) | {name: found}
        write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())
    draw(stored(path), figures / "leakage.png")


if __name__ == "__main__":
    main()
