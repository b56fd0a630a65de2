"""Steps shared by all loaders once records are read: name sites, merge small ones, number patients, hold out a test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.data.tables.declarations import check_whole
from fedjax_poisson.data.tables.remedies import option
from fedjax_poisson.data.tables.schema import Encoder

from .blocks import Block
from .sites import Provenance, Sites, Unit
from .splitting import SplitRules, check_sites_per_patient, split_by_group


class Placement(NamedTuple):
    """Where each record is from, whose it is, and on which side of the split.

    Attributes:
        site: int32 `[n]`.
        site_names: S names.
        group: int64 `[n]`.
        unit: "patient" where people were named, else "record".
        train: bool `[n]`.
        notes: What was done.
        warnings: What weakens a privacy claim.
        uncovered: As in `Sites`.
        sites_per_unit: The most sites that one unit may have records at.
    """

    site: np.ndarray
    site_names: tuple[str, ...]
    group: np.ndarray
    unit: Unit
    train: np.ndarray
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    uncovered: tuple[tuple[str, str], ...] = ()
    sites_per_unit: int = 1


def place_records(
    labels: np.ndarray,
    places: Sequence[str] | np.ndarray,
    people: Sequence[str] | np.ndarray | None,
    rules: SplitRules,
    *,
    train: np.ndarray | None = None,
    people_are_patients: bool = True,
    source: str = "the data",
) -> Placement:
    """Make sites, groups and the split.

    Args:
        labels: int32 `[n]` or `[n, classes]`, for stratification.
        places: n names of sites.
        people: n names of patients, or None where the record is the unit.
        rules: How sites are merged and the test set is held out.
        train: bool `[n]`, an official split that is kept as it is.
        people_are_patients: Whether `people` are privacy units; else they only share a side of the split (copies of a file).
        source: Where the records are from, for messages.

    Returns:
        The placement, sites in the order of their names.

    Raises:
        ValueError: A patient has records at more sites, or an argument is out of range.
    """
    min_site_records, sites_per_patient = rules.min_site_records, rules.sites_per_patient
    check_whole("min_site_records", min_site_records, 1)
    check_whole("sites_per_patient", sites_per_patient, 1)
    names, codes = np.unique(np.asarray(places, str), return_inverse=True)
    site_names, site, merged = merge_small_sites([str(name) for name in names], codes, min_site_records)
    notes: list[str] = []
    warnings: list[str] = []
    uncovered: list[tuple[str, str]] = []
    if min_site_records > 1:
        uncovered.append(
            (
                f"sites with fewer than {min_site_records} records are merged into 'other', so the list of sites was counted",
                "--min-site-records 1 (min_site_records=1 in Python), and sites named in the table as they shall be",
            )
        )
    if merged:
        listed = ", ".join(merged[:8]) + (f" and {len(merged) - 8} more" if len(merged) > 8 else "")
        notes.append(f"sites with fewer than {min_site_records} records merged into 'other': {listed}")
        if len(site_names) == 1:
            warnings.append(
                f"merging sites with fewer than {min_site_records} records left only one, so nothing is federated; "
                f"allow smaller ones: {option('min_site_records', max(1, min_site_records // 2))}"
            )
    unit: Unit = "record" if people is None or not people_are_patients else "patient"
    if unit == "record" and sites_per_patient > 1:
        raise ValueError(
            f"sites_per_patient is {sites_per_patient}, but no patients are named; name them, or leave it at 1"
        )
    group = np.arange(len(site), dtype=np.int64)
    if people is not None:
        group = np.unique(np.asarray(people, str), return_inverse=True)[1].astype(np.int64)
    if unit == "patient":
        check_sites_per_patient(group, site, sites_per_patient, source)
    if train is None:
        train = split_by_group(group, site, labels, test_fraction=rules.test_fraction, seed=rules.split_seed)
        notes.append(
            f"test set: {rules.test_fraction:g} of each site's {unit}s, stratified by label, seed {rules.split_seed}; "
            f"no {unit} on both sides"
        )
    else:
        notes.append("official split")
    return Placement(
        site, site_names, group, unit, train, tuple(notes), tuple(warnings), tuple(uncovered), sites_per_patient
    )


def merge_small_sites(
    names: Sequence[str], codes: np.ndarray, min_site_records: int
) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Merge sites with too few records into one called "other", by count alone and never by label.

    Args:
        names: S site names.
        codes: Integers `[n]`, 0..S-1.
        min_site_records: Sites with fewer records are merged.

    Returns:
        `(names, codes, merged)`: the sites that stay, in the given order ("other" last unless it was there), the new
        int32 codes, and the names that went into "other".
    """
    counts = np.bincount(codes, minlength=len(names))
    merged = tuple(
        name for name, count in zip(names, counts, strict=True) if count < min_site_records and name != "other"
    )
    if not merged:
        return tuple(names), codes.astype(np.int32), ()
    kept = [name for name in names if name not in merged]
    if "other" not in kept:
        kept.append("other")
    place = np.array([kept.index("other" if name in merged else name) for name in names], np.int32)
    return tuple(kept), place[codes], merged


def table_sites(
    block: Block,
    labels: np.ndarray,
    placement: Placement,
    class_names: tuple[str, ...],
    provenance: Provenance,
    *,
    label_bounds: tuple[float, float] | None = None,
    warnings: Sequence[str] = (),
    uncovered: Sequence[tuple[str, str]] = (),
    encoder: Encoder | None = None,
    only: str | None = None,
) -> Sites:
    """Put a table's features, labels and placement together; notes, warnings and uncovered facts of all parts are kept."""
    return Sites(
        features=block.values.astype(np.float32),
        labels=labels.astype(np.int32 if label_bounds is None else np.float32),
        site=placement.site,
        site_names=placement.site_names,
        train=placement.train,
        group=placement.group,
        unit=placement.unit,
        sites_per_unit=placement.sites_per_unit,
        feature_names=block.names,
        feature_bounds=block.bounds.astype(np.float32),
        binary=block.binary,
        class_names=class_names,
        label_bounds=label_bounds,
        provenance=dataclasses.replace(provenance, notes=(*provenance.notes, *placement.notes, *block.notes)),
        warnings=(*warnings, *placement.warnings),
        uncovered=(*uncovered, *placement.uncovered),
        encoder=encoder,
        only=only,
    )
