"""From a budget to mechanisms: what will be released, how noisy, and what it costs, fixed before any data is touched."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.private_scores import CLIP_NORM as SCORE_NORM
from fedjax_poisson.federated.private_scores import score_dimension
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.types import check_honest
from fedjax_poisson.runs.column_release import ColumnPlan, column_coordinates, plan_columns
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.dark_counts import Terms, budget, embedding, once


class Plan(NamedTuple):
    """The releases of a run.

    Attributes:
      terms: what they have in common.
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
      sampler_delta: the part of delta that pays for the samplers' distance from the exact law and for samples too large for their slots
        (`accounting.reserve`).
      standardize_distance: bound on the total variation of the moment sum's law.
      train_distance: the same of one training sum.
      evaluate_distance: the same of the sum of scores.
      epsilon_one_honest: what all of it costs if all sites but the record's own work with the server.
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
        return self.terms.honest_senders

    @property
    def senders(self) -> int:
        """Sites that send in every round."""
        return self.terms.senders

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
      open_numbers: numeric columns whose ranges are released.
      open_texts: text columns whose levels are released. Where there are open columns, the dimensions are public upper bounds: the curve of an
        embedding grows with its dimension, so the plan's curves, which are charged, cover whatever number of features will be released.

    Raises:
      ValueError: a claim would be unsound or the budget cannot be met, with the reason.
    """
    size = (
        *(senders, dimension, moment_dimension, moment_blocks, largest_site, sites_per_unit),
        *(open_numbers, open_texts),
    )
    draw = accounting.DRAW_DISTANCE
    # A count that is the sum of several draws is farther from its law than one draw, which is known only once there are dark counts.
    for _ in range(3):
        plan = _calibrated(config, *size, draw)
        used = (plan.standardize, plan.train, plan.evaluate, *(each.priced.mechanism for each in plan.columns.releases))
        worst = max(m.facts.sampler_distance for m in used if m is not None)
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
    open_numbers: int,
    open_texts: int,
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
    columns_distance = accounting.release_distance(
        senders=senders, dimension=column_coordinates(open_numbers, open_texts), draw=draw
    )
    sampler_delta = accounting.plan_reserve(
        config.epsilon,
        config.delta,
        columns_distance + standardize_distance + config.rounds * train_distance + evaluate_distance,
    )
    terms = Terms(
        epsilon=config.epsilon,
        delta=config.delta - sampler_delta,
        senders=senders,
        honest_senders=honest,
        largest_site=largest_site,
        sites_per_unit=sites_per_unit,
        modulation=config.modulation,
        adjacency=config.adjacency,
        orders=orders,
    )
    columns = plan_columns(terms, numbers=open_numbers, texts=open_texts)
    columns_rdp, alone = columns.rdp(terms), columns.rdp(terms, honest_senders=1)
    standardize = evaluate = None
    standardize_rdp = evaluate_rdp = np.zeros(len(orders))
    if moment_dimension:
        moments = moment_dimension * moment_blocks
        norm = min(config.standardize_norm, math.sqrt(moment_dimension))  # a unit's vector lies in one block
        standardize = once(terms, config.standardize_share, norm, moments)
        standardize_rdp, alone = standardize.rdp(terms, moments), alone + standardize.rdp(terms, moments, 1)
    if scores:
        evaluate = once(terms, config.evaluation_share, SCORE_NORM, scores)
        evaluate_rdp, alone = evaluate.rdp(terms, scores), alone + evaluate.rdp(terms, scores, 1)
    coordinate = config.coordinate_bound  # at most clip_norm: the settings are checked
    bound = coordinate * max(float(sites_per_unit), largest_site * config.sampling_rate)
    rate = 1 - (1 - config.sampling_rate) ** sites_per_unit if sites_per_unit > 1 else config.sampling_rate

    def train_dark(modulation: float) -> float:
        return accounting.calibrate_dark_count(
            rounds=config.rounds,
            sampling_rate=rate,
            norm_ratio=config.clip_norm / coordinate,
            dimension=dimension,
            step_ratio=sites_per_unit * coordinate / bound,
            other_rdp=columns_rdp + standardize_rdp + evaluate_rdp,
            modulation=modulation,
            **budget(terms),
        )

    train = embedding(terms, train_dark, config.clip_norm, coordinate, bound, dimension)

    def train_curve(honest_senders: int) -> np.ndarray:
        curve = train.rdp(terms, dimension, honest_senders)
        return curve if rate == 1 else accounting.subsampled_rdp(orders, curve, rate)

    train_rdp = train_curve(honest)
    planned = columns_rdp + standardize_rdp + config.rounds * train_rdp + evaluate_rdp
    alone = alone + config.rounds * train_curve(1)
    return Plan(
        terms=terms,
        columns=columns,
        standardize=None if standardize is None else standardize.mechanism,
        train=train.mechanism,
        evaluate=None if evaluate is None else evaluate.mechanism,
        columns_rdp=columns_rdp,
        standardize_rdp=standardize_rdp,
        train_rdp=train_rdp,
        evaluate_rdp=evaluate_rdp,
        rounds=config.rounds,
        epsilon=accounting.epsilon(orders, planned, terms.delta),
        delta=config.delta,
        sampler_delta=sampler_delta,
        standardize_distance=standardize_distance,
        train_distance=train_distance,
        evaluate_distance=evaluate_distance,
        epsilon_one_honest=accounting.epsilon(orders, alone, terms.delta),
    )
