"""Logistic regression on one's own table with several sites; every record is private, and each site adds the noise itself."""

import sys

import dp_accounting
import numpy as np
import pandas as pd
from dp_accounting import pld
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvgM
from flwr.simulation import run_simulation
from scipy.special import expit
from sklearn.metrics import roc_auc_score

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
SITES, ROUNDS, CLIP = 4, 20, 1.0

table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = np.c_[2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1, np.ones(len(table))]
y, site, train = table["disease"].to_numpy(), table["site"].to_numpy(), table["train"] == 1

noise = dp_accounting.calibrate_dp_mechanism(
    pld.PLDAccountant,
    lambda z: dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), ROUNDS),
    target_epsilon=3.0,
    target_delta=1e-4,
)
client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train_site(message, context):
    mine = train & (site == np.unique(site)[context.node_config["partition-id"]])
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    gradients = x[mine] * (expit(x[mine] @ weights) - y[mine])[:, None]
    gradients /= np.maximum(1, np.linalg.norm(gradients, axis=1, keepdims=True) / CLIP)
    total = gradients.sum(axis=0) + np.random.default_rng().normal(0, noise * CLIP, weights.shape)
    content = {
        "arrays": ArrayRecord([weights - total / mine.sum()]),
        "n": MetricRecord({"num-examples": int(mine.sum())}),
    }
    return Message(RecordDict(content), reply_to=message)


@server_app.main()
def main(grid, context):
    strategy = FedAvgM(
        fraction_evaluate=0.0,
        min_train_nodes=SITES,
        min_available_nodes=SITES,
        server_learning_rate=0.5,
        server_momentum=0.9,
    )
    result = strategy.start(grid, ArrayRecord([np.zeros(x.shape[1])]), num_rounds=ROUNDS)
    (weights,) = result.arrays.to_numpy_ndarrays()
    print("AUC", roc_auc_score(y[~train], x[~train] @ weights))


run_simulation(server_app, client_app, num_supernodes=SITES)
