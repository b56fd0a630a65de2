"""New rows become the features that the same rows became in training, and what does not fit is named."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.tables.new_rows import encode_rows, rows_table
from fedjax_poisson.data.tables.schema import encoder_from_json, encoder_to_json

COLUMNS = {
    "died": ["0", "1"] * 30,
    "hospital": ["north"] * 30 + ["south"] * 30,
    "age": [str(20 + i % 23) if i % 7 else "" for i in range(60)],
    "sex": ["F", "M", ""] * 20,
    "smokes": ["yes", "no", "", "yes"] * 15,
    "lactate": [f"{0.5 + i % 19 / 10:.1f}" for i in range(60)],
}


def _write(folder, columns=COLUMNS):
    path = folder / "visits.csv"
    rows = zip(*columns.values(), strict=True)
    path.write_text("\n".join(",".join(row) for row in [tuple(columns), *rows]) + "\n")
    return path


@pytest.mark.parametrize("missing", ["impute", "indicate"])
@pytest.mark.parametrize(
    "bounds", ["from_data", {"age": (0, 110), "lactate": (0, 20)}, {"age": "from_data", "lactate": (0, 20)}]
)
@pytest.mark.parametrize("fill", [None, {"age": 44}])
@pytest.mark.parametrize("sex", [["F", "M"], ["F", "missing", "other"], "from_data"])
def test_the_training_rows_become_the_training_features(tmp_path, missing, bounds, fill, sex):
    path = _write(tmp_path)
    sites = data.from_csv(
        path, label="died", site="hospital", missing=missing, bounds=bounds, fill=fill, categorical={"sex": sex}
    )
    np.testing.assert_array_equal(sites.encode(path), sites.features)
    unlabelled = {name: values for name, values in COLUMNS.items() if name not in ("died", "hospital")}
    np.testing.assert_array_equal(sites.encode(unlabelled), sites.features)
    again = encoder_from_json(json.loads(json.dumps(encoder_to_json(sites.encoder))))
    np.testing.assert_array_equal(encode_rows(again, unlabelled), sites.features)


def test_python_values_are_read_as_a_file_would_spell_them(tmp_path):
    sites = data.from_csv(
        _write(tmp_path),
        label="died",
        site="hospital",
        bounds={"age": (0, 110), "lactate": (0, 20)},
        categorical={"sex": ["F", "M"]},
    )
    names = list(sites.feature_names)
    rows = [
        {"age": 50, "sex": "F", "smokes": True, "lactate": np.float32(1.5)},
        {"age": None, "sex": "M", "smokes": False, "lactate": math.nan},
        {"age": "NA", "sex": " M ", "smokes": "yes", "lactate": np.int64(3)},
    ]
    found = sites.encode(rows)
    assert found.dtype == np.float32
    expected = {
        "age": [50, 55, 55],
        "sex=F": [1, 0, 0],
        "sex=M": [0, 1, 1],
        "smokes": [1, 0, 1],
        "lactate": [1.5, 10, 3],
    }
    for name, column in expected.items():
        np.testing.assert_array_equal(found[:, names.index(name)], np.float32(column))


def test_what_does_not_fit_is_named(tmp_path):
    sites = data.from_csv(
        _write(tmp_path),
        label="died",
        site="hospital",
        bounds={"age": (0, 110), "lactate": (0, 20)},
        categorical={"sex": ["F", "M"]},
    )
    good = {"age": [50], "sex": ["F"], "smokes": [1], "lactate": [1.0]}
    with pytest.raises(ValueError, match="no column 'lactate'"):
        sites.encode({name: values for name, values in good.items() if name != "lactate"})
    with pytest.raises(ValueError, match=r"line 1.*'sex'.*'X'"):
        sites.encode(good | {"sex": ["X"]})
    with pytest.raises(ValueError, match="'age' must be a number; saw 'old'"):
        sites.encode(good | {"age": ["old"]})
    with pytest.raises(ValueError, match="different lengths"):
        sites.encode(good | {"age": [1, 2]})
    with pytest.raises(ValueError, match="no row"):
        rows_table([])


def test_columns_that_are_features_already():
    sites = data.load("heart")
    rows = dict(zip(sites.feature_names, sites.features.T, strict=True))
    np.testing.assert_array_equal(sites.encode(rows), sites.features)
    with pytest.raises(ValueError, match="pictures"):
        data.load("xray", patients=4, sites=2, size=32).encode(rows)
