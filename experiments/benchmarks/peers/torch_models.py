"""The two networks in PyTorch, with the workload's weights; convolutions are PyTorch's own."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Network(nn.Module):
    """The mlp (images=False) or the cnn (images=True); weights are read with `load`."""

    def __init__(self, images: bool) -> None:
        super().__init__()
        self.images = images
        if images:
            self.conv0, self.conv1 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
            self.dense0, self.dense1 = nn.Linear(7 * 7 * 64, 128), nn.Linear(128, 10)
        else:
            self.dense0, self.dense1, self.dense2 = nn.Linear(30, 64), nn.Linear(64, 32), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 30] to [B], or [B, 1, 28, 28] to [B, 10]."""
        if self.images:
            x = F.max_pool2d(F.relu(self.conv0(x)), 2)
            x = F.max_pool2d(F.relu(self.conv1(x)), 2)
            return self.dense1(F.relu(self.dense0(x.flatten(1))))
        return self.dense2(F.relu(self.dense1(F.relu(self.dense0(x))))).squeeze(1)

    def load(self, params: dict[str, np.ndarray]) -> Network:
        """Copy the workload's weights into PyTorch's layouts: dense [out, in], kernels OIHW, images flattened C, H, W."""
        arrays = dict(params)
        if self.images:
            flat = arrays["w0"].reshape(7, 7, 64, 128)
            arrays["w0"] = flat.transpose(2, 0, 1, 3).reshape(7 * 7 * 64, 128)
        with torch.no_grad():
            for name, module in self.named_children():
                kind, index = name[:-1], name[-1]
                weight = arrays[("c" if kind == "conv" else "w") + index]
                bias = arrays[("d" if kind == "conv" else "b") + index]
                weight = weight.transpose(3, 2, 0, 1) if kind == "conv" else weight.T
                module.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
                module.bias.copy_(torch.from_numpy(bias))
        return self


def cross_entropy(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean over the batch, of one logit or of ten."""
    return F.binary_cross_entropy_with_logits(outputs, y) if outputs.ndim == 1 else F.cross_entropy(outputs, y)


def images_first(x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Tensors as PyTorch wants them: one channel before height and width, classes as int64."""
    records, labels = torch.from_numpy(x), torch.from_numpy(y)
    if labels.dtype == torch.int32:
        return records.movedim(-1, -3).contiguous(), labels.long()
    return records, labels


def accuracy(outputs: torch.Tensor, y: torch.Tensor) -> float:
    """Share of the records that is right."""
    predicted = (outputs > 0).to(y.dtype) if outputs.ndim == 1 else outputs.argmax(1)
    return float((predicted == y).float().mean())
