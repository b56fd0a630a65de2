"""Mechanisms by name: each entry finds the least noise that its own curve or cost allows, and the draws keep what the curve says."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest

import fedjax_poisson as fp
from fedjax_poisson import accounting
from fedjax_poisson.mechanisms import MECHANISMS, summed_skellam
from fedjax_poisson.mechanisms.dark_counts import Priced, Shape, Terms
from fedjax_poisson.mechanisms.noise_levels import by_noise
from fedjax_poisson.mechanisms.registry import from_ledger, mechanism_entry

ROUNDS = 20


def _terms(law: str, units: int = 1, rate: float = 1.0) -> Terms:
    return Terms(
        epsilon=1.0,
        delta=1e-4,
        participation=accounting.Participation(senders=4, minimum_senders=4, honest_senders=3, sampling_rate=rate),
        largest_site=256,
        sites_per_unit=units,
        modulation=None,
        orders=accounting.integer_orders(256),
        variance=accounting.variance_budget(1.0, 1e-4) if law == "tight" else None,
        noise_senders=(6, 3),
    )


def _spent(terms: Terms, priced: Priced, rate: float) -> float:
    """Epsilon of all rounds by the mechanism's own price, whatever found it."""
    if terms.variance is not None:
        return accounting.fixed_plan_epsilon([priced.cost(terms, 14)] * ROUNDS, terms.delta)
    curve = priced.rdp(terms, 14)
    curve = curve if rate == 1 else accounting.subsampled_rdp(terms.orders, curve, rate)
    return accounting.epsilon(terms.orders, ROUNDS * curve, terms.delta)


CASES = [
    (name, law, units, rate)
    for (name, entry), law, (units, rate) in itertools.product(
        MECHANISMS.items(), ("tight", "renyi"), [(1, 1.0), (2, 1.0), (1, 0.3)]
    )
    if law in entry.laws and (law == "renyi" or rate == 1) and (units == 1 or entry.sums)
]


@pytest.mark.parametrize(("name", "law", "units", "rate"), CASES)
def test_the_least_noise_spends_the_budget_and_no_more(name: str, law: str, units: int, rate: float) -> None:
    entry, terms = MECHANISMS[name], _terms(law, units, rate)
    shape = Shape(1.1, 0.9, 150.0 if entry.sums else 0.9, 14)
    between = (0.0, 0.0) if terms.variance is None else (terms.variance.total, 0.0)
    found = entry.calibrate(terms, shape, rounds=ROUNDS, sampling_rate=rate, between=between)
    assert (
        0.98 < _spent(terms, found, rate) <= 1 + 1e-5
    )  # a tight plan is charged by its ledger; this reads it in another order
    assert found.mechanism.facts.integer == entry.integer
    bounds = found.mechanism.bounds
    assert (bounds.clip_norm, bounds.coordinate_bound) == (1.1, 0.9) and bounds.total_bound == shape.total_bound
    assert (
        found.charged.bounds.clip_norm == units * 1.1
    )  # the same noise against contributions that many times as large
    assert found.charged.variance(4) == pytest.approx(found.mechanism.variance(4), rel=1e-9)
    gauss = MECHANISMS["gaussian"].calibrate(terms, shape, rounds=ROUNDS, sampling_rate=rate, between=between)
    ratio = found.mechanism.variance(4) / gauss.mechanism.variance(4)
    if (
        entry.noise_by == "committee"
    ):  # 6 noise vectors of 3 honest ones and the price of rounding, over 4 senders of 3 honest ones
        ratio *= (4 / 3) / (6 / 3) / 1.07
        assert 0.93 < ratio < 1.03
    else:
        assert 0.999 < ratio < (1.3 if name == "single_channel" else 1.01)
    again = from_ledger(entry, dict(found.mechanism.facts.parameters))
    assert again.facts == found.mechanism.facts


def test_noise_that_is_too_small_would_not_fit() -> None:
    """The twin of the test above: a hundredth less noise, and the budget is exceeded."""
    terms, shape = _terms("renyi"), Shape(1.1, 0.9, 150.0, 14)
    found = MECHANISMS["skellam"].calibrate(terms, shape, rounds=ROUNDS)
    less = math.sqrt(found.mechanism.variance(1)) * 0.99
    assert _spent(terms, Priced(*[summed_skellam_at(shape, less, terms)] * 2), 1.0) > 1


def summed_skellam_at(shape: Shape, noise: float, terms: Terms) -> fp.mechanisms.Mechanism:
    from fedjax_poisson.mechanisms.summed_skellam import at_noise

    return at_noise(shape, noise, terms)


@pytest.mark.statistical
@pytest.mark.parametrize(("factor", "violated"), [(1.0, False), (0.4, True)])
def test_draws_of_skellam_sums_are_held_against_their_curve(factor: float, violated: bool) -> None:
    make = functools.partial(summed_skellam, clip_norm=1.0, coordinate_bound=1.0, total_bound=4.0, grid_step=2.0**-6)
    claimed, drawn = make(noise_variance=6400.0), make(noise_variance=factor * 6400.0)
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        stream = fp.randomness.stream(2)
    system = fp.attacks.AuditedSystem(drawn, 2)
    claim = fp.attacks.PrivacyClaim(claimed, 1, 2, rounds=1, delta=1e-3)
    assert fp.attacks.audit_mechanism(system, claim, stream, draws=20_000).violated == violated


def test_sensitivity_of_integer_moves_is_that_of_the_grid() -> None:
    made = summed_skellam(clip_norm=1.0, coordinate_bound=0.25, total_bound=3.0, grid_step=2.0**-4, noise_variance=50.0)
    orders = np.arange(2.0, 30.0)
    # 16 steps long: the L1 norm of 2 coordinates of at most 4 steps is 8, of many at most sqrt(D) 16 or 256.
    for dimension, l1 in ((2, 8.0), (100, 160.0), (10**6, 256.0)):
        wanted = accounting.skellam_rdp(orders, variance=3 * 50.0, l1=l1, l2=16.0)
        np.testing.assert_allclose(made.rdp(orders, 3, dimension), wanted, rtol=1e-9)
    with pytest.raises(ValueError, match="raise grid_step"):
        summed_skellam(clip_norm=1.0, coordinate_bound=1.0, total_bound=1.0, grid_step=1e-9, noise_variance=50.0)
    with pytest.raises(ValueError, match="raise total_bound"):
        summed_skellam(clip_norm=1.0, coordinate_bound=1.0, total_bound=0.5, grid_step=0.01, noise_variance=50.0)


def test_names_lead_to_entries_and_foreign_ones_are_marked() -> None:
    assert not mechanism_entry("skellam").foreign
    for wrong, words in (
        ("laplace", "give one of poisson_embedding, skellam"),
        ("no_such_module_here:entry", "cannot be imported"),
        ("fedjax_poisson.mechanisms.registry:nothing", "has no 'nothing'"),
        ("fedjax_poisson.mechanisms.registry:find", "must be a MechanismEntry"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            mechanism_entry(wrong)
        assert repr(wrong) in str(refused.value)
    own = mechanism_entry("tests.mechanisms.test_registry:OWN")
    assert own.foreign and own.entry is OWN
    with pytest.raises(ValueError, match="leave the schedule out"):
        OWN.calibrate(_terms("renyi"), Shape(1.0, 1.0, 1.0, 3), rounds=2, portions=(1, 2))


def _never(shape: Shape, noise_std: float, terms: Terms) -> fp.mechanisms.Mechanism:
    raise ValueError(f"not at {noise_std:g}")


OWN = fp.MechanismEntry(by_noise(_never), fp.poisson_embedding)


def test_a_mechanism_that_no_noise_makes_fit_says_why() -> None:
    with pytest.raises(ValueError, match="no noise fits") as found:
        OWN.calibrate(_terms("renyi"), Shape(1.0, 1.0, 1.0, 3), rounds=2)
    assert "not at" in str(found.value.__cause__)
