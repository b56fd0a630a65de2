"""Privacy mechanisms, each a record of pure functions with its clip, sampler, estimator and accountant."""

from fedjax_poisson.mechanisms import experimental
from fedjax_poisson.mechanisms.adaptive import AdaptiveEmbedding, ClipState, adaptive_embedding
from fedjax_poisson.mechanisms.committee_noise import committee_noise
from fedjax_poisson.mechanisms.gaussian import gaussian
from fedjax_poisson.mechanisms.grouped import grouped
from fedjax_poisson.mechanisms.noise_levels import by_noise
from fedjax_poisson.mechanisms.poisson import poisson_embedding
from fedjax_poisson.mechanisms.registry import MECHANISMS, MechanismEntry, mechanism_entry
from fedjax_poisson.mechanisms.single_channel import single_channel
from fedjax_poisson.mechanisms.skellam import skellam
from fedjax_poisson.mechanisms.summed_skellam import summed_skellam
from fedjax_poisson.mechanisms.types import Bounds, Facts, Mechanism, make_mechanism

__all__ = [
    "MECHANISMS",
    "AdaptiveEmbedding",
    "Bounds",
    "ClipState",
    "Facts",
    "Mechanism",
    "MechanismEntry",
    "adaptive_embedding",
    "by_noise",
    "committee_noise",
    "experimental",
    "gaussian",
    "grouped",
    "make_mechanism",
    "mechanism_entry",
    "poisson_embedding",
    "single_channel",
    "skellam",
    "summed_skellam",
]
