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
from fedjax_poisson.extensions import find, is_path
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
from fedjax_poisson.leakage.registry import ATTACKS, RunAttack, check_fits


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
      which: one attack, module:name of a `RunAttack` of your own, or all.
      quick: small sizes: minutes become seconds, and intervals wide.
      sizes: custom sizes; None chooses by `quick` and the kind of records.
      report: progress.

    Returns:
      What leakage.json holds: `attacks` by name, each with its numbers, or with `skipped`, the reason why there are none.

    Raises:
      FileNotFoundError: as `load`.
      ValueError: as `load`, or there is no such attack.
    """
    if which != "all" and not is_path(which) and which not in ATTACKS:
        raise ValueError(
            f"there is no attack {which!r}; give one of {', '.join(ATTACKS)}, all, or module:name of a `RunAttack`."
        )
    wanted = ATTACKS if which == "all" else {which: find(which, ATTACKS, "attack", RunAttack).entry}
    run, told = load(folder), report or (lambda what, done, total: None)
    pictures = run.setting.sites.features.ndim == 4
    used = sizes or (QUICK if quick else FULL_PICTURES if pictures else FULL)
    path = run.folder.path / "leakage.json"
    found: dict[str, Any] = _earlier(path, run)
    for name, attack in wanted.items():
        told(name, 0, 1)
        try:
            check_fits(name, attack, run)
            own = attacks.to_json(attack.run(run, used, told))
            said = [list(each) for each in attack.words(own)]
            found[name] = {"quick": quick, **own, "question": attack.question, "said": said}
        except Unattackable as reason:
            found[name] = {"skipped": str(reason), "question": attack.question}
        told(name, 1, 1)
    result = {
        "dataset": run.setting.sites.provenance.name,
        "unit": run.setting.sites.unit,
        "epsilon": run.epsilon,
        "delta": run.setting.config.delta,
        "ledger_head": run.folder.summary.get("ledger_head"),
        "notes": list(run.notes),
        "attacks": {name: found[name] for name in (*ATTACKS, *(set(found) - set(ATTACKS))) if name in found},
        "machine": f"{platform.system()} {platform.machine()}, {jax.default_backend()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    checkpoints.write_json(path, result)
    return result


def _earlier(path: Path, run: Attacked) -> dict[str, Any]:
    """Results that stand in the file, if they are of this very run."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        own = stored["ledger_head"] == run.folder.summary.get("ledger_head")
        return dict(stored["attacks"]) if own else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
