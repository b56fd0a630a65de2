"""A caller's description of a table in one record: the roles, declarations and rules that every table reader takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from fedjax_poisson.data.one_site import OneSite
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.columns import Missing
from fedjax_poisson.data.tables.declarations import (
    LARGEST_SEED,
    check_bounds,
    check_column_name,
    check_fill,
    check_missing,
    check_test_fraction,
    check_whole,
    checked_drop,
    checked_levels,
)
from fedjax_poisson.data.tables.remedies import option


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSpec:
    """How a table is read; every field is the argument of `from_csv` of that name.

    Attributes:
        site: Column that says where a record is from; or the one site that all are from.
        patient: Column that says whose record it is; None where the record is the unit.
        categorical: Levels of text columns.
        bounds: Ranges of numeric columns.
        missing: What to do about missing values.
        fill: Values for missing numbers by column.
        drop: Columns to leave out.
        rules: How records become sites and sides of the split.
    """

    site: str | OneSite
    patient: str | None = None
    categorical: Any = None
    bounds: Any = "from_data"
    missing: Missing = "impute"
    fill: Mapping[str, float] | None = None
    drop: Sequence[str] = ()
    rules: SplitRules


def check_spec(spec: TableSpec, **roles: Any) -> None:
    """Check everything that is said about a table; `roles` are columns that must be named.

    Raises:
        ValueError: The first argument that is wrong, what was seen, and how it should look.
    """
    for role, name in roles.items():
        if isinstance(name, OneSite):
            _ = name.place  # refuses a name that is not on its list
            continue
        check_column_name(role, name)
    check_column_name("patient", spec.patient, optional=True)
    checked_levels(spec.categorical)
    check_bounds(spec.bounds)
    check_fill(spec.fill, spec.bounds)
    checked_drop(spec.drop)
    check_missing(spec.missing)
    rules = spec.rules
    check_whole("min_site_records", rules.min_site_records, 1)
    check_whole("sites_per_patient", rules.sites_per_patient, 1)
    check_whole("split_seed", rules.split_seed, 0, LARGEST_SEED)
    check_test_fraction(rules.test_fraction)
    if rules.sites_per_patient > 1 and spec.patient is None:
        raise ValueError(
            f"sites_per_patient is {rules.sites_per_patient}, but no column says whose record it is; name it: "
            + option("patient", "COLUMN")
        )
