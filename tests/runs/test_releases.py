"""Scores that a run releases under noise, against the same model's scores in the clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedjax_poisson import data
from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated.saved_model import predict
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run


def test_released_scores_are_those_of_the_model_within_their_noise(tmp_path: Path) -> None:
    config = Config(
        dataset="heart", evaluation="private", evaluation_share=0.6, epsilon=15.0, rounds=3, yardstick=False
    )
    summary = run(config, tmp_path / "run")
    sites = data.load("heart")
    held_out = ~sites.train
    rows = [dict(zip(sites.feature_names, row, strict=True)) for row in sites.features[held_out]]
    found = predict(tmp_path / "run" / "model.npz", rows)
    labels, chances = sites.labels[held_out], np.asarray(found.probabilities)[:, 1]
    right = float(np.mean((chances >= 0.5) == (labels == 1)))
    area = evaluation.auc(labels, chances)
    assert right > 0.7 and area is not None  # the model has learned: a coin's scores would be far away
    assert summary["pooled_accuracy_error"] < 0.03
    assert abs(summary["pooled_accuracy"] - right) < 5 * summary["pooled_accuracy_error"]
    assert abs(summary["auc"] - area) < 0.1  # 32 bins, and noise
