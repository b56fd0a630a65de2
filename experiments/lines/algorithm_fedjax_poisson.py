"""An algorithm of one's own: sharpness-aware clients, 60 of them; each client as a whole is private and its updates encrypted."""

import sys

import jax
import jax.numpy as jnp
import optax

import fedjax_poisson as fp

BOUNDS = {"age": (20, 90), "trestbps": (80, 210), "chol": (0, 600), "thalach": (60, 210), "oldpeak": (-3, 7)}
CLIENTS, ROUNDS = 60, 10


def sharpness_aware(rate, radius, steps):
    def client_of(model):
        def step(params, batch):
            gradient = jax.grad(lambda p: fp.federated.mean_loss(model, p, batch))
            uphill = gradient(params)
            scale = radius / (optax.global_norm(uphill) + 1e-12)
            ahead = jax.tree.map(lambda p, g: p + scale * g, params, uphill)
            return jax.tree.map(lambda p, g: p - rate * g, params, gradient(ahead))

        def finish(params, shared, client_state, new):
            return jax.tree.map(jnp.subtract, new, params), client_state

        schedule = fp.federated.Schedule(epochs=steps)
        return fp.federated.Client(lambda params, shared, client_state: params, step, finish, schedule)

    return client_of


sites = fp.data.from_csv(sys.argv[1], label="disease", site="site", bounds=BOUNDS, drop=["train"], min_site_records=1)
scaler = fp.federated.bounds_scaler(sites.feature_bounds, 1.0)
clients = fp.federated.population_of(sites, True, scaler)
test = fp.federated.records_of(sites, False, scaler)

model = fp.models.logistic()
size = fp.federated.dimension_of(model, sites.features.shape[1:])
mechanism, ledger = fp.calibrate(
    epsilon=8.0, delta=1e-3, rounds=ROUNDS, senders=CLIENTS, dimension=size, unit="client", clip_norm=0.5
)
algorithm = fp.fedavg(
    model,
    client=sharpness_aware(rate=0.3, radius=0.05, steps=5),
    population=clients,
    senders=CLIENTS,
    mechanism=mechanism,
    ledger=ledger,
    server_optimizer=optax.sgd(1.0),
)
result = fp.fit(algorithm, clients, rounds=ROUNDS, evaluate=fp.evaluator(model, test), evaluate_every=ROUNDS)
print("AUC", result.history[-1]["auc"], "epsilon", result.epsilon)
