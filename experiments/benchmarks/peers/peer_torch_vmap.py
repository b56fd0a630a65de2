"""PyTorch with every client of the cohort under one `torch.func.vmap`.

    python peer_torch_vmap.py --workload W1 --chunk 0 --threads 2

`--chunk` is vmap's own `chunk_size`; 0 stands for none. PyTorch's threads wait by spinning, so that on a busy machine one may be faster than two.
"""

from __future__ import annotations

import functools
from typing import Any

import harness
import torch
from torch.func import functional_call, grad, vmap
from torch_models import Network, accuracy, cross_entropy, images_first

DEFAULT_CHUNK = {"W1": 0, "W2": 5, "W3": 0}


def main() -> None:
    options = harness.arguments(__doc__, chunk=-1, threads=2)
    torch.set_num_threads(options.threads)
    chunk = DEFAULT_CHUNK[options.workload] if options.chunk < 0 else options.chunk
    task = harness.task(options)
    config = task.config
    network = Network(config.model == "cnn").load(task.params)
    first = {name: leaf.detach().clone() for name, leaf in network.named_parameters()}
    x, y = images_first(task.x, task.y)
    x_test, y_test = images_first(task.x_test, task.y_test)
    cohorts = torch.from_numpy(task.cohorts)
    noise = torch.Generator().manual_seed(config.seed)

    def loss(params: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(functional_call(network, params, (x,)), y)

    def update(x: torch.Tensor, y: torch.Tensor, before: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor]:
        params = before
        for begin in range(0, config.per_client, config.batch):
            slopes = grad(loss)(params, x[begin : begin + config.batch], y[begin : begin + config.batch])
            params = {name: leaf - config.local_lr * slopes[name] for name, leaf in params.items()}
        change = {name: leaf - before[name] for name, leaf in params.items()}
        if config.clip is None:
            return change, torch.ones(())
        norm = torch.sqrt(functools.reduce(torch.add, [leaf.square().sum() for leaf in change.values()]))
        return change, torch.clamp(config.clip / norm, max=1.0)

    together = vmap(update, in_dims=(0, 0, None), chunk_size=chunk or None)

    @torch.no_grad()
    def advance(params: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
        ids = cohorts[number]
        changes, factors = together(x[ids], y[ids], params)
        total = {name: torch.tensordot(factors, leaf, 1) for name, leaf in changes.items()}
        if config.clip is not None:
            scale = config.noise * config.clip
            total = {name: u + scale * torch.randn(u.shape, generator=noise) for name, u in total.items()}
        return {name: leaf + config.server_lr / config.cohort * total[name] for name, leaf in params.items()}

    @torch.no_grad()
    def right(params: dict[str, Any]) -> float:
        return accuracy(functional_call(network, params, (x_test,)), y_test)

    result = harness.rounds(task, lambda: first, advance, right)
    variant = ",".join([f"threads={options.threads}", *([f"chunk={chunk}"] if chunk else [])])
    harness.report("torch_vmap", variant, task, result, ("torch",))


if __name__ == "__main__":
    main()
