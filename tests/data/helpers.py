"""Where the reference files are, tables on disk, and statistics of scores."""

from __future__ import annotations

import gzip
import os
import pathlib

import numpy as np
import pytest
from scipy import optimize, special, stats


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


def write_csv(path, header, rows, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join([",".join(header), *(",".join(map(str, row)) for row in rows), ""]).encode()
    path.write_bytes(gzip.compress(text) if packed else text)


def column(sites, name):
    return sites.features[:, sites.feature_names.index(name)]


def fit_logistic(x, y, ridge=1e-3):
    """Logistic regression by L-BFGS in float64; returns (weight, bias)."""
    x = x.astype(np.float64)

    def objective(theta):
        z = x @ theta[:-1] + theta[-1]
        residual = special.expit(z) - y
        loss = np.mean(np.logaddexp(0, z) - y * z) + ridge * theta[:-1] @ theta[:-1] / 2
        return loss, np.append(x.T @ residual / len(y) + ridge * theta[:-1], residual.mean())

    theta = optimize.minimize(objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return theta[:-1], theta[-1]


def standardised(sites, per_site=False):
    x = np.clip(sites.features, sites.feature_bounds[:, 0], sites.feature_bounds[:, 1]).astype(np.float64)
    out = np.empty_like(x)
    for s in range(len(sites.site_names)) if per_site else [slice(None)]:
        rows = sites.site == s if per_site else np.ones(len(x), bool)
        fit = rows & sites.train
        out[rows] = (x[rows] - x[fit].mean(0)) / np.maximum(x[fit].std(0), 1e-6)
    return out
