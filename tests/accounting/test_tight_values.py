"""Domination by value: what the proof's slack hides (a tail left out, an order floor, a skew) must show in a number."""

from __future__ import annotations

import itertools
import math

import pytest
from scipy import optimize

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import tight
from tests.accounting import reference

# n_h, r, K, step ratio, total dark count per sender, tau
WIDTHS = [
    (1, 0.05, 1.0, 1.0, 200.0, 1e-4),
    (2, 0.3, 4.0, 1.0, 5.0, 1e-2),
    (3, 0.05, 1 / 0.36, 0.6 / 77, 2e5, 1e-8),
    (1, 0.9, 1.0, 1.0, 1.0, 0.1),
    (1, 0.5, 9.0, 1.0, 50.0, 1e-6),
]


@pytest.mark.parametrize("adjacency", ["zero_out", "replace_one"])
@pytest.mark.parametrize(("honest", "r", "k", "step_ratio", "dark", "tau"), WIDTHS)
def test_width_and_slack_are_those_of_the_theorem(honest, r, k, step_ratio, dark, tau, adjacency):
    """Never below the solution of the integral equation, at most 0.1 % above: order floor 2, kappa, log(1/tau), w_0."""
    bound = acc.dominating_gaussian(
        total_dark_count=dark,
        modulation=r,
        honest_senders=honest,
        norm_ratio=math.sqrt(k),
        dimension=10**6,
        step_ratio=step_ratio,
        adjacency=adjacency,
        tau=tau,
    )
    step = r * step_ratio / honest * (2 if adjacency == "replace_one" else 1)
    width = reference.domination_width(k * honest * dark, r, step, tau)
    assert width * (1 - 1e-9) <= bound.noise_multiplier**-2 <= width * 1.001
    assert tau * math.sqrt(width / (2 * math.pi)) <= bound.slack <= 1.001 * tau * math.sqrt(width / (2 * math.pi))
    assert bound.inflation == pytest.approx(
        bound.noise_multiplier**-2 * (1 - r * r) / (2 * k * honest * dark * step**2), rel=1e-9
    )


def test_one_round_is_covered_closely():
    """Exact hockey-sticks of one round (r = h = 0.05, 200 events) and the bound: within 3 % of it."""
    facts = {"total_dark_count": 200.0, "modulation": 0.05, "honest_senders": 1, "norm_ratio": 1.0, "dimension": 1}
    for epsilon, exact, bound in ((0.0, 0.38303, 0.38901), (0.5, 0.23863, 0.24533)):
        assert reference.exact_delta(epsilon, events=200.0, modulation=0.05, step=0.05) == pytest.approx(
            exact, abs=1e-5
        )
        assert acc.tight_delta(epsilon, tau=1e-4, **facts) == pytest.approx(bound, abs=2e-5)


@pytest.mark.parametrize("epsilon", [-0.7, 0.0, 0.3, 2.0])
def test_delta_is_the_gaussians_and_the_slack(epsilon):
    """A large tail: leaving the slack out, or counting the tail's logarithm by a tenth, is seen in delta."""
    facts = {"modulation": 0.05, "honest_senders": 10, "norm_ratio": 2.0, "dimension": 100}
    width = reference.domination_width(4 * 10 * 300.0, 0.05, 0.005, 1e-3)
    wanted = reference.gaussian_delta(epsilon, width) + 1e-3 * math.sqrt(width / (2 * math.pi))
    value = acc.tight_delta(epsilon, tau=1e-3, total_dark_count=300.0, **facts)
    assert wanted * (1 - 1e-12) <= value <= wanted * 1.001
    assert value - reference.gaussian_delta(epsilon, width) > 1e-3 * math.sqrt(width / (2 * math.pi)) * (1 - 1e-12)


def test_tight_epsilon_pays_for_the_slack():
    """Epsilon of many senders by hand: the best of the tails, each with delta less its slack."""
    delta, dark, rounds = 1e-5, 150.0, 20
    facts = {"modulation": 0.05, "honest_senders": 100, "norm_ratio": 2.0, "dimension": 100}
    wanted = math.inf
    for share in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        width = reference.domination_width(4 * 100 * dark * rounds, 0.05, 0.0005, share * delta)
        left = delta - share * delta * math.sqrt(width / (2 * math.pi))
        solved = optimize.brentq(
            lambda e, w=width, d=left: math.log(reference.gaussian_delta(e, w) / d), 0, 30, xtol=1e-9
        )
        wanted = min(wanted, solved)
    value = acc.tight_epsilon(delta=delta, rounds=rounds, dark_count=dark, **facts)
    assert wanted * (1 - 1e-8) <= value <= wanted * (1 + 2e-4)


def _sampled_once(width: float, rate: float, delta: float) -> float:
    """Epsilon of one Poisson-sampled Gaussian: the larger of its two directions, from their closed forms."""

    def removal(e: float) -> float:
        return rate * reference.gaussian_delta(math.log1p(math.expm1(e) / rate), width)

    def addition(e: float) -> float:
        # Q - e^eps ((1-q) Q + q P) = (1 - e^eps (1-q)) (Q - e^eps' P), e^eps' = q e^eps / (1 - (1-q) e^eps)
        kept = 1 - (1 - rate) * math.exp(e)
        return kept * reference.gaussian_delta(math.log(rate * math.exp(e) / kept), width) if kept > 0 else 0.0

    return optimize.brentq(lambda e: max(removal(e), addition(e)) - delta, 0, 60, xtol=1e-10)


def test_one_sampled_round_pays_for_the_disjoint_pair(monkeypatch):
    """W = 36, so that 1 - TV = 0.0027: v is 0.9 delta; without v, or without its 1 / (1 - TV), epsilon is too small.

    The sampled Gaussian of one round is taken in closed form: a loss distribution this wide needs ten seconds.
    """
    monkeypatch.setattr(tight, "gaussian_pld_epsilon", lambda z, delta, rounds, rate: _sampled_once(z**-2, rate, delta))
    delta, rate, r = 1e-4, 0.5, 0.02
    dark = 36 * (1 - r * r) / (2 * r * r)
    facts = {"modulation": r, "honest_senders": 1, "norm_ratio": 1.0, "dimension": 1, "step_ratio": 0.05}
    dark /= 0.05**2
    tau = 1e-3 * delta
    width = reference.domination_width(dark, r, 0.05 * r, tau)
    slack = tau * math.sqrt(width / (2 * math.pi))
    mass = slack / math.erfc(math.sqrt(width / 8))
    assert 0.5 * delta < mass < 0.95 * delta
    value = acc.tight_epsilon(delta=delta, rounds=1, dark_count=dark, sampling_rate=rate, **facts)
    wanted = _sampled_once(width, rate, delta - mass)
    assert wanted <= value <= wanted * 1.002
    assert _sampled_once(width, rate, delta - slack) < wanted / 1.02, "v without 1 / (1 - TV)"
    assert _sampled_once(width, rate, delta) < wanted / 1.02, "no v"


def test_the_disjoint_mass_by_value():
    for z, slack in ((0.2, 1e-9), (1.0, 3e-7), (50.0, 1e-4)):
        wanted = slack / math.erfc(1 / (math.sqrt(8) * z))
        assert tight.disjoint_mass(acc.Domination(z, slack, 1.0)) == pytest.approx(wanted, rel=1e-12)
    assert tight.disjoint_mass(acc.Domination(0.001, 1e-30, 1.0)) == math.inf


def test_the_disjoint_mass_is_paid_in_every_round(monkeypatch):
    """A hundred rounds pay a hundred times, and the tail is small enough for that."""
    facts = {"modulation": 0.05, "honest_senders": 100, "norm_ratio": 2.0, "dimension": 100}
    seen = []

    def remember(z, delta, rounds, rate=1.0):
        seen.append((z, delta, rounds, rate))
        return 0.5

    monkeypatch.setattr(tight, "gaussian_pld_epsilon", remember)
    acc.tight_epsilon(delta=1e-3, rounds=100, dark_count=2000.0, sampling_rate=0.1, **facts)
    [(z, left, rounds, rate)] = seen
    tau = 1e-3 * 1e-3 / 100
    width = reference.domination_width(4 * 100 * 2000.0, 0.05, 0.0005, tau)
    mass = tau * math.sqrt(width / (2 * math.pi)) / math.erfc(math.sqrt(width / 8))
    assert (rounds, rate) == (100, 0.1) and z**-2 == pytest.approx(width, rel=1e-3)
    assert 1e-3 - left == pytest.approx(100 * mass, rel=1e-3)


# What is asked for: the largest dark count of either bound, honest senders, modulation and epsilon.
COARSE = [(1, 0.05, 1.0, 0.877), (1, 0.3, 3.0, 0.343), (2, 0.3, 1.0, 0.139), (1, 0.9, 8.0, 0.0055)]


@pytest.mark.parametrize(("honest", "r", "epsilon", "alone"), COARSE)
def test_calibration_takes_the_conversion_where_it_is_better(honest, r, epsilon, alone):
    """`alone`: dark count of domination over the conversion's."""
    facts = {"modulation": r, "honest_senders": honest, "norm_ratio": 20.0, "dimension": 10**6}
    converted = acc.calibrate_dark_count(epsilon=epsilon, delta=1e-5, rounds=4, **facts)
    mu = acc.calibrate_dark_count_tight(epsilon=epsilon, delta=1e-5, rounds=4, **facts)
    assert mu == pytest.approx(converted, rel=1e-9)
    assert acc.tight_epsilon(delta=1e-5, rounds=4, dark_count=mu, **facts) <= epsilon
    dominated = max(
        acc.tight_delta(epsilon, tau=share * 1e-5, total_dark_count=4 * alone * mu * 0.95, **facts) <= 1e-5
        for share in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    )
    refused = min(
        acc.tight_delta(epsilon, tau=share * 1e-5, total_dark_count=4 * alone * mu * 1.05, **facts)
        for share in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    )
    assert dominated and refused > 1e-5


def test_calibration_never_falls_below_the_conversion():
    for honest in (1, 30):
        for r in (0.02, 0.2):
            facts = {"modulation": r, "honest_senders": honest, "norm_ratio": 3.0, "dimension": 50}
            converted = acc.calibrate_dark_count(epsilon=2.0, delta=1e-6, rounds=7, **facts)
            mu = acc.calibrate_dark_count_tight(epsilon=2.0, delta=1e-6, rounds=7, **facts)
            assert mu >= converted
            assert 2.0 * (1 - 1e-6) < acc.tight_epsilon(delta=1e-6, rounds=7, dark_count=mu, **facts) <= 2.0


def test_sampled_calibration_falls_back_on_the_conversion(monkeypatch):
    """Where domination allows less, and where its slack never lets the target be met."""
    facts = {"modulation": 0.05, "honest_senders": 10, "norm_ratio": 2.0, "dimension": 100}
    target = {"epsilon": 2.0, "delta": 1e-6, "rounds": 7, "sampling_rate": 0.1, "orders": acc.integer_orders(64)}
    converted = acc.calibrate_dark_count(**target, **facts)
    tail = 1e-3 * 1e-6 / 7
    z = acc.dominating_gaussian(total_dark_count=converted, tau=tail, **facts).noise_multiplier
    asked = []

    def answer(**request):
        asked.append(request["dark_count"])
        return 2.0 if accepted else 2.1

    monkeypatch.setattr(tight, "tight_epsilon", answer)
    for factor, accepted, wanted in ((1.01, True, 1.0), (0.9, True, 0.81**-1), (0.9, False, 1.0)):
        asked.clear()
        monkeypatch.setattr(tight, "calibrate_gaussian_pld", lambda factor=factor, **_: factor * z)
        mu = acc.calibrate_dark_count_tight(**target, **facts)
        assert mu == pytest.approx(wanted * converted, rel=1e-3)
        assert len(asked) == (0 if factor > 1 else 1 if accepted else 20)
        assert all(a > b for a, b in itertools.pairwise(asked)), "every try asks for a little more noise"
