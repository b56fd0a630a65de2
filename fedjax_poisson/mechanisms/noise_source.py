"""Whose noise hides a release: the senders' own, or that of noise senders; what is charged must know which.

Where clients send clean counts (`committee_noise`), the number of honest clients has no part in the price: the noise of the h honest noise senders hides a
client whoever the others are. `noise_source` is the one place where an account learns what to count.
"""

from __future__ import annotations

from typing import NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.accounting import Participation
from fedjax_poisson.mechanisms.types import Mechanism


class NoiseSource(NamedTuple):
    """Whose noise is in a release.

    Attributes:
      senders: parties that draw noise for it: each draw is a little off its law.
      honest: those whose noise the price counts.
      screening: total variation that screening adds (`accounting.SCREENING`); 0 where nobody is screened by what it sends.
    """

    senders: int
    honest: int
    screening: float


def noise_source(mechanism: Mechanism, participation: Participation) -> NoiseSource:
    """Of the releases of a mechanism with these senders."""
    by = mechanism.noise_senders
    if by is None:
        return NoiseSource(participation.senders, participation.honest_senders, 0.0)
    return NoiseSource(by.senders, by.honest, accounting.SCREENING)


def release_distance(
    mechanism: Mechanism, participation: Participation, dimension: int, overflow: float, draw: float
) -> float:
    """`accounting.release_distance` of a mechanism: the draws of whoever sends noise, what a sample adds that does not fit, what screening adds."""
    source = noise_source(mechanism, participation)
    return accounting.release_distance(
        senders=source.senders, dimension=dimension, overflow=overflow + source.screening, draw=draw
    )


def check_own_noise(mechanism: Mechanism, where: str) -> None:
    """Refuse a mechanism whose senders send clean counts where nobody else would add noise.

    Args:
      mechanism: of the release.
      where: what would open the sum, the subject of the message.

    Raises:
      ValueError: the noise comes from noise senders.
    """
    if mechanism.noise is not None:
        raise ValueError(
            f"{where} opens what its senders send, and senders of {mechanism.facts.name} send clean counts: without the noise senders' vectors nothing would "
            "be private. Use fedavg, whose norm rounds have them, or a mechanism whose senders bring their own noise (poisson_embedding, skellam)."
        )
