"""How the noise of a training is spread over its rounds, from public numbers only.

The released model is the mean of the last iterates. The gradient of round t enters all averaged iterates after it, so with plain gradient steps its noise
weighs a_t = min(1, (T - t) / (T - T_0)), t = 0..T-1, T_0 the last round that is not averaged. For a fixed sum of dark counts m_t the variance
sum a_t**2 / m_t is least at m_t proportional to a_t (Cauchy-Schwarz): sum(a)**2 against T sum(a**2) of equal counts, 0.85 of it at T_0 = T / 2. No linear
combination of rounds does better where every unit takes part in every round: the sensitivity of sum a_t g_t is itself sum a_t.
"""

from __future__ import annotations

from fedjax_poisson.mechanisms.dark_counts import NOISE_PORTIONS


def tail_average_portions(rounds: int, average_from: int) -> tuple[int, ...]:
    """Portions of the dark count, of `NOISE_PORTIONS`, that round 1, 2, ... uses when parameters are averaged: `controllers.schedule(...)`.

    Args:
      rounds: T.
      average_from: T_0, the round after which parameters are averaged, as in `fedsgd`.

    Raises:
      ValueError: nothing is averaged.
    """
    if not 0 <= average_from < rounds:
        raise ValueError(f"average_from={average_from} of {rounds} rounds: nothing would be averaged.")
    weights = (min(1.0, (rounds - t) / (rounds - average_from)) for t in range(rounds))
    return tuple(max(1, round(NOISE_PORTIONS * weight)) for weight in weights)
