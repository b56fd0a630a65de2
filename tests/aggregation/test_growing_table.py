"""Versions of one table beside copies of a dict: whatever grows from whatever, nothing that was handed out changes."""

from __future__ import annotations

import copy
import pickle

import hypothesis
import hypothesis.strategies as st
import pytest

from fedjax_poisson.aggregation.growing_table import GrowingTable, with_entry

KEYS = [bytes([i]) for i in range(6)]


@hypothesis.given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(KEYS), st.integers(0, 3)), max_size=30))
def test_every_version_is_what_copies_of_dicts_would_be(steps):
    tables, dicts = [GrowingTable()], [{}]
    for which, key, value in steps:
        base = which % len(tables)
        tables.append(with_entry(tables[base], key, value))
        dicts.append({**dicts[base], key: value})
    for table, plain in zip(tables, dicts, strict=True):
        assert table == plain and list(table) == list(plain) and len(table) == len(plain)
        assert [key in table for key in KEYS] == [key in plain for key in KEYS]
        assert table.get(b"none") is None and dict(table.items()) == plain


def test_two_successors_of_one_version_do_not_see_each_other():
    one = with_entry({b"a": 1}, b"b", 2)
    left, right, again = with_entry(one, b"c", 3), with_entry(one, b"c", 4), with_entry(one, b"d", 5)
    assert (one, left, right, again) == ({b"a": 1, b"b": 2}, {**one, b"c": 3}, {**one, b"c": 4}, {**one, b"d": 5})
    with pytest.raises(KeyError):
        one[b"c"]


def test_a_line_of_versions_shares_one_store_and_a_branch_does_not():
    versions = [GrowingTable()]
    for i in range(100):
        versions.append(with_entry(versions[-1], b"%d" % i, i))
    assert len({id(table._entries) for table in versions}) == 1 and len(versions[-1]) == 100
    assert with_entry(versions[50], b"other", 0)._entries is not versions[50]._entries
    assert list(versions[50]) == [b"%d" % i for i in range(50)]


def test_copies_are_tables_of_their_own():
    table = with_entry(GrowingTable(), b"a", [1])
    for other in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert with_entry(other, b"b", [2]) == {b"a": [1], b"b": [2]} and table == {b"a": [1]}
        assert len(with_entry(table, b"c", [3])) == 2
