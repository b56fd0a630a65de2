"""An algorithm of one's own: sharpness-aware clients, 60 of them; each client as a whole is private towards whoever sees the model."""

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
ROUNDS, CLIP, RATE, RADIUS, STEPS = 10, 0.5, 0.3, 0.05, 5

table = pd.read_csv(sys.argv[1])
columns = table.columns.difference(["site", "train", "disease"])
low, high = np.array([BOUNDS.get(name, (0, 1)) for name in columns], float).T
x = (2 * (np.clip(table[columns], low, high) - low) / (high - low) - 1).to_numpy(np.float32)
y, site, train = table["disease"].to_numpy(np.float32), table["site"].to_numpy(), table["train"] == 1

noise = dp_accounting.calibrate_dp_mechanism(
    pld.PLDAccountant,
    lambda z: dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), ROUNDS),
    target_epsilon=8.0,
    target_delta=1e-3,
)
model = fedjax.create_model_from_haiku(
    hk.transform(lambda batch: hk.Linear(1)(batch["x"])[:, 0]),
    sample_batch={"x": x[:1], "y": y[:1]},
    train_loss=lambda batch, logits: optax.sigmoid_binary_cross_entropy(logits, batch["y"]),
)
gradient = fedjax.model_grad(model)


def step(params, batch):
    uphill = gradient(params, batch, None)
    scale = RADIUS / (optax.global_norm(uphill) + 1e-12)
    ahead = jax.tree_util.tree_map(lambda p, g: p + scale * g, params, uphill)
    return jax.tree_util.tree_map(lambda p, g: p - RATE * g, params, gradient(ahead, batch, None))


def clipped_change(shared, params):
    change = jax.tree_util.tree_map(lambda old, new: old - new, shared, params)
    return fedjax.tree_util.tree_clip_by_global_norm(change, CLIP)


of_each_client = fedjax.for_each_client(lambda shared, _: shared, step, clipped_change)
names = np.unique(site)
clients = fedjax.InMemoryFederatedData(
    {name: {"x": x[train & (site == name)], "y": y[train & (site == name)]} for name in names}
)
server = fedjax.optimizers.create_optimizer_from_optax(
    optax.chain(optax.add_noise((noise * CLIP / len(names)) ** 2, 0.0, secrets.randbits(31)), optax.sgd(1.0))
)


def init(params):
    return params, server.init(params)


def apply(state, cohort):
    params, memory = state
    batches = [(name, list(records.batch(batch_size=len(records))) * STEPS, None) for name, records in cohort]
    total = fedjax.tree_util.tree_sum(change for _, change in of_each_client(params, batches))
    memory, params = server.apply(fedjax.tree_util.tree_inverse_weight(total, len(names)), memory, params)
    return (params, memory), {}


algorithm = fedjax.FederatedAlgorithm(init, apply)
state = algorithm.init(model.init(jax.random.PRNGKey(0)))
for _ in range(ROUNDS):
    state, _ = algorithm.apply(state, clients.clients())
print("AUC", roc_auc_score(y[~train], model.apply_for_eval(state[0], {"x": x[~train]})))
