"""Logistic regression on one's own table; every record is a user of its own, which makes it the privacy unit."""

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
from pfl.model.pytorch import PyTorchModel
from pfl.privacy.gaussian_mechanism import GaussianMechanism
from pfl.privacy.privacy_accountant import PLDPrivacyAccountant
from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
from sklearn.metrics import roc_auc_score

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
ROUNDS = 20


class Logistic(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = torch.nn.Linear(features, 1)

    def loss(self, x, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(self.layer(x)[:, 0], y)

    def metrics(self, x, y):
        return {}


table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = (2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1).to_numpy(np.float32)
y, train = table["disease"].to_numpy(np.float32), np.flatnonzero(table["train"])

accountant = PLDPrivacyAccountant(
    num_compositions=ROUNDS, sampling_probability=1.0, mechanism="gaussian", epsilon=3.0, delta=1e-4
)
mechanism = CentrallyAppliedPrivacyMechanism(GaussianMechanism.from_privacy_accountant(accountant, clipping_bound=1.0))
users = FederatedDataset(lambda i: Dataset((x[[i]], y[[i]]), user_id=i), get_user_sampler("minimize_reuse", train))
network = Logistic(x.shape[1])
FederatedAveraging().run(
    NNAlgorithmParams(
        central_num_iterations=ROUNDS,
        evaluation_frequency=ROUNDS + 1,
        train_cohort_size=len(train),
        val_cohort_size=None,
    ),
    SimulatedBackend(training_data=users, val_data=users, postprocessors=[WeightByUser(), mechanism]),
    PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=0.5, momentum=0.9)),
    NNTrainHyperParams(local_num_epochs=1, local_learning_rate=1.0, local_batch_size=None),
    send_metrics_to_platform=False,
)
held_out = np.setdiff1d(np.arange(len(y)), train)
scores = network.layer(torch.from_numpy(x[held_out]))[:, 0].detach()
print("AUC", roc_auc_score(y[held_out], scores), "epsilon", accountant.epsilon)
