"""The automatic recipe: what it decides, from which numbers, and what it says before anything is spent."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import optimize, stats

from fedjax_poisson import models
from fedjax_poisson.runs.budget_plan import make_plan
from fedjax_poisson.runs.config import Config, recipe
from fedjax_poisson.runs.loss_facts import loss_facts
from fedjax_poisson.runs.training_recipe import FIXED, MOMENTUM, ROUNDS, PublicSizes, recipe_of, step_size

SIZES = PublicSizes(features=41, senders=5, honest_senders=4, largest_site=4096, units=6056)


def _mu(epsilon: float, delta: float) -> float:
    """mu of the Gaussian trade-off that meets (epsilon, delta), from its definition (Dong, Roth and Su 2022, corollary 2.13)."""

    def gap(mu: float) -> float:
        return (
            stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(-mu / 2 - epsilon / mu) - delta
        )

    return float(optimize.brentq(gap, 1e-3, 50))


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_signal_and_step_follow_from_public_numbers(epsilon):
    recipe = recipe_of(Config(epsilon=epsilon), SIZES)
    signal = 6056 * _mu(epsilon, 1e-4) / (42 * math.sqrt(5 / 4))
    assert recipe.signal == pytest.approx(signal, rel=1e-3)
    assert recipe.rounds == 60 and recipe.sampling_rate == 1.0 and recipe.average_from == 30
    assert recipe.clip_norm == recipe.coordinate_bound == pytest.approx(0.3 * math.sqrt(42))
    assert recipe.standardize_norm == pytest.approx(math.sqrt(1 + 0.35 * 41))
    for units in (6056.0, 500.0):
        tau = min(300.0, 2.67 * signal * units / 6056)
        assert step_size(recipe, units) == pytest.approx(tau * 0.2 / 60, rel=1e-3)
    assert step_size(recipe, math.inf) == pytest.approx(1.0)


def test_little_signal_gets_more_for_standardisation_and_is_said_with_a_remedy():
    weak = recipe_of(Config(epsilon=1.0), SIZES._replace(units=300, features=39))
    assert weak.signal is not None and weak.signal < 3 and weak.standardize_share == 0.3
    said = " ".join(weak.reasons)
    assert "expect chance level" in said and "too little signal" in said and "--epsilon" in said
    epsilon = float(said.rsplit("--epsilon ", 1)[1].split()[0])
    enough = recipe_of(Config(epsilon=epsilon), SIZES._replace(units=300, features=39))
    assert enough.signal is not None and enough.signal >= 8
    columns = int(said.split("too little signal: ")[1].split()[0])
    fewer = recipe_of(Config(epsilon=1.0), SIZES._replace(units=300, features=columns))
    assert fewer.signal is not None and fewer.signal >= 8
    strong = recipe_of(Config(), SIZES)
    assert strong.standardize_share == 0.2 and "too little" not in " ".join(strong.reasons)


def test_without_a_public_number_of_units_nothing_is_promised():
    recipe = recipe_of(Config(), SIZES._replace(units=None))
    assert recipe.signal is None and "--training-units" in recipe.reasons[-1] and "expect" not in recipe.reasons[0]
    assert step_size(recipe, 6056.0) == step_size(recipe_of(Config(), SIZES), 6056.0)


def test_what_the_user_sets_stays():
    given = {"rounds": 7, "sampling_rate": 0.25, "clip_norm": 2.0, "coordinate_bound": 1.0, "learning_rate": 0.5}
    given |= {
        "momentum": 0.0,
        "average_share": 0.0,
        "standardize_share": 0.4,
        "standardize_norm": 2.5,
        "total_bound": 50.0,
    }
    recipe = recipe_of(Config(**given), SIZES)
    assert {name: getattr(recipe, name) for name in given} == given
    assert recipe.average_from is None and step_size(recipe, 10.0) == 0.5


def test_networks_and_the_fixed_recipe_take_constants():
    for config in (Config(model="mlp"), Config(recipe="fixed")):
        recipe = recipe_of(config, SIZES)
        assert {name: getattr(recipe, name) for name in FIXED} == dict(FIXED) and recipe.signal is None


def test_a_coordinate_bound_above_the_clip_is_refused():
    with pytest.raises(ValueError, match="exceeds clip_norm"):
        recipe_of(Config(clip_norm=1.0, coordinate_bound=2.0), SIZES)
    with pytest.raises(ValueError, match="exceeds clip_norm"):
        recipe_of(Config(coordinate_bound=50.0), SIZES)


def _plan(epsilon: float, **settings):
    config = Config(epsilon=epsilon, **settings)
    recipe = recipe_of(config, SIZES)
    return make_plan(config, recipe, senders=5, dimension=42, moment_dimension=49, largest_site=4096)


def test_the_plan_takes_the_law_with_less_noise_and_says_how_much():
    plan = _plan(3.0)
    assert plan.law == "tight" and plan.epsilon <= 3.0 and plan.epsilon > 2.999
    assert 1.1 < plan.renyi_variance < 1.25
    # One honest site and a clamp of three contributions: steps are large, and a Renyi curve costs less.
    coarse = _plan(
        1.0, modulation=0.3, honest_senders=1, total_bound=0.9 * math.sqrt(42), rounds=2, standardize_share=0.01
    )
    assert coarse.law == "renyi" and coarse.renyi_variance == 1.0 and coarse.epsilon <= 1.0
    assert _plan(3.0, sampling_rate=0.5).law == "renyi"


def test_the_schedule_of_the_plan_saves_noise_in_the_average():
    tail, constant = _plan(3.0), _plan(3.0, controller="constant")
    assert tail.portions is not None and constant.portions is None

    def noise(plan) -> float:
        weights = np.minimum(1.0, np.arange(60, 0, -1) / 30)
        each = [plan.of_round(number).mechanism.variance(5) for number in range(1, 61)]
        return float((weights**2 * each).sum())

    assert noise(tail) / noise(constant) == pytest.approx(0.855, abs=0.01)


def test_planning_is_quick_enough_to_be_counted_in_calls(monkeypatch):
    """Half a second is the aim (`experiments/tight_ledger.py` measures it); what it depends on are evaluations of the divergence."""
    from fedjax_poisson.accounting import remaining_variance

    calls, real = [], remaining_variance.rates

    def counted(*args):
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(remaining_variance, "rates", counted)
    _plan(3.0)
    assert len(calls) < 2500


LOSSES = {
    ("binary", 1): models.logistic(),
    ("multilabel", 5): models.multilabel_logistic(5),
    ("multiclass", 2): models.linear(2),
    ("multiclass", 6): models.linear(6),
    ("regression", 1): models.linear_regression(),
}


@pytest.mark.parametrize(("task", "outputs"), LOSSES)
def test_the_facts_of_a_loss_are_those_of_its_gradients_at_zero(task, outputs):
    """The clip is .6 of a gradient's norm (a deviation's for a number); curvature times the steps is what the signal allows."""
    model, facts = LOSSES[task, outputs], loss_facts(task, outputs)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9)), jnp.float32)
    labels = {"binary": 1.0, "multiclass": 1, "multilabel": np.eye(outputs)[0], "regression": 1.0}
    y = jnp.asarray([labels[task]], jnp.int32 if task == "multiclass" else jnp.float32)
    start, rebuild = ravel_pytree(model.init(jax.random.key(0), x))

    def loss(flat):
        return model.loss(rebuild(flat), x, y)[0]

    length = math.sqrt(1 + float(jnp.sum(x**2)))
    norm = float(jnp.linalg.norm(jax.grad(loss)(start)))
    assert facts.clip * length == pytest.approx(norm * (1.0 if task == "regression" else 0.6), rel=1e-4)
    curvature = float(jnp.linalg.eigvalsh(jax.hessian(loss)(start))[-1]) / length**2
    reach = {"binary": 0.6675, "multilabel": 0.6675, "multiclass": 2.2, "regression": 0.4}[task]
    assert curvature * facts.tau_of_signal == pytest.approx(reach, rel=1e-3)
    # Steps of a training without noise stay below what momentum allows for features whose largest eigenvalue is 14.
    assert curvature * facts.plain_tau * (1 - MOMENTUM) / ROUNDS * 14 < 2 * (1 + MOMENTUM)


def test_two_classes_of_softmax_have_the_signal_of_one_logit():
    """The noise of the difference of two logits, over what a gradient moves it by, is the same in both parametrisations."""
    binary, softmax = loss_facts("binary", 1), loss_facts("multiclass", 2)
    assert softmax.sharing == binary.sharing == 1
    assert math.sqrt(2) * softmax.clip / 2 == pytest.approx(binary.clip)
    assert [loss_facts("multiclass", k).sharing ** 2 for k in (3, 5)] == pytest.approx([3, 10])
    assert loss_facts("multilabel", 9).sharing == 3


def test_other_tasks_follow_from_their_sizes_and_say_what_to_expect():
    several = SIZES._replace(task="multilabel", outputs=4)
    found, alone = recipe_of(Config(epsilon=3.0), several), recipe_of(Config(epsilon=3.0), SIZES)
    assert alone.signal is not None and found.signal == pytest.approx(alone.signal / 2)
    assert found.clip_norm == pytest.approx(2 * alone.clip_norm) and several.parameters == 4 * 42
    assert "168 parameters" in found.reasons[0] and "mean AUC" in found.reasons[1]
    number = SIZES._replace(task="regression")
    wide, narrow = (recipe_of(Config(epsilon=3.0), number._replace(units=n)) for n in (6056, 500))
    assert wide.clip_norm == pytest.approx(2 * math.sqrt(42)) and narrow.clip_norm == pytest.approx(math.sqrt(42))
    unknown = recipe_of(Config(epsilon=3.0), number._replace(units=None))
    assert unknown.clip_norm == narrow.clip_norm and wide.standardize_norm == pytest.approx(math.sqrt(1 + 0.35 * 42))
    assert "R2" in wide.reasons[-1] and step_size(wide, 1e9) == pytest.approx(15 * 0.2 / 60)
    weak = recipe_of(Config(epsilon=1.0), SIZES._replace(task="multiclass", outputs=8, units=600))
    assert "too little signal" in weak.reasons[-1]


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_fixed_features_are_known_by_their_norm_and_not_by_their_number(epsilon):
    sizes = SIZES._replace(features=3969, senders=10, honest_senders=9, units=4708, fixed_norm=1.0)
    config = Config(epsilon=epsilon, model="scattering", standardize="bounds")
    found = recipe_of(config, sizes)
    signal = 4708 * _mu(epsilon, 1e-4) / (2 * math.sqrt(10 / 9))
    assert found.signal == pytest.approx(signal, rel=1e-3) and recipe_of(config, sizes._replace(features=99)) == found
    assert found.clip_norm == pytest.approx(0.3 * math.sqrt(2)) and 60 <= found.rounds <= 300
    step = step_size(found, 4708)
    # Heavy ball with a curvature of at most L^2 / 4 is stable below 2 (1 + m) / that; half of what plain descent allows.
    assert step * 2 / 4 <= 2.0 + 1e-9
    reach = step * found.rounds / (1 - found.momentum)
    assert reach == pytest.approx(min(6 * 2.67 * signal, found.rounds * 4.0 / 0.1), rel=1e-3)
    assert str(found.rounds) in found.reasons[0] and "AUC" not in found.reasons[0]
    fixed = recipe_of(dataclasses.replace(config, recipe="fixed"), sizes)
    assert {name: getattr(fixed, name) for name in FIXED} == dict(FIXED)


def test_searched_settings_of_linear_models_on_pictures_stay_and_others_follow_the_rule():
    for name, ruled in {"pneumonia": False, "covid": True, "medmnist": True, "xray": True}.items():
        settings = recipe(name, model="scattering")
        assert (settings.recipe == "auto") == ruled and (settings.learning_rate is None) == ruled
        assert settings.standardize == "bounds" and settings.model == "scattering"
    assert recipe("covid") == recipe("covid", model="scattering")
