"""Domination by a Gaussian: never below exact hockey-sticks, whatever the vector, position or adaptive choice; and
what it gains."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting.gaussian import gaussian_delta
from tests.accounting import reference

DELTA = 1e-5


def _laws(events: float, r: float, position: float, step: float, copies: float = 1.0):
    """Both channels' laws with the target's move `step` spread over `copies` equal coordinates, the others at
    `position`."""
    m, eta = events * copies, step / math.sqrt(copies)
    return reference.channel_laws(
        (m * (1 + position + eta), m * (1 - position - eta)), (m * (1 + position), m * (1 - position))
    )


@pytest.mark.parametrize(
    ("r", "honest", "events"), [(0.05, 1, 300.0), (0.3, 1, 40.0), (0.3, 5, 400.0), (0.7, 2, 6.0), (0.9, 1, 1.0)]
)
def test_never_below_exact_hockey_sticks(r, honest, events):
    """Concentrated and spread vectors, worst and central positions of the others, both directions, seven epsilons."""
    h, d = r / honest, 10**4
    facts = {"modulation": r, "honest_senders": honest, "norm_ratio": 1.0, "dimension": d}
    bounds = [
        acc.dominating_gaussian(total_dark_count=events / honest, tau=tau, **facts) for tau in (1e-3, 1e-6, 1e-10)
    ]
    for copies in (1, 4, 30):
        for position in (-r, -h / 2, 0.0, r - h):
            p, q = _laws(events, r, position, h, copies)
            for epsilon in (-1.0, 0.0, 0.3, 1.0, 2.0, 4.0, 8.0):
                exact = max(reference.hockey_stick(p, q, epsilon), reference.hockey_stick(q, p, epsilon))
                for bound in bounds:
                    assert exact <= gaussian_delta(epsilon, bound.noise_multiplier) + bound.slack + 1e-15


def test_the_small_step_gaussian_itself_is_no_bound():
    """The twin: without the widening the exact hockey-stick of a skewed pair is above the Gaussian of the same
    variance."""
    r, events = 0.7, 1.0
    p, q = _laws(events, r, -r, r)
    z = math.sqrt((1 - r * r) / (2 * events * r * r))
    worst = max(reference.hockey_stick(p, q, e) / gaussian_delta(e, z) for e in (2.0, 4.0, 8.0))
    assert worst > 100
    bound = acc.dominating_gaussian(
        total_dark_count=events, modulation=r, honest_senders=1, norm_ratio=1.0, dimension=1, tau=1e-9
    )
    assert bound.inflation > 1.1 and bound.noise_multiplier < z


def test_holds_for_an_adaptive_adversary():
    """Half the budget is spent; then the adversary picks, for every outcome, the worst of five vectors for the other
    half."""
    r, events = 0.4, 30.0
    facts = {"modulation": r, "honest_senders": 1, "norm_ratio": 1.0, "dimension": 10**4}
    bound = acc.dominating_gaussian(total_dark_count=events, tau=1e-8, **facts)
    p1, q1 = _laws(events / 2, r, -r, r)
    keep = q1 > 1e-16
    loss, weight = np.log(p1[keep] / q1[keep]), q1[keep]
    grid = np.linspace(-12, 14, 400)
    for epsilon in (0.5, 2.0, 5.0):
        choices = []
        for copies in (1, 2, 8, 40):
            p2, q2 = _laws(events / 2, r, -r, r, copies)
            choices.append([reference.hockey_stick(p2, q2, e) for e in grid])
        choices.append([max(1 - math.exp(e), 0.0) for e in grid])  # send nothing
        best = np.max(choices, axis=0)
        # The hockey-stick decreases in epsilon: the next grid point on the right is a lower bound on what the
        # adversary gets.
        index = np.clip(np.searchsorted(grid, epsilon - loss), 0, grid.size - 1)
        adaptive = float(np.sum(weight * np.exp(loss) * best[index]))
        fixed = max(float(np.sum(weight * np.exp(loss) * np.array(c)[index])) for c in choices)
        assert fixed <= adaptive <= gaussian_delta(epsilon, bound.noise_multiplier) + bound.slack


@pytest.mark.parametrize(("epsilon", "gain"), [(1.0, 0.145), (3.0, 0.135), (8.0, 0.11)])
def test_recovers_what_the_conversion_loses(epsilon, gain):
    """At 100 senders the noise is within 0.5 % of the optimally accounted Gaussian; the conversion alone is 13-18 %
    above."""
    facts = {"modulation": 0.05, "honest_senders": 100, "norm_ratio": 20.0, "dimension": 10**6}
    converted = acc.calibrate_dark_count(epsilon=epsilon, delta=DELTA, rounds=50, **facts)
    mu = acc.calibrate_dark_count_tight(epsilon=epsilon, delta=DELTA, rounds=50, **facts)
    assert 1 - converted / mu > gain - 0.01
    z2 = 100 / (2 * mu * 0.05**2 * 400)
    optimal = acc.calibrate_gaussian_pld(epsilon=epsilon, delta=DELTA, rounds=50)
    assert 1.0 < z2 / optimal**2 < 1.005
    # The theorem once more, by an independent solution of its integral equation and mpmath's normal law.

    def delta(dark: float) -> float:
        tails = [share * DELTA for share in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]
        widths = [reference.domination_width(400 * 100 * 50 * dark, 0.05, 0.0005, tail) for tail in tails]
        return min(
            reference.gaussian_delta(epsilon, width) + tail * math.sqrt(width / (2 * math.pi))
            for tail, width in zip(tails, widths, strict=True)
        )

    assert delta(mu) <= DELTA < delta(1.001 * mu)


def test_with_sampling():
    facts = {"modulation": 0.05, "honest_senders": 100, "norm_ratio": 20.0, "dimension": 10**6}
    mu = acc.calibrate_dark_count(epsilon=3.0, delta=DELTA, rounds=100, sampling_rate=0.05, **facts)
    tight = acc.tight_epsilon(delta=DELTA, rounds=100, dark_count=mu, sampling_rate=0.05, **facts)
    z = math.sqrt(100 / (2 * mu * 0.05**2 * 400))
    gaussian = acc.gaussian_pld_epsilon(z, DELTA, 100, 0.05)
    assert gaussian < tight < 1.01 * gaussian < 2.9
    less_noise = acc.calibrate_dark_count_tight(epsilon=3.0, delta=DELTA, rounds=100, sampling_rate=0.05, **facts)
    assert less_noise > 1.08 * mu

    def independently(dark: float) -> float:
        """The width by an independent integration, the disjoint mass by hand, dp_accounting with other bins."""
        tau = 1e-3 * DELTA / 100
        width = reference.domination_width(400 * 100 * dark, 0.05, 0.0005, tau)
        mass = tau * math.sqrt(width / (2 * math.pi)) / math.erfc(math.sqrt(width / 8))
        accountant = pld.PLDAccountant(value_discretization_interval=3e-4)
        event = dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(width**-0.5))
        return accountant.compose(event, 100).get_epsilon(DELTA - 100 * mass)

    assert independently(less_noise) < 3.0 * (1 + 1e-3) and independently(1.01 * less_noise) > 3.0 * (1 + 1e-3)
    assert independently(0.99 * less_noise) < 3.0


def test_sampled_pair_by_outcomes():
    """One sampled round, exact mixture: never above what the sampled domination reports."""
    r, events, rate = 0.3, 40.0, 0.2
    facts = {"modulation": r, "honest_senders": 1, "norm_ratio": 1.0, "dimension": 1}
    eps = acc.tight_epsilon(delta=1e-4, rounds=1, dark_count=events, sampling_rate=rate, **facts)
    assert reference.exact_delta(eps, events=events, modulation=r, step=r, rate=rate) <= 1e-4
    assert reference.exact_delta(0.7 * eps, events=events, modulation=r, step=r, rate=rate) > 1e-4


def test_never_above_the_conversion_even_where_the_steps_are_coarse():
    for honest, r, adjacency in ((1, 0.05, "zero_out"), (2, 0.5, "replace_one"), (1, 0.9, "zero_out")):
        facts = {"modulation": r, "honest_senders": honest, "norm_ratio": 2.0, "dimension": 10, "adjacency": adjacency}
        for dark in (0.01, 1.0, 50.0):
            curve = acc.poisson_embedding_rdp(acc.DEFAULT_ORDERS, dark_count=dark, **facts)
            converted = acc.epsilon(acc.DEFAULT_ORDERS, 3 * curve, DELTA)
            assert acc.tight_epsilon(delta=DELTA, rounds=3, dark_count=dark, **facts) <= converted


@pytest.mark.parametrize(("epsilon", "share"), [(1.0, 0.44), (3.0, 0.95), (8.0, 0.98)])
def test_no_conversion_from_the_curve_alone_can_gain(epsilon, share):
    """Two-point pair meeting a Gaussian's curve at all orders, both directions, with nearly the converted delta."""
    z = acc.calibrate_noise_multiplier(epsilon=epsilon, delta=DELTA, rounds=1)
    w = 1 / z**2
    t = np.geomspace(1e-3, 500, 20000)
    x = np.linspace(epsilon + 1e-3, epsilon + 5, 4000)
    with np.errstate(over="ignore"):
        log_cap = np.array(
            [np.min(-t * xi + t * (t + 1) * w / 2 + np.log(-np.expm1(-t * (t + 1) * w / 2))) for xi in x]
        )
    deltas = np.exp(log_cap) * -np.expm1(epsilon - x)
    best = int(np.argmax(deltas))
    p, loss = math.exp(log_cap[best]) * (1 - 1e-9), x[best]
    rest = math.log1p(-p) - math.log1p(-p * math.exp(-loss))
    assert p * math.exp(-loss) + (1 - p) * math.exp(-rest) == pytest.approx(1.0, abs=1e-14)
    for a in np.geomspace(1.01, 400, 500):
        forward = np.logaddexp(math.log(p) + (a - 1) * loss, math.log1p(-p) + (a - 1) * rest)
        backward = np.logaddexp(math.log(p) - a * loss, math.log1p(-p) - a * rest)
        assert forward <= (a - 1) * a * w / 2 * (1 + 1e-9) and backward <= (a - 1) * a * w / 2 * (1 + 1e-9)
    assert deltas[best] > share * DELTA  # the conversion reports DELTA
    assert gaussian_delta(epsilon, z) < 0.25 * DELTA


def test_wrong_requests_are_refused():
    facts = {"modulation": 0.05, "honest_senders": 100, "norm_ratio": 20.0, "dimension": 10**6}
    with pytest.raises(ValueError, match="fraction of the target"):
        acc.dominating_gaussian(total_dark_count=1.0, tau=0.0, **facts)
    with pytest.raises(ValueError, match="above 0"):
        acc.calibrate_dark_count_tight(epsilon=0.0, delta=DELTA, rounds=1, **facts)
    with pytest.raises(ValueError, match="zero_out only"):
        acc.tight_epsilon(
            delta=DELTA, rounds=1, dark_count=1.0, sampling_rate=0.1, **{**facts, "adjacency": "replace_one"}
        )
