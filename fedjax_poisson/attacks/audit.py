"""A direct audit of a mechanism: many draws of the exact worst pair, and a lower bound of what they give away.

The release of the two neighbouring worlds of the accountant's proof is drawn N times each from the mechanism itself (its clip, its sampler,
its streams); a threshold on the sum over the moved coordinates is the likelihood-ratio test to first order in the step. For events A chosen
on separate pilot draws, exact binomial bounds (Clopper-Pearson, shared over all tests by Bonferroni) give

    epsilon >= log((P(A) - delta) / Q(A)),      delta(epsilon) >= P(A) - e^epsilon Q(A)

in both directions. The second is compared with the whole claimed curve. That is where the power is: a noise 20 % too small moves the
total variation (epsilon = 0) by a quarter, which 10^5 draws see, while at delta = 1e-5 it takes 10^7. The claimed curve is the better of the
Renyi conversion and `accounting.tight`, because the conversion alone leaves room for 15 % of variance, in which a cheat can hide.

With two rounds the target moves in opposite directions and the rounds are subtracted: noise that is used twice cancels there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from scipy import special

from fedjax_poisson import accounting
from fedjax_poisson.attacks.results import binomial_lower, binomial_upper
from fedjax_poisson.attacks.worst_pair import claimed_delta, draw_statistics, worst_pair
from fedjax_poisson.federated.records import sample_units
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream, fold_in

NEEDS = "the opened sums, the noise of every colluding sender, and every input but one bit: which of two neighbouring worlds it is"
TRY_NEXT = "more draws; the full likelihood ratio of each coordinate instead of their sum; other pairs (spread vectors, central positions)"


class CurvePoint(NamedTuple):
    """One point of the privacy curve.

    Attributes:
      epsilon: in nats.
      claimed_delta: what the accountant claims there.
      measured_delta: lower bound of the true delta from the draws.
    """

    epsilon: float
    claimed_delta: float
    measured_delta: float


class MechanismAudit(NamedTuple):
    """What the draws say.

    Attributes:
      mechanism: its name and parameters.
      epsilon_claimed: at delta, all rounds, from the mechanism's own curve.
      epsilon_lower: lower bound at delta; 0 where nothing was shown.
      delta: of both.
      curve: where the claimed curve was tested.
      violated: epsilon_lower or a measured delta is above its claim; with probability 1 - confidence at most this is false.
      draws: of each world, the pilot not counted.
      rounds: releases in one draw.
      confidence: of all bounds together.
      needs: what the auditor must have.
      try_next: what a stronger auditor would do.
    """

    mechanism: str
    epsilon_claimed: float
    epsilon_lower: float
    delta: float
    curve: tuple[CurvePoint, ...]
    violated: bool
    draws: int
    rounds: int
    confidence: float
    needs: str
    try_next: str


def audit_mechanism(
    mechanism: Mechanism,
    stream: Stream,
    *,
    dimension: int,
    senders: int,
    claimed_senders: int | None = None,
    rounds: int = 2,
    delta: float = 1e-5,
    draws: int = 200_000,
    sampling_rate: float = 1.0,
    sampler: Callable[[Stream, int], Array] | None = None,
    round_stream: Callable[[Stream, int], Stream] = fold_in,
    confidence: float = 0.95,
    claim: Mechanism | None = None,
) -> MechanismAudit:
    """Draw the worst pair from a mechanism and compare with what it claims.

    Args:
      mechanism: the mechanism as it is run.
      stream: secret or seeded; used for nothing else.
      dimension: D of the claim.
      senders: senders whose noise the adversary does not know (a colluder tells him its own, which he subtracts).
      claimed_senders: honest senders that the claim counts; None: `senders`.
      rounds: releases in a draw; 2 shows noise that is used twice.
      delta: of the claimed epsilon.
      draws: N of each world; a fifth more are drawn for the pilot.
      sampling_rate: q of the claim (record level, every sender sends dark noise); use rounds=1 with it.
      sampler: `(stream, n) -> bool [n]`: how the target is really sampled; None: `federated.records.sample_units` at q.
      round_stream: `(stream, round) -> stream`: how the audited system derives a round's stream.
      confidence: that no bound is above the truth.
      claim: the mechanism that was announced; None: `mechanism` itself.

    Returns:
      `MechanismAudit`.
    """
    announced = mechanism if claim is None else claim
    honest = senders if claimed_senders is None else claimed_senders
    facts: dict[str, Any] = {
        "honest_senders": honest,
        "dimension": dimension,
        "rounds": rounds,
        "sampling_rate": sampling_rate,
    }
    orders = accounting.integer_orders(512)
    curve = announced.rdp(orders, honest, dimension)
    if sampling_rate < 1:
        curve = accounting.subsampled_rdp(orders, curve, sampling_rate)
    claimed = accounting.epsilon(orders, rounds * curve, delta)
    sample = sampler
    if sample is None and sampling_rate < 1:
        sample = unit_sampler(sampling_rate)
    pair = worst_pair(announced, dimension)

    def drawn(purpose: str, present: bool, count: int) -> np.ndarray:
        own = fold_in(stream, purpose, int(present))
        return draw_statistics(
            mechanism,
            pair,
            own,
            count,
            present=present,
            senders=senders,
            rounds=rounds,
            sample=sample,
            round_stream=round_stream,
        )

    pilot = max(draws // 5, 1000)
    p0, q0 = drawn("pilot", True, pilot), drawn("pilot", False, pilot)
    p, q = drawn("audit", True, draws), drawn("audit", False, draws)
    epsilons = [0.0, *(share * claimed for share in (0.25, 0.5, 1.0))] if math.isfinite(claimed) else [0.0]
    level = 1 - (1 - confidence) / (
        4 * (len(epsilons) + 1)
    )  # two directions, two binomials, each point and the headline

    normal = sample is None
    worlds = ((_pilot(p0, q0, normal), p, q), (_pilot(-q0, -p0, normal), -q, -p))
    lower = max(_epsilon_bound(*world, delta, level) for world in worlds)
    points = tuple(
        CurvePoint(at, claimed_delta(announced, at, **facts), max(_delta_bound(*world, at, level) for world in worlds))
        for at in epsilons
    )
    violated = lower > claimed or any(point.measured_delta > point.claimed_delta for point in points)
    return MechanismAudit(
        repr(announced), claimed, lower, delta, points, violated, draws, rounds, confidence, NEEDS, TRY_NEXT
    )


@functools.lru_cache
def unit_sampler(rate: float) -> Callable[[Stream, int], Array]:
    """`federated.records.sample_units` at this rate as a `sampler`: the same function for the same rate, so that programs are reused."""
    return lambda stream, count: sample_units(stream, count, rate)


class _Pilot(NamedTuple):
    """Thresholds worth trying and the share of each world above them (above, not at, a threshold)."""

    thresholds: np.ndarray
    share_p: np.ndarray
    share_q: np.ndarray


def _pilot(p: np.ndarray, q: np.ndarray, normal: bool) -> _Pilot:
    """Shares from the pilot's draws, or from normal laws of their moments: smoother in the tails, where few draws are.

    Only the power depends on the choice: the bounds come from other draws.
    """
    thresholds = np.unique(
        np.concatenate([np.quantile(np.concatenate([p, q]), np.linspace(0, 1, 400)), np.sort(q)[-200:]])
    )
    if normal and min(p.std(), q.std()) > 0.1 * max(p.std(), q.std()):
        thresholds = np.linspace(min(p.min(), q.min()), p.mean() + 6 * p.std(), 600)
        shares = [special.ndtr((x.mean() - thresholds) / x.std()) for x in (p, q)]
    else:
        shares = [1 - np.searchsorted(np.sort(x), thresholds, "right") / x.size for x in (p, q)]
    return _Pilot(thresholds, *shares)


def _epsilon_bound(pilot: _Pilot, p: np.ndarray, q: np.ndarray, delta: float, level: float) -> float:
    """`log((P(A) - delta) / Q(A))` bounded from below, A chosen on the pilot by the bound that its shares would give at full size."""
    n, m = p.size, q.size
    bounds = [
        _log_ratio(int(a * n), int(b * m), n, m, delta, level)
        for a, b in zip(pilot.share_p, pilot.share_q, strict=True)
    ]
    cut = pilot.thresholds[int(np.argmax(bounds))]
    return max(_log_ratio(int((p > cut).sum()), int((q > cut).sum()), n, m, delta, level), 0.0)


def _log_ratio(hits: int, alarms: int, n: int, m: int, delta: float, level: float) -> float:
    sure = binomial_lower(hits, n, level) - delta
    return math.log(sure / binomial_upper(alarms, m, level)) if sure > 0 else -math.inf


def _delta_bound(pilot: _Pilot, p: np.ndarray, q: np.ndarray, epsilon: float, level: float) -> float:
    """`P(A) - e^epsilon Q(A)` bounded from below, A chosen on the pilot."""
    cut = pilot.thresholds[int(np.argmax(pilot.share_p - math.exp(epsilon) * pilot.share_q))]
    hits, alarms = int((p > cut).sum()), int((q > cut).sum())
    return max(binomial_lower(hits, p.size, level) - math.exp(epsilon) * binomial_upper(alarms, q.size, level), 0.0)
