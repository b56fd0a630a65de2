"""The program of `train_fedjax.py` with a haiku module of one's own in place of the logistic regression."""

import secrets
import sys

import dp_accounting
import fedjax
import haiku as hk
import jax
import numpy as np
import optax
import pandas as pd
from dp_accounting import pld
from sklearn.metrics import roc_auc_score

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
ROUNDS, CLIP = 20, 1.0

table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = (2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1).to_numpy(np.float32)
y, train = table["disease"].to_numpy(np.float32), np.flatnonzero(table["train"])
held_out = np.setdiff1d(np.arange(len(y)), train)

noise = dp_accounting.calibrate_dp_mechanism(
    pld.PLDAccountant,
    lambda z: dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), ROUNDS),
    target_epsilon=3.0,
    target_delta=1e-4,
)
model = fedjax.create_model_from_haiku(
    hk.transform(lambda batch: hk.Sequential([hk.Linear(8), jax.nn.tanh, hk.Linear(1)])(batch["x"])[:, 0]),
    sample_batch={"x": x[:1], "y": y[:1]},
    train_loss=lambda batch, logits: optax.sigmoid_binary_cross_entropy(logits, batch["y"]),
)
gradient = fedjax.model_grad(model)
algorithm = fedjax.algorithms.fed_avg.federated_averaging(
    lambda params, batch, rng: fedjax.tree_util.tree_clip_by_global_norm(gradient(params, batch, rng), CLIP),
    client_optimizer=fedjax.optimizers.sgd(1.0),
    server_optimizer=fedjax.optimizers.create_optimizer_from_optax(
        optax.chain(
            optax.add_noise((noise * CLIP / len(train)) ** 2, 0.0, secrets.randbits(31)), optax.sgd(0.5, momentum=0.9)
        )
    ),
    client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(batch_size=1),
)
clients = fedjax.InMemoryFederatedData({f"{i}": {"x": x[[i]], "y": y[[i]]} for i in train})
state = algorithm.init(model.init(jax.random.PRNGKey(0)))
for number in range(ROUNDS):
    keys = jax.random.split(jax.random.PRNGKey(number), len(train))
    cohort = [(name, records, key) for (name, records), key in zip(clients.clients(), keys)]
    state, _ = algorithm.apply(state, cohort)
scores = model.apply_for_eval(state.params, {"x": x[held_out]})
print("AUC", roc_auc_score(y[held_out], scores))
