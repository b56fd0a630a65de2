"""From a budget to mechanisms: what will be released, how noisy, and what it costs, fixed before any data is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.experiment.config import Config
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.private_scores import CLIP_NORM as SCORE_NORM
from fedjax_poisson.federated.private_scores import score_dimension
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from fedjax_poisson.mechanisms.types import check_honest

_LEAST_MODULATION, _MOST_MODULATION = 0.05, 0.3  # a price of at most 1 / (1 - r**2) in variance: 1.0025 and 1.10
_EASY_DARK = 5e7  # one draw a channel; above, the modulation is raised first (dark counts fall with its square), then draws are added up
_LEAST_DARK = 0.01
_MOST_COUNT = 2**31 - 1  # counts and their sums are int32


class Plan(NamedTuple):
    """The releases of a run.

    Attributes:
      standardize: mechanism of the one moment sum; None where nothing is released for standardisation (public bounds are enough).
      train: mechanism of every training sum.
      evaluate: mechanism of the sum of scores; None where scores are no release.
      orders: Renyi orders of the curves.
      standardize_rdp: float64 `[orders]`, curve of the moment sum; zero without one.
      train_rdp: float64 `[orders]`, curve of one training sum, sampling included.
      evaluate_rdp: float64 `[orders]`, curve of the sum of scores; zero without one.
      rounds: number of training sums.
      epsilon: what all of it costs at `delta`.
      delta: delta stated to the user.
      sampler_delta: the part of delta that pays for the samplers' distance from the exact law and for samples too large for their slots
        (`accounting.reserve`).
      standardize_distance: bound on the total variation of the moment sum's law.
      train_distance: the same of one training sum.
      evaluate_distance: the same of the sum of scores.
      honest_senders: sites the guarantee counts on.
      senders: sites that send in every round.
      epsilon_one_honest: what all of it costs if all sites but the record's own work with the server.
    """

    standardize: Mechanism | None
    train: Mechanism
    evaluate: Mechanism | None
    orders: np.ndarray
    standardize_rdp: np.ndarray
    train_rdp: np.ndarray
    evaluate_rdp: np.ndarray
    rounds: int
    epsilon: float
    delta: float
    sampler_delta: float
    standardize_distance: float
    train_distance: float
    evaluate_distance: float
    honest_senders: int
    senders: int
    epsilon_one_honest: float

    @property
    def planned_rdp(self) -> np.ndarray:
        """The curve of all planned releases together."""
        return self.standardize_rdp + self.rounds * self.train_rdp + self.evaluate_rdp

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
    sites_per_unit: int = 1,
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
      sites_per_unit: k, the most sites that one unit has records at. Such a unit moves the sum by k clipped contributions, and is in a round with
        probability 1 - (1 - q)**k since every site draws its own coin: both are charged (proof: `data.splitting.check_sites_per_patient`).

    Raises:
      ValueError: a claim would be unsound or the budget cannot be met, with the reason.
    """
    size = (senders, dimension, moment_dimension, moment_blocks, largest_site, sites_per_unit)
    draw = accounting.DRAW_DISTANCE
    # A count that is the sum of several draws is farther from its law than one draw, which is known only once there are dark counts.
    for _ in range(3):
        plan = _calibrated(config, *size, draw)
        worst = max(m.facts.sampler_distance for m in (plan.standardize, plan.train, plan.evaluate) if m is not None)
        if worst <= draw:
            return plan
        draw = 1.01 * worst
    raise ValueError(
        f"A sampler is {worst:.3g} from its law, above the {draw:.3g} that delta was charged for; lower largest_site."
    )


def _calibrated(
    config: Config,
    senders: int,
    dimension: int,
    moment_dimension: int,
    moment_blocks: int,
    largest_site: int,
    sites_per_unit: int,
    draw: float,
) -> Plan:
    """The plan where one draw of one coordinate is within `draw` of its law."""
    honest = senders - 1 if config.honest_senders is None else config.honest_senders
    check_honest(honest, senders)
    check_sampling(config.sampling_rate, config.adjacency)
    orders = accounting.integer_orders(256)  # one set for every run, so that runs can share a ledger

    overflow = OVERFLOW if config.sampling_rate < 1 else 0.0
    train_distance = accounting.release_distance(senders=senders, dimension=dimension, overflow=overflow, draw=draw)
    standardize_distance = accounting.release_distance(
        senders=senders, dimension=moment_dimension * moment_blocks, draw=draw
    )
    scores = score_dimension(senders) if config.evaluation == "private" else 0
    evaluate_distance = accounting.release_distance(senders=senders, dimension=scores, draw=draw)
    sampler_delta = accounting.plan_reserve(
        config.epsilon, config.delta, standardize_distance + config.rounds * train_distance + evaluate_distance
    )
    delta = config.delta - sampler_delta
    common: dict[str, Any] = {
        "honest_senders": honest,
        "adjacency": config.adjacency,
        "orders": orders,
        "epsilon": config.epsilon,
        "delta": delta,
    }

    k, alone = sites_per_unit, np.zeros(len(orders))
    standardize, standardize_rdp = None, np.zeros(len(orders))
    if moment_dimension:
        moments = moment_dimension * moment_blocks
        norm = min(config.standardize_norm, math.sqrt(moment_dimension))  # a unit's vector lies in one block
        standardize, charged = _one_release(
            config, config.standardize_share, norm, moments, largest_site, senders, k, common
        )
        standardize_rdp = charged.rdp(orders, honest, moments, config.adjacency)
        alone = alone + charged.rdp(orders, 1, moments, config.adjacency)
    evaluate, evaluate_rdp = None, np.zeros(len(orders))
    if scores:
        evaluate, charged = _one_release(
            config, config.evaluation_share, SCORE_NORM, scores, largest_site, senders, k, common
        )
        evaluate_rdp = charged.rdp(orders, honest, scores, config.adjacency)
        alone = alone + charged.rdp(orders, 1, scores, config.adjacency)
    coordinate = min(config.coordinate_bound, config.clip_norm)

    bound = coordinate * max(float(k), largest_site * config.sampling_rate)
    rate = 1 - (1 - config.sampling_rate) ** k if k > 1 else config.sampling_rate

    def train_dark(modulation: float) -> float:
        return accounting.calibrate_dark_count(
            rounds=config.rounds,
            sampling_rate=rate,
            norm_ratio=config.clip_norm / coordinate,
            dimension=dimension,
            step_ratio=k * coordinate / bound,
            other_rdp=standardize_rdp + evaluate_rdp,
            modulation=modulation,
            **common,
        )

    train, charged = _embedding(config, train_dark, config.clip_norm, coordinate, bound, senders, dimension, k)

    def train_curve(honest: int) -> np.ndarray:
        curve = charged.rdp(orders, honest, dimension, config.adjacency)
        return curve if rate == 1 else accounting.subsampled_rdp(orders, curve, rate)

    train_rdp = train_curve(honest)
    alone = alone + config.rounds * train_curve(1)
    return Plan(
        standardize=standardize,
        train=train,
        evaluate=evaluate,
        orders=np.asarray(orders),
        standardize_rdp=standardize_rdp,
        train_rdp=train_rdp,
        evaluate_rdp=evaluate_rdp,
        rounds=config.rounds,
        epsilon=accounting.epsilon(orders, standardize_rdp + config.rounds * train_rdp + evaluate_rdp, delta),
        delta=config.delta,
        sampler_delta=sampler_delta,
        standardize_distance=standardize_distance,
        train_distance=train_distance,
        evaluate_distance=evaluate_distance,
        honest_senders=honest,
        senders=senders,
        epsilon_one_honest=accounting.epsilon(orders, alone, delta),
    )


def _one_release(
    config: Config,
    share: float,
    norm: float,
    dimension: int,
    largest_site: int,
    senders: int,
    sites_per_unit: int,
    common: dict[str, Any],
) -> tuple[Mechanism, Mechanism]:
    """The mechanism of a vector that is released once, entries of one unit within 1, for a share of the budget's dark count (its curve is linear in it)."""
    coordinate = min(1.0, norm)
    bound = coordinate * max(largest_site, sites_per_unit)

    def dark(modulation: float) -> float:
        whole = accounting.calibrate_dark_count(
            rounds=1,
            norm_ratio=norm / coordinate,
            dimension=dimension,
            step_ratio=sites_per_unit * coordinate / bound,
            modulation=modulation,
            **common,
        )
        return share * whole

    return _embedding(config, dark, norm, coordinate, bound, senders, dimension, sites_per_unit)


def _embedding(
    config: Config,
    calibrate: Callable[[float], float],
    clip_norm: float,
    coordinate_bound: float,
    total_bound: float,
    senders: int,
    dimension: int,
    sites_per_unit: int,
) -> tuple[Mechanism, Mechanism]:
    """The embedding with the dark count that `calibrate(modulation)` allows, and bounds that are never lowered to make it fit.

    The noise does not depend on the modulation r but for a factor 1 / (1 - r**2); the dark count falls with r**2. So unless the settings fix r, it is the
    smallest one from 0.05 to 0.3 whose dark count one draw can serve; beyond that several draws are added up (`mechanisms.poisson.parts_of`).

    Returns:
      The mechanism that every site uses, and the one whose curve is charged: the same noise against contributions `sites_per_unit` times as large.
    """
    modulation, fixed = config.modulation or _LEAST_MODULATION, config.modulation is not None
    dark = calibrate(modulation)
    while not fixed and dark > _EASY_DARK and modulation < _MOST_MODULATION:
        wanted = math.ceil(100 * modulation * math.sqrt(dark / _EASY_DARK)) / 100
        modulation = min(max(wanted, modulation + 0.01), _MOST_MODULATION)
        dark = calibrate(modulation)
    mechanism_facts: dict[str, Any] = {
        "clip_norm": clip_norm,
        "coordinate_bound": coordinate_bound,
        "total_bound": total_bound,
        "modulation": modulation,
    }
    largest = 2.0 * senders * dark * modulation
    if largest > _MOST_COUNT / 2:  # half: room for the random part, which the count bound checks exactly
        raise ValueError(
            f"the noise for epsilon={config.epsilon:g} needs a dark count of {dark:.3g} with modulation={modulation:g} and a clamp of {total_bound:.4g} on a "
            f"site's sum: the counts of {senders} sites, up to {largest:.3g}, would not fit 32-bit integers. Lower largest_site (it is the clamp's "
            f"factor), {'raise modulation, ' if fixed else ''}or ask for a smaller epsilon."
        )
    if dark < _LEAST_DARK:
        raise ValueError(
            f"epsilon={config.epsilon:g} leaves a dark count of {dark:.2g} for one release, below the {_LEAST_DARK:g} that the samplers serve: the noise would "
            "be far above any signal. Ask for a larger epsilon, fewer rounds, or a smaller modulation."
        )
    mechanism = poisson_embedding(dark_count=dark, **mechanism_facts)
    assert mechanism.count_bound(senders, dimension) <= _MOST_COUNT
    if sites_per_unit == 1:
        return mechanism, mechanism
    moved = {name: sites_per_unit * mechanism_facts[name] for name in ("clip_norm", "coordinate_bound")}
    return mechanism, poisson_embedding(dark_count=dark, **{**mechanism_facts, **moved})
