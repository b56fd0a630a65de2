"""Malicious insiders: what each attack does to a model, and what each defence makes of it.

    python experiments/insiders.py --tasks thyroid w2 [--eicu eicu_demo_apache.csv.gz] [--attacks ...] [--minutes 20] [--toy]

Six tasks: thyroid records at five sites and synthetic chest radiographs (the record or patient is protected, one site is corrupt); images of 50 clients a
round under a clip far above and one near the lengths of honest updates, tables of 2,000 clients a round, and mortality in 186 hospitals (the client is
protected; a twentieth, a tenth or a fifth are corrupt). Training is private and encrypted, and every opened number is on a ledger, except for the robust
rules: those read every update in the clear, without privacy, and are there for comparison. The epsilon of sites in the rows is by Renyi curves; the noise was
calibrated by remaining variance, for epsilon 3.

Accuracy is that on test records; an attack's success is the accuracy it costs, or for a backdoor the share of triggered test records of other labels that
the model decides as the attacker wants, beside the share of them that the model of an honest training decides so. A round that is refused (a count beyond
the bound) ends the training, as the insider would come again. Kept out: clients that a norm proof refused, updates that a rule left out, or rollbacks of a
vote. In the first round of every run the released sum is compared with that of an honest round under the same noise: insiders that moved it by
more than the bound that is printed for them end the campaign. One run each: differences of a few points are noise.

The most telling runs come first, and results are written after each: a campaign that was interrupted, or that --minutes ended, goes on where it stood.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from common import kept, load, parser, save  # first: it sets where compiled programs are kept
from insider_campaign import cells, client_tasks, figure, site_tasks
from insider_campaign.defences import DEFENCES
from insider_campaign.task import Task

from fedjax_poisson.attacks.insiders import ATTACKS
from fedjax_poisson.federated.vote_plan import planned

TASKS: dict[str, Callable[[argparse.Namespace], Task | None]] = {
    "w2": lambda arguments: client_tasks.w2(arguments.toy),
    "w2_near": lambda arguments: client_tasks.w2_near(arguments.toy),
    "w3": lambda arguments: client_tasks.w3(arguments.toy),
    "thyroid": lambda arguments: site_tasks.thyroid(arguments.toy),
    "eicu": lambda arguments: client_tasks.eicu(arguments.toy, arguments.eicu),
    "xray": lambda arguments: site_tasks.xray(arguments.toy),
}


def run(key: str, arguments: argparse.Namespace) -> None:
    """One task's campaign, or what is left of it."""
    task = TASKS[key](arguments)
    if task is None:
        return
    vote = planned(task.plan, delta=task.delta)
    print(f"{task.name}: {task.bound}\n{vote}", flush=True)
    wanted = cells.chosen(task, arguments.attacks, arguments.defences, arguments.shares, arguments.toy)

    def write(rows: list[dict[str, Any]]) -> None:
        facts = {
            "bound": task.bound,
            "norm_bound": task.clients.norm_bound if task.clients else None,
            "vote": vote,
            "delta": task.delta,
            "left_out": cells.left_out(wanted, rows),
            "rows": rows,
        }
        save(f"insiders_{key}", arguments, facts)

    ends = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    cells.campaign(task, wanted, kept(arguments, f"insiders_{key}"), write, ends)


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["thyroid"])
    options.add_argument("--attacks", nargs="+", choices=list(ATTACKS), help="default: all that fit the task")
    options.add_argument("--defences", nargs="+", choices=list(DEFENCES), help="default: all that fit the task")
    options.add_argument("--shares", nargs="+", type=float, help="of clients that are corrupt; default: all planned")
    options.add_argument("--minutes", type=float, help="begin no run of a task after so long; default: make all")
    options.add_argument("--eicu", help="one CSV that joins the demo's APACHE tables, or its folder")
    arguments = options.parse_args(argv)
    if not arguments.draw:
        for key in arguments.tasks:
            run(key, arguments)
    found = [key for key in TASKS if (arguments.out / "results" / f"insiders_{key}.json").exists()]
    rows = [row for key in found for row in load(f"insiders_{key}", arguments)["rows"]]
    if rows:
        (arguments.out / "figures").mkdir(parents=True, exist_ok=True)
        figure.draw(arguments.out / "figures" / "insiders.png", rows)


if __name__ == "__main__":
    main()
