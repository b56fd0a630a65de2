"""A small, realistic run folder, written without training anything: what the report and the figures are tested on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.federated.curves import operating_points
from fedjax_poisson.federated.intervals import wilson_interval

ORDERS = accounting.integer_orders(64)
SITES = {"Cleveland": (199, 104), "Hungary": (172, 89), "Switzerland": (30, 16), "Long Beach": (85, 45)}
FINAL = {"Cleveland": 0.8269, "Hungary": 0.8427, "Switzerland": 0.8125, "Long Beach": 0.7778}
PLAIN = {"Cleveland": 0.8365, "Hungary": 0.8539, "Switzerland": 0.8750, "Long Beach": 0.7556}


def write_example_run(folder: Path, *, rounds: int = 20, ledger: bool = True, **changes: Any) -> dict[str, Any]:
    """Write config.toml, rounds.jsonl, ledger.sqlite and summary.json.

    Args:
      folder: where to; made if absent.
      rounds: training releases.
      ledger: whether to write the ledger.
      **changes: entries of the summary to replace; `...` removes one.

    Returns:
      The summary as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unit_cost = accounting.gaussian_rdp(ORDERS, noise_multiplier=1.0)
    standardise, train = 0.004 * unit_cost, 0.055 / rounds * unit_cost
    rng = np.random.default_rng(3)
    spent, rows, bytes_up = np.zeros_like(unit_cost), [], 0
    for number in range(rounds + 1):
        spent = spent + (train if number else standardise)
        upload = 66_700 if number else 133_400
        bytes_up += upload
        shape = 1 - math.exp(-number / 4)
        by_site = {
            name: round(0.5 + (value - 0.5) * shape + 0.012 * float(rng.normal()) * (1 - shape), 4)
            for name, value in FINAL.items()
        }
        if number == rounds:
            by_site = dict(FINAL)
        test = {
            "mean_client_accuracy": float(np.mean(list(by_site.values()))),
            "pooled_accuracy": 0.81,
            "auc": 0.88,
            "balanced_accuracy": 0.80,
            "accuracy_by_site": by_site,
        }
        rows.append(
            {
                "round": number,
                "purpose": "train" if number else "standardise",
                "epsilon_so_far": accounting.epsilon(ORDERS, spent, 1e-4),
                "seconds": 0.31,
                "train_seconds": 0.15,
                "embed_seconds": 0.08,
                "encrypt_seconds": 0.052 + 0.004 * float(rng.random()),
                "add_seconds": 0.0021,
                "open_seconds": 0.0042,
                "bytes_up_per_client": upload,
                "bytes_up_total": bytes_up,
                "exact": True,
                "test": test if number else None,
            }
        )
    (folder / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "config.toml").write_text(
        '# settings\ndataset = "heart"\nepsilon = 1.0\naggregator = "tenseal"\n', encoding="utf-8"
    )

    head = _write_ledger(folder, standardise, train, rounds) if ledger else None
    confidence = np.linspace(0.06, 0.95, 10)
    summary: dict[str, Any] = {
        "classes": ["no disease", "disease"],
        "task": "binary",
        "evaluation": "clear",
        "record_shape": [13],
        "model": "logistic",
        "standardize": "global",
        "border_only": None,
        "calibration_error": 0.041,
        "nonprivate_calibration_error": 0.037,
        "calibration_error_by_site": dict.fromkeys(FINAL, 0.06),
        "dataset": "heart",
        "unit": "record",
        "adjacency": "zero_out",
        "epsilon": rows[-1]["epsilon_so_far"],
        "delta": 1e-4,
        "epsilon_target": 1.0,
        "sampler_delta": 1.3e-14,
        "rounds": rounds,
        "lost_releases": 0,
        "mean_client_accuracy": float(np.mean(list(FINAL.values()))),
        "pooled_accuracy": 0.8189,
        "auc": 0.8812,
        "accuracy_by_site": dict(FINAL),
        "auc_by_site": {"Cleveland": 0.9012, "Hungary": 0.8933, "Switzerland": None, "Long Beach": 0.7024},
        "nonprivate_mean_client_accuracy": float(np.mean(list(PLAIN.values()))),
        "nonprivate_pooled_accuracy": 0.8267,
        "nonprivate_auc": 0.8893,
        "nonprivate_accuracy_by_site": dict(PLAIN),
        "bytes_up_per_client_per_round": 66_700,
        "bytes_up_total_per_client": bytes_up,
        "plaintext_bytes_per_client_per_round": 56,
        **{
            f"{phase}_seconds": sum(row[f"{phase}_seconds"] for row in rows)
            for phase in ("train", "embed", "encrypt", "add", "open")
        },
        "total_seconds": 14.2,
        "aggregator": "tenseal",
        "aggregator_info": {
            "backend": "tenseal",
            "mode": "public_key",
            "degree": 4096,
            "moduli_bits": "(40, 29, 40)",
            "security_bits": 128,
            "scale_bits": 29,
            "count_bound": 83_412,
            "senders": 4,
            "minimum_senders": 4,
            "key_holder": "one key holder apart from the server",
            "protects": "a server that holds no key sees no single site's message",
            "error_bound": 0.02,
        },
        "mechanism": {
            "train": {
                "name": "poisson_embedding",
                "parameters": {
                    "clip_norm": 1.0,
                    "coordinate_bound": 0.6,
                    "dark_count": 41_235.7,
                    "modulation": 0.02,
                    "total_bound": 76.8,
                },
                "status": "proved",
                "guarantee": "Exact supremum of the Renyi divergence over all neighbouring inputs.",
                "sampler_distance": 2.0**-62,
            },
            "standardise": {
                "name": "poisson_embedding",
                "parameters": {
                    "clip_norm": 3.0,
                    "coordinate_bound": 1.0,
                    "dark_count": 31_022.1,
                    "modulation": 0.02,
                    "total_bound": 256.0,
                },
                "status": "proved",
                "guarantee": "Exact supremum of the Renyi divergence over all neighbouring inputs.",
                "sampler_distance": 2.0**-62,
            },
        },
        "senders": 4,
        "honest_senders": 3,
        "sampling_rate": 0.5,
        "dimension": 14,
        "reproducible": False,
        "seed": None,
        "verdict": "private",
        "private": True,
        "privacy_note": "",
        "conditions": [],
        "public_data": True,
        "epsilon_one_honest": 1.8803,
        "rounds_planned": rounds,
        "earlier_runs": {"folders": [], "epsilon_together": None},
        "shared_ledger": None,
        "run": "5f" * 32,
        "releases": [
            {"purpose": "standardise", "count": 1, "epsilon_alone": rows[0]["epsilon_so_far"]},
            {"purpose": "train", "count": rounds, "epsilon_alone": accounting.epsilon(ORDERS, rounds * train, 1e-4)},
        ],
        "ledger_head": head,
        "ledger_verified": ledger,
        "warnings": [],
        "sites": [{"name": name, "train_records": fit, "test_records": held} for name, (fit, held) in SITES.items()],
        "data": {
            "source": "UCI Machine Learning Repository, Heart Disease, https://doi.org/10.24432/C52P4X",
            "licence": "CC BY 4.0",
            "citation": "Janosi, A., Steinbrunn, W., Pfisterer, M., & Detrano, R. (1989). Heart Disease [Dataset].",
            "notes": ["180 of 920 records with a missing value dropped", "chol = 0 means not measured"],
        },
        "reliability": {
            "bins": list(np.linspace(0, 1, 11)),
            "confidence": list(confidence),
            "frequency": list(np.clip(confidence + 0.07 * np.sin(7 * confidence), 0, 1)),
            "count": [31, 28, 22, 19, 18, 21, 24, 27, 33, 31],
        },
        **_drawn(),
        "machine": "Linux x86_64, cpu, Python 3.11.2",
        "date": "2026-11-24T09:30:00+00:00",
        "versions": {"fedjax-poisson": "0.1.0", "jax": "0.10.2", "tenseal": "0.3.18"},
    }
    summary.update(changes)
    summary = {key: value for key, value in summary.items() if value is not ...}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return summary


def _drawn() -> dict[str, Any]:
    """Curves, intervals and subgroups of made-up public test records."""
    rng = np.random.default_rng(5)
    labels = (rng.random(254) < 0.5).astype(int)
    chances = 1 / (1 + np.exp(-(2.2 * labels - 1.1 + rng.normal(size=254))))
    accuracy = {name: list(wilson_interval(value, SITES[name][1])) for name, value in FINAL.items()}
    groups = [
        {
            "column": "sex",
            "name": f"sex = {sex}",
            "records": records,
            "accuracy": 0.8,
            "interval": [0.7, 0.87],
            "auc": 0.85,
        }
        | {"positives": records // 2, "sensitivity": 0.81, "specificity": 0.79, "calibration_error": 0.1}
        for sex, records in ((0, 56), (1, 198))
    ]
    return {
        "intervals": {
            "pooled_accuracy": list(wilson_interval(0.8189, 254)),
            "auc": [0.8377, 0.9201],
            "accuracy_by_site": accuracy,
            "auc_by_site": {name: None if name == "Switzerland" else [0.7, 0.95] for name in FINAL},
        },
        "curves": {"points": {"disease": operating_points(labels, chances)}},
        "subgroups": groups,
    }


def _write_ledger(folder: Path, standardise: np.ndarray, train: np.ndarray, rounds: int) -> str:
    ledger = accounting.open_ledger(
        folder / "ledger.sqlite",
        epsilon=1.0,
        delta=1e-4,
        unit="record",
        adjacency="zero_out",
        orders=ORDERS,
        planned_rdp=standardise + rounds * train,
    )
    try:
        ledger.spend("standardise", "standardise 0", "poisson_embedding", {"dark_count": 31_022.1}, standardise, 3, 4)
        for number in range(1, rounds + 1):
            ledger.spend("train", f"train {number}", "poisson_embedding", {"dark_count": 41_235.7}, train, 3, 4)
        return ledger.head()
    finally:
        ledger.close()
