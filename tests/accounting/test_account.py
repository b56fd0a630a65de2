"""The account tables: the three directions agree, and the Gaussian beside them is dp_accounting's."""

from __future__ import annotations

import itertools
import sys

import dp_accounting
import pytest
from dp_accounting import pld

from fedjax_poisson import accounting as acc
from fedjax_poisson.accounting import account
from tests.accounting import reference

SETTING = acc.AccountedRounds(delta=1e-5, senders=100, honest_senders=100, dimension=10**6, norm_ratio=20.0)


def test_epsilon_parameters_and_rounds_agree():
    target = acc.make_account(SETTING, epsilon=3.0, rounds=100)
    assert target.epsilon <= 3.0 and target.epsilon == pytest.approx(3.0, rel=1e-6)
    back = acc.make_account(SETTING, rounds=100, dark_count=target.dark_count)
    assert back.epsilon == target.epsilon and back.order == target.order
    assert acc.make_account(SETTING, epsilon=3.0, dark_count=target.dark_count).rounds == 100
    assert target.noise_multiplier**2 == pytest.approx(100 / (2 * target.dark_count * 0.05**2 * 400))
    assert target.events == pytest.approx(100 * 400 * 100 * target.dark_count)


@pytest.mark.parametrize(("epsilon", "over_pld"), [(1.0, 1.176), (3.0, 1.158), (8.0, 1.130)])
def test_variance_beside_the_gaussians(epsilon, over_pld):
    result = acc.make_account(SETTING, epsilon=epsilon, rounds=1)
    assert 1.0 < result.variance_over_gaussian_rdp < 1.003
    assert 0.88 * epsilon < result.domination_epsilon < 0.95 * result.epsilon
    ratio = result.variance_over_gaussian_pld / result.variance_over_gaussian_rdp
    assert ratio == pytest.approx(over_pld, abs=2e-3)


def test_dropouts_cost_the_gaussian_as_much():
    """With half the senders honest both mechanisms need twice the variance: the comparison stays about the
    mechanism."""
    half = acc.make_account(
        acc.AccountedRounds(delta=1e-5, senders=100, honest_senders=50, dimension=100), epsilon=3.0, rounds=1
    )
    whole = acc.make_account(
        acc.AccountedRounds(delta=1e-5, senders=50, honest_senders=50, dimension=100), epsilon=3.0, rounds=1
    )
    assert half.noise_multiplier**2 == pytest.approx(2 * whole.noise_multiplier**2, rel=1e-9)
    assert half.variance_over_gaussian_rdp == pytest.approx(whole.variance_over_gaussian_rdp, rel=1e-9)
    assert acc.AccountedRounds(delta=1e-5, senders=10, dimension=1).honest == 9
    assert acc.AccountedRounds(delta=1e-5, senders=1, dimension=1).honest == 1


def test_replace_one_needs_twice_the_noise_of_both():
    replace = acc.make_account(
        acc.AccountedRounds(delta=1e-5, senders=100, dimension=100, adjacency="replace_one"), epsilon=3.0, rounds=1
    )
    zero = acc.make_account(acc.AccountedRounds(delta=1e-5, senders=100, dimension=100), epsilon=3.0, rounds=1)
    assert replace.noise_multiplier == pytest.approx(2 * zero.noise_multiplier, rel=0.01)
    assert replace.variance_over_gaussian_rdp == pytest.approx(zero.variance_over_gaussian_rdp, rel=0.01)


def test_round_table_grows_to_the_total():
    result = acc.make_account(SETTING, epsilon=3.0, rounds=37)
    table = acc.round_table(result, lines=5)
    assert [row.round for row in table] == sorted({row.round for row in table})
    assert [row.round for row in table] == [1, 7, 15, 22, 30, 37]
    assert [row.round for row in acc.round_table(result, lines=1)] == [1, 18, 37]
    assert [row.round for row in acc.round_table(result, lines=99)] == list(range(1, 38))
    assert table[-1].epsilon == pytest.approx(result.epsilon) and table[-1].events == pytest.approx(result.events)
    assert all(a.epsilon < b.epsilon for a, b in itertools.pairwise(table))
    # Not a multiple of the first round's epsilon.
    assert table[-1].epsilon < 37 * table[0].epsilon / 3
    text = dict(acc.account_table(result))
    assert "Renyi order" in text["epsilon"] and text["rounds"] == "37"


@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (5.0, 40)])
def test_exact_gaussian_epsilon_equals_dp_accounting(z, rounds):
    accountant = pld.PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(z), rounds)
    pessimistic = accountant.get_epsilon(1e-5)
    exact = acc.gaussian_pld_epsilon(z, 1e-5, rounds)
    assert exact <= pessimistic and exact == pytest.approx(pessimistic, rel=2e-3)


@pytest.mark.parametrize(("z", "rounds", "delta"), [(1.0, 1, 1e-5), (3.0, 20, 1e-9), (0.05, 2, 1e-3), (40.0, 7, 1e-4)])
def test_gaussian_epsilon_is_rounded_up_and_hardly(z, rounds, delta):
    """By mpmath: delta is met at the epsilon reported, and no longer a billionth below it."""
    value = acc.gaussian_pld_epsilon(z, delta, rounds)
    assert reference.gaussian_delta(value, rounds / z**2) <= delta
    assert reference.gaussian_delta(value * (1 - 1e-9) - 1e-9, rounds / z**2) > delta


def test_sampled_gaussian_costs_less_by_its_loss_distribution():
    z = acc.calibrate_noise_multiplier(epsilon=3.0, delta=1e-5, rounds=50, sampling_rate=0.05)
    assert 2.0 < acc.gaussian_pld_epsilon(z, 1e-5, 50, 0.05) < 3.0


def test_wrong_requests_are_refused():
    with pytest.raises(ValueError, match="exactly two"):
        acc.make_account(SETTING, epsilon=3.0)
    with pytest.raises(ValueError, match="lower the dark count"):
        acc.make_account(SETTING, epsilon=0.1, dark_count=1e6)
    with pytest.raises(ValueError, match="raise the dark count"):
        acc.make_account(SETTING, rounds=1, dark_count=1e-12)
    with pytest.raises(ValueError, match="zero_out only"):
        acc.calibrate_gaussian_pld(epsilon=1.0, delta=1e-5, rounds=1, sampling_rate=0.1, adjacency="replace_one")


def test_more_honest_senders_than_senders_are_refused():
    setting = account.AccountedRounds(delta=1e-5, senders=4, honest_senders=5, dimension=10)
    with pytest.raises(ValueError, match="more cannot be honest"):
        account.make_account(setting, epsilon=1.0, rounds=10)


@pytest.mark.slow
def test_without_dp_accounting_the_table_tells_all_but_the_sampled_comparison(monkeypatch):
    """The twin: installed, the same table has every number."""
    setting = acc.AccountedRounds(delta=1e-5, senders=10, dimension=10, sampling_rate=0.1)
    whole = acc.make_account(setting, epsilon=3.0, rounds=5)
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    left = acc.make_account(setting, epsilon=3.0, rounds=5)
    assert left.gaussian_pld_multiplier is left.variance_over_gaussian_pld is left.domination_epsilon is None
    assert (left.epsilon, left.dark_count, left.gaussian_rdp_multiplier) == (
        whole.epsilon,
        whole.dark_count,
        whole.gaussian_rdp_multiplier,
    )
    told, full = dict(account.account_table(left)), dict(account.account_table(whole))
    changed = {what for what in full if told[what] != full[what]}
    assert changed == {"epsilon by domination", "variance / Gaussian, PLD"}
    assert all("pip install 'fedjax-poisson[compare]'" in told[what] for what in changed)
    with pytest.raises(ModuleNotFoundError, match=r"fedjax-poisson\[compare\]"):
        acc.gaussian_pld_epsilon(1.0, 1e-5, 5, 0.1)
    assert acc.gaussian_pld_epsilon(1.0, 1e-5, 5) > 1.0  # without sampling nothing is missing


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf"), -float("inf")])
def test_the_delta_of_a_gaussian_needs_a_finite_epsilon(epsilon):
    with pytest.raises(ValueError, match="must be a finite number"):
        acc.gaussian_delta(epsilon, 1.0)
