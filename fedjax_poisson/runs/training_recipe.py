"""How a run trains: settings that the user gave, and a rule from public quantities for those left open.

**The rule for linear models on tables** (`recipe = "auto"`). With every record in every round the noise in the gradient averaged over all rounds is
C h / (mu n) whatever their number, far below what sampling the records did to it; what costs accuracy is to stop before the parameters have arrived. So a run
takes long steps: a direction of curvature lambda is learnt when lambda tau >> 1, tau = T eta / (1 - m), while all directions together bring logit noise up to
sqrt(d) sigma tau. With n units, d = F + 1 parameters, h = sqrt(sites / honest sites) and mu the parameter of the Gaussian whose trade-off meets
(epsilon, delta), everything depends on the signal s = n mu / (d h) (over k where a unit may have records at k sites):

* every unit in every round, T = 60 rounds, momentum m = 0.8, step eta = tau (1 - m) / T with tau = min(300, 2.67 s), the last half of the iterates averaged,
  and less noise in rounds that weigh more in that average (`federated.noise_schedule`);
* clip C = 0.3 sqrt(d): standardised records have length sqrt(d), so gradients at the start are half of that; no tighter bound on a coordinate;
* a fifth of the budget for means and deviations (0.3 where s < 15), moment vectors clipped to sqrt(1 + 0.35 F);
* a site's sum is clamped to 0.6 of the bound on its units: at the start it is at most half of them in each coordinate (Cauchy-Schwarz).

The constants were chosen on eight public tables in a simulation with Gaussian noise, apart from the fixed ones above no record decides anything; none of
them matters much (doubling or halving any one costs below 0.003 of AUC on average). `experiments/tables.py` measures the rule.

**Fixed settings** (`recipe = "fixed"`, and for networks): those of `FIXED`, whatever the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.federated.controllers import registered
from fedjax_poisson.federated.server import AverageFrom
from fedjax_poisson.runs.config import Config

ROUNDS, MOMENTUM, AVERAGE_SHARE = 60, 0.8, 0.5
_MOST_TAU, _TAU_OF_SIGNAL = 300.0, 2.67
_CLIP, _CLAMP = 0.3, 0.6
_WEAK, _SHARE, _SHARE_IF_WEAK = 15.0, 0.2, 0.3
_NONE, _SOME, _GOOD = 3.0, 8.0, 20.0  # signals: chance level; about .05 of AUC lost; about .01

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
    """

    features: int
    senders: int
    honest_senders: int
    largest_site: int
    units: int | None
    sites_per_unit: int = 1


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
      scale: mu / (d h k), the signal per unit; None where the rule does not apply.
      signal: s, or None if the number of units is not known.
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
    signal: float | None = None
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
    assert recipe.scale is not None
    tau = min(_MOST_TAU, _TAU_OF_SIGNAL * recipe.scale * max(units, 1.0))
    return tau * (1 - recipe.momentum) / recipe.rounds


def _auto(config: Config, sizes: PublicSizes) -> TrainingRecipe:
    """The rule of the module's docstring."""
    parameters = sizes.features + 1
    spread = math.sqrt(sizes.senders / sizes.honest_senders)
    mu = math.sqrt(accounting.variance_budget(config.epsilon, config.delta).total)
    scale = mu / (parameters * spread * sizes.sites_per_unit)
    signal = None if sizes.units is None else sizes.units * scale

    def chosen(name: str, value: float) -> float:
        own = getattr(config, name)
        return value if own is None else float(own)

    clip = chosen("clip_norm", _CLIP * math.sqrt(parameters))
    rate = chosen("sampling_rate", 1.0)
    coordinate = chosen("coordinate_bound", clip)
    return TrainingRecipe(
        rounds=int(chosen("rounds", ROUNDS)),
        sampling_rate=rate,
        clip_norm=clip,
        coordinate_bound=coordinate,
        total_bound=chosen("total_bound", max(_CLAMP * sizes.largest_site * rate, sizes.sites_per_unit * coordinate)),
        learning_rate=config.learning_rate,
        momentum=chosen("momentum", MOMENTUM),
        average_share=chosen("average_share", AVERAGE_SHARE),
        standardize_share=chosen("standardize_share", _SHARE if signal is None or signal >= _WEAK else _SHARE_IF_WEAK),
        standardize_norm=chosen("standardize_norm", math.sqrt(1 + 0.35 * sizes.features)),
        controller=config.controller or "schedule",
        scale=scale,
        signal=signal,
        reasons=_reasons(config, sizes, scale, signal),
    )


def _reasons(config: Config, sizes: PublicSizes, scale: float, signal: float | None) -> tuple[str, ...]:
    names = ("rounds", "clip_norm", "learning_rate", "sampling_rate", "momentum")
    left_open = [name for name in names if getattr(config, name) is None]
    made = (
        f"recipe auto: {', '.join(left_open)} follow from {sizes.features + 1} parameters, {sizes.honest_senders} of {sizes.senders} sites honest and "
        f"epsilon {config.epsilon:g}"
    )
    found = [made] if left_open else []
    if signal is None:
        found.append(
            f"signal: {scale:.3g} for each training unit; their number is not public, so what to expect is not said (declare it with --training-units)"
        )
        return tuple(found)
    found.append(f"signal {signal:.3g} ({sizes.units:,} training units): {_expectation(signal)}")
    if signal < _SOME and sizes.units is not None:
        found.append(_remedy(config, sizes, signal))
    return tuple(found)


def _expectation(signal: float) -> str:
    """What `experiments/tables.py` saw at such a signal."""
    if signal < _NONE:
        return "expect chance level"
    if signal < _SOME:
        return "expect to lose more than .05 of AUC against a model without privacy"
    if signal < _GOOD:
        return "expect to lose .01 to .05 of AUC against a model without privacy"
    return (
        "expect the AUC of a model without privacy within .01"
        if signal < 3 * _GOOD
        else "expect the AUC of a model without privacy"
    )


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
