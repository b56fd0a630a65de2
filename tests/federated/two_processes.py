"""One of several processes that train together; run by test_spread.py, each with its number.

    python two_processes.py NUMBER COUNT PORT FOLDER ROUNDS DIES_AT

Process 0 keeps the ledger and the checkpoint in FOLDER. The last process kills itself while it gathers its clients of round DIES_AT (0: never).
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import optax

import fedjax_poisson as fp
from fedjax_poisson import accounting, federated, models
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.randomness import fold_in

CLIENTS, RECORDS, FEATURES = 12, 4, 5
_KNOWN = inspect.signature(jax.distributed.initialize).parameters
DELTA, EPSILON = 1e-5, 1e4


class Mortal(np.ndarray):
    """An array whose reader dies at a given read: a process that is lost in the middle of a round."""

    reads_left = -1

    def __getitem__(self, index: Any) -> Any:
        if Mortal.reads_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Mortal.reads_left -= 1
        return super().__getitem__(index)


def train(folder: Path, rounds: int, mesh: Any, *, first: bool = True, dies_at: int = 0) -> np.ndarray:
    """Train, or go on from the checkpoint; returns the flat parameters."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(CLIENTS, RECORDS, FEATURES)).astype(np.float32)
    y = (x[..., 0] > 0).astype(np.float32)
    root = federated.shared_stream(7)
    size = FEATURES + 1
    mechanism = fp.poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=200.0, modulation=0.05)
    aggregator = fp.aggregator(
        "round",
        count_bound=mechanism.count_bound(CLIENTS, size),
        senders=CLIENTS,
        size=size,
        stream=fold_in(root, "run"),
    )
    population = federated.make_population(x.view(Mortal), y, on_device=False)
    algorithm = federated.fedavg(
        models.logistic(),
        client=federated.local_sgd(0.5, batch_size=2),
        population=population,
        senders=CLIENTS,
        server_optimizer=optax.sgd(1.0),
        mechanism=mechanism,
        aggregator=aggregator,
        layout=federated.Chunking(chunk=3),
        mesh=mesh,
    )
    orders = accounting.DEFAULT_ORDERS
    curve = algorithm.rdp(np.asarray(orders))
    ledger = None
    if first:
        ledger = accounting.open_ledger(
            folder / "ledger.sqlite", epsilon=EPSILON, delta=DELTA, unit="client", adjacency="zero_out", orders=orders
        )
    state = algorithm.init(jax.random.key(0))
    saved = folder / "latest.npz"
    if saved.exists():
        state, _ = checkpoints.load_tree(saved, jax.tree.map(np.asarray, state))
    for number in range(int(np.asarray(state.server.round)) + 1, rounds + 1):

        def gate(number: int = number) -> None:
            assert ledger is not None
            ledger.spend("train", f"train {number}", "poisson_embedding", {}, curve, CLIENTS - 1, CLIENTS)

        if number == dies_at:
            Mortal.reads_left = 1
        try:
            state, _ = algorithm.apply(
                state, range(CLIENTS), fold_in(root, "round", number), federated.first_process_gate(gate)
            )
        except federated.RoundLost as lost:
            print(f"RoundLost: {lost}", flush=True)
            os._exit(3)  # the coordination service cannot be left in good order any more
        if first:
            checkpoints.save_tree(saved, jax.tree.map(np.asarray, state))
    if ledger is not None:
        print("ledger", [row.label for row in ledger.rows()], flush=True)
        ledger.close()
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.tree.map(np.asarray, state.server.params))])


def main() -> None:
    """One of the processes."""
    warnings.simplefilter("ignore")
    number, count, port, folder, rounds, dies_at = (int(a) if a.isdigit() else Path(a) for a in sys.argv[1:7])
    # jax 0.7 has no limit of its own for the end
    patience = {"shutdown_timeout_seconds": 60} if "shutdown_timeout_seconds" in _KNOWN else {}
    jax.distributed.initialize(f"localhost:{port}", count, number, heartbeat_timeout_seconds=6, **patience)
    vector = train(
        folder, rounds, federated.client_mesh(), first=number == 0, dies_at=dies_at if number == count - 1 else 0
    )
    if number == 0:
        np.save(folder / "params.npy", vector)


if __name__ == "__main__":
    main()
