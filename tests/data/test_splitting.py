"""Splits: by whole groups, with exact counts, stratified."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np

from fedjax_poisson import data


@hypothesis.given(
    site=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 10),
    spread=st.integers(1, 5),
)
def test_split_is_by_group_with_exact_counts(site, fraction, seed, spread):
    site = np.array(site, np.int32)
    group = np.arange(len(site), dtype=np.int64) // spread
    labels = np.arange(len(site), dtype=np.int32) % 2
    train = data.split_by_group(group, site, labels, test_fraction=fraction, seed=seed)
    assert not set(group[train]) & set(group[~train])
    first = np.unique(group, return_index=True)[1]
    for s in np.unique(site[first]):
        own = first[site[first] == s]
        assert (~train[own]).sum() == np.floor(fraction * len(own) + 1e-9)


def test_split_is_stratified_within_one():
    labels = np.repeat([0, 1], [170, 30]).astype(np.int32)
    train = data.split_by_group(np.arange(200), np.zeros(200, np.int32), labels, test_fraction=0.25, seed=3)
    assert abs((~train & (labels == 1)).sum() - 7.5) <= 1
