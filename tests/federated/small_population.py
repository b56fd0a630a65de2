"""Fourteen clients of six records each, twelve of whom send: what the suites of `fedavg` and its fidelity share."""

from __future__ import annotations

import numpy as np

from fedjax_poisson.mechanisms import poisson_embedding

CLIENTS, RECORDS, FEATURES, SENDERS = 14, 6, 4, 12
SIZE = FEATURES + 1
X = np.random.default_rng(5).normal(size=(CLIENTS, RECORDS, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)
EVERYBODY = np.ones((CLIENTS, RECORDS), bool)
IDS = np.asarray([13, 0, 5, 2, 7, 1, 11, 3, 4, 12, 6, 9])
MECHANISM = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05)
