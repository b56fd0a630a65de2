"""From a budget to mechanisms: what will be released, how noisy, and what it costs, fixed before any data is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.experiment.config import Config
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.types import check_honest

_MOST_DARK = 5e7  # the sampler's tables grow with sqrt(dark_count); above this the clamp is lowered instead


class Plan(NamedTuple):
    """The releases of a run.

    Attributes:
      standardize: mechanism of the one moment sum; None where nothing is released for standardisation (public bounds are enough).
      train: mechanism of every training sum.
      orders: Renyi orders of the curves.
      standardize_rdp: float64 `[orders]`, curve of the moment sum; zero without one.
      train_rdp: float64 `[orders]`, curve of one training sum, sampling included.
      rounds: number of training sums.
      epsilon: what all of it costs at `delta`.
      delta: delta stated to the user.
      sampler_delta: the part of delta that pays for the samplers' distance from the exact law and for samples too large for their slots.
      honest_senders: sites the guarantee counts on.
      senders: sites that send in every round.
    """

    standardize: Mechanism | None
    train: Mechanism
    orders: np.ndarray
    standardize_rdp: np.ndarray
    train_rdp: np.ndarray
    rounds: int
    epsilon: float
    delta: float
    sampler_delta: float
    honest_senders: int
    senders: int

    @property
    def accounted_delta(self) -> float:
        """Delta left for the mechanisms after the share of the samplers and slots."""
        return self.delta - self.sampler_delta


def make_plan(
    config: Config,
    *,
    senders: int,
    dimension: int,
    moment_dimension: int,
    largest_site: int,
    moment_blocks: int = 1,
) -> Plan:
    """Calibrate both mechanisms so that everything released costs at most `config.epsilon` at `config.delta`.

    The moment sum gets `standardize_share` of the dark count that would spend the whole budget alone (the curve is linear in the dark
    count), the training sums the largest dark count that fits beside it.

    Args:
      config: the run's settings.
      senders: number of sites.
      dimension: D of the model.
      moment_dimension: length of a moment vector; 0 where no moments are released.
      moment_blocks: how many blocks of it the moment sum has: 1, or the number of sites where each is standardised by itself.
      largest_site: public bound on the training units of one site.

    Raises:
      ValueError: a claim would be unsound or the budget cannot be met, with the reason.
    """
    honest = senders - 1 if config.honest_senders is None else config.honest_senders
    check_honest(honest, senders)
    check_sampling(config.sampling_rate, config.adjacency)
    orders = accounting.integer_orders(256) if config.sampling_rate < 1 else accounting.DEFAULT_ORDERS

    # Bound on what inexact samplers can add, before the mechanisms exist: the samplers' stated limit is 2**-60 per draw.
    draws = senders * (moment_dimension * moment_blocks + config.rounds * dimension)
    overflow = config.rounds * OVERFLOW if config.sampling_rate < 1 else 0.0
    sampler_delta = (1 + math.exp(config.epsilon)) * (draws * 2.0**-60 + overflow)
    delta = config.delta - sampler_delta
    if delta <= 0:
        raise ValueError(
            f"epsilon={config.epsilon:g} is too large for delta={config.delta:g}: what samplers may add, times e^epsilon, is "
            f"{sampler_delta:.2g}; ask for a smaller epsilon or compare with `without_privacy`."
        )
    common: dict[str, Any] = {
        "modulation": config.modulation,
        "honest_senders": honest,
        "adjacency": config.adjacency,
        "orders": orders,
        "epsilon": config.epsilon,
        "delta": delta,
    }

    standardize, standardize_rdp = None, np.zeros(len(orders))
    if moment_dimension:
        standardize = _moment_mechanism(config, moment_dimension, moment_blocks, largest_site, common)
        standardize_rdp = standardize.rdp(orders, honest, moment_dimension * moment_blocks, config.adjacency)
    coordinate = min(config.coordinate_bound, config.clip_norm)

    def train_dark(bound: float) -> float:
        return accounting.calibrate_dark_count(
            rounds=config.rounds,
            sampling_rate=config.sampling_rate,
            norm_ratio=config.clip_norm / coordinate,
            dimension=dimension,
            step_ratio=coordinate / bound,
            other_rdp=standardize_rdp,
            **common,
        )

    total, dark = _fit_clamp(train_dark, coordinate * max(1.0, largest_site * config.sampling_rate))
    train = poisson_embedding(
        clip_norm=config.clip_norm,
        coordinate_bound=config.coordinate_bound,
        dark_count=dark,
        modulation=config.modulation,
        total_bound=total,
    )
    curve = train.rdp(orders, honest, dimension, config.adjacency)
    train_rdp = curve if config.sampling_rate == 1 else accounting.subsampled_rdp(orders, curve, config.sampling_rate)
    worst = max(m.facts.sampler_distance for m in (standardize, train) if m is not None)
    if worst > 2.0**-60:
        raise ValueError(
            f"A sampler is {worst:.3g} from its law, above the 2**-60 that delta was charged for; lower dark_count."
        )
    return Plan(
        standardize=standardize,
        train=train,
        orders=np.asarray(orders),
        standardize_rdp=standardize_rdp,
        train_rdp=train_rdp,
        rounds=config.rounds,
        epsilon=accounting.epsilon(orders, standardize_rdp + config.rounds * train_rdp, delta),
        delta=config.delta,
        sampler_delta=sampler_delta,
        honest_senders=honest,
        senders=senders,
    )


def _moment_mechanism(
    config: Config, moment_dimension: int, blocks: int, largest_site: int, common: dict[str, Any]
) -> Mechanism:
    """The mechanism of the moment sum; a unit's moment vector lies in one block, so its norm does not depend on their number."""
    norm = min(config.standardize_norm, math.sqrt(moment_dimension))
    moment_bound = min(1.0, norm)

    def moment_dark(bound: float) -> float:
        whole = accounting.calibrate_dark_count(
            rounds=1,
            norm_ratio=norm / moment_bound,
            dimension=moment_dimension * blocks,
            step_ratio=moment_bound / bound,
            **common,
        )
        return config.standardize_share * whole

    total, dark = _fit_clamp(moment_dark, moment_bound * largest_site)
    return poisson_embedding(
        clip_norm=norm, coordinate_bound=moment_bound, dark_count=dark, modulation=config.modulation, total_bound=total
    )


def _fit_clamp(calibrate: Callable[[float], float], bound: float) -> tuple[float, float]:
    """(total_bound, dark_count): the noise does not depend on the clamp, but the dark count grows with its square."""
    dark = calibrate(bound)
    if dark > _MOST_DARK:
        bound *= math.sqrt(_MOST_DARK / dark)
        dark = calibrate(bound)
    return bound, dark
