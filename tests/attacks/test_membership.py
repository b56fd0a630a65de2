"""LiRA and the loss threshold: strong on an overfitted model, blind without a signal, equal to the slow definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

import fedjax_poisson as fp
from fedjax_poisson.attacks import (
    balanced_memberships,
    confidences,
    lira,
    lira_scores,
    loss_threshold,
    membership,
    plain_trainer,
    results,
    train_shadows,
)

SHADOWS, RECORDS = 32, 96


@pytest.fixture(scope="module")
def overfitted():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(RECORDS, 8)), jnp.float32)
    y = jnp.asarray((np.asarray(x)[:, 0] + rng.normal(size=RECORDS) > 0), jnp.float32)
    model, member = fp.models.mlp((32,)), balanced_memberships(SHADOWS, RECORDS, 0)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam divides by integers
        trainer = plain_trainer(model, x, y, steps=300, batch=32, optimizer=optax.adam(2e-2))
        params = train_shadows(trainer, member, jax.random.key(0), at_once=SHADOWS)
    return confidences(model, params, x, y), member


def test_an_overfitted_model_gives_its_members_away(overfitted):
    confidence, member = overfitted
    assert (confidence > 0)[member].mean() > 0.99 > 0.85 > (confidence > 0)[~member].mean()
    online, offline, loss = (
        lira(confidence, member),
        lira(confidence, member, mode="offline"),
        loss_threshold(confidence, member),
    )
    assert online.auc.low > 0.7 and online.auc.value > offline.auc.value > 0.6 and online.auc.value > loss.auc.value
    assert online.balanced_accuracy.low > 0.6 and online.tpr_at_1_percent.low > 0.01
    for result in (online, offline, loss):
        for rate in result[1:5]:
            assert rate.low <= rate.value <= rate.high
        assert result.models == SHADOWS and result.decisions == (SHADOWS * RECORDS // 2,) * 2
    assert "without the candidate" in offline.needs and "with and without" in online.needs


def test_shuffled_memberships_look_like_chance(overfitted):
    """The twin: the same confidences under coins that had nothing to do with the training."""
    confidence, _ = overfitted
    coins = balanced_memberships(SHADOWS, RECORDS, 99)
    for mode in ("online", "offline"):
        result = lira(confidence, coins, mode=mode)
        assert result.auc.low < 0.5 + 0.02 and result.auc.high > 0.5 - 0.02 and result.auc.high - result.auc.low < 0.2
        assert result.tpr_at_1_percent.low <= 0.01 <= result.tpr_at_1_percent.high + 0.01
        assert abs(result.balanced_accuracy.value - 0.5) < 0.05


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_scores_equal_the_slow_definition(mode):
    """Each model in turn is the target, the Gaussians are fitted to all others with NumPy."""
    rng = np.random.default_rng(3)
    member = balanced_memberships(8, 5, 1)
    confidence = rng.normal(size=(8, 5)) + 2 * member
    got = lira_scores(confidence, member, mode=mode, variance="per_record")
    for target in range(8):
        for record in range(5):
            others = np.arange(8) != target
            own = confidence[target, record]
            inside = confidence[others & member[:, record], record]
            outside = confidence[others & ~member[:, record], record]
            below = stats.norm(outside.mean(), np.sqrt(outside.var(ddof=1) + 1e-12))
            if mode == "offline":
                expected = below.logcdf(own)
            else:
                above = stats.norm(inside.mean(), np.sqrt(inside.var(ddof=1) + 1e-12))
                expected = above.logpdf(own) - below.logpdf(own)
            assert got[target, record] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_rates_agree_with_direct_counting():
    rng = np.random.default_rng(0)
    scores, member = rng.normal(size=(4, 50)), rng.random((4, 50)) < 0.5
    scores += member
    got = membership.evaluate(scores, member, "any", needs="nothing")
    positive, negative = scores[member], scores[~member]
    assert got.auc.value == pytest.approx(results.auc(positive, negative).value)
    assert got.tpr_at_1_percent.value == pytest.approx(results.true_positive_rate(positive, negative, 0.01).value)
    assert got.tpr_at_0_1_percent.value == np.mean(positive > negative.max())
    constant = membership.evaluate(np.zeros((4, 500)), rng.random((4, 500)) < 0.5, "constant")
    assert abs(constant.auc.value - 0.5) < 0.06  # ties are broken at random, not in favour of a side


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 3"):
        lira_scores(np.zeros((4, 5)), balanced_memberships(4, 5, 0))
    with pytest.raises(ValueError, match="no NaN"):
        membership.evaluate(np.full((1, 4), np.nan), np.ones((1, 4), bool), "x")
