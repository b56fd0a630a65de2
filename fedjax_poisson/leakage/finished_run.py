"""A finished run, read back with everything its attackers need: setting, standardised records, final parameters, and the ledger's claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from fedjax_poisson import accounting, data
from fedjax_poisson.data.tables.open_table import encode_sites
from fedjax_poisson.data.tables.schema import released_from_json
from fedjax_poisson.federated import Records, checkpoints, standardize
from fedjax_poisson.runs.build import RunSetup, complete, prepare
from fedjax_poisson.runs.config import read_config
from fedjax_poisson.runs.run_folder import RunFolder, check_ledger, read_run
from fedjax_poisson.runs.run_ledger import CHECKPOINT, COLUMNS, CONFIG, foreign_parts
from fedjax_poisson.runs.training import blank_training, learned_records

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps of it are done, and how many there are."""


class Sizes(NamedTuple):
    """How much is spent on each attack; the smaller ones are for a first look and for tests.

    Attributes:
      shadows: shadow models, even and at least 6.
      draws: draws of each world in the direct audit.
      canaries: the auditor's records in the one-run audit.
      canary_rounds: most rounds of it.
      targets: records to reconstruct.
      steps: optimiser steps of gradient inversion.
      site_rounds: rounds of sums in the site attribution, half of them with the answer.
    """

    shadows: int
    draws: int
    canaries: int
    canary_rounds: int
    targets: int
    steps: int
    site_rounds: int


FULL = Sizes(64, 400_000, 128, 1000, 32, 600, 40)
FULL_PICTURES = Sizes(16, 400_000, 64, 20, 32, 600, 16)
QUICK = Sizes(8, 40_000, 32, 3, 8, 60, 8)


class Unattackable(ValueError):
    """This run cannot be attacked in this way; the message says why."""


class Attacked(NamedTuple):
    """A finished run, ready to be attacked.

    Attributes:
      folder: its folder.
      setting: built again from its config.toml.
      cohort: its training records, standardised as in the run, as its trained part sees them (`build.learned_records`).
      held_out: its test records in the same form.
      pictured: the training records before fixed features are taken of them: what a reconstruction aims at.
      scaler: the standardisation that it released.
      params: its final parameters.
      rounds: training releases that it made.
      portions: of the noise, that each of them used; None for all of it.
      epsilon: what its ledger reads.
      claim: the last training release on the ledger; None where the ledger cannot be trusted.
      notes: facts about the run that a reader of the results must know.
    """

    folder: RunFolder
    setting: RunSetup
    cohort: Records
    held_out: Records
    pictured: Records
    scaler: standardize.Scaler
    params: Any
    rounds: int
    portions: tuple[int, ...] | None
    epsilon: float
    claim: accounting.Release | None
    notes: tuple[str, ...]


def load(folder: str | Path, sites: data.Sites | None = None) -> Attacked:
    """Read a run folder and build its setting again.

    Args:
      folder: run folder.
      sites: the data that the run was given instead of what its settings name.

    Raises:
      FileNotFoundError: the run has not finished, or its data file has moved.
      ValueError: a part of the folder is missing, was written for another setting, or the data have changed since.
    """
    run = read_run(folder)
    saved = run.path / CHECKPOINT
    for path in (run.path / CONFIG, saved):
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: an attack needs the run's settings and its final state; copy the whole run folder."
            )
    config = read_config(run.path / CONFIG)
    prepared = prepare(config, sites)
    records = prepared.sites
    if records is None:  # encoded as the run did, by what it released
        assert prepared.opened is not None
        facts = json.loads((run.path / COLUMNS).read_text(encoding="utf-8"))
        records = encode_sites(prepared.opened, released_from_json(facts["released"]))
    setting = complete(prepared, records)
    by_site = len(setting.sites.site_names) if config.standardize == "site" else None
    regression = setting.target.task == "regression"
    blank = standardize.blank_scaler(setting.sites.features.shape[-1], by_site, regression=regression)
    algorithm = blank_training(setting).algorithm
    (scaler, state), _ = checkpoints.load_tree(saved, (blank, algorithm.init(jax.random.key(0))))
    if (rounds := int(state.round)) < 1:
        raise ValueError(f"{run.path} released no training sum: there is nothing to attack.")
    if run.summary.get("dimension") not in (None, setting.dimension):
        raise ValueError(
            f"{run.path} trained {run.summary['dimension']} parameters, its settings now give {setting.dimension}."
        )
    notes, ledger = [], check_ledger(run)
    if foreign := foreign_parts(config):
        parts = " and ".join(f"{what} {name}" for what, name in foreign)
        notes.append(
            f"The claim rests on {parts}, from outside the package: it is assumed, and a failed attack does not support it."
        )
    if not ledger.verified:
        notes.append(f"The ledger does not support the claim ({ledger.problem}); audits use the settings' own claim.")
    if config.seed is not None:
        notes.append("The run was seeded: whoever knows the seed removes the noise, which no attack here tries.")
    if config.aggregator == "plain":
        notes.append("Nothing was encrypted: the server saw each site's noisy counts (view “embedded, not encrypted”).")
    if run.summary.get("lost_releases"):
        notes.append("The run was interrupted; a release that was charged and lost gives an attacker nothing here.")
    trained = [row for row in ledger.rows if row.purpose == "train"] if ledger.verified else []
    return Attacked(
        folder=run,
        setting=setting,
        cohort=learned_records(setting, scaler, setting.train),
        held_out=learned_records(setting, scaler, setting.test),
        pictured=setting.train._replace(features=standardize.standardize(scaler, setting.train.features)),
        scaler=scaler,
        params=algorithm.parameters(state),
        rounds=rounds,
        portions=_portions(run, setting, rounds),
        epsilon=setting.plan.epsilon if ledger.epsilon is None else ledger.epsilon,
        claim=trained[-1] if trained else None,
        notes=tuple(notes),
    )


def _portions(run: RunFolder, setting: RunSetup, rounds: int) -> tuple[int, ...] | None:
    """What each round used, by its line: a controller may have used less than was planned."""
    if setting.plan.portions is None:
        return None
    used = {row["round"]: row["portions"] for row in run.rounds if row.get("purpose") == "train" and "portions" in row}
    if missing := [number for number in range(1, rounds + 1) if number not in used]:
        raise ValueError(
            f"{run.path / 'rounds.jsonl'} does not say how much noise round {missing[0]} used, so its training cannot be repeated; copy the whole run folder."
        )
    return tuple(int(used[number]) for number in range(1, rounds + 1))


def box(run: Attacked) -> tuple[float, float]:
    """Smallest and largest standardised value of a feature: -1 and 1 for images, the cut of scores for tables."""
    return (-1.0, 1.0) if run.setting.sites.features.ndim == 4 else (-3.0, 3.0)
