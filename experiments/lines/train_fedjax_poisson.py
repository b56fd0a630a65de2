"""Logistic regression on one's own table with several sites; every record is private and every update encrypted."""

import sys

import optax

import fedjax_poisson as fp

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
RECORDS, SITES, ROUNDS = 490, 4, 20

sites = fp.data.from_csv(sys.argv[1], label="disease", site="site", bounds=BOUNDS, drop=["train"])
scaler = fp.federated.bounds_scaler(sites.feature_bounds, RECORDS)
train, test = (fp.federated.records_of(sites, split, scaler) for split in (True, False))
features = sites.features.shape[1]

model = fp.models.logistic()
size = fp.federated.dimension_of(model, (features,))
mechanism, ledger = fp.calibrate(
    epsilon=3.0,
    delta=1e-4,
    rounds=ROUNDS,
    senders=SITES,
    dimension=size,
    unit="record",
    clip_norm=1.0,
    largest_site=256,
)
algorithm = fp.fedsgd(
    model,
    features=features,
    records=RECORDS,
    sampling_rate=1.0,
    senders=SITES,
    mechanism=mechanism,
    ledger=ledger,
    server_optimizer=optax.sgd(0.5, momentum=0.9),
)
result = fp.fit(algorithm, train, rounds=ROUNDS, evaluate=fp.evaluator(model, test), evaluate_every=ROUNDS)
print("AUC", result.history[-1]["auc"], "epsilon", result.epsilon)
