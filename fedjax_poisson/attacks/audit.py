"""A direct audit of a mechanism: many draws of the exact worst-case pair, and a lower bound on what they reveal.

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
from typing import NamedTuple

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
    """The result of the draws.

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


class AuditedSystem(NamedTuple):
    """What the code actually does, regardless of what was announced.

    Attributes:
      mechanism: the mechanism as run.
      senders: whose noise the adversary does not know (a colluder reveals its noise, which the adversary subtracts).
      sampler: `(stream, n) -> bool [n]`: how the target is really sampled; None: `federated.records.sample_units` at the claim's rate.
      round_stream: `(stream, round) -> stream`: how a round's stream is derived.
    """

    mechanism: Mechanism
    senders: int
    sampler: Callable[[Stream, int], Array] | None = None
    round_stream: Callable[[Stream, int], Stream] = fold_in


class PrivacyClaim(NamedTuple):
    """The announced claim.

    Attributes:
      mechanism: whose curve is claimed.
      dimension: D.
      honest_senders: that the claim counts.
      rounds: releases in a draw; 2 shows noise that is used twice.
      sampling_rate: q (record level, every sender sends dark noise); use rounds=1 with it.
      delta: of the claimed epsilon.
    """

    mechanism: Mechanism
    dimension: int
    honest_senders: int
    rounds: int = 2
    sampling_rate: float = 1.0
    delta: float = 1e-5


def audit_mechanism(
    system: AuditedSystem, claim: PrivacyClaim, stream: Stream, *, draws: int = 200_000, confidence: float = 0.95
) -> MechanismAudit:
    """Draw the worst pair from a mechanism as run and compare with the claim.

    Args:
      system: drawn from.
      claim: the claim to compare with the draws.
      stream: secret or seeded; used for nothing else.
      draws: N of each world; a fifth more are drawn for the pilot.
      confidence: that no bound is above the truth.

    Returns:
      `MechanismAudit`.
    """
    rate, delta = claim.sampling_rate, claim.delta
    orders = accounting.integer_orders(512)
    curve = claim.mechanism.rdp(orders, claim.honest_senders, claim.dimension)
    if rate < 1:
        curve = accounting.subsampled_rdp(orders, curve, rate)
    claimed = accounting.epsilon(orders, claim.rounds * curve, delta)
    sample = system.sampler
    if sample is None and rate < 1:
        sample = unit_sampler(rate)
    pair = worst_pair(claim.mechanism, claim.dimension)

    def drawn(purpose: str, present: bool, count: int) -> np.ndarray:
        return draw_statistics(
            system.mechanism,
            pair,
            fold_in(stream, purpose, int(present)),
            count,
            present=present,
            senders=system.senders,
            rounds=claim.rounds,
            sample=sample,
            round_stream=system.round_stream,
        )

    pilot = max(draws // 5, 1000)
    p0, q0 = drawn("pilot", True, pilot), drawn("pilot", False, pilot)
    p, q = drawn("audit", True, draws), drawn("audit", False, draws)
    epsilons = [0.0, *(share * claimed for share in (0.25, 0.5, 1.0))] if math.isfinite(claimed) else [0.0]
    # Two directions, two binomials, each point and the headline.
    level = 1 - (1 - confidence) / (4 * (len(epsilons) + 1))

    normal = sample is None
    worlds = ((_pilot(p0, q0, normal), p, q), (_pilot(-q0, -p0, normal), -q, -p))
    lower = max(_epsilon_bound(*world, delta, level) for world in worlds)
    points = tuple(
        CurvePoint(at, _delta_of(claim, at), max(_delta_bound(*world, at, level) for world in worlds))
        for at in epsilons
    )
    violated = lower > claimed or any(point.measured_delta > point.claimed_delta for point in points)
    return MechanismAudit(
        mechanism=repr(claim.mechanism),
        epsilon_claimed=claimed,
        epsilon_lower=lower,
        delta=delta,
        curve=points,
        violated=violated,
        draws=draws,
        rounds=claim.rounds,
        confidence=confidence,
        needs=NEEDS,
        try_next=TRY_NEXT,
    )


def _delta_of(claim: PrivacyClaim, epsilon: float) -> float:
    return claimed_delta(
        claim.mechanism,
        epsilon,
        honest_senders=claim.honest_senders,
        dimension=claim.dimension,
        rounds=claim.rounds,
        sampling_rate=claim.sampling_rate,
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
