"""Fixed cohorts or secret sampling, and how wide a band: the noise that each leaves in the trained parameters, and the messages that it costs.

The ways compared, all at the same epsilon and delta, the same rounds and about N / b clients whose updates enter a round:

* *a participation cap*: fixed cohorts, band 1. Only the cohort sends. Privacy is spent k = ceil(T / b) times.
* *band w*: a client sends in w rounds after each turn; later noise cancels earlier noise (`banding`).
* *secret sampling*: each client takes part with the secret chance 1 / b; everybody must send noise in every round.
* *everybody*: no cohorts, every client trains and sends in every round. It sends as often as secret sampling and as a band of b, with less noise than both,
  and trains b times as often: the yardstick of what is gained by not training.

**RMSE.** With a server that is linear in its mean updates (SGD with momentum, tail averaging: `parameter_weights`) the noise in a coordinate of the
parameters has the standard deviation ||a C**-1|| sigma / m: a are the weights of the rounds, sigma**2 the variance of a released sum and m = N / b the
expected size of a cohort. It is per unit of learning rate, for the largest number of senders, and is the noise alone: of who happens to take part, which
adds its own spread to sampling and cohorts alike, it knows nothing. Variances are exact (`Mechanism.variance`), so the prediction is checked by running it
(tests; `experiments/banded_clients.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fedjax_poisson import accounting
from fedjax_poisson.federated.banding import Banding, banding, decoded_weights
from fedjax_poisson.federated.budget import Budgeted
from fedjax_poisson.federated.charging import round_rdp
from fedjax_poisson.federated.cohort_noise import OptionLaw, Target, law_of, least_noise, participation_of
from fedjax_poisson.federated.turns import FixedCohorts
from fedjax_poisson.mechanisms import Mechanism
from fedjax_poisson.mechanisms.types import check_bounds

Kind = Literal["fixed", "sampled", "everybody"]


class Option(NamedTuple):
    """One way to spend the budget.

    Attributes:
      name: in words.
      kind: fixed cohorts, secret sampling, or everybody in every round.
      encoding: the coefficients of fixed cohorts; one coefficient elsewhere.
      participation: of a round, for `fedavg`.
      mechanism: the least noise within the budget.
      charges: how often the price is charged in all rounds.
      rmse: standard deviation of the noise in a coordinate of the parameters, in the update's unit, per unit of learning rate.
      uploads: messages of a client in all rounds, on average.
      trainings: how often a client trains in all rounds, on average.
      reserve: delta set aside for samplers.
      law: of the ledger that admits exactly these charges; "pld" is no ledger's, only a calculation.
      orders: Renyi orders of the price.
    """

    name: str
    kind: Kind
    encoding: Banding
    participation: accounting.Participation
    mechanism: Mechanism
    charges: int
    rmse: float
    uploads: float
    trainings: float
    reserve: float
    law: OptionLaw
    orders: np.ndarray

    def arguments(self, cohorts: FixedCohorts) -> dict[str, Any]:
        """What `fedavg` gets for this option, besides the model, the clients and the server."""
        who = self.participation
        given: dict[str, Any] = {
            "mechanism": self.mechanism,
            "senders": who.senders,
            "minimum_senders": who.minimum_senders,
            "honest_senders": who.honest_senders,
            "adjacency": who.adjacency,
            "sampling_rate": who.sampling_rate,
        }
        return given | ({"cohorts": cohorts, "band": self.encoding} if self.kind == "fixed" else {})


class CohortPlan(NamedTuple):
    """The result of `plan_cohorts`; printed, it is a table.

    Attributes:
      options: in the order of uploads, everybody last.
      best: the one with the least RMSE among fixed cohorts and secret sampling, within the uploads allowed.
      epsilon: of the budget.
      delta: of the budget.
      dimension: D.
      cohorts: the cohorts.
    """

    options: tuple[Option, ...]
    best: Option
    epsilon: float
    delta: float
    dimension: int
    cohorts: FixedCohorts

    def option(self, name: str) -> Option:
        """The option of this name.

        Raises:
          ValueError: there is none.
        """
        for each in self.options:
            if each.name == name:
                return each
        raise ValueError(f"no option {name!r}; there are: {', '.join(each.name for each in self.options)}.")

    def __str__(self) -> str:
        sampled = self.option("secret sampling")
        lines = [f"{'':22}{'RMSE':>10}{'/ sampling':>12}{'uploads':>10}{'trainings':>11}{'dark count':>13}"]
        for each in self.options:
            facts = dict(each.mechanism.facts.parameters)
            lines.append(
                f"{each.name:22}{each.rmse:10.4g}{each.rmse / sampled.rmse:12.3f}{each.uploads:10.1f}{each.trainings:11.1f}{facts['dark_count'] or 0:13.5g}"
            )
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        """What is chosen, and how the other way does, in a sentence."""
        fixed = min((each for each in self.options if each.kind == "fixed"), key=lambda each: each.rmse)
        sampled, best, everybody = self.option("secret sampling"), self.best, self.option("everybody")
        other = sampled if best.kind == "fixed" else fixed
        return (
            f"epsilon {self.epsilon:g}, delta {self.delta:g}: {best.name} (RMSE {best.rmse:.4g}, {best.uploads:.1f} uploads a client) rather than "
            f"{other.name} (RMSE {other.rmse:.4g}, {other.uploads:.1f} uploads). Were everybody to train in every round: RMSE {everybody.rmse:.4g}, "
            f"{everybody.uploads:.1f} uploads, {everybody.trainings:.1f} trainings instead of {best.trainings:.1f}."
        )


def parameter_weights(rounds: int, momentum: float = 0.0, average_from: int | None = None) -> np.ndarray:
    """How much the mean update of each round moves the final parameters, float64 `[T]`, per unit of learning rate.

    Args:
      rounds: T.
      momentum: m of `optax.sgd(rate, momentum=m)`: after round t the update of round s has moved the parameters by (1 - m**(t-s+1)) / (1 - m).
      average_from: as in `fedavg`: the parameters after later rounds are averaged; None for those after round T.

    Raises:
      ValueError: a number is out of range.
    """
    first = rounds - 1 if average_from is None else average_from
    if rounds < 1 or not 0 <= momentum < 1 or not 0 <= first < rounds:
        raise ValueError(
            f"rounds={rounds}, momentum={momentum}, average_from={average_from}: at least 1, in [0, 1), and before the last round."
        )
    found = np.zeros(rounds)
    for t in range(first + 1, rounds + 1):
        found[:t] += (1 - momentum ** np.arange(t, 0, -1.0)) / (1 - momentum)
    return found / (rounds - first)


def best_banding(band: int, weights: np.ndarray) -> Banding:
    """The coefficients of `banding`, with the power of 1/2, 3/5, 3/4 that leaves the least noise in sum_t a_t g_t for a given price; a are the weights."""
    return min(
        (banding(band, power) for power in (0.5, 0.6, 0.75)),
        key=lambda each: np.linalg.norm(decoded_weights(each, weights)) * math.sqrt(each.energy),
    )


def plan_cohorts(
    cohorts: FixedCohorts,
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    dimension: int,
    clip_norm: float,
    coordinate_bound: float | None = None,
    weights: np.ndarray | None = None,
    bands: Sequence[int | Banding] | None = None,
    colluding: int = 1,
    modulation: float | None = None,
    law: Literal["tight", "renyi"] = "tight",
    sampled_law: Literal["renyi", "pld"] = "renyi",
    most_uploads: float = math.inf,
) -> CohortPlan:
    """Noise and messages of every way to spend a budget on so many rounds, and the best of fixed cohorts and secret sampling.

    Args:
      cohorts: b fixed cohorts; sampling is with rate 1 / b.
      epsilon: of all rounds together.
      delta: of the budget.
      rounds: T.
      dimension: D.
      clip_norm: C of an update.
      coordinate_bound: c_inf of an update; default C.
      weights: of the rounds' mean updates in the parameters that count (`parameter_weights`), float64 `[T]`; default: the mean of the parameters after
        the second half of the rounds, without momentum.
      bands: those to look at, each with its `best_banding` or coefficients of your own; default 1, 2, 4, ... and b.
      colluding: clients that may work with the server.
      modulation: r of the embedding; None for the smallest that the samplers serve.
      law: by which fixed cohorts and everybody are accounted (`accounting.open_ledger`): "tight", by remaining variance, or "renyi".
      sampled_law: by which secret sampling is: "renyi", the only one that a ledger knows for it, or "pld", by privacy loss distributions, 10-15 % less noise,
        for a comparison that favours it (needs the extra `compare`).
      most_uploads: messages of a client in all rounds that the choice may cost.

    Returns:
      `CohortPlan`.

    Raises:
      ComparisonMissing: "pld" without dp_accounting.
      ValueError: a number is out of range, nothing is within `most_uploads`, or the budget cannot be met.
    """
    coordinate = clip_norm if coordinate_bound is None else coordinate_bound
    check_bounds(clip_norm, coordinate)
    if weights is None:
        weights = parameter_weights(rounds, average_from=rounds // 2)
    if np.shape(weights) != (rounds,):
        raise ValueError(f"weights has shape {np.shape(weights)}, expected [{rounds}]: one for each round.")
    target = Target(
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        dimension=dimension,
        clip_norm=clip_norm,
        coordinate_bound=coordinate,
        colluding=colluding,
        modulation=modulation,
        law=law,
        sampled_law=sampled_law,
        weights=np.asarray(weights, np.float64),
    )
    b = cohorts.cohorts
    if bands is None:
        bands = sorted({1, b, *(2**i for i in range(b.bit_length()) if 2**i < b)})
    encodings = [each if isinstance(each, Banding) else best_banding(each, target.weights) for each in bands]
    fixed = [_fixed(target, cohorts, each) for each in encodings]
    sampled, everybody = _sampled(target, cohorts), _everybody(target, cohorts)
    allowed = [each for each in (*fixed, sampled) if each.uploads <= most_uploads]
    if not allowed:
        least = min(each.uploads for each in (*fixed, sampled))
        raise ValueError(
            f"most_uploads={most_uploads:g}, but no option needs fewer than {least:g} messages of a client."
        )
    best = min(allowed, key=lambda each: each.rmse)
    return CohortPlan((*fixed, sampled, everybody), best, epsilon, delta, dimension, cohorts)


def open_budget(plan: CohortPlan, option: Option | None = None, ledger: str | Path = accounting.MEMORY) -> Budgeted:
    """The mechanism of an option (the best one by default) and a ledger with the plan's budget, for `fedavg(..., ledger=...)`.

    Raises:
      ValueError: the option was planned for a law that no ledger has.
    """
    chosen = plan.best if option is None else option
    if chosen.law == "pld":
        raise ValueError(
            f"{chosen.name} was planned with privacy loss distributions, by which no ledger accounts: plan with sampled_law='renyi'."
        )
    given: dict[str, Any] = {"law": "tight"}
    if chosen.law == "renyi":
        curve = round_rdp(
            chosen.mechanism, chosen.participation, plan.dimension, chosen.orders, chosen.encoding.factors
        )
        given = {"law": "renyi", "orders": chosen.orders, "planned_rdp": chosen.charges * curve}
    book = accounting.open_ledger(
        ledger,
        epsilon=plan.epsilon,
        delta=plan.delta,
        reserve=chosen.reserve,
        unit="client",
        adjacency=chosen.participation.adjacency,
        **given,
    )
    return Budgeted(chosen.mechanism, book)


def _fixed(target: Target, cohorts: FixedCohorts, encoding: Banding) -> Option:
    fewest, most = cohorts.senders(encoding.band)
    who = participation_of(target, fewest, most)
    charges, size = cohorts.participations(target.rounds), cohorts.clients / cohorts.cohorts
    mechanism, reserve, orders = least_noise(target, who, encoding, charges)
    spread = float(np.linalg.norm(decoded_weights(encoding, target.weights)))
    return Option(
        name="participation cap" if encoding.band == 1 else f"band {encoding.band}",
        kind="fixed",
        encoding=encoding,
        participation=who,
        mechanism=mechanism,
        charges=charges,
        rmse=spread * math.sqrt(mechanism.variance(most)) / size,
        uploads=target.rounds * encoding.band / cohorts.cohorts,
        trainings=target.rounds / cohorts.cohorts,
        reserve=reserve,
        law=law_of(target, who),
        orders=orders,
    )


def _sampled(target: Target, cohorts: FixedCohorts) -> Option:
    clients, rate = cohorts.clients, 1 / cohorts.cohorts
    who = participation_of(target, clients, clients, rate)
    mechanism, reserve, orders = least_noise(target, who, banding(1), target.rounds)
    spread = float(np.linalg.norm(target.weights))
    return Option(
        name="secret sampling",
        kind="sampled",
        encoding=banding(1),
        participation=who,
        mechanism=mechanism,
        charges=target.rounds,
        rmse=spread * math.sqrt(mechanism.variance(clients)) / (clients * rate),
        uploads=target.rounds,
        trainings=target.rounds * rate,
        reserve=reserve,
        law=law_of(target, who),
        orders=orders,
    )


def _everybody(target: Target, cohorts: FixedCohorts) -> Option:
    clients = cohorts.clients
    who = participation_of(target, clients, clients)
    mechanism, reserve, orders = least_noise(target, who, banding(1), target.rounds)
    spread = float(np.linalg.norm(target.weights))
    return Option(
        name="everybody",
        kind="everybody",
        encoding=banding(1),
        participation=who,
        mechanism=mechanism,
        charges=target.rounds,
        rmse=spread * math.sqrt(mechanism.variance(clients)) / clients,
        uploads=target.rounds,
        trainings=target.rounds,
        reserve=reserve,
        law=law_of(target, who),
        orders=orders,
    )
