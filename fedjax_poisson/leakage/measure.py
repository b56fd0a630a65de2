"""Attacks on a finished run: what the methods of `attacks` extract from its model, mechanism and pipeline, with the settings of the run.

The run folder is read, its setting is rebuilt and its final state is loaded; nothing in the folder changes except leakage.json. Four of the attacks
train or sum again on the run's records, with fresh noise that no ledger charges: their results are only for the holders of the records.

A failed attack is not a proof of privacy: every result states what the attacker needs and what a stronger one would try.
"""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from fedjax_poisson import attacks
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.leakage.finished_run import (
    FULL,
    FULL_PICTURES,
    QUICK,
    Attacked,
    OnProgress,
    Sizes,
    Unattackable,
    load,
)
from fedjax_poisson.leakage.registry import ATTACKS


def attack_run(
    folder: str | Path,
    which: str = "all",
    *,
    quick: bool = False,
    sizes: Sizes | None = None,
    report: OnProgress | None = None,
) -> dict[str, Any]:
    """Attack a run and write RUN/leakage.json; results of other attacks already in the file are kept.

    Args:
      folder: run folder.
      which: one attack, or all.
      quick: small sizes: minutes become seconds, and intervals wide.
      sizes: custom sizes; None chooses by `quick` and the kind of records.
      report: progress.

    Returns:
      What leakage.json holds: `attacks` by name, each with its numbers, or with `skipped`, the reason why there are none.

    Raises:
      FileNotFoundError: as `load`.
      ValueError: as `load`, or there is no such attack.
    """
    if which != "all" and which not in ATTACKS:
        raise ValueError(f"there is no attack {which!r}; give one of {', '.join(ATTACKS)}, or all.")
    run, told = load(folder), report or (lambda what, done, total: None)
    pictures = run.setting.sites.features.ndim == 4
    used = sizes or (QUICK if quick else FULL_PICTURES if pictures else FULL)
    path = run.folder.path / "leakage.json"
    found: dict[str, Any] = _earlier(path, run)
    for name in ATTACKS if which == "all" else (which,):
        told(name, 0, 1)
        try:
            _check_label(run, name)
            found[name] = {"quick": quick, **attacks.to_json(ATTACKS[name].run(run, used, told))}
        except Unattackable as reason:
            found[name] = {"skipped": str(reason)}
        told(name, 1, 1)
    result = {
        "dataset": run.setting.sites.provenance.name,
        "unit": run.setting.sites.unit,
        "epsilon": run.epsilon,
        "delta": run.setting.config.delta,
        "ledger_head": run.folder.summary.get("ledger_head"),
        "notes": list(run.notes),
        "attacks": {name: found[name] for name in ATTACKS if name in found},
        "machine": f"{platform.system()} {platform.machine()}, {jax.default_backend()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    checkpoints.write_json(path, result)
    return result


def _check_label(run: Attacked, name: str) -> None:
    """Refuse an attack that scores the probability of one class where there is none."""
    target = run.setting.target
    if target.task in ("multilabel", "regression") and not ATTACKS[name].any_label:
        fitting = ", ".join(each for each, attack in ATTACKS.items() if attack.any_label)
        raise Unattackable(
            f"This attack scores the probability of a record's class, and the run learns {target.words}; these do not depend on the label: {fitting}."
        )


def _earlier(path: Path, run: Attacked) -> dict[str, Any]:
    """Results that stand in the file, if they are of this very run."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        own = stored["ledger_head"] == run.folder.summary.get("ledger_head")
        return dict(stored["attacks"]) if own else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
