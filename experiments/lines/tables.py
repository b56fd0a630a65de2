"""The two tables that the programs beside this file read: heart disease as a reader's own CSV file.

    python experiments/lines/tables.py FOLDER

`hospitals.csv` has the four hospitals as sites. `practices.csv` deals the same 740 records out to 60 simulated practices, for the programs whose
privacy unit is a whole client: with four clients there is nothing for such a unit to hide among. Both have the columns `site`, `disease`, thirteen
features and `train`, the split that `fedjax_poisson.data.from_csv` makes of the rest, so that every library trains on the same records.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from fedjax_poisson import data

PRACTICES = 60


def write_tables(folder: Path) -> None:
    """Write both files."""
    heart = data.load("heart")
    hospital = [heart.site_names[number] for number in heart.site]
    dealt = np.random.default_rng(0).permutation(len(hospital)) % PRACTICES
    _write(folder / "hospitals.csv", heart, hospital)
    _write(folder / "practices.csv", heart, [f"practice {number:02d}" for number in dealt])


def _write(path: Path, heart: data.Sites, site: list[str]) -> None:
    train = np.zeros(len(site), int)  # the column is left out of what from_csv splits
    for _ in range(2):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["site", "train", "disease", *heart.feature_names])
            for row in zip(site, train, heart.labels, heart.features, strict=True):
                writer.writerow([*row[:3], *(f"{value:g}" for value in row[3])])
        sites = data.from_csv(
            path, label="disease", site="site", drop=["train"], bounds="from_data", min_site_records=1
        )
        train = sites.train.astype(int)


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
