"""eICU Collaborative Research Database (demo or full 2.0): hospital mortality from the APACHE variables of a stay.

Reference: T. Pollard et al., The eICU Collaborative Research Database, Scientific Data 5, 180178 (2018). The demo is
    under
the Open Database License 1.0; the full database needs PhysioNet credentials. Either is read from the CSV files as
they are distributed, or from one CSV that joins them.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from fedjax_poisson.data.blocks import Block, Quantity, flags, join, quantity
from fedjax_poisson.data.placement import place_records, table_sites
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.csv_table import Table, csv_in, line_list, numeric, read_table

_TITLE = "eICU Collaborative Research Database"
_TABLES = ("patient", "apacheApsVar", "apachePredVar", "hospital")
_KEY = "patientunitstayid"

# Plausible ranges and normal values of physiology in intensive care, public knowledge and not taken from these records.
# A value that was not measured (-1 in these tables) counts as normal, as it does in the APACHE score.
_PHYSIOLOGY = {
    "urine": Quantity(0.0, 8000.0, 1800.0),
    "wbc": Quantity(0.0, 60.0, 8.0),
    "temperature": Quantity(30.0, 42.0, 37.0),
    "respiratoryrate": Quantity(4.0, 60.0, 18.0),
    "sodium": Quantity(110.0, 170.0, 140.0),
    "heartrate": Quantity(20.0, 220.0, 80.0),
    "meanbp": Quantity(30.0, 200.0, 90.0),
    "ph": Quantity(6.9, 7.7, 7.4),
    "hematocrit": Quantity(10.0, 60.0, 42.0),
    "creatinine": Quantity(0.0, 15.0, 1.0),
    "albumin": Quantity(1.0, 6.0, 4.0),
    "pao2": Quantity(20.0, 500.0, 95.0),
    "pco2": Quantity(10.0, 110.0, 40.0),
    "bun": Quantity(0.0, 150.0, 15.0),
    "glucose": Quantity(10.0, 800.0, 100.0),
    "bilirubin": Quantity(0.0, 35.0, 0.7),
    "fio2": Quantity(21.0, 100.0, 21.0),
    "eyes": Quantity(1.0, 4.0, 4.0),
    "motor": Quantity(1.0, 6.0, 6.0),
    "verbal": Quantity(1.0, 5.0, 5.0),
}
_AGE = Quantity(0.0, 90.0, 65.0)
_TREATMENT = ("intubated", "vent", "dialysis", "meds")
_HISTORY = (
    "aids",
    "hepaticfailure",
    "lymphoma",
    "metastaticcancer",
    "leukemia",
    "immunosuppression",
    "cirrhosis",
    "electivesurgery",
    "diabetes",
    "ima",
    "midur",
)


def from_eicu(
    path: str | os.PathLike[str],
    *,
    site: Literal["hospital", "region"] = "hospital",
    indicators: bool = False,
    sites_per_patient: int = 1,
    min_site_records: int = 2,
    test_fraction: float = 0.34,
    split_seed: int = 0,
) -> Sites:
    """Read ICU stays with APACHE variables; label 1 where the patient died in hospital.

    Args:
        path: The folder with patient.csv[.gz], apacheApsVar, apachePredVar (and hospital, for the region), or one CSV
            file that joins them.
        site: What a site is: the hospital (186 in the demo) or the region of the United States.
        indicators: Whether to add a 0/1 feature for each variable that says whether it was measured.
        sites_per_patient: The most sites that a patient may have stays at; a patient at more is refused
            (`splitting.check_sites_per_patient` says what each costs). In the demo 18 patients were at two hospitals.
        min_site_records: Sites with fewer stays are merged into "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.

    Returns:
        Stays with a known outcome; the patient is the privacy unit and is never split.

    Raises:
        FileNotFoundError: The path, or one of the tables, is not there.
        ValueError: A column is missing or holds something else than it should, or a patient is at more sites than allowed.
    """
    if site not in ("hospital", "region"):
        raise ValueError(f"site is {site!r}; expected 'hospital' or 'region'")
    table = _load(pathlib.Path(os.fspath(path)))
    outcome = np.array(table.column("hospitaldischargestatus"))
    known = np.flatnonzero(outcome != "")
    table = _rows(table, known)
    outcome = outcome[known]
    odd = [line for line, text in zip(table.lines, outcome, strict=True) if text not in ("Alive", "Expired")]
    if odd:
        raise ValueError(f"{table.path}, {line_list(odd)}: hospitaldischargestatus should be Alive or Expired")
    labels = (outcome == "Expired").astype(np.int32)
    block = _features(table, indicators)
    places = [text or "unknown" for text in table.column("hospitalid" if site == "hospital" else "region")]
    placement = place_records(
        labels,
        [f"hospital {place}" for place in places] if site == "hospital" else places,
        table.column("uniquepid"),
        SplitRules(
            sites_per_patient=sites_per_patient,
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
        source=table.path,
    )
    return table_sites(
        block,
        labels,
        placement,
        ("survived", "died in hospital"),
        Provenance(
            name="eicu",
            source=f"{_TITLE}, {path}",
            licence="demo: ODbL 1.0; full database: PhysioNet Credentialed Health Data License",
            citation="Pollard, T., Johnson, A., Raffa, J., Celi, L., Mark, R., & Badawi, O. (2018). "
            "The eICU Collaborative Research Database. Scientific Data, 5, 180178.",
            notes=(
                f"{len(outcome)} stays with a known outcome; label 1 = died in hospital",
                "ages above 89 are given as '> 89' and count as 90",
                "bounds and normal values are public physiological ranges, not taken from these records",
            ),
        ),
    )


def _features(table: Table, indicators: bool) -> Block:
    gender = np.array(table.column("gender"))
    blocks = [
        quantity("age", _numbers(table, "age", {"> 89": "90"}), _AGE, indicator=False),
        flags(["female"], (gender == "Female")[:, None]),
    ]
    for name, known in _PHYSIOLOGY.items():
        values = _numbers(table, name)
        blocks.append(quantity(name, np.where(values == -1, np.nan, values), known, indicator=indicators))
    history = [name for name in _HISTORY if name in table.columns]
    yes = np.stack([_numbers(table, name) == 1 for name in (*_TREATMENT, *history)], axis=1)
    blocks.append(flags((*_TREATMENT, *history), yes, ["a flag that is blank or -1 counts as 0"]))
    return join(blocks)


def _numbers(table: Table, name: str, spellings: Mapping[str, str] | None = None) -> np.ndarray:
    texts = [(spellings or {}).get(text, text) for text in table.column(name)]
    parsed = numeric(texts)
    if parsed is None:
        place = next(i for i, text in enumerate(texts) if numeric([text]) is None)
        raise ValueError(f"{table.path}, line {table.lines[place]}: {name} should be a number; saw {texts[place]!r}")
    return np.array(parsed)


def _load(path: pathlib.Path) -> Table:
    if not path.is_dir():
        if not path.exists():
            files = ", ".join(f"{name}.csv.gz" for name in _TABLES)
            raise FileNotFoundError(
                f"{path}: no such file or folder; {_TITLE} (demo: physionet.org/content/eicu-crd-demo) "
                f"is expected as a folder with {files}"
            )
        return read_table(path)
    patient = read_table(csv_in(path, "patient", _TITLE))
    joined = _join(patient, read_table(csv_in(path, "apacheApsVar", _TITLE)), _KEY)
    joined = _join(joined, read_table(csv_in(path, "apachePredVar", _TITLE)), _KEY)
    if any((path / f"hospital.csv{end}").is_file() for end in ("", ".gz")):
        joined = _join(joined, read_table(csv_in(path, "hospital", _TITLE)), "hospitalid")
    return joined


def _join(left: Table, right: Table, key: str) -> Table:
    """Rows of `left` that have a partner in `right`, with the columns of both (those of `left` win)."""
    partner = {value: row for row, value in enumerate(right.column(key))}
    kept = np.array([row for row, value in enumerate(left.column(key)) if value in partner], np.int64)
    if len(kept) == 0:
        raise ValueError(f"{left.path} and {right.path} have no {key} in common")
    table = _rows(left, kept)
    rows = [partner[value] for value in table.columns[key]]
    extra = {name: [texts[r] for r in rows] for name, texts in right.columns.items() if name not in table.columns}
    return table._replace(columns=table.columns | extra)


def _rows(table: Table, kept: Sequence[int] | np.ndarray) -> Table:
    columns = {name: [texts[row] for row in kept] for name, texts in table.columns.items()}
    return table._replace(columns=columns, lines=[table.lines[row] for row in kept])
