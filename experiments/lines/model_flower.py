"""The program of `train_flower.py` with a PyTorch module of one's own in place of the logistic regression."""

import sys

import dp_accounting
import numpy as np
import pandas as pd
import torch
from dp_accounting import pld
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvgM
from flwr.simulation import run_simulation
from sklearn.metrics import roc_auc_score
from torch.func import functional_call, grad, vmap

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
SITES, ROUNDS, CLIP = 4, 20, 1.0

table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = torch.tensor((2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1).to_numpy(np.float32))
y = torch.tensor(table["disease"].to_numpy(np.float32))
site, train = table["site"].to_numpy(), (table["train"] == 1).to_numpy()

noise = dp_accounting.calibrate_dp_mechanism(
    pld.PLDAccountant,
    lambda z: dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), ROUNDS),
    target_epsilon=3.0,
    target_delta=1e-4,
)
client_app, server_app = ClientApp(), ServerApp()
net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def loss(params, x, y):
    return torch.nn.functional.binary_cross_entropy_with_logits(functional_call(net, params, (x,))[0], y)


@client_app.train()
def train_site(message, context):
    mine = train & (site == np.unique(site)[context.node_config["partition-id"]])
    params = message.content["arrays"].to_torch_state_dict()
    gradients = vmap(grad(loss), (None, 0, 0))(params, x[mine], y[mine])
    norms = torch.sqrt(sum(g.flatten(1).pow(2).sum(1) for g in gradients.values()))
    weight = 1 / torch.clamp(norms / CLIP, min=1)
    for name, g in gradients.items():
        total = torch.tensordot(weight, g, 1) + noise * CLIP * torch.randn(g.shape[1:])
        params[name] -= total / mine.sum()
    content = {"arrays": ArrayRecord(params), "n": MetricRecord({"num-examples": int(mine.sum())})}
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
    result = strategy.start(grid, ArrayRecord(net.state_dict()), num_rounds=ROUNDS)
    net.load_state_dict(result.arrays.to_torch_state_dict())
    print("AUC", roc_auc_score(y[~train], net(x[~train])[:, 0].detach()))


run_simulation(server_app, client_app, num_supernodes=SITES)
