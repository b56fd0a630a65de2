"""MIMIC-IV (demo 2.2 or full): hospital mortality from the first day's laboratory values of a patient's first ICU stay.

Reference: A. Johnson et al., MIMIC-IV, a freely accessible electronic health record dataset, Scientific Data 10, 1
    (2023).
The demo of 100 patients is under the Open Database License 1.0. It is one hospital: its care units stand in for sites.
"""

from __future__ import annotations

import csv
import datetime
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from fedjax_poisson.data.blocks import Quantity, flags, join, quantity
from fedjax_poisson.data.placement import place_records, table_sites
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.csv_table import csv_in, line_list, numeric, read_table, text_lines

_TITLE = "MIMIC-IV"

# Item numbers of hosp/d_labitems; ranges and normal values are public laboratory medicine, not these records.
LABORATORY = {
    "50912": ("creatinine", Quantity(0.0, 15.0, 1.0)),
    "51006": ("urea_nitrogen", Quantity(0.0, 150.0, 15.0)),
    "50983": ("sodium", Quantity(110.0, 170.0, 140.0)),
    "50971": ("potassium", Quantity(1.5, 9.0, 4.2)),
    "50882": ("bicarbonate", Quantity(5.0, 50.0, 24.0)),
    "50902": ("chloride", Quantity(70.0, 140.0, 102.0)),
    "50868": ("anion_gap", Quantity(0.0, 40.0, 12.0)),
    "50931": ("glucose", Quantity(10.0, 800.0, 100.0)),
    "51221": ("hematocrit", Quantity(10.0, 60.0, 42.0)),
    "51265": ("platelets", Quantity(0.0, 1000.0, 250.0)),
    "51301": ("white_cells", Quantity(0.0, 60.0, 8.0)),
    "50813": ("lactate", Quantity(0.0, 20.0, 1.2)),
}
_AGE = Quantity(18.0, 91.0, 65.0)
_BEFORE = datetime.timedelta(hours=6)
_AFTER = datetime.timedelta(hours=24)


def from_mimic(
    root: str | os.PathLike[str], *, min_site_records: int = 5, test_fraction: float = 0.34, split_seed: int = 0
) -> Sites:
    """Read the first ICU stay of every patient; label 1 where the patient died in that hospital stay.

    Laboratory values are the last ones from 6 hours before to 24 hours after admission to the unit.

    Args:
        root: The folder that holds hosp/ and icu/.
        min_site_records: Care units with fewer stays are merged into "other".
        test_fraction: Fraction of each unit's patients held out.
        split_seed: Seed of that split.

    Returns:
        One record for each patient; sites are first care units.

    Raises:
        FileNotFoundError: The folder or one of the tables is not there.
        ValueError: A column is missing or holds something else than it should.
    """
    folder = pathlib.Path(os.fspath(root))
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; {_TITLE} (demo: physionet.org/content/mimic-iv-demo) "
            "is expected with hosp/ and icu/"
        )
    stays = _first_stays(folder)
    admissions = read_table(csv_in(folder / "hosp", "admissions", _TITLE))
    flag = admissions.column("hospital_expire_flag")
    odd = [line for line, text in zip(admissions.lines, flag, strict=True) if text not in ("0", "1")]
    if odd:
        raise ValueError(f"{admissions.path}, {line_list(odd)}: hospital_expire_flag should be 0 or 1")
    died = dict(zip(admissions.column("hadm_id"), flag, strict=True))
    patients = read_table(csv_in(folder / "hosp", "patients", _TITLE))
    row_of = {subject: row for row, subject in enumerate(patients.column("subject_id"))}
    lost = [stay for stay in stays if stay["hadm_id"] not in died or stay["subject_id"] not in row_of]
    if lost:
        raise ValueError(f"{folder}: ICU stay {lost[0]['stay_id']} has no row in hosp/admissions or hosp/patients")
    ages = numeric([patients.column("anchor_age")[row_of[stay["subject_id"]]] for stay in stays])
    if ages is None:
        raise ValueError(f"{patients.path}: anchor_age should be a number")
    female = np.array([patients.column("gender")[row_of[stay["subject_id"]]] == "F" for stay in stays])
    measured = _laboratory(folder, stays)
    blocks = [quantity("age", np.array(ages), _AGE, indicator=False), flags(["female"], female[:, None])]
    blocks += [quantity(name, measured[:, k], known) for k, (name, known) in enumerate(LABORATORY.values())]
    labels = np.array([died[stay["hadm_id"]] == "1" for stay in stays]).astype(np.int32)
    placement = place_records(
        labels,
        [stay["first_careunit"] for stay in stays],
        [stay["subject_id"] for stay in stays],
        SplitRules(
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
    )
    return table_sites(
        join(blocks),
        labels,
        placement,
        ("survived", "died in hospital"),
        Provenance(
            name="mimic",
            source=f"{_TITLE}, {folder}",
            licence="demo: ODbL 1.0; full database: PhysioNet Credentialed Health Data License",
            citation="Johnson, A., Bulgarelli, L., Shen, L., et al. (2023). MIMIC-IV, a freely accessible electronic "
            "health record dataset. Scientific Data, 10, 1.",
            notes=(
                "first ICU stay of every patient; label 1 = died in that hospital stay",
                "one hospital: care units stand in for sites",
                "bounds and normal values are public laboratory ranges, not taken from these records",
            ),
        ),
    )


def _first_stays(folder: pathlib.Path) -> list[dict[str, str]]:
    table = read_table(csv_in(folder / "icu", "icustays", _TITLE))
    wanted = ("subject_id", "hadm_id", "stay_id", "first_careunit", "intime")
    columns = [table.column(name) for name in wanted]
    first: dict[str, dict[str, str]] = {}
    for row, line in enumerate(table.lines):
        stay = {name: column[row] for name, column in zip(wanted, columns, strict=True)}
        _time(stay["intime"], f"{table.path}, line {line}: intime")
        known = first.get(stay["subject_id"])
        if known is None or stay["intime"] < known["intime"]:
            first[stay["subject_id"]] = stay
    return [first[subject] for subject in sorted(first, key=lambda text: (len(text), text))]


def _laboratory(folder: pathlib.Path, stays: list[dict[str, str]]) -> np.ndarray:
    """Last value of each laboratory item in each stay's window, float64 `[n, items]`, NaN where there is none."""
    place = {stay["subject_id"]: i for i, stay in enumerate(stays)}
    start = [_time(stay["intime"], "intime") for stay in stays]
    item = {code: k for k, code in enumerate(LABORATORY)}
    values = np.full((len(stays), len(item)), np.nan)
    latest: dict[tuple[int, int], datetime.datetime] = {}
    path = csv_in(folder / "hosp", "labevents", _TITLE)
    for line, event in _stream(path, ("subject_id", "itemid", "charttime", "valuenum")):
        i, k = place.get(event["subject_id"]), item.get(event["itemid"])
        if i is None or k is None or not event["valuenum"] or not event["charttime"]:
            continue
        when = _time(event["charttime"], f"{path}, line {line}: charttime")
        if not start[i] - _BEFORE <= when <= start[i] + _AFTER or when < latest.get((i, k), when):
            continue
        number = numeric([event["valuenum"]])
        if number is None:
            raise ValueError(f"{path}, line {line}: valuenum should be a number; saw {event['valuenum']!r}")
        values[i, k], latest[i, k] = number[0], when
    return values


def _stream(path: pathlib.Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file one at a time: labevents has more than a hundred million."""
    reader = csv.DictReader(text_lines(path), restval=None, restkey=None)
    header = reader.fieldnames or ()
    missing = [name for name in needed if name not in header]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}; the columns are: {', '.join(header)}")
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {reader.line_num}: more or fewer fields than the header's {len(header)}")
        yield reader.line_num, row


def _time(text: str, what: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{what} should be a time such as 2150-01-31 13:20:00; saw {text!r}") from error
