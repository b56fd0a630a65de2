"""Models as records of pure functions: init, apply and a loss for each record.

Models built with flax (vision models, `from_flax`) load it when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .convolution import average_pool as average_pool
from .convolution import convolve as convolve
from .convolution import max_pool as max_pool
from .model import Model as Model
from .model import binary_cross_entropy as binary_cross_entropy
from .model import on_fixed_features as on_fixed_features
from .model import sigmoid_cross_entropy as sigmoid_cross_entropy
from .model import softmax_cross_entropy as softmax_cross_entropy
from .model import squared_error as squared_error
from .model import with_loss as with_loss
from .scattering import scattering as scattering
from .scattering import scattering_features as scattering_features
from .tabular import linear as linear
from .tabular import linear_regression as linear_regression
from .tabular import logistic as logistic
from .tabular import mlp as mlp
from .tabular import multilabel_logistic as multilabel_logistic

if TYPE_CHECKING:
    from .flax_modules import from_flax as from_flax
    from .residual import resnet as resnet
    from .residual import resnet18 as resnet18
    from .residual import resnet50 as resnet50
    from .residual import small_resnet as small_resnet
    from .vision import cnn as cnn

_FLAX = {
    "cnn": "vision",
    "from_flax": "flax_modules",
    "resnet": "residual",
    "resnet18": "residual",
    "resnet50": "residual",
    "small_resnet": "residual",
}


def __getattr__(name: str) -> Any:
    if name not in _FLAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_FLAX[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FLAX})
