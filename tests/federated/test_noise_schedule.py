"""The schedule of the noise: its weights, and that no other schedule of so many portions does better by much."""

from __future__ import annotations

import numpy as np
import pytest

from fedjax_poisson.federated.noise_schedule import NOISE_PORTIONS, tail_average_portions


def _weights(rounds: int, average_from: int) -> np.ndarray:
    """How the noise of each round enters the mean of the averaged iterates of plain gradient steps, by summing it out."""
    found = np.zeros(rounds)
    for number in range(rounds):
        found[number] = sum(1 for iterate in range(average_from + 1, rounds + 1) if number < iterate)
    return found / (rounds - average_from)


def _variance(portions: np.ndarray, weights: np.ndarray) -> float:
    """Noise of the average where the total of dark counts is 1."""
    return float((weights**2 / portions).sum() * portions.sum())


@pytest.mark.parametrize(("rounds", "average_from"), [(60, 30), (20, 10), (7, 3), (60, 0), (5, 4)])
def test_it_is_near_the_best_and_below_equal_noise(rounds, average_from):
    weights = _weights(rounds, average_from)
    portions = np.array(tail_average_portions(rounds, average_from))
    assert portions.min() >= 1 and portions.max() <= NOISE_PORTIONS and len(portions) == rounds
    best, equal = weights.sum() ** 2, _variance(np.ones(rounds), weights)
    assert best <= _variance(portions, weights) < min(1.02 * best, equal + 1e-9)
    assert _variance(portions[::-1], weights) >= _variance(portions, weights)


def test_sixty_rounds_save_what_the_docstring_says():
    weights = _weights(60, 30)
    saved = _variance(np.array(tail_average_portions(60, 30)), weights) / _variance(np.ones(60), weights)
    assert saved == pytest.approx(0.855, abs=0.003)


def test_nothing_averaged_is_refused():
    for average_from in (60, 61, -1):
        with pytest.raises(ValueError, match="nothing would be averaged"):
            tail_average_portions(60, average_from)
