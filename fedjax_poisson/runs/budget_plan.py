"""From a budget to mechanisms: what will be released, how noisy, and what it costs, fixed before any data is touched."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.private_scores import CLIP_NORM as SCORE_NORM
from fedjax_poisson.federated.private_scores import score_dimension
from fedjax_poisson.federated.records import OVERFLOW
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.dark_counts import NOISE_PORTIONS, Shape, Terms, cheapest, once, settle_distance
from fedjax_poisson.mechanisms.registry import Law, MechanismEntry, mechanism_entry
from fedjax_poisson.mechanisms.types import check_honest
from fedjax_poisson.runs.column_release import ColumnPlan, column_coordinates, plan_columns
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.mechanism_choice import check_mechanism, noise_portions, noise_senders_of, only_law
from fedjax_poisson.runs.planned import Planned, planned_of
from fedjax_poisson.runs.training_recipe import TrainingRecipe


class BudgetPlan(NamedTuple):
    """The releases of a run.

    Attributes:
      terms: the facts they have in common, with the law that they are charged by.
      columns: the histograms that ranges and levels are read from.
      standardize: the one moment sum; None where nothing is released for standardisation (public bounds are enough).
      train: a training sum with all of its noise; `of_round` has a round's own.
      portions: the most portions of the noise that round 1, 2, ... uses; None for all of it in every round.
      evaluate: the sum of scores; None where scores are no release.
      rounds: number of training sums.
      epsilon: what all of it costs at `delta`.
      delta: delta stated to the user.
      sampler_delta: the part of delta that covers the samplers' distance from the exact law and samples too large for their slots
        (`accounting.reserve`).
      epsilon_one_honest: the total cost if all sites except the record's site collude with the server.
      renyi_variance: variance of a training sum's noise under Renyi accounting over that of the plan; 1 where the plan is charged so.
    """

    terms: Terms
    columns: ColumnPlan
    standardize: Planned | None
    train: Planned
    portions: tuple[int, ...] | None
    evaluate: Planned | None
    rounds: int
    epsilon: float
    delta: float
    sampler_delta: float
    epsilon_one_honest: float
    renyi_variance: float

    @property
    def law(self) -> Law:
        """What the ledger of the plan must account by."""
        return "renyi" if self.terms.variance is None else "tight"

    @property
    def honest_senders(self) -> int:
        """Sites the guarantee counts on."""
        return self.terms.participation.honest_senders

    @property
    def senders(self) -> int:
        """Sites that send in every round."""
        return self.terms.participation.senders

    def of_round(self, number: int) -> Planned:
        """The training sum of round 1, 2, ..., as the budget was planned."""
        if self.portions is None:
            return self.train
        return self.train.used(self.portions[number - 1])

    @property
    def charges(self) -> list[accounting.Charge]:
        """What the ledger is charged with, in the order of the releases."""
        return [each.charge for each in self._releases]

    @property
    def distance(self) -> float:
        """Total variation of all releases from the laws that they are charged by, with which the ledger is charged too."""
        return sum(each.distance for each in self._releases)

    @property
    def _releases(self) -> list[Planned]:
        once = [each.planned for each in self.columns.releases]
        once += [] if self.standardize is None else [self.standardize]
        after = [] if self.evaluate is None else [self.evaluate]
        return [*once, *(self.of_round(number) for number in range(1, self.rounds + 1)), *after]

    @property
    def planned_rdp(self) -> np.ndarray:
        """The curve of all planned releases together, float64 `[orders]`, of a plan that is charged with curves."""
        return cast(np.ndarray, np.sum(cast(list[np.ndarray], self.charges), axis=0))

    @property
    def accounted_delta(self) -> float:
        """Delta left for the mechanisms after the share of the samplers and slots."""
        return self.terms.delta


def make_plan(
    config: Config,
    recipe: TrainingRecipe,
    *,
    senders: int,
    dimension: int,
    moment_dimension: int,
    largest_site: int,
    moment_blocks: int = 1,
    sites_per_unit: int = 1,
    open_numbers: int = 0,
    open_texts: int = 0,
    law: Law | None = None,
    level: Literal["record", "client"] = "record",
    steered: bool = True,
) -> BudgetPlan:
    """Calibrate all mechanisms so that everything released costs at most `config.epsilon` at `config.delta`.

    The releases that are made once get their shares of the budget, the training sums the largest dark count that fits beside them. Without secret sampling
    the plan is made by remaining variance and by Renyi curves, and the one with less noise in the training sums is taken, before anything is released.

    Args:
      config: the run's settings.
      recipe: those of its training.
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
      law: what the releases are charged by, where a shared ledger says it; None for what costs less.
      level: "client" where a site sends one contribution of its own, "record" where it sums those of its units.
      steered: whether the training takes a controller, and so a schedule of noise.

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
    kind = mechanism_entry(config.mechanism).entry
    check_mechanism(config, kind, level)
    portions = noise_portions(config, recipe, kind, steered)
    law = only_law(config, recipe, kind, law)

    def used(plan: BudgetPlan) -> list[Mechanism]:
        columns = (each.planned for each in plan.columns.releases)
        every = [each.mechanism for each in (plan.standardize, plan.train, plan.evaluate, *columns) if each is not None]
        return [each for each in every if each.facts.sampler_distance < 1]  # 1: an ideal law is assumed, and said

    draws = 1 if portions is None else NOISE_PORTIONS
    return settle_distance(lambda draw: _cheaper(config, recipe, sizes, draw, kind, law, portions), used, draws)


def narrowed(
    plan: BudgetPlan, config: Config, recipe: TrainingRecipe, *, dimension: int, moment_dimension: int
) -> BudgetPlan:
    """The plan for the features that the released levels gave, where `make_plan` had a bound on their number.

    Fewer features need less noise. What is left of a variance may be spent as earlier releases suggest; a plan of Renyi curves stays as it was announced.

    Args:
      plan: from `make_plan`, with open columns.
      config: the run's settings.
      recipe: those of its training, for this number of features.
      dimension: D of the model.
      moment_dimension: length of the moment vector.
    """
    terms = plan.terms
    if terms.variance is None:
        return plan
    left, moments = _left(terms, terms.variance.total, plan.columns.charges), plan.standardize
    if moments is not None:
        blocks = plan.senders if config.standardize == "site" else 1
        norm = min(recipe.standardize_norm, math.sqrt(moment_dimension))
        moments = _once(terms, recipe.standardize_share, norm, blocks * moment_dimension, moments.distance, left)
        assert moments is not None
        left = _left(terms, left, [moments.charge])
    last = 0.0 if plan.evaluate is None else config.evaluation_share * terms.variance.total
    kind = mechanism_entry(config.mechanism).entry
    train = _train(recipe, terms, dimension, kind, [], plan.train.distance, (left, last), plan.portions)
    return plan._replace(standardize=moments, train=train)


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


def _cheaper(
    config: Config,
    recipe: TrainingRecipe,
    sizes: _Sizes,
    draw: float,
    kind: MechanismEntry,
    law: Law | None,
    portions: tuple[int, ...] | None,
) -> BudgetPlan:
    """The plan where one draw of one coordinate is within `draw` of its law, by the given law or by the one with less noise."""
    laws: tuple[Law, ...] = (law,) if law else ("tight", "renyi")
    plans = {each: functools.partial(_calibrated, config, recipe, sizes, draw, kind, each, portions) for each in laws}
    best, noise = cheapest(plans, lambda plan: plan.train.mechanism.variance(plan.senders))
    return best._replace(renyi_variance=noise.get("renyi", noise[best.law]) / noise[best.law])


def _calibrated(
    config: Config,
    recipe: TrainingRecipe,
    sizes: _Sizes,
    draw: float,
    kind: MechanismEntry,
    law: Law,
    portions: tuple[int, ...] | None,
) -> BudgetPlan:
    """The plan by one law."""
    participation = accounting.Participation(
        senders=sizes.senders,
        minimum_senders=sizes.senders,
        honest_senders=sizes.senders - 1 if config.honest_senders is None else config.honest_senders,
        sampling_rate=recipe.sampling_rate,
        adjacency=config.adjacency,
    )
    check_honest(participation.honest_senders, sizes.senders)
    check_sampling(recipe.sampling_rate, config.adjacency)
    distances = _distances(
        participation, sizes, draw, noise_senders_of(config)[0] if kind.noise_by == "committee" else 0
    )
    sampler_delta = accounting.plan_reserve(
        config.epsilon,
        config.delta,
        distances.columns + distances.standardize + recipe.rounds * distances.train + distances.evaluate,
    )
    delta = config.delta - sampler_delta
    terms = Terms(
        epsilon=config.epsilon,
        delta=delta,
        participation=participation,
        largest_site=sizes.largest_site,
        sites_per_unit=sizes.sites_per_unit,
        modulation=config.modulation,
        orders=accounting.integer_orders(256),  # one set for every run, so that runs can share a ledger
        variance=accounting.variance_budget(config.epsilon, delta) if law == "tight" else None,
        noise_senders=noise_senders_of(config) if kind.noise_by == "committee" else None,
    )
    columns = plan_columns(terms, numbers=sizes.open_numbers, texts=sizes.open_texts)
    left = _left(terms, 0.0 if terms.variance is None else terms.variance.total, columns.charges)
    # A unit's vector of moments lies in one block.
    norm = min(recipe.standardize_norm, math.sqrt(sizes.moment_dimension))
    moments = _once(terms, recipe.standardize_share, norm, sizes.moments, distances.standardize, left)
    left = _left(terms, left, [] if moments is None else [moments.charge])
    # The scores are released last: what they need is what training must leave.
    last = config.evaluation_share * terms.variance.total if terms.variance is not None and sizes.scores else 0.0
    evaluate = _once(terms, config.evaluation_share, SCORE_NORM, sizes.scores, distances.evaluate, last)
    beside = [*(each.planned for each in columns.releases), *(each for each in (moments, evaluate) if each is not None)]
    train = _train(recipe, terms, sizes.dimension, kind, beside, distances.train, (left, last), portions)
    plan = BudgetPlan(
        terms=terms,
        columns=columns,
        standardize=moments,
        train=train,
        portions=portions,
        evaluate=evaluate,
        rounds=recipe.rounds,
        epsilon=math.nan,
        delta=config.delta,
        sampler_delta=sampler_delta,
        epsilon_one_honest=math.nan,
        renyi_variance=1.0,
    )
    return plan._replace(
        epsilon=min(_epsilon(plan, participation.honest_senders, law), config.epsilon),
        epsilon_one_honest=min(_epsilon(plan, 1, each) for each in {law, *({"renyi"} & set(kind.laws))}),
    )


def _epsilon(plan: BudgetPlan, honest_senders: int, by: str) -> float:
    """Epsilon of all planned releases by a law, with so many honest senders."""
    terms, rounds = plan.terms, [plan.of_round(number) for number in range(1, plan.rounds + 1)]
    before = [each.planned for each in plan.columns.releases] + ([plan.standardize] if plan.standardize else [])
    releases = [*before, *rounds, *([plan.evaluate] if plan.evaluate else [])]
    if by == "tight":
        costs = [each.priced.cost(terms, each.dimension, honest_senders) for each in releases]
        return accounting.fixed_plan_epsilon(costs, terms.delta)
    curves = {id(each): each.rdp(terms, honest_senders) for each in releases}
    return accounting.epsilon(terms.orders, np.sum([curves[id(each)] for each in releases], axis=0), terms.delta)


def _left(terms: Terms, left: float, charges: Iterable[accounting.Charge]) -> float:
    """Variance left after some releases; 0 where it is not what is charged."""
    if terms.variance is None:
        return 0.0
    after = accounting.spend_all(terms.variance, left, cast(list[accounting.Cost], list(charges)))
    assert after is not None  # each was calibrated to fit
    return after


def _distances(participation: accounting.Participation, sizes: _Sizes, draw: float, noise_senders: int) -> _Distances:
    """Of all releases; `noise_senders` of the training sums where clients send clean counts, else 0."""

    def of(dimension: int, overflow: float = 0.0, senders: int = sizes.senders) -> float:
        return accounting.release_distance(senders=senders, dimension=dimension, overflow=overflow, draw=draw)

    beside = OVERFLOW if participation.sampling_rate < 1 else 0.0
    beside += accounting.SCREENING if noise_senders else 0.0

    return _Distances(
        columns=of(column_coordinates(sizes.open_numbers, sizes.open_texts)),
        standardize=of(sizes.moments),
        train=of(sizes.dimension, beside, noise_senders or sizes.senders),
        evaluate=of(sizes.scores),
    )


def _once(terms: Terms, share: float, norm: float, dimension: int, distance: float, left: float) -> Planned | None:
    """A vector that is released once for a share of the budget; None where it has no coordinates."""
    if not dimension:
        return None
    return planned_of(terms, once(terms, share, norm, dimension, left), dimension, distance)


def _train(
    recipe: TrainingRecipe,
    terms: Terms,
    dimension: int,
    kind: MechanismEntry,
    beside: Sequence[Planned],
    distance: float,
    between: tuple[float, float],
    portions: tuple[int, ...] | None,
) -> Planned:
    """The training sums with the largest dark count that fits beside all else; of a variance, between what is left before and after them."""
    units, coordinate = terms.sites_per_unit, recipe.coordinate_bound  # at most clip_norm: the recipe is checked
    bound = recipe.total_bound or coordinate * max(float(units), terms.largest_site * recipe.sampling_rate)
    if bound < units * coordinate:
        raise ValueError(
            f"total_bound={bound:g} is below what one unit may contribute, {units * coordinate:g}: raise it, or leave it out."
        )
    rate = 1 - (1 - recipe.sampling_rate) ** units if units > 1 else recipe.sampling_rate
    other = np.zeros(len(terms.orders))
    if terms.variance is None:
        other = sum((each.rdp(terms) for each in beside), other)
    priced = kind.calibrate(
        terms,
        Shape(recipe.clip_norm, coordinate, bound, dimension),
        rounds=recipe.rounds,
        portions=portions,
        sampling_rate=rate,
        other_rdp=other,
        between=between,
    )
    return planned_of(terms, priced, dimension, distance, rate)
