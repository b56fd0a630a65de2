"""Garavan thyroid records: 9,172 referrals from five usable sources, with hormones and a coded diagnosis.

Data: J. R. Quinlan, Thyroid Disease (thyroid0387), UCI Machine Learning Repository, 1986, from the Garavan Institute,
Sydney. Diagnosis letters: A-D hyperthyroid, E-H hypothyroid, I-J binding protein, K general health, L-N replacement
therapy, O-Q antithyroid treatment, R-T discordant results, elevated TBG or hormones; "X|Y" is "consistent with X,
but more likely Y".
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from typing import Literal

import numpy as np

from fedjax_poisson.data.blocks import Block, Quantity, flags, join, quantity
from fedjax_poisson.data.placement import place_records, table_sites
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules
from fedjax_poisson.data.tables.columns import flag_values
from fedjax_poisson.data.tables.csv_table import Table, numeric, read_table

_FLAGS = (
    "on_thyroxine",
    "query_on_thyroxine",
    "on_antithyroid_meds",
    "sick",
    "pregnant",
    "thyroid_surgery",
    "I131_treatment",
    "query_hypothyroid",
    "query_hyperthyroid",
    "lithium",
    "goitre",
    "tumor",
    "hypopituitary",
    "psych",
)

# Public facts of laboratory medicine, not of these records: the range an assay can plausibly report and a mid-normal
# value that stands in for a missing result (mIU/l for TSH, nmol/l for T3 and TT4, ratios or indices for T4U and FTI,
# mg/l for TBG).
_HORMONES = {
    "TSH": Quantity(0.005, 500.0, 1.3),
    "T3": Quantity(0.0, 10.0, 2.0),
    "TT4": Quantity(0.0, 300.0, 105.0),
    "T4U": Quantity(0.0, 2.5, 1.0),
    "FTI": Quantity(0.0, 400.0, 110.0),
    "TBG": Quantity(0.0, 100.0, 20.0),
}
_AGE = Quantity(0.0, 110.0, 55.0)

# Usual adult reference intervals in the same units: what a laboratory report marks as L and H.
_REFERENCE = {
    "TSH": (0.4, 4.5),
    "T3": (1.2, 2.7),
    "TT4": (60.0, 150.0),
    "T4U": (0.75, 1.25),
    "FTI": (60.0, 155.0),
    "TBG": (12.0, 30.0),
}
_HYPOTHYROID = frozenset("EFGH")


def load_thyroid(
    label: Literal["any", "hypothyroid"] = "any",
    *,
    range_flags: bool = True,
    min_site_records: int = 20,
    test_fraction: float = 0.34,
    split_seed: int = 0,
) -> Sites:
    """Load the referral sources as sites.

    TSH spans five decades, so its natural logarithm is the feature `log_TSH`: a transformation of one record by itself,
    which costs no privacy. Each hormone comes with its 0/1 `_measured` column; a result that is missing is set to a
    public mid-normal value.

    Args:
        label: "any" for any comment of the laboratory (target other than "-"), "hypothyroid" for diagnoses E to H.
        range_flags: Whether to add the 0/1 features `<hormone>_low` and `<hormone>_high`, outside the reference interval
            on either side, as laboratory reports print them. Both ends mean illness, which a linear model cannot see in
            the value itself: its AUC for "any" rises from 0.73 to 0.96.
        min_site_records: Sources with fewer records are merged into "other" (WEST has three).
        test_fraction: Fraction of each site's records held out.
        split_seed: Seed of that split.

    Returns:
        9,172 records x 41 features (29 without range_flags), the record being the privacy unit: the file's identifiers differ in every row.

    Raises:
        ValueError: The label is not one of the two.
    """
    if label not in ("any", "hypothyroid"):
        raise ValueError(f"label is {label!r}; expected 'any' or 'hypothyroid'")
    with importlib.resources.as_file(
        importlib.resources.files("fedjax_poisson.data") / "files" / "thyroid.csv.gz"
    ) as path:
        table = read_table(path)
    labels = np.array([_is_ill(target, label) for target in table.columns["target"]], np.int32)
    placement = place_records(
        labels,
        table.columns["referral_source"],
        None,
        SplitRules(
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
    )
    block, notes = _features(table, range_flags)
    sites = table_sites(
        block,
        labels,
        placement,
        ("no condition", "any condition") if label == "any" else ("not hypothyroid", "hypothyroid"),
        Provenance(
            name="thyroid",
            source="UCI Machine Learning Repository, Thyroid Disease (thyroid0387), https://doi.org/10.24432/C5D010",
            licence="CC BY 4.0",
            citation="Quinlan, R. (1986). Thyroid Disease [Dataset]. UCI Machine Learning Repository. "
            "https://doi.org/10.24432/C5D010",
            notes=tuple(notes),
        ),
    )
    return dataclasses.replace(sites, subgroups=("sex_female", "age>=60"))


def _features(table: Table, range_flags: bool) -> tuple[Block, list[str]]:
    age = _numbers(table, "age")
    wrong = age > 120
    sex = np.array(table.columns["sex"])
    blocks = [
        quantity("age", np.where(wrong, np.nan, age), _AGE, indicator=False),
        flags(["sex_female", "sex_missing"], np.stack([sex == "F", sex == ""], axis=1)),
        flags(_FLAGS, np.stack([_truth(table, name) for name in _FLAGS], axis=1)),
    ]
    for name, known in _HORMONES.items():
        value = _numbers(table, name)
        if name == "TSH":
            logs = Quantity(*np.log(known).tolist())
            block = quantity("log_TSH", np.log(np.maximum(value, known.lower)), logs)
            blocks.append(block._replace(names=("log_TSH", "TSH_measured")))
        else:
            blocks.append(quantity(name, value, known))
        if range_flags:
            # A comparison with NaN is false: what was not measured is neither high nor low.
            low, high = _REFERENCE[name]
            blocks.append(flags([f"{name}_low", f"{name}_high"], np.stack([value < low, value > high], axis=1)))
    block = join(blocks)
    return block, [
        f"{int(wrong.sum())} ages above 120 are data errors and count as missing",
        "the identifier differs in every row, so repeated referrals of one person, if any, cannot be recognised",
        "bounds, stand-in values and reference intervals are public laboratory ranges, not taken from these records",
    ]


def _numbers(table: Table, name: str) -> np.ndarray:
    parsed = numeric(table.column(name))
    if parsed is None:
        raise ValueError(f"{table.path}: column {name!r} should hold numbers only; the shipped file is damaged")
    return np.array(parsed)


def _truth(table: Table, name: str) -> np.ndarray:
    parsed = flag_values(table.column(name))
    if parsed is None or np.isnan(parsed).any():
        raise ValueError(f"{table.path}: column {name!r} should hold f and t only; the shipped file is damaged")
    return np.array(parsed)


def _is_ill(target: str, label: str) -> bool:
    if label == "any":
        return target != "-"
    # "H|K": consistent with H, but K is more likely.
    return bool(_HYPOTHYROID & set(target.split("|")[-1]))
