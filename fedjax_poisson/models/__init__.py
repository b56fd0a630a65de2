"""Models as records of pure functions: init, apply and a loss for each record."""

from .tabular import Model as Model
from .tabular import binary_cross_entropy as binary_cross_entropy
from .tabular import logistic as logistic
from .tabular import mlp as mlp
