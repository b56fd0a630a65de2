"""`report.json`: the content of report.html for programs, with its numbers at full precision.

The object has these keys; `VERSION` grows when one is renamed, removed or changes its meaning, not when one is added.

* `format`: "fedjax-poisson-report", and `version`: of this description, a whole number.
* `run`: folder, dataset, date, machine, versions, finished (always true).
* `learned`: model, task, classes, dimension, rounds, senders, training_records, test_records.
* `scores`: every score of summary.json by its name (also those without privacy), `intervals`, `curves`, `subgroups`, `reliability`; null where not recorded.
  `scores.evaluation` and `scores.public_data` say whose records they are.
* `left`: messages by purpose (messages, largest_bytes), bytes_total, encrypted.
* `privacy`: verdict ("not private", "conditional" or "private": of the folder as it is now), private,
  reasons_against, conditions, unit, adjacency, epsilon, delta, honest_senders, senders, epsilon_one_honest.
* `trade_off`: false_alarms and detection (arrays of one length), source; null where unknown.
* `grounds`: list of {statement, status, basis}; status is "proved", "checked", "assumed" or "broken".
* `ledger`: verified, problem, epsilon, delta, and releases: list of {id, label, time, senders, honest_senders, epsilon_so_far, hash}.
* `costs`: seconds by phase, bytes of one message encrypted and plain.
* `data`: source, licence, citation, notes.
* `attacks`: the content of leakage.json, or null.
* `model_card`: Markdown.
* `page`: the words of report.html, block by block (`page_content`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fedjax_poisson.reports.grounds import grounds
from fedjax_poisson.reports.guarantees import conditions, encrypted, reasons_against, verdict
from fedjax_poisson.reports.leakage import read_leakage
from fedjax_poisson.reports.page_content import page_content
from fedjax_poisson.reports.recorded_values import phase_seconds
from fedjax_poisson.reports.trade_off import TradeOff
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, held_out_records, number, training_records

__all__ = ["FORMAT", "VERSION", "report_json"]

FORMAT, VERSION = "fedjax-poisson-report", 1

_SCORES = (
    *(
        "mean_client_accuracy",
        "pooled_accuracy",
        "pooled_accuracy_error",
        "auc",
        "balanced_accuracy",
        "brier",
        "calibration_error",
    ),
    *("accuracy_by_site", "auc_by_site", "calibration_error_by_site", "auc_by_label"),
    *("rmse", "mean_absolute_error", "r2", "rmse_by_site", "r2_by_site", "label_bounds", "border_only"),
    *("intervals", "curves", "subgroups", "reliability", "evaluation", "public_data"),
)


def report_json(run: RunFolder, ledger: LedgerCheck, curve: TradeOff | None, card: str, page: str) -> dict[str, Any]:
    """The object (module docstring); JSON values, NaN and infinity as null.

    Args:
      run: the run.
      ledger: its ledger.
      curve: its trade-off curve.
      card: its model card, Markdown.
      page: report.html.
    """
    summary = run.summary
    found = {
        "format": FORMAT,
        "version": VERSION,
        "run": {"folder": run.path.resolve().name, **_taken(summary, ("dataset", "date", "machine", "versions")), "finished": True},
        "learned": {
            **_taken(summary, ("model", "task", "classes", "record_shape", "dimension", "rounds", "rounds_planned", "senders")),
            "training_records": training_records(run) or None,
            "test_records": held_out_records(run) or None,
            "sites": summary.get("sites"),
        },
        "scores": {
            **_taken(summary, _SCORES),
            **{name: value for name, value in summary.items() if name.startswith("nonprivate_")},
        },
        "left": {
            "messages": _messages(run),
            "bytes_total": summary.get("bytes_up_total_per_client"),
            "encrypted": encrypted(run),
            "lost_releases": summary.get("lost_releases"),
        },
        "privacy": {
            "verdict": verdict(run),
            "private": verdict(run) == "private",
            **_taken(summary, ("unit", "adjacency", "epsilon", "epsilon_spent", "delta", "honest_senders", "senders")),
            **_taken(summary, ("noise_senders", "epsilon_one_honest", "sampling_rate", "mechanism", "earlier_runs", "shared_ledger", "ended")),
            "reasons_against": reasons_against(run),
            "conditions": [{"fact": fact, "remedy": remedy} for fact, remedy in conditions(run)],
            "warnings": summary.get("warnings"),
        },
        "trade_off": None if curve is None else {
            "false_alarms": curve.false_alarms.tolist(), "detection": curve.detection.tolist(), "source": curve.source
        },
        "grounds": [each._asdict() for each in grounds(run, ledger)],
        "ledger": {
            **_taken(ledger._asdict(), ("verified", "problem", "epsilon", "delta")),
            "releases": [
                {**_taken(row._asdict(), ("id", "label", "time", "senders", "honest_senders", "hash")), "epsilon_so_far": read}
                for row, read in zip(ledger.rows, ledger.readings, strict=True)
            ],
            "by_purpose": summary.get("releases"),
        },
        "costs": {
            "seconds": dict(phase_seconds(run)),
            **_taken(summary, ("total_seconds", "bytes_up_per_client_per_round", "plaintext_bytes_per_client_per_round")),
            **_taken(summary, ("aggregator", "aggregator_info")),
        },
        "data": summary.get("data"),
        "attacks": read_leakage(run.path),
        "model_card": card,
        "page": page_content(page),
    }  # fmt: skip
    return _json_values(found)


def _taken(found: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: found.get(name) for name in names}


def _messages(run: RunFolder) -> list[dict[str, Any]]:
    found = []
    for purpose in dict.fromkeys(str(row.get("purpose")) for row in run.rounds):
        own = [row for row in run.rounds if str(row.get("purpose")) == purpose]
        sizes = [size for row in own if (size := number(row.get("bytes_up_per_client"))) is not None]
        found.append({"purpose": purpose, "messages": len(own), "largest_bytes": max(sizes, default=None)})
    return found


def _json_values(value: Any) -> Any:
    """Values that every reader of JSON takes: no NaN, no infinity, no tuple."""
    if isinstance(value, dict):
        return {str(key): _json_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_values(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
