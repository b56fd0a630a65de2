"""From a budget to mechanisms: what will be released, how noisy, and what it costs, fixed before any data is touched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.private_scores import CLIP_NORM as SCORE_NORM
from fedjax_poisson.federated.private_scores import score_dimension
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.dark_counts import Terms, budget, embedding, once, settle_distance
from fedjax_poisson.mechanisms.types import check_honest
from fedjax_poisson.runs.column_release import ColumnPlan, column_coordinates, plan_columns
from fedjax_poisson.runs.config import Config


class BudgetPlan(NamedTuple):
    """The releases of a run.

    Attributes:
      terms: the facts they have in common.
      columns: the histograms that ranges and levels are read from.
      standardize: mechanism of the one moment sum; None where nothing is released for standardisation (public bounds are enough).
      train: mechanism of every training sum.
      evaluate: mechanism of the sum of scores; None where scores are no release.
      columns_rdp: float64 `[orders]`, curve of the histograms together.
      standardize_rdp: float64 `[orders]`, curve of the moment sum; zero without one.
      train_rdp: float64 `[orders]`, curve of one training sum, sampling included.
      evaluate_rdp: float64 `[orders]`, curve of the sum of scores; zero without one.
      rounds: number of training sums.
      epsilon: what all of it costs at `delta`.
      delta: delta stated to the user.
      sampler_delta: the part of delta that covers the samplers' distance from the exact law and samples too large for their slots
        (`accounting.reserve`).
      standardize_distance: bound on the total variation of the moment sum's law.
      train_distance: the same of one training sum.
      evaluate_distance: the same of the sum of scores.
      epsilon_one_honest: the total cost if all sites except the record's site collude with the server.
    """

    terms: Terms
    columns: ColumnPlan
    standardize: Mechanism | None
    train: Mechanism
    evaluate: Mechanism | None
    columns_rdp: np.ndarray
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
    epsilon_one_honest: float

    @property
    def orders(self) -> np.ndarray:
        """Renyi orders of the curves."""
        return self.terms.orders

    @property
    def honest_senders(self) -> int:
        """Sites the guarantee counts on."""
        return self.terms.participation.honest_senders

    @property
    def senders(self) -> int:
        """Sites that send in every round."""
        return self.terms.participation.senders

    @property
    def planned_rdp(self) -> np.ndarray:
        """The curve of all planned releases together."""
        return self.columns_rdp + self.standardize_rdp + self.rounds * self.train_rdp + self.evaluate_rdp

    @property
    def accounted_delta(self) -> float:
        """Delta left for the mechanisms after the share of the samplers and slots."""
        return self.terms.delta


def make_plan(
    config: Config,
    *,
    senders: int,
    dimension: int,
    moment_dimension: int,
    largest_site: int,
    moment_blocks: int = 1,
    sites_per_unit: int = 1,
    open_numbers: int = 0,
    open_texts: int = 0,
) -> BudgetPlan:
    """Calibrate both mechanisms so that everything released costs at most `config.epsilon` at `config.delta`.

    The moment sum gets `standardize_share` of the dark count that would spend the whole budget alone (the curve is linear in the dark
    count), the training sums the largest dark count that fits beside it.

    Args:
      config: the run's settings.
      senders: number of sites.
      dimension: D of the model.
      moment_dimension: length of a moment vector; 0 where no moments are released.
      moment_blocks: how many blocks of it the moment sum has: 1, or the number of sites if each is standardised separately.
      largest_site: public bound on the training units of one site.
      sites_per_unit: k, the most sites that one unit has records at. Such a unit moves the sum by k clipped contributions, and is in a round with
        probability 1 - (1 - q)**k since every site draws its own coin: both are charged (proof: `data.splitting.check_sites_per_patient`).
      open_numbers: numeric columns whose ranges are released.
      open_texts: text columns whose levels are released. Where there are open columns, the dimensions are public upper bounds: the curve of an
        embedding grows with its dimension, so the plan's curves, which are charged, cover whatever number of features will be released.

    Raises:
      ValueError: a claim would be unsound or the budget cannot be met, with the reason.
    """
    sizes = _Sizes(
        senders=senders,
        dimension=dimension,
        moment_dimension=moment_dimension,
        moment_blocks=moment_blocks,
        scores=score_dimension(senders) if config.evaluation == "private" else 0,
        largest_site=largest_site,
        sites_per_unit=sites_per_unit,
        open_numbers=open_numbers,
        open_texts=open_texts,
    )

    def used(plan: BudgetPlan) -> list[Mechanism]:
        columns = (each.priced.mechanism for each in plan.columns.releases)
        return [each for each in (plan.standardize, plan.train, plan.evaluate, *columns) if each is not None]

    return settle_distance(lambda draw: _calibrated(config, sizes, draw), used)


class _Sizes(NamedTuple):
    """Lengths of what is released and public bounds on units: the arguments of `make_plan`, and the length of the sum of scores (0 for no release)."""

    senders: int
    dimension: int
    moment_dimension: int
    moment_blocks: int
    scores: int
    largest_site: int
    sites_per_unit: int
    open_numbers: int
    open_texts: int

    @property
    def moments(self) -> int:
        """Length of the moment sum."""
        return self.moment_dimension * self.moment_blocks


class _Distances(NamedTuple):
    """Bounds on the total variation between the law of a release and that of its curve: of all histograms, the moments, one training sum, the scores."""

    columns: float
    standardize: float
    train: float
    evaluate: float


class _Once(NamedTuple):
    """A release that is made once, or not at all: its mechanism (None for no release), and its curve with all honest senders and with one."""

    mechanism: Mechanism | None
    rdp: np.ndarray
    alone: np.ndarray


def _calibrated(config: Config, sizes: _Sizes, draw: float) -> BudgetPlan:
    """The plan where one draw of one coordinate is within `draw` of its law."""
    participation = accounting.Participation(
        senders=sizes.senders,
        minimum_senders=sizes.senders,
        honest_senders=sizes.senders - 1 if config.honest_senders is None else config.honest_senders,
        sampling_rate=config.sampling_rate,
        adjacency=config.adjacency,
    )
    check_honest(participation.honest_senders, sizes.senders)
    check_sampling(config.sampling_rate, config.adjacency)
    distances = _distances(participation, sizes, draw)
    sampler_delta = accounting.plan_reserve(
        config.epsilon,
        config.delta,
        distances.columns + distances.standardize + config.rounds * distances.train + distances.evaluate,
    )
    terms = Terms(
        epsilon=config.epsilon,
        delta=config.delta - sampler_delta,
        participation=participation,
        largest_site=sizes.largest_site,
        sites_per_unit=sizes.sites_per_unit,
        modulation=config.modulation,
        orders=accounting.integer_orders(256),  # one set for every run, so that runs can share a ledger
    )
    columns = plan_columns(terms, numbers=sizes.open_numbers, texts=sizes.open_texts)
    columns_rdp = columns.rdp(terms)
    # A unit's vector of moments lies in one block.
    norm = min(config.standardize_norm, math.sqrt(sizes.moment_dimension))
    standardize = _release_once(terms, config.standardize_share, norm, sizes.moments)
    evaluate = _release_once(terms, config.evaluation_share, SCORE_NORM, sizes.scores)
    train, train_curve = _train(config, terms, sizes.dimension, columns_rdp + standardize.rdp + evaluate.rdp)
    train_rdp = train_curve(participation.honest_senders)
    planned = columns_rdp + standardize.rdp + config.rounds * train_rdp + evaluate.rdp
    alone = columns.rdp(terms, honest_senders=1) + standardize.alone + evaluate.alone
    alone = alone + config.rounds * train_curve(1)
    return BudgetPlan(
        terms=terms,
        columns=columns,
        standardize=standardize.mechanism,
        train=train,
        evaluate=evaluate.mechanism,
        columns_rdp=columns_rdp,
        standardize_rdp=standardize.rdp,
        train_rdp=train_rdp,
        evaluate_rdp=evaluate.rdp,
        rounds=config.rounds,
        epsilon=accounting.epsilon(terms.orders, planned, terms.delta),
        delta=config.delta,
        sampler_delta=sampler_delta,
        standardize_distance=distances.standardize,
        train_distance=distances.train,
        evaluate_distance=distances.evaluate,
        epsilon_one_honest=accounting.epsilon(terms.orders, alone, terms.delta),
    )


def _distances(participation: accounting.Participation, sizes: _Sizes, draw: float) -> _Distances:
    def of(dimension: int, overflow: float = 0.0) -> float:
        return accounting.release_distance(senders=sizes.senders, dimension=dimension, overflow=overflow, draw=draw)

    return _Distances(
        columns=of(column_coordinates(sizes.open_numbers, sizes.open_texts)),
        standardize=of(sizes.moments),
        train=of(sizes.dimension, OVERFLOW if participation.sampling_rate < 1 else 0.0),
        evaluate=of(sizes.scores),
    )


def _release_once(terms: Terms, share: float, norm: float, dimension: int) -> _Once:
    """A vector that is released once for a share of the budget; nothing where it has no coordinates."""
    if not dimension:
        nothing = np.zeros(len(terms.orders))
        return _Once(None, nothing, nothing)
    priced = once(terms, share, norm, dimension)
    return _Once(priced.mechanism, priced.rdp(terms, dimension), priced.rdp(terms, dimension, 1))


def _train(
    config: Config, terms: Terms, dimension: int, other_rdp: np.ndarray
) -> tuple[Mechanism, Callable[[int], np.ndarray]]:
    """The mechanism of the training sums with the largest dark count that fits beside all else, and its curve by the number of honest senders."""
    units, coordinate = terms.sites_per_unit, config.coordinate_bound  # at most clip_norm: the settings are checked
    bound = coordinate * max(float(units), terms.largest_site * config.sampling_rate)
    rate = 1 - (1 - config.sampling_rate) ** units if units > 1 else config.sampling_rate

    def dark(modulation: float) -> float:
        return accounting.calibrate_dark_count(
            rounds=config.rounds,
            sampling_rate=rate,
            norm_ratio=config.clip_norm / coordinate,
            dimension=dimension,
            step_ratio=units * coordinate / bound,
            other_rdp=other_rdp,
            modulation=modulation,
            **budget(terms),
        )

    priced = embedding(terms, dark, config.clip_norm, coordinate, bound, dimension)

    def curve(honest_senders: int) -> np.ndarray:
        full = priced.rdp(terms, dimension, honest_senders)
        return full if rate == 1 else accounting.subsampled_rdp(terms.orders, full, rate)

    return priced.mechanism, curve
