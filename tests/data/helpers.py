"""Where the reference files are, and a rank statistic."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest
from scipy import stats


def shared_file(name: str) -> pathlib.Path:
    """A reference file beside the repository, or a skip that says where it was looked for."""
    beside = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = pathlib.Path(os.environ.get("FEDJAX_POISSON_DATA", beside))
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not in ../shared/data nor in FEDJAX_POISSON_DATA")
    return folder / name


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUC as the Mann-Whitney statistic, ties counted half."""
    positive = labels == 1
    ranks = stats.rankdata(scores)
    count = positive.sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (~positive).sum()))
