"""Tables of times to an event: labels by a horizon, censored records, and the times in the order of the records."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedjax_poisson import data
from tests.data.helpers import shared_file

ROWS = [("a", 40 + i % 20, 2 + i % 11, i % 3 == 0) for i in range(40)] + [
    ("b", 50, 1 + i % 7, i % 2 == 0) for i in range(30)
]
OPTIONS = {"time": "months", "event": "died", "site": "centre", "bounds": {"age": (18, 100)}}


def write(folder, rows=ROWS, header="centre,age,months,died"):
    lines = [header, *(f"{c},{a},{t},{int(d) if isinstance(d, bool) else d}" for c, a, t, d in rows)]
    (folder / "stays.csv").write_text("\n".join(lines))
    return folder / "stays.csv"


def test_a_horizon_labels_whom_it_can(tmp_path):
    found = data.from_survival_csv(write(tmp_path), horizon=5, **OPTIONS)
    kept = [row for row in ROWS if (row[3] and row[2] <= 5) or row[2] >= 5]
    assert found.sites.labels.tolist() == [int(row[3] and row[2] <= 5) for row in kept]
    assert found.time.tolist() == [row[2] for row in kept] and found.event.tolist() == [row[3] for row in kept]
    assert found.sites.feature_names == ("age",) and found.sites.warnings == ()
    np.testing.assert_array_equal(found.sites.features[:, 0], [row[1] for row in kept])
    assert any(f"{70 - len(kept)} records censored before that" in note for note in found.sites.provenance.notes)
    assert found.sites.class_names == ("no died by months 5", "died by months 5")


def test_without_a_horizon_everybody_stays(tmp_path):
    found = data.from_survival_csv(write(tmp_path), **OPTIONS)
    assert found.sites.labels.tolist() == [int(row[3]) for row in ROWS] == found.event.astype(int).tolist()
    assert found.time.dtype == np.float64 and len(found.time) == 70


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (("a", 50, -1, 1), {}, "stays.csv, line 72: months should be a time, a number of 0 or more; saw '-1'"),
        (("a", 50, "soon", 1), {}, "line 72: months should be a time"),
        (("a", 50, "", 1), {}, "no time in column 'months' on line 72"),
        (("a", 50, 3, "perhaps"), {}, r"died should be 0/1, .*look at line 72"),
        (("a", 50, 3, ""), {}, "no event in column 'died' on line 72"),
        (("", 50, 3, 1), {}, "no site in column 'centre' on line 72"),
        (("a", 50, 3, 1), {"horizon": -2.0}, "horizon is -2.0"),
        (("a", 50, 3, 1), {"horizon": 0.5}, "every record has the same label"),
        (("a", 50, 3, 1), {"time": "weeks"}, r"no column 'weeks' \(given as time\)"),
        (("a", 50, 3, 1), {"time": "died"}, "label, site, time must be different columns"),
    ],
)
def test_a_wrong_line_or_argument_is_named(tmp_path, row, options, message):
    with pytest.raises(ValueError, match=message):
        data.from_survival_csv(write(tmp_path, [*ROWS, row]), **OPTIONS | options)


def test_missing_times_can_be_dropped(tmp_path):
    found = data.from_survival_csv(write(tmp_path, [*ROWS, ("a", 50, "", 1)]), missing="drop", **OPTIONS)
    assert len(found.time) == 70
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.from_survival_csv(tmp_path / "gone.csv", **OPTIONS)


def test_the_dialysis_centres_load():
    found = data.from_survival_csv(
        shared_file("dialysis.csv.gz"),
        time="time",
        event="event",
        site="fac_center",
        horizon=12,
        drop=("pid", "num_begin"),
        categorical={"fac_disease": ["hypert", "diabetes", "renal", "congen", "other"]},
        bounds={"num_age": (0, 110)},
    )
    assert len(found.time) == 4454 and len(found.sites.site_names) == 61 and found.sites.warnings == ()
    assert found.sites.labels.sum() == (found.event & (found.time <= 12)).sum() == 1207


@pytest.mark.parametrize("horizon", ["x", math.nan, math.inf, -1, True])
def test_a_horizon_of_the_wrong_kind_is_named(horizon):
    with pytest.raises(ValueError, match="horizon is"):
        data.from_survival_csv("nowhere.csv", time="t", event="e", site="s", horizon=horizon)
