"""Five hospitals' tables: the heart data of four hospitals, each to its own file, and a fifth site that is made up.

    python make_tables.py FOLDER

The fifth, `made-up`, is drawn from a seed: every column by itself, with the mean and spread of all four hospitals, and a diagnosis that follows a few of
them. It is there so that five parties can be shown; nothing medical can be learned from it.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

import fedjax_poisson as fp

SEED, RECORDS = 20, 150
LABEL = "disease"


def made_up(features: np.ndarray, bounds: np.ndarray, binary: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Records `[RECORDS, F]` within the bounds, and labels: probable where several columns are far up in their range."""
    draws = np.random.default_rng(SEED)
    mean, spread = features.mean(0), features.std(0)
    numbers = np.clip(draws.normal(mean, spread, (RECORDS, len(mean))), bounds[:, 0], bounds[:, 1])
    rows = np.where(binary, draws.random((RECORDS, len(mean))) < mean, numbers.round(1))
    score = ((rows - mean) / spread) @ np.where(np.arange(len(mean)) % 3 == 0, 0.8, 0.0)
    return rows, (draws.random(RECORDS) < 1 / (1 + np.exp(-score))).astype(int)


def main(folder: Path) -> None:
    """Write `NAME.csv` of each site."""
    heart = fp.data.load("heart")
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        name.lower().replace(" ", "-"): (heart.features[heart.site == number], heart.labels[heart.site == number])
        for number, name in enumerate(heart.site_names)
    }
    tables["made-up"] = made_up(heart.features, heart.feature_bounds, heart.binary)
    for name, (rows, labels) in tables.items():
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*heart.feature_names, LABEL])
            writer.writerows(
                [*(f"{value:g}" for value in row), int(label)] for row, label in zip(rows, labels, strict=True)
            )
    bounds = zip(heart.feature_names, heart.feature_bounds, strict=True)
    (folder / "bounds.toml").write_text("".join(f"{name} = [{low:g}, {high:g}]\n" for name, (low, high) in bounds))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
