"""The tables of ``fedjax-poisson account``: a run's cost, its noise, and what a Gaussian would have cost.

Epsilon from parameters or parameters from epsilon. Everything here is plain data; printing belongs to the command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

from numpy.typing import ArrayLike

from fedjax_poisson.accounting import renyi
from fedjax_poisson.accounting.calibration import calibrate_dark_count, calibrate_noise_multiplier, calibrate_rounds
from fedjax_poisson.accounting.checks import FloatArray, check_rate, whole
from fedjax_poisson.accounting.gaussian import COMPARE, ComparisonMissing, calibrate_gaussian_pld
from fedjax_poisson.accounting.renyi import DEFAULT_ORDERS, best_order, poisson_embedding_rdp
from fedjax_poisson.accounting.sampling import subsampled_rdp
from fedjax_poisson.accounting.tight import tight_epsilon


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccountedRounds:
    """The facts of a run of the Poisson embedding that do not get solved for.

    Attributes:
      delta: in (0, 1).
      senders: n, senders in every sum.
      honest_senders: n_h, senders whose noise is counted; None: senders - 1 (one participant may collude with the
        server), at least 1.
      modulation: r in (0, 1).
      norm_ratio: C / c_inf >= 1.
      dimension: d >= 1.
      step_ratio: c_inf / total_bound in (0, 1].
      sampling_rate: q in (0, 1], secret Poisson sampling under constant noise.
      adjacency: "zero_out" or "replace_one".
    """

    delta: float
    senders: int
    honest_senders: int | None = None
    modulation: float = 0.05
    norm_ratio: float = 1.0
    dimension: int
    step_ratio: float = 1.0
    sampling_rate: float = 1.0
    adjacency: str = "zero_out"

    @property
    def honest(self) -> int:
        """The honest senders the accountant gets."""
        return max(self.senders - 1, 1) if self.honest_senders is None else self.honest_senders

    @property
    def channel(self) -> dict[str, Any]:
        """The keyword arguments that every curve of the embedding takes, all but the dark count."""
        return {
            "modulation": self.modulation,
            "honest_senders": self.honest,
            "norm_ratio": self.norm_ratio,
            "dimension": self.dimension,
            "step_ratio": self.step_ratio,
            "adjacency": self.adjacency,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """The privacy cost and the noise of a run.

    Attributes:
      setting: the facts it was computed for.
      epsilon: of all rounds together, nats.
      order: the Renyi order that certified it.
      domination_epsilon: the same run by `tight.tight_epsilon`, never larger; with sampling it needs dp_accounting, and is
        None where that is not installed, like the two `pld` fields.
      rounds: T.
      dark_count: mu, events per channel, coordinate and sender.
      events: T K n mu, expected events per channel that all rounds spend on the worst coordinates: the budget in its
        natural unit.
      noise_multiplier: z, standard deviation of the noise in the estimated sum over the L2 distance that one unit can
        move it.
      count_std: standard deviation of a coordinate of the integer sum.
      gaussian_rdp_multiplier: z of a Gaussian shared by the same senders at the same epsilon, accounted by Renyi
        divergence.
      gaussian_pld_multiplier: the same, accounted by its privacy loss distribution (tightest known).
      variance_over_gaussian_rdp: variance of this mechanism over that of the Renyi-accounted Gaussian.
      variance_over_gaussian_pld: variance of this mechanism over that of the optimally accounted Gaussian.
    """

    setting: AccountedRounds
    epsilon: float
    order: float
    domination_epsilon: float | None
    rounds: int
    dark_count: float
    events: float
    noise_multiplier: float
    count_std: float
    gaussian_rdp_multiplier: float
    gaussian_pld_multiplier: float | None
    variance_over_gaussian_rdp: float
    variance_over_gaussian_pld: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundRow:
    """Privacy spent after this round, and events per channel on the worst coordinates."""

    round: int
    epsilon: float
    order: float
    events: float


def round_curve(setting: AccountedRounds, dark_count: float, orders: ArrayLike | None = None) -> FloatArray:
    """Renyi curve of one round, after sampling, float64[n]."""
    orders = DEFAULT_ORDERS if orders is None else orders
    curve = poisson_embedding_rdp(orders, dark_count=dark_count, **setting.channel)
    if check_rate(setting.sampling_rate) == 1.0:
        return curve
    return subsampled_rdp(orders, curve, setting.sampling_rate, adjacency=setting.adjacency)


def make_account(
    setting: AccountedRounds,
    *,
    epsilon: float | None = None,
    rounds: int | None = None,
    dark_count: float | None = None,
    orders: ArrayLike | None = None,
) -> Account:
    """Solve for the one of (epsilon, rounds, dark_count) that is None and describe the run.

    Args:
      setting: the other facts.
      epsilon: target in nats, or None to compute it from the parameters.
      rounds: T, or None for the most rounds within epsilon.
      dark_count: mu, or None for the largest one (least noise) within epsilon.
      orders: every integer 2..max if the setting samples; None for `DEFAULT_ORDERS`.

    Returns:
      `Account`, with the Gaussian at the same epsilon for comparison.

    Raises:
      ValueError: not exactly one of the three is None, more senders are honest than send, or the target cannot be met.
    """
    orders = DEFAULT_ORDERS if orders is None else orders
    if not 1 <= setting.honest <= whole("senders", setting.senders):
        raise ValueError(
            f"honest_senders {setting.honest} of {setting.senders} senders: more cannot be honest than send"
        )
    if [epsilon, rounds, dark_count].count(None) != 1:
        raise ValueError("give exactly two of epsilon, rounds and dark_count; the third is computed")
    if rounds is not None:
        rounds = whole("rounds", rounds)
    else:
        assert epsilon is not None and dark_count is not None
        rounds = calibrate_rounds(
            orders, round_curve(setting, dark_count, orders), epsilon=epsilon, delta=setting.delta
        )
        if rounds == 0:
            raise ValueError(
                f"one round at dark_count {dark_count:g} is above epsilon {epsilon:g}; lower the dark count"
            )
    if dark_count is None:
        assert epsilon is not None
        dark_count = calibrate_dark_count(
            epsilon=epsilon,
            delta=setting.delta,
            rounds=rounds,
            sampling_rate=setting.sampling_rate,
            **setting.channel,
            orders=orders,
        )
    total = rounds * round_curve(setting, dark_count, orders)
    reached = renyi.epsilon(orders, total, setting.delta)
    if not 0 < reached < math.inf:
        raise ValueError(
            f"these parameters cost epsilon {reached:g} at delta {setting.delta:g}, there is nothing to compare; "
            f"{'lower the dark count or the rounds' if reached else 'raise the dark count or the rounds'}"
        )
    worst = min(float(setting.dimension), setting.norm_ratio * setting.norm_ratio)
    # Variance of the estimated sum n A^2 / (2 mu r^2) over (K c_inf^2), A = c_inf / step_ratio.
    z = math.sqrt(setting.senders / (2 * dark_count * worst)) / (setting.modulation * setting.step_ratio)
    # A distributed Gaussian must also reach its multiplier with the honest shares alone.
    share = math.sqrt(setting.senders / setting.honest)
    target = {"epsilon": reached, "delta": setting.delta, "sampling_rate": setting.sampling_rate}
    z_rdp = share * calibrate_noise_multiplier(**target, rounds=rounds, adjacency=setting.adjacency, orders=orders)
    z_pld: float | None = None
    domination: float | None = None
    with contextlib.suppress(ComparisonMissing):  # everything else is told all the same
        z_pld = share * calibrate_gaussian_pld(**target, rounds=rounds, adjacency=setting.adjacency)
        domination = tight_epsilon(
            delta=setting.delta,
            rounds=rounds,
            dark_count=dark_count,
            **setting.channel,
            sampling_rate=setting.sampling_rate,
            orders=orders,
        )
    # The L2 distance doubles under replace_one; z is stated over the zero_out distance for all three.
    return Account(
        setting=setting,
        epsilon=reached,
        order=best_order(orders, total, setting.delta),
        domination_epsilon=domination,
        rounds=rounds,
        dark_count=dark_count,
        events=rounds * worst * setting.senders * dark_count,
        noise_multiplier=z,
        count_std=math.sqrt(2 * setting.senders * dark_count),
        gaussian_rdp_multiplier=z_rdp,
        gaussian_pld_multiplier=z_pld,
        variance_over_gaussian_rdp=(z / z_rdp) ** 2,
        variance_over_gaussian_pld=None if z_pld is None else (z / z_pld) ** 2,
    )


def round_table(result: Account, *, lines: int = 10, orders: ArrayLike | None = None) -> list[RoundRow]:
    """Privacy spent after rounds 1 .. T, `lines` of them evenly spaced, the first and last always there."""
    orders = DEFAULT_ORDERS if orders is None else orders
    curve = round_curve(result.setting, result.dark_count, orders)
    count = min(max(lines, 2), result.rounds)
    chosen = sorted({1} | {round(result.rounds * (i + 1) / count) for i in range(count)})
    table = []
    for t in chosen:
        table.append(
            RoundRow(
                round=t,
                epsilon=renyi.epsilon(orders, t * curve, result.setting.delta),
                order=best_order(orders, t * curve, result.setting.delta),
                events=result.events * t / result.rounds,
            )
        )
    return table


def account_table(result: Account) -> list[tuple[str, str]]:
    """The account as (what, value) lines, ready to print."""
    s = result.setting
    missing = f"not computed: {COMPARE}"
    return [
        ("epsilon", f"{result.epsilon:.4f} at delta {s.delta:g} ({s.adjacency}, Renyi order {result.order:g})"),
        (
            "epsilon by domination",
            missing
            if result.domination_epsilon is None
            else f"{result.domination_epsilon:.4f} (a dominating Gaussian, same delta)",
        ),
        ("rounds", f"{result.rounds}"),
        ("sampling rate", f"{s.sampling_rate:g}"),
        ("senders", f"{s.senders}, {s.honest} of them honest"),
        ("dark count", f"{result.dark_count:.6g} events per channel, coordinate, sender and round"),
        ("events spent", f"{result.events:.6g} over all rounds on the worst coordinates"),
        ("noise multiplier", f"{result.noise_multiplier:.4f} (std of the sum over one unit's L2 bound)"),
        ("std of the integer sum", f"{result.count_std:.1f}"),
        (
            "variance / Gaussian, RDP",
            f"{result.variance_over_gaussian_rdp:.4f} (z = {result.gaussian_rdp_multiplier:.4f})",
        ),
        (
            "variance / Gaussian, PLD",
            missing
            if result.gaussian_pld_multiplier is None
            else f"{result.variance_over_gaussian_pld:.4f} (z = {result.gaussian_pld_multiplier:.4f})",
        ),
    ]
