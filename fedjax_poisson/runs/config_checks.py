"""Checks of a configuration: types, ranges and combinations of settings, before anything is read or computed.

The ranges are public and wide. Outside them a run would be meaningless, would not end, or would overflow; the error message gives the reason.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
import types
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from fedjax_poisson.accounting.checks import check_adjacency
from fedjax_poisson.aggregation.aggregator import BACKENDS
from fedjax_poisson.data.tables import declarations, labels
from fedjax_poisson.extensions import is_path
from fedjax_poisson.federated.controllers import registered

DATASETS_OF_PICTURES = ("xray", "pneumonia", "medmnist", "covid")


class Range(NamedTuple):
    """The range in which a number must lie, ends included.

    Attributes:
      low: smallest value.
      high: largest value.
      why: what would happen outside.
    """

    low: float
    high: float
    why: str


_COUNT = Range(1, 10**12, "it counts something")
_SIZE = Range(1e-6, 1e6, "standardised features and probabilities are of order 1, and so are sensible norms")
_STEP = Range(1e-6, 1e3, "smaller steps learn nothing, larger ones diverge")

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "epsilon": Range(1e-3, 100.0, "below, no sum of any size shows a signal; above, e^epsilon protects nobody"),
        # A mechanism that publishes every hundredth record as it is satisfies (0, 0.01): beyond that the word privacy has no meaning, and the
        # usual advice, delta below 1 / records, could be met with fewer than 100 records only.
        "delta": Range(1e-300, 0.01, "a mechanism that publishes each record with probability delta has it; stay below 1 / records"),
        # Fewer than one of 100,000 records in a round: nearly every round would be noise alone.
        "sampling_rate": Range(1e-5, 1.0, "it is the chance of each unit to be in a round; below, rounds are noise alone"),
        "rounds": Range(1, 100_000, "every round is a release, a line and a checkpoint"),
        "clip_norm": _SIZE,
        "coordinate_bound": _SIZE,
        "total_bound": Range(1e-6, 1e12, "it bounds a sum over the units of a site"),
        "standardize_norm": _SIZE,
        "modulation": Range(1e-4, 0.99, "at 1 a rate can fall to 0 and no privacy is left; near 0 the counts are too large to sample"),
        "standardize_share": Range(1e-3, 0.999, "both the moments and the training need a part of the budget"),
        "evaluation_share": Range(1e-3, 0.999, "both the training and the scores need a part of the budget"),
        "ledger_epsilon": Range(1e-3, 1000.0, "it is the budget of all runs on the data set together"),
        "average_share": Range(0.0, 1.0, "it is a share of the rounds"),
        "momentum": Range(0.0, 0.999, "at 1 the steps never stop growing"),
        "learning_rate": _STEP,
        "local_rate": _STEP,
        "local_epochs": Range(1, 1000, "it is a number of passes over a client's records"),
        "batch_size": Range(1, 10**9, "it is a number of records"),
        "nonprivate_rate": _STEP,
        "dirichlet_alpha": Range(1e-3, 1e6, "below, a site gets one class; above, all sites are alike"),
        "image_size": Range(8, 1024, "it is a side in pixels"),
        "width": Range(1, 4096, "it is a number of channels or neurons"),
        "clients": Range(2, 10**6, "a sum over one site hides nothing"),
        "honest_senders": Range(1, 10**6, "the one that is protected is honest itself"),
        "members": Range(1, 20, "it is the committee that opens sums; one member could open every site's"),
        "largest_site": _COUNT,
        "training_units": _COUNT,
        "min_site_records": Range(1, 10**9, "a site has a record at least"),
        "sites_per_patient": Range(1, 10**6, "it is a number of sites, and each multiplies the step in the privacy account"),
        "test_fraction": Range(0.01, 0.9, "a run needs records to learn from and records to test on"),
        "split_seed": Range(0, declarations.LARGEST_SEED, "it is a number of 64 bits"),
        "seed": Range(0, declarations.LARGEST_SEED, "it is a number of 64 bits"),
    }
)  # fmt: skip
"""Every number of `Config`."""

_OF_TABLES = (
    "label", "site", "patient", "positive", "classes", "label_bounds", "categorical", "bounds", "fill", "missing", "drop",
    "min_site_records", "test_fraction", "split_seed", "delimiter", "encoding",
)  # fmt: skip


def normalised(config: Any) -> dict[str, Any]:
    """The settings with plain int and float numbers and absolute paths, so that a folder's config.toml is valid wherever it is read.

    Args:
      config: a `Config`, or any dataclass whose fields have the types that it uses.

    Returns:
      Those fields whose value changes.

    Raises:
      ValueError: a value has the wrong type; with what was seen and what is expected.
    """
    changed = {}
    for name, hint in typing.get_type_hints(type(config)).items():
        given = getattr(config, name)
        if name == "adjacency" and isinstance(given, str) and given.strip():
            check_adjacency(given)  # knows why others are refused
        value = _fitted(name, given, hint)
        if name in ("csv", "data", "ledger") and value is not None:
            value = os.path.abspath(os.path.expanduser(value))
        if value is not given and (type(value) is not type(given) or value != given):
            changed[name] = value
    return changed


def check(config: Any) -> None:
    """Refuse settings that are out of range or contradict each other.

    Args:
      config: a `Config` whose values have the right types.

    Raises:
      ValueError: for the first setting that is wrong, with the value and the remedy.
    """
    check_ranges({name: getattr(config, name) for name in RANGES})
    if config.controller is not None:
        registered(config.controller)
    if not is_path(config.aggregator) and config.aggregator not in BACKENDS:
        raise ValueError(
            f"aggregator={config.aggregator!r} (--aggregator): give one of {', '.join(BACKENDS)}, or module:name of a backend of your own."
        )
    words = (declarations.FROM_DATA, declarations.PRIVATE)
    declarations.checked_levels(config.categorical, words)
    if config.bounds is not None:
        declarations.check_bounds(config.bounds, words)
    declarations.check_fill(config.fill, config.bounds)
    _check_label(config)
    if config.ledger_epsilon is not None and config.ledger is None:
        raise ValueError("ledger_epsilon is the budget of a shared ledger; name its file with --ledger FILE.")
    _check_source(config, {field.name: field.default for field in dataclasses.fields(config)})


def _check_label(config: Any) -> None:
    """What is said about the label of a table must fit together."""

    def listed(names: Any) -> Any:
        return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names

    if config.label is None:
        return
    names = listed(config.label)
    classes = config.classes if config.classes in (None, declarations.FROM_DATA) else listed(config.classes)
    labels.check_label(
        labels.LabelSpec(names[0] if len(names) == 1 else names, config.positive, classes, config.label_bounds)
    )


def check_ranges(values: Mapping[str, float | None]) -> None:
    """Refuse numbers outside their `RANGES`, by name; None is no number and passes."""
    for name, value in values.items():
        low, high, why = RANGES[name]
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name}={_shown(value)} must lie between {_shown(low)} and {_shown(high)}: {why}.")


def _check_source(config: Any, default: Mapping[str, Any]) -> None:
    """Require a single source of data, and no setting that belongs to another source."""

    def given(*names: str) -> str:
        return ", ".join(f"--{name.replace('_', '-')}" for name in names if getattr(config, name) != default[name])

    _check_consortium(config)
    if config.csv is None:
        if names := given(*_OF_TABLES):
            raise ValueError(
                f"{names}: only applies to your own table; give the table with --csv FILE, or leave this out."
            )
        if config.sites_per_patient > 1 and config.dataset != "covid" and not is_path(config.dataset):
            raise ValueError(f"--sites-per-patient: {config.dataset} has no patients at several sites; leave it out.")
    else:
        if config.label is None or (config.site is None and config.sites is None):
            raise ValueError(
                "Your own table needs a label column and a site column: --csv FILE --label COLUMN --site COLUMN."
            )
        if config.data is not None:
            raise ValueError("--csv is a table and --data is images: a run uses only one of them; leave one out.")
        if config.dataset != default["dataset"]:
            raise ValueError(
                f"{config.dataset} and --csv {config.csv} are two sources of data; leave the name or --csv out."
            )
        if config.clients is not None:
            raise ValueError(
                f"--clients {config.clients} would split the records again, but the table already has sites (--site {config.site}); leave "
                "--clients out."
            )
        if config.sites_per_patient > 1 and config.patient is None:
            raise ValueError("--sites-per-patient is about patients: name their column with --patient COLUMN.")
    foreign = is_path(config.dataset)
    if (config.csv is not None or not (foreign or config.dataset in DATASETS_OF_PICTURES)) and (
        names := given("image_size", "validation")
    ):
        raise ValueError(f"{names}: only applies to images, and this run uses a table; leave it out.")
    if config.clients is None and (names := given("dirichlet_alpha")):
        raise ValueError(f"{names}: controls how records are split among --clients; give --clients, or leave it out.")


def _check_consortium(config: Any) -> None:
    """What a site of a consortium must declare, since it could be counted in no one's table alone."""
    if config.sites is None:
        if config.here is not None:
            raise ValueError(f"here={config.here!r} names one site of a consortium: list all of them, sites = [...].")
        return
    if config.site is not None:
        raise ValueError(
            f"sites are listed, so each has a table of its own, without a column of sites: leave site={config.site!r} out."
        )
    if len(set(config.sites)) < max(len(config.sites), 2) or config.here not in (None, *config.sites):
        raise ValueError(
            f"here={config.here!r} must be one of at least two different sites; listed are {', '.join(config.sites)}."
        )
    if config.largest_site is None:
        raise ValueError(
            "largest_site, the bound on the training units of a site, sets the clamps of all sites and cannot be counted in one site's table: declare it."
        )
    if config.standardize == "bounds" and config.training_units is None:
        raise ValueError(
            "training_units, which scales the step where no moments are released, cannot be counted in one site's table: declare it."
        )


def _fitted(name: str, value: Any, hint: Any) -> Any:
    """The value converted to the type of its field."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for kind in kinds:
        origin = typing.get_origin(kind)
        if value is None and kind is type(None):
            return None
        if origin is Literal and isinstance(value, str) and value in typing.get_args(kind):
            return value
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
        if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
            return _as_float(name, value)
        if kind is str and isinstance(value, str) and value.strip():
            return value
        if kind is str and name in ("csv", "data", "ledger") and isinstance(value, os.PathLike):
            return os.fspath(value)
        if origin is dict and isinstance(value, Mapping):
            return value  # what is in it is checked by `declarations`
        if origin is list and isinstance(value, list | tuple):
            items = list(value)
            if typing.get_args(kind) == (str,) and all(isinstance(v, str) and v for v in items):
                return items
            if typing.get_args(kind) == (float,) and all(
                isinstance(v, numbers.Real) and not isinstance(v, bool) for v in items
            ):
                return [_as_float(name, v) for v in items]
    raise ValueError(f"{name}={value!r} has the wrong type or is not an allowed choice; expected {_described(kinds)}.")


def _as_float(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}={_shown(value)} is too large for a number.") from None


def _shown(value: Any) -> str:
    """A number as the user wrote it, without meaningless digits."""
    if not isinstance(value, int):
        return f"{value:g}"
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"


def _described(kinds: tuple[Any, ...]) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    found = []
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            found.append("one of " + ", ".join(typing.get_args(kind)))
        elif typing.get_origin(kind) is dict:
            found.append("a table of columns in a TOML file")
        elif typing.get_origin(kind) is list:
            found.append("a list of text" if typing.get_args(kind) == (str,) else "a list of numbers")
        elif kind in words:
            found.append(words[kind])
    return " or ".join(found)
