"""The program of `train_fedjax_poisson.py` with a flax module of one's own in place of the logistic regression."""

import sys

import optax
from flax import linen as nn

import fedjax_poisson as fp

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
RECORDS, SITES, ROUNDS = 490, 4, 20


class Net(nn.Module):
    """One hidden layer."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.tanh(nn.Dense(8)(x)))


sites = fp.data.from_csv(sys.argv[1], label="disease", site="site", bounds=BOUNDS, drop=["train"])
scaler = fp.federated.bounds_scaler(sites.feature_bounds, RECORDS)
train, test = (fp.federated.records_of(sites, split, scaler) for split in (True, False))
features = sites.features.shape[1]

model = fp.models.from_flax(Net(), "binary")
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
