"""pfl-research: FederatedAveraging on the SimulatedBackend with a PyTorch model, as its own benchmarks are written.

    python peer_pfl.py --workload W1 --processes 1 --threads 1

Clients are small, so that PyTorch's threads within one cost more than they save; give `--threads` to see. Two processes are started with
torchrun and share the clients of each cohort. Memory is then the sum over the processes.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import harness
import numpy as np


def simulate(task: harness.Task, threads: int) -> tuple[list[float], list[float], float]:
    """(seconds of each round, processor seconds of each round, accuracy) of one run of all rounds."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from pfl.privacy.gaussian_mechanism import GaussianMechanism
    from pfl.privacy.privacy_mechanism import CentrallyAppliedPrivacyMechanism
    from torch_models import Network, accuracy, cross_entropy, images_first

    class Trained(Network):
        def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return cross_entropy(self(x), y)

        def metrics(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
            return {}

    class Clock(TrainingProcessCallback):
        def __init__(self) -> None:
            self.marks: list[tuple[float, float]] = []

        def mark(self) -> None:
            self.marks.append((time.perf_counter(), time.process_time()))

        def on_train_begin(self, *, model: Any) -> Metrics:
            self.mark()
            return Metrics()

        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
            self.mark()
            return False, Metrics()

    config = task.config
    torch.set_num_threads(threads)
    np.random.seed(config.seed)  # noqa: NPY002, pfl draws its seeds from here; the same on every process
    x, y = images_first(task.x, task.y)
    order = iter(task.cohorts[1:].reshape(-1).tolist())
    clients = FederatedDataset(lambda i: Dataset((x[i], y[i]), user_id=str(i)), lambda: next(order))
    network = Trained(config.model == "cnn").load(task.params)
    model = PyTorchModel(
        network,
        torch.optim.SGD,
        torch.optim.SGD(network.parameters(), lr=config.server_lr),
    )
    postprocessors: list[Any] = [WeightByUser()]
    if config.clip is not None:
        postprocessors.append(CentrallyAppliedPrivacyMechanism(GaussianMechanism(config.clip, config.noise)))
    clock = Clock()
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=config.rounds,
            evaluation_frequency=config.rounds + 1,  # evaluates in iteration 0 only, which is not timed
            train_cohort_size=config.cohort,
            val_cohort_size=None,
        ),
        SimulatedBackend(training_data=clients, val_data=clients, postprocessors=postprocessors),
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=config.local_lr, local_batch_size=config.batch),
        callbacks=[clock],
        send_metrics_to_platform=False,  # would print a dozen lines a round
    )
    wall, busy = np.diff(np.array(clock.marks), axis=0).T.tolist()
    with torch.no_grad():
        return wall, busy, accuracy(network(images_first(task.x_test, task.y_test)[0]), torch.from_numpy(task.y_test))


def main() -> None:
    options = harness.arguments(__doc__, processes=1, threads=1)
    if options.processes > 1 and "TORCHELASTIC_RUN_ID" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun.append(f"--nproc-per-node={options.processes}")
        os.execv(sys.executable, [*torchrun, *sys.argv])
    task = harness.task(options)
    runs = [simulate(task, options.threads) for _ in range(task.passes)]
    wall = [seconds for run in runs for seconds in run[0][1:]]
    busy = [seconds for run in runs for seconds in run[1][1:]]
    first = runs[0][0][0] - float(np.median(wall))
    result = harness.summary(wall, busy, first, [run[2] for run in runs])
    result = all_processes(result, options.processes)
    if result is not None:
        variant = f"processes={options.processes},threads={options.threads}"
        harness.report("pfl", variant, task, result, ("pfl", "torch"))


def all_processes(result: dict[str, Any], processes: int) -> dict[str, Any] | None:
    """Add memory and processor time of every process; None on all but the first."""
    result["peak_bytes"] = harness.peak_bytes()
    if processes == 1:
        return result
    import torch

    sums = torch.tensor([result["peak_bytes"], result["cpu_ms"]], dtype=torch.float64)
    torch.distributed.all_reduce(sums)
    last = torch.distributed.get_rank() > 0
    torch.distributed.destroy_process_group()
    return None if last else result | {"peak_bytes": int(sums[0]), "cpu_ms": float(sums[1])}


if __name__ == "__main__":
    main()
