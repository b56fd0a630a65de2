"""UCI heart disease: 740 patients of four hospitals, in the form and with the splits of FLamby's Fed-Heart-Disease.

Reference: J. Ogier du Terrail et al., FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in Realistic
Healthcare Settings, NeurIPS 2022. Data: A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano, Heart Disease, UCI Machine
Learning Repository, 1989.
"""

from __future__ import annotations

import importlib.resources

import numpy as np

from fedjax_poisson.data.sites import Provenance, Sites

SITE_NAMES = ("Cleveland", "Hungary", "Switzerland", "Long Beach")

# Clinical plausibility ranges for adults in a cardiology clinic, not these records' extremes: years, resting systolic
# pressure in mmHg, serum cholesterol in mg/dl (from 0, which stands for "not measured" here), maximum heart rate per
# minute, ST depression in mm.
CLINICAL_BOUNDS = {
    "age": (20.0, 90.0),
    "trestbps": (80.0, 210.0),
    "chol": (0.0, 600.0),
    "thalach": (60.0, 210.0),
    "oldpeak": (-3.0, 7.0),
}

_NOTES = (
    "FLamby's form: the columns age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang and oldpeak of the 14 usual "
    "ones; the 180 of 920 records with a missing value among them dropped; cp and restecg one-hot without their first "
    "level; label 1 = any narrowing (num > 0)",
    "FLamby's splits (stratified, 66 % train): 199/104, 172/89, 30/16 and 85/45 records",
    "chol = 0 means not measured: in all 46 records of Switzerland and 33 of Long Beach; kept as in FLamby's form",
    "trestbps = 0 in one record of Long Beach is a data error; kept as in FLamby's form, the bounds clip it to 80",
    "bounds are public clinical plausibility ranges, not taken from these records",
)


def load_heart() -> Sites:
    """Load the four hospitals; the record is the privacy unit, since every patient has one record.

    Returns:
        740 records x 13 features, label 1 for diagnosed coronary narrowing.
    """
    resource = importlib.resources.files("fedjax_poisson.data") / "files" / "heart.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        names = tuple(str(name) for name in arrays["feature_names"])
        features = arrays["features"].astype(np.float32)
        labels = arrays["labels"].astype(np.int32)
        site = arrays["site"].astype(np.int32)
        train = arrays["train"].astype(bool)
    bounds = np.array([CLINICAL_BOUNDS.get(name, (0.0, 1.0)) for name in names], np.float32)
    return Sites(
        features=features,
        labels=labels,
        site=site,
        site_names=SITE_NAMES,
        train=train,
        group=np.arange(len(labels), dtype=np.int64),
        unit="record",
        feature_names=names,
        feature_bounds=bounds,
        binary=np.array([name not in CLINICAL_BOUNDS for name in names]),
        class_names=("no disease", "disease"),
        subgroups=("sex", "age>=60"),
        provenance=Provenance(
            name="heart",
            source="UCI Machine Learning Repository, Heart Disease (four hospitals), https://doi.org/10.24432/C52P4X",
            licence="CC BY 4.0",
            citation="Janosi, A., Steinbrunn, W., Pfisterer, M., & Detrano, R. (1989). Heart Disease [Dataset]. "
            "UCI Machine Learning Repository. https://doi.org/10.24432/C52P4X",
            notes=_NOTES,
        ),
    )
