"""An algorithm of one's own: sharpness-aware clients, 60 of them; each client as a whole is private towards whoever sees the model."""

import sys

import numpy as np
import pandas as pd
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByUser
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_accountant import PLDPrivacyAccountant
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
from sklearn.metrics import roc_auc_score

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
CLIENTS, ROUNDS, RADIUS = 60, 10, 0.05


class Logistic(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = torch.nn.Linear(features, 1)

    def loss(self, x, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(self.layer(x)[:, 0], y)

    def metrics(self, x, y):
        return {}


def sharpness_aware_step(network, optimizer, batch, train_kwargs, arguments):
    uphill = torch.autograd.grad(network.loss(*batch), list(network.parameters()))
    scale = RADIUS / (torch.sqrt(sum((g**2).sum() for g in uphill)) + 1e-12)
    with torch.no_grad():
        for p, g in zip(network.parameters(), uphill):
            p += scale * g
    optimizer.zero_grad()
    network.loss(*batch).backward()
    with torch.no_grad():
        for p, g in zip(network.parameters(), uphill):
            p -= scale * g
    optimizer.step()


class SharpnessAware(FederatedAveraging):
    def train_one_user(self, initial_model_state, model, user_dataset, central_context):
        model.do_multiple_epochs_of(user_dataset, central_context.model_train_params, sharpness_aware_step)
        return model.get_model_difference(initial_model_state), Metrics()


table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = (2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1).to_numpy(np.float32)
y, site, train = table["disease"].to_numpy(np.float32), table["site"].to_numpy(), table["train"] == 1

accountant = PLDPrivacyAccountant(
    num_compositions=ROUNDS, sampling_probability=1.0, mechanism="gaussian", epsilon=8.0, delta=1e-3
)
mechanism = CentrallyAppliedPrivacyMechanism(GaussianMechanism.from_privacy_accountant(accountant, clipping_bound=0.5))
users = FederatedDataset(
    lambda name: Dataset((x[train & (site == name)], y[train & (site == name)]), user_id=name),
    get_user_sampler("minimize_reuse", np.unique(site)),
)
network = Logistic(x.shape[1])
SharpnessAware().run(
    NNAlgorithmParams(
        central_num_iterations=ROUNDS, evaluation_frequency=ROUNDS + 1, train_cohort_size=CLIENTS, val_cohort_size=None
    ),
    SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByUser(), mechanism]),
    PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0)),
    NNTrainHyperParams(local_num_epochs=5, local_learning_rate=0.3, local_batch_size=None),
    send_metrics_to_platform=False,
)
scores = network.layer(torch.from_numpy(x[~train]))[:, 0].detach()
print("AUC", roc_auc_score(y[~train], scores), "epsilon", accountant.epsilon)
