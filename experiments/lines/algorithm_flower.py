"""An algorithm of one's own: sharpness-aware clients, 60 of them; each client as a whole is private towards whoever sees the model."""

import sys

import dp_accounting
import numpy as np
import pandas as pd
from dp_accounting import rdp
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import NeighboringRelation, PrivacyConfig, RdpAccountant, SamplingMethod, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from flwr.simulation import run_simulation
from scipy.special import expit
from sklearn.metrics import roc_auc_score

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
CLIENTS, ROUNDS, EPSILON, DELTA = 60, 10, 8.0, 1e-3
RATE, RADIUS, STEPS = 0.3, 0.05, 5

table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = np.c_[2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1, np.ones(len(table))]
y, site, train = table["disease"].to_numpy(), table["site"].to_numpy(), table["train"] == 1

noise = dp_accounting.calibrate_dp_mechanism(
    rdp.RdpAccountant,
    lambda z: dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), ROUNDS),
    target_epsilon=EPSILON,
    target_delta=DELTA,
)
client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train_client(message, context):
    mine = train & (site == np.unique(site)[context.node_config["partition-id"]])
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    gradient = lambda w: x[mine].T @ (expit(x[mine] @ w) - y[mine]) / mine.sum()  # noqa: E731
    for _ in range(STEPS):
        uphill = gradient(weights)
        weights = weights - RATE * gradient(weights + RADIUS * uphill / (np.linalg.norm(uphill) + 1e-12))
    content = {"arrays": ArrayRecord([weights]), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


@server_app.main()
def main(grid, context):
    strategy = DifferentialPrivacyServerSideFixedClipping(
        FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS),
        noise_multiplier=noise,
        clipping_norm=0.5,
        num_sampled_clients=CLIENTS,
        accountant=RdpAccountant(
            PrivacyConfig(
                target_delta=DELTA,
                population_size=CLIENTS,
                neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
                sampling_method=SamplingMethod.NO_AMPLIFICATION,
                max_epsilon=EPSILON,
            )
        ),
    )
    result = strategy.start(grid, ArrayRecord([np.zeros(x.shape[1])]), num_rounds=ROUNDS)
    (weights,) = result.arrays.to_numpy_ndarrays()
    print("AUC", roc_auc_score(y[~train], x[~train] @ weights), "epsilon", strategy.privacy_spent().epsilon)


run_simulation(server_app, client_app, num_supernodes=CLIENTS)
