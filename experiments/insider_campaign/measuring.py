"""What is measured of one run: how well the model decides, how often a backdoor works, and by how much insiders moved the first round's sum."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fedjax_poisson import randomness
from fedjax_poisson.attacks.insiders import ATTACKS, attack
from fedjax_poisson.federated import evaluation
from insider_campaign.defences import ABSENT, DEFENCES, Outcome
from insider_campaign.task import Corrupt, Task

NONE = "nobody is corrupt"
_FLOATS = 1e-3  # relative: parameters are float32


class Cell(NamedTuple):
    """One run: an attack (or `NONE`), a defence, and the share of clients that are corrupt."""

    attack: str
    defence: str
    share: float


class BoundBroken(AssertionError):
    """Insiders moved a released sum by more than the bound that is printed for it."""


def measure(
    task: Task, cell: Cell, root: randomness.Stream, honest: np.ndarray | None, baseline: dict[str, float] | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """One training.

    Args:
      task: what is trained.
      cell: the run.
      root: the stream, of every run of a task: the noise of honest clients in the first round is then the same.
      honest: float64 `[D]`, the sum released in the first round where nobody is corrupt; None if that is not known.
      baseline: by backdoor, how many triggered records the model of an honest training of the same kind decides as the attacker wants.

    Returns:
      The run's row, and the sum released in its first round.

    Raises:
      BoundBroken: a released sum moved by more than its bound.
    """
    defence, corrupt = DEFENCES[cell.defence], task.corrupt(cell.share)
    facts: dict[str, Any] = {"task": task.name, "unit": task.unit, **cell._asdict(), "defence_words": defence.words}
    facts |= {"private": defence.private, "senders": corrupt.setting.senders, "planned_rounds": task.rounds}
    facts |= {"corrupt": 0 if cell.attack == NONE else corrupt.setting.corrupt}
    began, name = time.perf_counter(), None if cell.attack == NONE else cell.attack
    if name not in (None, ABSENT):
        try:
            attack(name, corrupt.norm_setting if defence.norm else corrupt.setting)
        except ValueError as error:
            return facts | {"not_applicable": str(error)}, None
    out = defence.run(task, corrupt, name, root)
    x, y = task.test
    logits = _logits(task, out.params, x)
    decided = evaluation.decide(logits)
    row = facts | {
        "accuracy": float(np.mean(decided == y)),
        "balanced_accuracy": evaluation.balanced_accuracy(y, decided),
        "auc": evaluation.auc(y, logits if logits.ndim == 1 else evaluation.probabilities(logits)),
        "attack_success": None if name in (None, ABSENT) or not ATTACKS[name].targeted else triggered(task, corrupt, name, out.params),
        "attack_success_honest": None if name is None or baseline is None else baseline.get(name),
        "rounds": out.rounds,
        "refused": out.refused,
        "excluded_right": out.excluded_right,
        "excluded_wrong": out.excluded_wrong,
        "detection_auc": out.detection_auc,
        "epsilon": out.epsilon if out.epsilon is not None and math.isfinite(out.epsilon) else None,
        "bytes_up_per_sender": out.bytes_up,
        **_moved(task, corrupt, cell, out, honest),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    if name is None:
        targeted = [each for each in task.attacks if ATTACKS[each].targeted]
        row["baseline"] = {each: triggered(task, corrupt, each, out.params) for each in targeted}
    return row, out.total


def triggered(task: Task, corrupt: Corrupt, name: str, params: Any) -> float:
    """Share of triggered test records of other labels that a model decides as the attacker wants."""
    trigger = ATTACKS[name].trigger
    assert trigger is not None
    x, y = task.test
    marked = np.asarray(trigger(corrupt.setting, jnp.asarray(x[y != corrupt.setting.goal])))
    return float(np.mean(evaluation.decide(_logits(task, params, marked)) == corrupt.setting.goal))


def _moved(task: Task, corrupt: Corrupt, cell: Cell, out: Outcome, honest: np.ndarray | None) -> dict[str, Any]:
    """By how much the insiders moved the first round's sum, in clips, and the most that they could; raises `BoundBroken`."""
    if cell.attack in (NONE, ABSENT) or out.total is None:
        return {"moved_clips": None, "bound_clips": None}
    bounds, count = task.bounds, corrupt.setting.corrupt
    if task.clients is not None:  # those of the first round's cohort
        count = int(np.isin(np.asarray(task.cohort(1)), corrupt.who).sum())
    length = float(np.linalg.norm(out.total))
    if not DEFENCES[cell.defence].norm and length > bounds.light * (1 + _FLOATS):
        raise BoundBroken(f"{cell}: the released sum weighs {length:g}, light rounds open at most {bounds.light:g}.")
    if honest is None:
        return {"moved_clips": None, "bound_clips": None}
    moved = float(np.linalg.norm(out.total - honest))
    if DEFENCES[cell.defence].norm:
        most = bounds.of_norm(count)
    elif ATTACKS[cell.attack].make(corrupt.setting).act is None:
        most = bounds.of_software(count)
    else:
        most = bounds.of_light(float(np.linalg.norm(honest)))
    if moved > most * (1 + _FLOATS):
        raise BoundBroken(f"{cell}: {count} insiders moved the first sum by {moved:g}, the bound is {most:g}.")
    return {"moved_clips": moved / bounds.clip, "bound_clips": most / bounds.clip}


def _logits(task: Task, params: Any, x: np.ndarray) -> np.ndarray:
    parts = [np.asarray(task.model.apply(params, jnp.asarray(part))) for part in np.array_split(x, -(-len(x) // 500))]
    return np.nan_to_num(np.concatenate(parts))


def in_words(row: dict[str, Any]) -> str:
    """One line for the terminal."""
    where = f"{row['task']}  {row['attack']:24s} {100 * row['share']:3.0f} %  {row['defence']:16s}"
    if "not_applicable" in row:
        return f"{where} not applicable: {row['not_applicable']}"
    found = f"accuracy {row['accuracy']:.3f} AUC {row['auc'] or float('nan'):.3f}"
    if row["attack_success"] is not None:
        before = row["attack_success_honest"]
        found += f"  backdoor {row['attack_success']:.2f} (honest model {'unknown' if before is None else format(before, '.2f')})"
    if row["refused"] is not None:
        found += f"  stopped after {row['rounds']} rounds"
    if row["excluded_right"] is not None:
        found += f"  kept out {100 * row['excluded_right']:.0f} %"
    if row["moved_clips"] is not None:
        found += f"  moved {row['moved_clips']:.3g} of at most {row['bound_clips']:.3g} clips"
    return f"{where} {found}  {row['seconds']:.0f} s"
