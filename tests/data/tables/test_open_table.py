"""Tables whose ranges and levels stay open: what is read, which bins records fall into, and that only released facts encode them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.tables import bins
from fedjax_poisson.data.tables.csv_table import read_table
from fedjax_poisson.data.tables.open_table import encode_sites, first_bins, read_open, refined_bins
from fedjax_poisson.data.tables.schema import (
    MOST_LEVELS,
    Released,
    encode_columns,
    most_features,
    released_from_json,
    released_to_json,
    schema_from_json,
    schema_to_json,
)

ROLES = {"label": "sick", "site": "hospital"}


@pytest.fixture
def write(tmp_path):
    def writer(lines, header="hospital,age,weight,sex,smoker,sick", name="table.csv"):
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return writer


def lines(count=60, shift=0, sexes=("F", "M")):
    return [
        f"{'AB'[i % 2]},{20 + shift + i % 20},{'' if i % 5 == 0 else 50 + i % 40},{sexes[i % len(sexes)]},{'yes' if i % 3 else 'no'},{(i // 2) % 2}"
        for i in range(count)
    ]


def released(low=16.0, sexes=("F",)):
    kept = tuple(sorted(int(b) for b in bins.text_buckets("sex", sexes)))
    return Released({"age": (low, 128.0), "weight": (32.0, 128.0)}, {"age": 40.0, "weight": 71.5}, {"sex": kept}, True)


def test_what_is_open_and_what_is_not(write):
    opened = read_open(write(lines()), **ROLES, bounds={"age": (0, 110), "weight": "private"}, categorical="private")
    kinds = {spec.name: spec.kind for spec in opened.schema.columns}
    assert kinds == {"age": "number", "weight": "open_number", "sex": "open_text", "smoker": "flag"}
    assert opened.uncovered == () and most_features(opened.schema) == 3 + MOST_LEVELS + 1
    half = read_open(write(lines()), **ROLES, bounds="from_data", categorical="private")
    assert half.uncovered[0][0].startswith("ranges of numbers were taken from the records")
    assert {spec.kind for spec in half.schema.columns} == {"number", "open_text", "flag"}
    merged = read_open(write(lines()), **ROLES, min_site_records=20)
    assert "merged into 'other'" in encode_sites(merged, released()).uncovered[0][0]


def test_a_declared_kind_is_not_looked_up(write):
    table = write([f"{'AB'[i % 2]},{i % 2},{i},{i % 2},1,{(i // 2) % 2}" for i in range(20)])
    opened = read_open(
        table, **ROLES, categorical={"sex": "private"}, bounds={"age": "private", "weight": "private", "smoker": (0, 1)}
    )
    kinds = {spec.name: spec.kind for spec in opened.schema.columns}
    assert kinds == {"age": "open_number", "weight": "open_number", "sex": "open_text", "smoker": "number"}
    assert not any("taken to be public" in note for note in opened.notes)
    with pytest.raises(ValueError, match=r"line 2: column 'sex' has bounds, so it must be a number; saw 'F'"):
        read_open(write(lines()), **ROLES, bounds={"age": "private", "weight": "private", "sex": "private"})


def test_training_records_alone_are_binned(write):
    opened = read_open(write(lines()), **ROLES)
    first = first_bins(opened)
    assert first.bins.shape == (opened.placement.train.sum(), 3) and first.size == 2 * bins.OCTAVES + bins.BUCKETS
    age = np.array([float(text) for text in opened.table.columns["age"]])[opened.placement.train]
    np.testing.assert_array_equal(first.bins[:, 0], bins.octave_bins(age))
    missing = np.array([text == "" for text in opened.table.columns["weight"]])[opened.placement.train]
    assert missing.any()
    np.testing.assert_array_equal(first.bins[:, 1] < 0, missing)
    assert first.bins[:, 2].min() >= 2 * bins.OCTAVES
    second = refined_bins(opened, released())
    np.testing.assert_array_equal(second.bins[:, 0], bins.linear_bins(age, 16.0, 128.0))
    assert second.size == 2 * bins.LINEAR and second.bins[:, 1].max() < second.size


def test_the_encoding_is_a_function_of_the_released_facts(write):
    """Other records, same released facts: same features, same bounds, and the same row is encoded the same."""
    one = read_open(write(lines()), **ROLES)
    other = read_open(write(lines(60, shift=300, sexes=("X", "Y", "Z")), name="other.csv"), **ROLES)
    sites = [encode_sites(each, released()) for each in (one, other)]
    assert sites[0].feature_names == sites[1].feature_names
    np.testing.assert_array_equal(sites[0].feature_bounds, sites[1].feature_bounds)
    assert sites[0].warnings == sites[1].warnings == () and sites[0].provenance.notes == sites[1].provenance.notes
    row = read_table(write(["A,33,,F,no,1"], name="row.csv"))
    first, second = (encode_columns(row, each.schema, released()).values for each in (one, other))
    np.testing.assert_array_equal(first, second)
    # The twin: facts that are read from the records do differ.
    path = (write(lines()), write(lines(60, shift=300, sexes=("X", "Y", "Z")), name="other.csv"))
    read = [data.from_csv(each, **ROLES, categorical="from_data") for each in path]
    assert read[0].feature_names != read[1].feature_names
    assert np.any(read[0].feature_bounds[0] != read[1].feature_bounds[0])


def test_values_missing_ones_and_levels_land_where_they_should(write):
    opened = read_open(write(lines()), **ROLES)
    sites = encode_sites(opened, released())
    bucket = int(bins.text_buckets("sex", ["F"])[0])
    assert sites.feature_names == ("age", "weight", f"sex#{bucket}", "sex#other", "smoker")
    np.testing.assert_array_equal(sites.feature_bounds[:2], [[16, 128], [32, 128]])
    np.testing.assert_array_equal(sites.binary, [False, False, True, True, True])
    np.testing.assert_array_equal(sites.features[:4, 1], [71.5, 51, 52, 53])
    np.testing.assert_array_equal(sites.features[:4, 2], [1, 0, 1, 0])
    np.testing.assert_array_equal(sites.features[:, 3], 1 - sites.features[:, 2])
    # Notes count no records, as those of `from_csv` do: counts are facts that nothing was charged for.
    counted = "weight: 12 missing values"
    assert not any(counted in note for note in sites.provenance.notes)
    exact = data.from_csv(write(lines()), **ROLES, categorical="from_data")
    assert any(counted in note for note in exact.provenance.notes)


def test_rows_that_come_later_are_encoded_by_the_same_facts(write):
    opened = read_open(write(lines()), **ROLES, missing="indicate")
    facts = released_from_json(json.loads(json.dumps(released_to_json(released(low=1 / 3)))))
    schema = schema_from_json(json.loads(json.dumps(schema_to_json(opened.schema))))
    assert facts == released(low=1 / 3) and schema == opened.schema
    rows = read_table(write(["A,1e9,60,never seen,,1", "A,,,F,yes,0"], name="new.csv"))
    block = encode_columns(rows, schema, facts)
    assert block.names == encode_sites(opened, facts).feature_names
    got = {name: column.tolist() for name, column in zip(block.names, block.values.T, strict=True)}
    bucket = bins.text_buckets("sex", ["F"])[0]
    assert got["age"] == [1e9, 40.0] and got["age_missing"] == [0, 1] and got["weight"] == [60, 71.5]
    assert got[f"sex#{bucket}"] == [0, 1] and got["sex#other"] == [1, 0]
    assert got["smoker"] == [0, 1] and got["smoker_missing"] == [1, 0]
    bad = read_table(write(["A,old,60,F,yes,1"], name="bad.csv"))
    with pytest.raises(ValueError, match=r"line 2: column 'age' must be a number; saw 'old'"):
        encode_columns(bad, schema, facts)


def test_facts_over_another_number_of_buckets_and_unreleased_columns_are_refused(write):
    with pytest.raises(ValueError, match="released over 7 buckets"):
        released_from_json({**released_to_json(released()), "buckets": 7})
    with pytest.raises(ValueError, match="'age' has no released range"):
        encode_sites(read_open(write(lines()), **ROLES), None)


def test_columns_that_from_csv_refuses_by_their_records_are_kept(write):
    """An identifier, a column without any value, and text with more than fifty levels: no error may depend on such facts."""
    table = write([f"{'AB'[i % 2]},{1000 + i},,name {i},yes,{(i // 2) % 2}" for i in range(60)])
    opened = read_open(table, **ROLES)
    assert opened.schema.named("open_number") == ("age", "weight") and opened.schema.named("open_text") == ("sex",)
    sites = encode_sites(opened, released(sexes=()))
    np.testing.assert_array_equal(sites.features[:, 1], np.full(60, 71.5, np.float32))
    assert sites.feature_names[2] == "sex#other" and np.all(sites.features[:, 2] == 1)
    with pytest.raises(ValueError):
        data.from_csv(table, **ROLES, categorical="from_data")
