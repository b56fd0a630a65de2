"""What a table's label may be: two values, several classes, several yes/no columns, a number in a public range; and what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from fedjax_poisson import data
from fedjax_poisson.data.tables.open_table import encode_sites, read_open

COMMON = {"site": "hospital", "categorical": None, "min_site_records": 1}


@pytest.fixture
def table(tmp_path):
    """A file of 90 records with the given columns besides hospital, age and weight."""

    def write(**columns):
        rng = np.random.default_rng(5)
        rows = {"hospital": ["N", "S", "W"] * 30, "age": rng.integers(20, 90, 90), "weight": rng.normal(70, 9, 90)}
        rows |= {name: [of(i) for i in range(90)] for name, of in columns.items()}
        path = tmp_path / "visits.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows)
            writer.writerows(zip(*rows.values(), strict=True))
        return path

    return write


def _kind(i: int) -> str:
    return ("mild", "severe", "none", "rare")[(i * 7) % 10 // 3]


def test_declared_classes_keep_their_order_and_other_collects_the_rest(table):
    path = table(kind=_kind)
    sites = data.from_csv(path, label="kind", classes=["none", "mild", "other"], **COMMON)
    assert sites.task == "multiclass" and sites.class_names == ("none", "mild", "other") and sites.label_bounds is None
    np.testing.assert_array_equal(sites.labels, [{"none": 0, "mild": 1}.get(_kind(i), 2) for i in range(90)])
    assert sites.labels.dtype == np.int32 and sites.features.shape == (90, 2)
    assert not any("classes" in fact for fact, _ in sites.uncovered)
    two = data.from_csv(path, label="kind", classes=["none", "other"], **COMMON)
    assert two.task == "binary" and two.labels.max() == 1


def test_classes_from_the_table_are_a_fact_that_epsilon_does_not_cover(table):
    sites = data.from_csv(table(kind=_kind), label="kind", classes="from_data", **COMMON)
    assert sites.class_names == ("mild", "none", "rare", "severe")
    fact, remedy = next(each for each in sites.uncovered if "classes" in each[0])
    assert "'kind'" in fact and "--classes mild,none,rare,severe" in remedy


def test_several_columns_are_several_labels(table):
    path = table(died=lambda i: i % 2, back=lambda i: ("no", "yes")[i % 3 == 0])
    sites = data.from_csv(path, label=["died", "back"], **COMMON)
    assert sites.task == "multilabel" and sites.class_names == ("died", "back") and sites.labels.shape == (90, 2)
    np.testing.assert_array_equal(sites.labels[:, 1], np.arange(90) % 3 == 0)
    assert sites.feature_names == ("age", "weight")
    assert "died 50%" in data.describe(sites)


def test_a_number_is_clipped_to_its_public_range(table):
    sites = data.from_csv(table(stay=lambda i: i / 2 - 1), label="stay", label_bounds=(0, 40), **COMMON)
    assert sites.task == "regression" and sites.label_bounds == (0.0, 40.0) and sites.class_names == ("stay",)
    np.testing.assert_allclose(sites.labels, np.clip(np.arange(90) / 2 - 1, 0, 40), rtol=1e-6)
    assert sites.labels.dtype == np.float32 and data.padded(sites).labels.dtype == np.float32
    held_out = sites.labels[~sites.train]
    assert abs(held_out.mean() - sites.labels[sites.train].mean()) < 3  # stratified by tenths of the range
    assert "stay" in data.describe(sites) and "on average" in data.describe(sites)
    assert data.dirichlet(data.dirichlet(sites, 2, 1.0), 3, 1.0).task == "regression"


@pytest.mark.parametrize("kind", ["classes", "several", "number"])
def test_open_columns_read_the_same_label(table, kind):
    columns = {"kind": _kind, "died": lambda i: i % 2, "stay": lambda i: i / 3}
    declared = {
        "classes": {"label": "kind", "classes": ["none", "other"], "drop": ["died", "stay"]},
        "several": {"label": ["died", "late"], "drop": ["kind", "stay"]},
        "number": {"label": "stay", "label_bounds": (0, 20), "drop": ["died", "kind"]},
    }[kind]
    path = table(**columns, **({"late": lambda i: int(i % 5 == 0)} if kind == "several" else {}))
    common = {"bounds": {"age": (0, 110), "weight": (30, 200)}, **COMMON}
    closed = data.from_csv(path, **declared, **common)
    opened = encode_sites(read_open(path, **declared, **common), None)
    np.testing.assert_array_equal(opened.labels, closed.labels)
    assert (opened.task, opened.class_names, opened.label_bounds) == (
        closed.task,
        closed.class_names,
        closed.label_bounds,
    )
    np.testing.assert_array_equal(opened.train, closed.train)


@pytest.mark.parametrize(
    ("columns", "declared", "message"),
    [
        ({"y": _kind}, {"label": "y"}, r"not binary.*--classes mild,none,rare,severe \(classes=\['mild'"),
        ({"y": lambda i: i / 7}, {"label": "y"}, r"--label-bounds 0 100"),
        (
            {"y": _kind},
            {"label": "y", "classes": ["mild", "none"]},
            r"line \d+: the label 'y' is '(rare|severe)'.*'other'",
        ),
        ({"y": _kind}, {"label": "y", "classes": "mild"}, "expected a list of label values"),
        ({"y": _kind}, {"label": "y", "classes": ["mild", "mild"]}, "2 to 50 different"),
        ({"y": lambda i: "a"}, {"label": "y", "classes": "from_data"}, "same label"),
        ({"y": lambda i: "a"}, {"label": "y", "classes": ["a", "b"]}, "same label"),
        ({"y": lambda i: f"v{i}"}, {"label": "y", "classes": "from_data"}, "has 90 values; as classes at most 50"),
        ({"y": _kind}, {"label": "y", "label_bounds": (0, 1)}, "must be a number; saw"),
        ({"y": lambda i: i}, {"label": "y", "label_bounds": (5, 5)}, "lower < upper"),
        ({"y": lambda i: i}, {"label": "y", "label_bounds": (200, 300)}, "after it is clipped"),
        ({"y": lambda i: i or ""}, {"label": "y", "label_bounds": (0, 90)}, "no label in column 'y' on line 2"),
        ({"y": lambda i: i % 2, "z": _kind}, {"label": ["y", "z"]}, "of several labels each must be 0/1"),
        ({"y": lambda i: i % 2, "z": lambda i: 1}, {"label": ["y", "z"]}, "nothing to learn from it"),
        ({"y": lambda i: i % 2}, {"label": ["y", "y"]}, "different columns"),
        ({"y": lambda i: i % 2, "z": lambda i: 1}, {"label": ["y", "z"], "classes": ["0", "1"]}, "contradict"),
        ({"y": lambda i: i % 2}, {"label": "y", "positive": "1", "label_bounds": (0, 1)}, "contradict"),
        ({"y": lambda i: i % 2}, {"label": ["y", "x"]}, r"no column 'x' \(given as label 2\)"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(table, columns, declared, message):
    with pytest.raises(ValueError, match=message):
        data.from_csv(table(**columns), **declared, **COMMON)


def test_copies_of_any_label_are_refused(table):
    levels = {"categorical": {"code": ["A", "B", "C", "D"]}}
    letter = {"mild": "A", "none": "B", "rare": "C", "severe": "D"}
    path = table(kind=_kind, code=lambda i: letter[_kind(i)])
    with pytest.raises(ValueError, match="the label can be read off code"):
        data.from_csv(path, label="kind", classes="from_data", **COMMON | levels)
    path = table(stay=lambda i: (i * 37) % 91, cost=lambda i: 1000 - 3 * ((i * 37) % 91))
    with pytest.raises(ValueError, match="cost orders the records exactly as the label does"):
        data.from_csv(path, label="stay", label_bounds=(0, 100), **COMMON)
    path = table(a=lambda i: int(i % 3 == 0), b=lambda i: i % 2, c=lambda i: "xy"[i % 2])
    with pytest.raises(ValueError, match="the label 'b' can be read off c"):
        data.from_csv(path, label=["a", "b"], **COMMON | {"categorical": {"c": ["x", "y"]}})


_LABELS = [
    ({"died": lambda i: 0}, {"label": "died"}),
    ({"kind": lambda i: "none"}, {"label": "kind", "classes": ["none", "mild"]}),
    ({"kind": lambda i: "none"}, {"label": "kind", "positive": "severe"}),
    ({"died": lambda i: 0, "back": lambda i: i % 2}, {"label": ["died", "back"]}),
    ({"days": lambda i: 7}, {"label": "days", "label_bounds": (0, 60)}),
]


@pytest.mark.parametrize(("columns", "declared"), _LABELS)
def test_one_label_is_enough_at_one_site_of_several_and_too_little_in_a_table_of_all(table, columns, declared):
    alone = COMMON | {"site": data.OneSite("north", ("north", "south")), "drop": ["hospital"]}
    bounds = {"age": (0, 110), "weight": (20, 200)}
    sites = data.from_csv(table(**columns), **declared, **alone, bounds=bounds)
    assert sites.site_names == ("north", "south") and len(sites.labels) == 90
    opened = encode_sites(read_open(table(**columns), **declared, **alone, bounds=bounds), None)
    np.testing.assert_array_equal(opened.labels, sites.labels)
    with pytest.raises(ValueError, match=r"same label|no record has the label|every label lies at"):
        data.from_csv(table(**columns), **declared, **COMMON, bounds=bounds)
