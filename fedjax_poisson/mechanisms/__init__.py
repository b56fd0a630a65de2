"""Privacy mechanisms, each a record of pure functions with its clip, sampler, estimator and accountant."""

from fedjax_poisson.mechanisms import experimental
from fedjax_poisson.mechanisms.adaptive import AdaptiveEmbedding, ClipState, adaptive_embedding
from fedjax_poisson.mechanisms.gaussian import gaussian
from fedjax_poisson.mechanisms.grouped import grouped
from fedjax_poisson.mechanisms.poisson import poisson_embedding
from fedjax_poisson.mechanisms.single_channel import single_channel
from fedjax_poisson.mechanisms.skellam import skellam
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, make_mechanism

__all__ = [
    "AdaptiveEmbedding",
    "Bounds",
    "ClipState",
    "Facts",
    "Mechanism",
    "adaptive_embedding",
    "experimental",
    "gaussian",
    "grouped",
    "make_mechanism",
    "poisson_embedding",
    "single_channel",
    "skellam",
]
