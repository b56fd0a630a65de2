"""FHIR R4 bulk exports: folders of NDJSON files, one resource in each line, one file or more for each resource type.

Reference: HL7, Bulk Data Access implementation guide, and FHIR R4 (4.0.1) for Patient, Encounter, Condition,
    Observation.
One record is one patient at an index date: the first diagnosis of the outcome, or else the last encounter. Only what
was observed on days before the index date becomes a feature, so that a diagnosis is never predicted from its own
work-up day.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.blocks import Block, Quantity, flags, join, quantity
from fedjax_poisson.data.placement import place_records, table_sites
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.csv_table import text_lines

_DATE = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?(?:T.*)?")
_COUNT = Quantity(0.0, 20.0, 0.0)
_AGE = Quantity(0.0, 110.0, 50.0)


class Measure(NamedTuple):
    """One observation that becomes a feature.

    Attributes:
        name: Feature name; several codes may share one.
        unit: The unit it must be given in (UCUM code), or None to take any.
        known: Public range and normal value.
    """

    name: str
    unit: str | None
    known: Quantity


# LOINC codes of common observations; ranges and normal values are public clinical knowledge.
MEASURES: Mapping[str, Measure] = {
    "8480-6": Measure("systolic", "mm[Hg]", Quantity(60.0, 250.0, 120.0)),
    "8462-4": Measure("diastolic", "mm[Hg]", Quantity(30.0, 150.0, 80.0)),
    "8867-4": Measure("heart_rate", "/min", Quantity(30.0, 220.0, 75.0)),
    "39156-5": Measure("body_mass_index", "kg/m2", Quantity(10.0, 70.0, 25.0)),
    "2339-0": Measure("glucose", "mg/dL", Quantity(20.0, 600.0, 95.0)),
    "2345-7": Measure("glucose", "mg/dL", Quantity(20.0, 600.0, 95.0)),
    "4548-4": Measure("hba1c", "%", Quantity(3.0, 18.0, 5.4)),
    "2160-0": Measure("creatinine", "mg/dL", Quantity(0.0, 15.0, 1.0)),
    "38483-4": Measure("creatinine", "mg/dL", Quantity(0.0, 15.0, 1.0)),
    "2093-3": Measure("cholesterol", "mg/dL", Quantity(50.0, 500.0, 190.0)),
    "2085-9": Measure("hdl", "mg/dL", Quantity(5.0, 150.0, 55.0)),
}


class _History(NamedTuple):
    """What the files say about each patient: days are proleptic ordinals."""

    patients: dict[str, dict[str, Any]]
    encounters: dict[str, list[tuple[int, str]]]
    conditions: dict[str, list[tuple[int | None, frozenset[str]]]]
    observations: dict[str, list[tuple[int, str, float]]]


def from_fhir(
    folder: str | os.PathLike[str],
    *,
    outcome: Sequence[str],
    measures: Mapping[str, Measure] = MEASURES,
    site: Literal["encounter", "patient"] = "encounter",
    min_site_records: int = 20,
    test_fraction: float = 0.34,
    split_seed: int = 0,
) -> Sites:
    """Read Patient, Encounter, Condition and Observation files; label 1 where a patient has a condition of `outcome`.

    Features: age at the index date, sex, the last value of each measure before it with whether there was one, and the
    number of other conditions before it.

    Args:
        folder: The folder of `*.ndjson` or `*.ndjson.gz` files.
        outcome: Condition codes (of any system, for example SNOMED CT) that make the label 1; they are not features.
        measures: Observations to use by LOINC code.
        site: "encounter" for the serviceProvider of the last encounter up to the index date, "patient" for the
            patient's managingOrganization.
        min_site_records: Sites with fewer patients are merged into "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.

    Returns:
        One record for each patient who has an index date; a patient without an organisation is at the site "unknown".

    Raises:
        FileNotFoundError: The folder is not there, or has no Patient or Condition file.
        ValueError: A line is not the JSON resource that it should be, a date or unit is wrong, or nobody has the
            outcome.
    """
    root = pathlib.Path(os.fspath(folder))
    if isinstance(outcome, str) or not outcome:
        raise ValueError(f"outcome is {outcome!r}; expected a list of condition codes such as ['44054006']")
    if site not in ("encounter", "patient"):
        raise ValueError(f"site is {site!r}; expected 'encounter' or 'patient'")
    history = _read(root, measures)
    index = {person: day for person in history.patients if (day := _index_day(history, person, outcome)) is not None}
    people = sorted(index)
    labels = np.array([_first_outcome(history, person, outcome) is not None for person in people]).astype(np.int32)
    if len(people) == 0 or labels.min() == labels.max():
        raise ValueError(
            f"{root}: {int(labels.sum())} of {len(people)} patients have a condition coded {', '.join(outcome)}; "
            "a label needs both kinds: check the codes"
        )
    block = _features(history, people, index, outcome, measures)
    placement = place_records(
        labels,
        [_place(history, person, index[person], site) for person in people],
        people,
        SplitRules(
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
    )
    return table_sites(
        block,
        labels,
        placement,
        ("no outcome", "outcome"),
        Provenance(
            name="fhir",
            source=str(root),
            notes=(
                f"label 1 = a condition coded {', '.join(outcome)}; index date = its first date, or else the last encounter",
                "cases are followed until their diagnosis, others until their last encounter: lengths of history may differ",
                f"{len(history.patients) - len(people)} patients without any dated encounter or outcome left out",
            ),
        ),
    )


def _read(root: pathlib.Path, measures: Mapping[str, Measure]) -> _History:
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; a FHIR bulk export is a folder of NDJSON files")
    history = _History({}, {}, {}, {})
    for where, resource in _resources(root, "Patient", required=True):
        if history.patients.setdefault(resource["id"], resource) is not resource:
            raise ValueError(f"{where}: patient {resource['id']!r} was there before; an export has each patient once")
    for where, resource in _resources(root, "Encounter"):
        start = _day(resource.get("period", {}).get("start"), where)
        if start is not None:
            provider = resource.get("serviceProvider", {}).get("reference", "")
            history.encounters.setdefault(_subject(resource, where), []).append((start, provider))
    for where, resource in _resources(root, "Condition", required=True):
        when = (
            resource.get("onsetDateTime")
            or resource.get("onsetPeriod", {}).get("start")
            or resource.get("recordedDate")
        )
        entry = (_day(when, where), frozenset(_codes(resource)))
        history.conditions.setdefault(_subject(resource, where), []).append(entry)
    for where, resource in _resources(root, "Observation"):
        when = resource.get("effectiveDateTime") or resource.get("effectivePeriod", {}).get("start")
        day = _day(when, where)
        if day is None:
            continue
        # Blood pressure comes as one observation with two components.
        for part in (resource, *resource.get("component", ())):
            for code in _codes(part):
                if code in measures and "value" in part.get("valueQuantity", {}):
                    value = _value(part["valueQuantity"], measures[code], where)
                    history.observations.setdefault(_subject(resource, where), []).append((day, code, value))
    return history


def _resources(root: pathlib.Path, kind: str, required: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every resource of a type with a word on where it stands, from all files whose name holds the type as a word."""
    name = re.compile(rf"(?:^|[._-]){kind}(?:[._-].*)?\.ndjson(?:\.gz)?$")
    files = sorted(path for path in root.iterdir() if name.search(path.name))
    if required and not files:
        raise FileNotFoundError(f"{root}: no {kind}.ndjson; a bulk export has one file or more for each resource type")
    for path in files:
        for number, line in enumerate(text_lines(path), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                resource = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error}); NDJSON has one whole resource in each line") from error
            if not isinstance(resource, dict) or resource.get("resourceType") != kind or "id" not in resource:
                raise ValueError(f"{where}: expected a {kind} resource with an id")
            yield where, resource


def _day(text: str | None, where: str) -> int | None:
    """Ordinal of a FHIR date or dateTime; the first day of a year or month given without a day."""
    if not text:
        return None
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            raise ValueError("wrong form")
        return datetime.date(*(int(part or 1) for part in match.groups())).toordinal()
    except ValueError as error:
        raise ValueError(f"{where}: {text!r} is not a FHIR date ({error})") from error


def _subject(resource: Mapping[str, Any], where: str) -> str:
    subject = resource.get("subject")
    reference = subject.get("reference", "") if isinstance(subject, dict) else ""
    if "/" not in reference:
        raise ValueError(f"{where}: the subject reference is {reference!r}; expected Patient/<id>")
    return reference.rsplit("/", 1)[1]


def _codes(resource: Mapping[str, Any]) -> list[str]:
    return [coding["code"] for coding in resource.get("code", {}).get("coding", ()) if "code" in coding]


def _value(found: Mapping[str, Any], measure: Measure, where: str) -> float:
    unit = found.get("code") or found.get("unit")
    if measure.unit is not None and unit not in (None, measure.unit):
        raise ValueError(
            f"{where}: {measure.name} in {unit!r}; expected {measure.unit!r}. Convert it, or declare the unit"
        )
    value = found["value"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: {measure.name} should be a number; saw {value!r}")
    return float(value)


def _first_outcome(history: _History, person: str, outcome: Sequence[str]) -> int | None:
    days = [day for day, codes in history.conditions.get(person, ()) if codes & set(outcome)]
    # An undated diagnosis cannot be placed before or after anything: it counts as made at the last encounter.
    undated = [max((start for start, _ in history.encounters.get(person, ())), default=None)] if None in days else []
    return min((day for day in [*days, *undated] if day is not None), default=None)


def _index_day(history: _History, person: str, outcome: Sequence[str]) -> int | None:
    first = _first_outcome(history, person, outcome)
    return first if first is not None else max((day for day, _ in history.encounters.get(person, ())), default=None)


def _features(
    history: _History,
    people: Sequence[str],
    index: Mapping[str, int],
    outcome: Sequence[str],
    measures: Mapping[str, Measure],
) -> Block:
    ages, others = [], []
    latest = {measure.name: np.full(len(people), np.nan) for measure in measures.values()}
    for i, person in enumerate(people):
        born = _day(history.patients[person].get("birthDate"), f"Patient/{person}")
        ages.append(np.nan if born is None else (index[person] - born) / 365.25)
        before = [codes for day, codes in history.conditions.get(person, ()) if day is not None and day < index[person]]
        others.append(float(sum(not codes & set(outcome) for codes in before)))
        for day, code, value in sorted(history.observations.get(person, ())):
            if day < index[person]:
                latest[measures[code].name][i] = value
    sex = np.array([history.patients[person].get("gender", "unknown") for person in people])
    known = {measure.name: measure.known for measure in measures.values()}
    return join(
        [
            quantity("age", np.array(ages), _AGE, indicator=False),
            flags(
                ["female", "sex_other_or_unknown"],
                np.stack([sex == "female", ~np.isin(sex, ["female", "male"])], axis=1),
            ),
            quantity("other_conditions", np.array(others), _COUNT, indicator=False),
            *(quantity(name, values, known[name]) for name, values in latest.items()),
        ]
    )


def _place(history: _History, person: str, index: int, site: str) -> str:
    if site == "patient":
        return history.patients[person].get("managingOrganization", {}).get("reference") or "unknown"
    visits = sorted(visit for visit in history.encounters.get(person, ()) if visit[0] <= index)
    return (visits[-1][1] if visits else "") or "unknown"
