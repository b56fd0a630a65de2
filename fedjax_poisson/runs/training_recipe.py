"""How a run trains: settings that the user gave, and a rule from public quantities for those left open.

**The rule for linear models on tables** (`recipe = "auto"`). With every record in every round the noise in the gradient averaged over all rounds is
C h / (mu n) whatever their number, far below what sampling the records did to it; what costs accuracy is to stop before the parameters have arrived. So a run
takes long steps: a direction of curvature lambda is learnt when lambda tau >> 1, tau = T eta / (1 - m), while all directions together bring noise of
sqrt(F + 1) sigma tau to an output. With n units, F features, h = sqrt(sites / honest sites) and mu the parameter of the Gaussian whose trade-off meets
(epsilon, delta), everything depends on the signal s = n mu / ((F + 1) h) (over k where a unit may have records at k sites):

* every unit in every round, T = 60 rounds, momentum m = 0.8, step eta = tau (1 - m) / T with tau = min(300, 2.67 s), the last half of the iterates averaged,
  and less noise in rounds that weigh more in that average (`federated.noise_schedule`);
* clip C = 0.3 sqrt(F + 1): standardised records have length sqrt(F + 1) with the 1 of the bias, so gradients at the start are half of that; no tighter bound
  on a coordinate;
* a fifth of the budget for means and deviations (0.3 where s < 15), moment vectors clipped to sqrt(1 + 0.35 F);
* a site's sum is clamped to 0.6 of the bound on its units: at the start it is at most half of them in each coordinate (Cauchy-Schwarz).

**Other losses** (several labels, several classes, a number) change the clip, what the signal is divided by, the length of the steps and the clamp
(`runs.loss_facts`).

**Linear models on fixed features of bounded length** (scattering: features of norm 1, so records of length L = sqrt 2 with the 1). The same rule with L in
place of sqrt(F + 1), which the noise of an output knows alone: C = 0.3 L, s = n mu / (L^2 h), tau = 16 s: six times as long as for a table, since features of
a picture vary in few directions and little in most. One step is at most 2 / (c L^2), c the curvature (1/4 for two classes, 1/K for K): longer ones
oscillate. So the rounds follow: T = tau (1 - m) / eta between 60 and 300, with m = 0.9. No moments are released. The number of units is the one that scales
the step anyway. What s means for the AUC depends on the pictures, so nothing is promised. (Six was chosen on folds of two sets of radiographs in a simulation
with Gaussian noise, by a script that is not kept; data sets whose settings were searched keep them, `runs.recipes`.)

The constants for two classes were chosen on eight public tables in a simulation with Gaussian noise, those of the other losses on folds of the training
records of SUPPORT2 (`experiments/table_tasks.py --constants`); apart from the fixed ones above no record decides anything. For two classes none of them
matters much (doubling or halving any one costs below 0.003 of AUC on average); for the other losses halving or doubling the clip costs up to 0.01 of AUC or
0.05 of R2. `experiments/tables.py` and `table_tasks.py` measure the rule.

**Fixed settings** (`recipe = "fixed"`, and for networks): those of `FIXED`, whatever the data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.data.sites import Task
from fedjax_poisson.federated.controllers import registered
from fedjax_poisson.federated.server import AverageFrom
from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.loss_facts import LossFacts, clip_over_length, loss_facts

ROUNDS, MOMENTUM, AVERAGE_SHARE = 60, 0.8, 0.5
_FIXED_REACH = 6.0
_FIXED_MOMENTUM, _LEAST_ROUNDS, _MOST_ROUNDS = 0.9, 60, 300  # for fixed features
_WEAK, _SHARE, _SHARE_IF_WEAK = 15.0, 0.2, 0.3
_NONE, _SOME, _GOOD = 3.0, 8.0, 20.0  # signals: chance level; about .05 of AUC lost; about .01

_BESIDE = "against a model without privacy"
_EXPECTED: Mapping[str, tuple[str, str, str, str, str]] = MappingProxyType(
    {
        "binary": (
            "expect chance level",
            f"expect to lose more than .05 of AUC {_BESIDE}",
            f"expect to lose .01 to .05 of AUC {_BESIDE}",
            "expect the AUC of a model without privacy within .01",
            "expect the AUC of a model without privacy",
        ),
        "multiclass": (
            f"expect to lose .05 to .15 of the mean AUC of a class against the rest {_BESIDE}",
            f"expect to lose .03 to .05 of the mean AUC of a class against the rest {_BESIDE}",
            f"expect to lose .01 to .03 of the mean AUC of a class against the rest {_BESIDE}",
            "expect the mean AUC of a class against the rest of a model without privacy within .015",
            "expect the mean AUC of a class against the rest of a model without privacy within .005",
        ),
        "multilabel": (
            f"expect to lose .05 or more of the labels' mean AUC {_BESIDE}",
            f"expect to lose .02 to .05 of the labels' mean AUC {_BESIDE}",
            f"expect to lose .01 to .02 of the labels' mean AUC {_BESIDE}",
            "expect the labels' mean AUC of a model without privacy within .005",
            "expect the labels' mean AUC of a model without privacy",
        ),
        "regression": (
            f"expect to lose .15 or more of R2 {_BESIDE}, perhaps no better than the mean",
            f"expect to lose .05 to .15 of R2 {_BESIDE}",
            f"expect to lose .01 to .03 of R2 {_BESIDE}",
            "expect the R2 of a model without privacy within .01 (.03 if the label is skewed)",
            "expect the R2 of a model without privacy (less .01 to .02 if the label is skewed)",
        ),
    }
)  # below a signal of 3, 8, 20, 60, and above
FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "rounds": 20,
        "sampling_rate": 0.5,
        "clip_norm": 1.0,
        "coordinate_bound": 0.6,
        "learning_rate": 0.3,
        "momentum": 0.8,
        "average_share": 0.5,
        "standardize_share": 0.25,
        "standardize_norm": 3.0,
    }
)
"""What is used for settings left open where no rule applies."""


class PublicSizes(NamedTuple):
    """The public numbers that a rule may use.

    Attributes:
      features: F, or a public bound on it.
      senders: sites.
      honest_senders: sites that do not collude.
      largest_site: bound on the training units of one site.
      units: training units of all sites, if declared or if the records are public; None if not known.
      sites_per_unit: the most sites that one unit has records at.
      task: what is learnt.
      outputs: classes or labels; 1 for one of two classes or a number.
      fixed_norm: bound on the norm of a record's features where they are fixed and public; None where features are standardised.
    """

    features: int
    senders: int
    honest_senders: int
    largest_site: int
    units: int | None
    sites_per_unit: int = 1
    task: Task = "binary"
    outputs: int = 1
    fixed_norm: float | None = None

    @property
    def parameters(self) -> int:
        """Parameters of a linear model."""
        return self.outputs * (self.features + 1)


class TrainingRecipe(NamedTuple):
    """Settings of a training, none left open; `Config` describes each.

    Attributes:
      rounds: T.
      sampling_rate: q.
      clip_norm: C.
      coordinate_bound: c_inf.
      total_bound: A, the clamp on a site's sum; None for c_inf times the units that a site samples at most.
      learning_rate: eta; None where it follows from the private count of units (`step_size`).
      momentum: m.
      average_share: share of the last rounds whose parameters are averaged.
      standardize_share: share of the budget for means and deviations.
      standardize_norm: clip of a moment vector.
      controller: what decides the noise of each round, and when to stop.
      scale: the signal per unit; None where the rule does not apply.
      facts: of the loss; None where the rule does not apply.
      signal: s, or None if the number of units is not known.
      local_rate: step of a client's own training; None where clients take one gradient.
      local_epochs: passes of a client over its records in a round; None likewise.
      reasons: how the settings came about, one sentence each.
    """

    rounds: int
    sampling_rate: float
    clip_norm: float
    coordinate_bound: float
    total_bound: float | None
    learning_rate: float | None
    momentum: float
    average_share: float
    standardize_share: float
    standardize_norm: float
    controller: str
    scale: float | None = None
    facts: LossFacts | None = None
    signal: float | None = None
    local_rate: float | None = None
    local_epochs: int | None = None
    reasons: tuple[str, ...] = ()

    @property
    def tail_from(self) -> int | None:
        """Round after which parameters are averaged if all rounds are done; None for no averaging."""
        return math.floor(self.rounds * (1 - self.average_share)) if self.average_share else None

    @property
    def average_from(self) -> AverageFrom:
        """Which parameters are averaged, as in `server_step`."""
        return "growing" if registered(self.controller).growing else self.tail_from

    @property
    def portions(self) -> tuple[int, ...] | None:
        """Portions of the noise that each round may use at most, which the budget is planned for; None for all of it in one piece."""
        return None if self.sampling_rate < 1 else registered(self.controller).portions(self.rounds, self.tail_from)


def recipe_of(config: Config, sizes: PublicSizes) -> TrainingRecipe:
    """The settings of a training; nothing about the records is used that is not public.

    Args:
      config: what the user set.
      sizes: public numbers.

    Raises:
      ValueError: the settings contradict each other.
    """
    if config.recipe == "auto" and sizes.fixed_norm is not None and sizes.units is not None:
        return _checked(_auto_fixed(config, sizes, sizes.fixed_norm, sizes.units))
    if config.recipe == "auto" and config.model == "logistic":
        return _checked(_auto(config, sizes))
    given = {name: getattr(config, name) for name in FIXED}
    settings = {name: FIXED[name] if value is None else value for name, value in given.items()}
    return _checked(
        TrainingRecipe(**settings, total_bound=config.total_bound, controller=config.controller or "schedule")
    )


def step_size(recipe: TrainingRecipe, units: float) -> float:
    """The server's step eta.

    Args:
      recipe: of the training.
      units: number of training units, privately estimated or public; infinity for a training without noise.
    """
    if recipe.learning_rate is not None:
        return recipe.learning_rate
    assert recipe.scale is not None and recipe.facts is not None
    if math.isinf(units):
        tau = recipe.facts.plain_tau
    else:
        tau = min(recipe.facts.most_tau, recipe.facts.tau_of_signal * recipe.scale * max(units, 1.0))
    return tau * (1 - recipe.momentum) / recipe.rounds


def _auto(config: Config, sizes: PublicSizes) -> TrainingRecipe:
    """The rule of the module's docstring."""
    length, facts = sizes.features + 1, loss_facts(sizes.task, sizes.outputs)
    spread = math.sqrt(sizes.senders / sizes.honest_senders)
    mu = math.sqrt(accounting.variance_budget(config.epsilon, config.delta).total)
    scale = mu / (length * spread * sizes.sites_per_unit * facts.sharing)
    signal = None if sizes.units is None else sizes.units * scale

    chosen = functools.partial(_chosen, config)
    clip = chosen("clip_norm", clip_over_length(facts, signal) * math.sqrt(length))
    rate = chosen("sampling_rate", 1.0)
    columns = sizes.features + (
        sizes.task == "regression"
    )  # a label that is a number is one more column of the moments
    coordinate = chosen("coordinate_bound", clip)
    return TrainingRecipe(
        rounds=int(chosen("rounds", ROUNDS)),
        sampling_rate=rate,
        clip_norm=clip,
        coordinate_bound=coordinate,
        total_bound=chosen(
            "total_bound", max(facts.clamp * sizes.largest_site * rate, sizes.sites_per_unit * coordinate)
        ),
        learning_rate=config.learning_rate,
        momentum=chosen("momentum", MOMENTUM),
        average_share=chosen("average_share", AVERAGE_SHARE),
        standardize_share=chosen("standardize_share", _SHARE if signal is None or signal >= _WEAK else _SHARE_IF_WEAK),
        standardize_norm=chosen("standardize_norm", math.sqrt(1 + 0.35 * columns)),
        controller=config.controller or "schedule",
        scale=scale,
        facts=facts,
        signal=signal,
        reasons=_reasons(config, sizes, scale, signal),
    )


def _chosen(config: Config, name: str, value: float) -> float:
    """What the user set, or the rule's value where it was left open."""
    own = getattr(config, name)
    return value if own is None else float(own)


def _auto_fixed(config: Config, sizes: PublicSizes, norm: float, units: int) -> TrainingRecipe:
    """The rule for a linear model on fixed features."""
    square, facts = 1 + norm**2, loss_facts(sizes.task, sizes.outputs)
    spread = math.sqrt(sizes.senders / sizes.honest_senders)
    mu = math.sqrt(accounting.variance_budget(config.epsilon, config.delta).total)
    scale = mu / (square * spread * sizes.sites_per_unit * facts.sharing)
    tau = _FIXED_REACH * facts.tau_of_signal * scale * units
    largest = 2 * (4 if sizes.task == "binary" else sizes.outputs) / square

    chosen = functools.partial(_chosen, config)
    momentum = chosen("momentum", _FIXED_MOMENTUM)
    rounds = int(chosen("rounds", min(max(math.ceil(tau * (1 - momentum) / largest), _LEAST_ROUNDS), _MOST_ROUNDS)))
    clip = chosen("clip_norm", facts.clip * math.sqrt(square))
    rate, coordinate = chosen("sampling_rate", 1.0), chosen("coordinate_bound", clip)
    longest = rounds * largest / (1 - momentum)
    return TrainingRecipe(
        rounds=rounds,
        sampling_rate=rate,
        clip_norm=clip,
        coordinate_bound=coordinate,
        total_bound=chosen(
            "total_bound", max(facts.clamp * sizes.largest_site * rate, sizes.sites_per_unit * coordinate)
        ),
        learning_rate=config.learning_rate,
        momentum=momentum,
        average_share=chosen("average_share", AVERAGE_SHARE),
        standardize_share=chosen("standardize_share", _SHARE),  # of no release
        standardize_norm=chosen("standardize_norm", 1.0),
        controller=config.controller or "schedule",
        scale=scale,
        facts=facts._replace(tau_of_signal=_FIXED_REACH * facts.tau_of_signal, most_tau=longest, plain_tau=longest),
        signal=scale * units,
        reasons=(
            f"recipe auto: {rounds} rounds, clip and step follow from fixed features of norm {norm:g}, {units:,} training units, {sizes.honest_senders} of "
            f"{sizes.senders} sites honest and epsilon {config.epsilon:g} (signal {scale * units:.3g})",
        ),
    )


def _reasons(config: Config, sizes: PublicSizes, scale: float, signal: float | None) -> tuple[str, ...]:
    names = ("rounds", "clip_norm", "learning_rate", "sampling_rate", "momentum")
    left_open = [name for name in names if getattr(config, name) is None]
    made = (
        f"recipe auto: {', '.join(left_open)} follow from {sizes.parameters} parameters, {sizes.honest_senders} of {sizes.senders} sites honest and "
        f"epsilon {config.epsilon:g}"
    )
    found = [made] if left_open else []
    if signal is None:
        found.append(
            f"signal: {scale:.3g} for each training unit; their number is not public, so what to expect is not said (declare it with --training-units)"
        )
        return tuple(found)
    found.append(f"signal {signal:.3g} ({sizes.units:,} training units): {_expectation(signal, sizes.task)}")
    if signal < _SOME and sizes.units is not None:
        found.append(_remedy(config, sizes, signal))
    return tuple(found)


def _expectation(signal: float, task: Task) -> str:
    """What `experiments/tables.py` and `table_tasks.py` saw at such a signal."""
    return _EXPECTED[task][sum(signal >= edge for edge in (_NONE, _SOME, _GOOD, 3 * _GOOD))]


def _remedy(config: Config, sizes: PublicSizes, signal: float) -> str:
    """How many columns, or which epsilon, would give a usable signal."""
    columns = math.floor((sizes.features + 1) * signal / _SOME) - 1
    epsilon = config.epsilon
    while epsilon < 100 and signal * _mu(epsilon, config.delta) / _mu(config.epsilon, config.delta) < _SOME:
        epsilon = math.ceil(epsilon * 1.05 * 10) / 10
    ways = ([f"{columns} encoded columns instead of {sizes.features} (--drop)"] if columns >= 1 else []) + (
        [f"--epsilon {epsilon:g}"] if epsilon < 100 else []
    )
    return f"too little signal: {' or '.join(ways) if ways else 'more records'} would do"


def _mu(epsilon: float, delta: float) -> float:
    return math.sqrt(accounting.variance_budget(epsilon, delta).total)


def _checked(recipe: TrainingRecipe) -> TrainingRecipe:
    if registered(recipe.controller).growing and (recipe.sampling_rate < 1 or not recipe.average_share):
        raise ValueError(
            f"controller={recipe.controller!r} judges releases by the noise of the embedding, which is known only with sampling_rate=1 (here "
            f"{recipe.sampling_rate:g}), and stops with averaged parameters (average_share={recipe.average_share:g}): set --sampling-rate 1 and leave "
            "--average-share out, or take another controller."
        )
    if recipe.coordinate_bound > recipe.clip_norm:
        raise ValueError(
            f"coordinate_bound={recipe.coordinate_bound:g} exceeds clip_norm={recipe.clip_norm:g}, so it would bound nothing; set both, such "
            f"as --clip-norm {recipe.clip_norm:g} --coordinate-bound {0.6 * recipe.clip_norm:g}."
        )
    return recipe
