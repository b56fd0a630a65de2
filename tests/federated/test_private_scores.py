"""Private scores: exact at negligible noise, bounded in every record, and the truth within the noise that is stated."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import aggregation, randomness
from fedjax_poisson.federated import evaluation
from fedjax_poisson.federated import private_scores as scores
from fedjax_poisson.federated.records import Records
from fedjax_poisson.mechanisms import poisson_embedding

NAMES = ("north", "south", "west")


def _held_out(n: int = 200, seed: int = 0) -> tuple[jax.Array, Records]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((3, n)) < 0.4).astype(np.float32)
    chance = np.clip(rng.beta(2, 3, (3, n)) + 0.3 * labels, 0, 1).astype(np.float32)
    mask = np.arange(n)[None] < np.array([[n], [n // 2], [n // 5]])
    unit = np.where(mask, np.arange(n)[None], -1).astype(np.int32)
    return jnp.asarray(chance), Records(jnp.zeros((3, n, 1)), jnp.asarray(labels), jnp.asarray(mask), jnp.asarray(unit))


@functools.cache  # one mechanism, one compilation
def _mechanism(dark: float):  # type: ignore[no-untyped-def]
    return poisson_embedding(
        clip_norm=scores.CLIP_NORM, coordinate_bound=1.0, dark_count=dark, modulation=0.3, total_bound=256.0
    )


def _released(chance: jax.Array, cohort: Records, dark: float, seed: int = 1) -> tuple[np.ndarray, float]:
    mechanism, size = _mechanism(dark), scores.score_dimension(3)
    aggregator = aggregation.aggregator("plain", count_bound=mechanism.count_bound(3, size), senders=3, size=size)
    total, _ = scores.private_scores(
        chance, cohort, mechanism=mechanism, aggregator=aggregator, stream=randomness.stream(seed)
    )
    return total, mechanism.variance(3) ** 0.5


def _truth(chance: jax.Array, cohort: Records) -> dict[str, object]:
    """The same scores from the records, probabilities rounded to the middle of their bins."""
    middle = (np.minimum(np.floor(np.asarray(chance) * scores.BINS), scores.BINS - 1) + 0.5) / scores.BINS
    logits = np.log(middle / (1 - middle))
    found: dict[str, object] = evaluation.scores(logits, np.asarray(cohort.labels, int), np.asarray(cohort.mask), NAMES)
    return found


def test_without_noise_they_are_the_scores_themselves() -> None:
    chance, cohort = _held_out()
    total, deviation = _released(chance, cohort, dark=4e8)
    assert deviation < 0.08  # rounding is exact but for six deviations
    found, truth = scores.scores_of(np.round(total), 0.0, NAMES), _truth(chance, cohort)
    for name in ("mean_client_accuracy", "pooled_accuracy", "auc", "balanced_accuracy"):
        assert found[name] == pytest.approx(truth[name], abs=1e-9), name
    assert found["accuracy_by_site"] == pytest.approx(truth["accuracy_by_site"])


@pytest.mark.statistical
def test_the_stated_error_covers_the_truth() -> None:
    chance, cohort = _held_out()
    truth, standard = _truth(chance, cohort)["pooled_accuracy"], []
    for seed in range(30):
        total, deviation = _released(chance, cohort, dark=3e4, seed=seed)
        found = scores.scores_of(total, deviation, NAMES)
        standard.append((found["pooled_accuracy"] - truth) / found["pooled_accuracy_error"])  # type: ignore[operator]
    assert 0.6 < np.std(standard) < 1.5 and abs(np.mean(standard)) < 1
    assert np.std(np.array(standard) * 3) > 1.5  # the twin: an error stated a third too small would be seen


@pytest.mark.parametrize("grouped", [False, True])
def test_one_unit_moves_the_grids_by_at_most_its_bounds(grouped: bool) -> None:
    chance, cohort = _held_out(40)
    if grouped:  # patient 0 of the first site has all forty records
        cohort = cohort._replace(unit=cohort.unit.at[0].set(0))
    mechanism = _mechanism(1e4)
    largest = 40 if grouped else 1
    whole = np.asarray(scores.score_grids(mechanism, largest, chance, cohort), np.int64)
    without = cohort._replace(unit=jnp.where(cohort.unit == 0, -1, cohort.unit).at[1:].set(cohort.unit[1:]))
    less = np.asarray(scores.score_grids(mechanism, largest, chance, without), np.int64)
    step = 256.0 / 2**20
    moved = (whole - less)[0] * step
    assert 0.5 < np.linalg.norm(moved) <= scores.CLIP_NORM * (1 + 1e-9) and np.abs(moved).max() <= 1.0
    assert not (whole - less)[1:].any()


def test_noise_alone_is_no_score() -> None:
    rng = np.random.default_rng(0)
    found = scores.scores_of(rng.normal(0, 50, scores.score_dimension(3)), 50.0, NAMES)
    assert found["auc"] is None and found["pooled_accuracy"] is None and found["mean_client_accuracy"] is None


def test_without_a_single_case_hardly_any_release_has_an_area() -> None:
    rng, deviation, shown, cut = np.random.default_rng(1), 20.0, 0, 0
    for _ in range(1500):
        histogram = np.stack([np.histogram(rng.beta(1.2, 8, 2000), scores.BINS, (0, 1))[0], np.zeros(scores.BINS)])
        histogram = histogram + rng.normal(0, deviation, histogram.shape)
        total = np.concatenate([np.array([2000.0, 1900.0]) + rng.normal(0, deviation, 2), histogram.ravel()])
        found = scores.scores_of(total, deviation, ("all",))
        shown += found["auc"] is not None or found["balanced_accuracy"] is not None
        cut += np.maximum(histogram, 0).sum(axis=1).min() > 3 * deviation * np.sqrt(scores.BINS)
    assert shown / 1500 < 0.01
    assert cut / 1500 > 0.05  # the twin: totals of what noise left above 0
