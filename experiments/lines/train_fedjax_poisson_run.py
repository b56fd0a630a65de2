"""The same with the library's own recipe: also releases means and deviations, and leaves a ledger, a report and the model in a folder."""

import sys

import fedjax_poisson as fp

BOUNDS = {"age": [20, 90], "trestbps": [80, 210], "chol": [0, 600], "thalach": [60, 210], "oldpeak": [-3, 7]}

config = fp.Config(
    csv=sys.argv[1],
    label="disease",
    site="site",
    bounds=BOUNDS,
    drop=["train"],
    epsilon=3.0,
    delta=1e-4,
    largest_site=256,
    training_units=490,
)
summary = fp.run(config, sys.argv[2])
print("AUC", summary["auc"], "epsilon", summary["epsilon"])
