"""Settings of federated averaging with the client as the privacy unit, from public numbers only: clip, local steps, rounds and averaging.

**The rule** is that of linear models on tables (`runs.training_recipe`) with clients in place of records. All T rounds together have the privacy of one
Gaussian release of parameter mu, so a round's mean update has noise of C h sqrt(T) / (N mu) in each coordinate, with N clients, a clip C on an update and
h = sqrt(clients / honest clients). The server adds the mean updates up, so the parameters end with noise of T C h / (N mu), and the outputs of a linear
model on records of length L with L times that, *whatever T is*: only the distance T C that the parameters may travel counts.

* *Distance*: T C = 0.64 N mu / (L h), an output's noise is then 0.64 before the last half of the rounds' parameters is averaged.
* *Local steps*: full passes with steps of 4 / L^2, half of where a logistic loss begins to oscillate, ten in a round: an update should point to the client's
  own optimum and be clipped rather than be short, since a clip below a typical update costs no noise and keeps the direction, and an update below the clip
  pays for noise that it does not need.
* *Clip*: C is the distance over T, and at most 3.5 / L, about the length that such updates had: above it a clip only adds noise.
* *Rounds*: any number costs the same noise; 30 are enough for small clips to add up to smooth steps, few enough to be sent.

The two constants were chosen on folds of the training records of two tables of hospitals, with Gaussian noise in a simulation; `experiments/client_level.py`
compares the rule with searched settings there.

Every client takes part in every round: a fixed cohort in turn, or a secret sample, has more noise at the same budget (`plan_cohorts` says how much; use
its plan, with this clip, where most clients cannot come every time).

What is assumed: a linear model with a logistic loss started at zero, features of squared length about 1 + 0.35 F once their public ranges are mapped to -1..1
(what `standardize.bounds_scaler` does).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.mechanisms.types import check_honest

ROUNDS, EPOCHS = 30, 10
_REACH, _LONGEST, _STEP = 0.64, 3.5, 4.0
_SQUARE = 0.35  # a typical square of a feature in -1..1


class ClientRecipe(NamedTuple):
    """Settings for `calibrate`, `local_sgd` and `fedavg`.

    Attributes:
      rounds: T.
      clip_norm: C, of a client's update.
      learning_rate: of a local step.
      epochs: local passes over all of a client's records at once (no batches).
      average_from: round after which parameters are averaged.
      signal: N mu / ((F + 1) h), comparable to that of tables with clients in place of records.
      reasons: how the settings came about, one sentence each.
    """

    rounds: int
    clip_norm: float
    learning_rate: float
    epochs: int
    average_from: int
    signal: float
    reasons: tuple[str, ...]


def client_recipe(
    *,
    clients: int,
    features: int,
    epsilon: float,
    delta: float,
    honest_senders: int | None = None,
    rounds: int | None = None,
    records: int | None = None,
    length: float | None = None,
) -> ClientRecipe:
    """Settings of client-level federated averaging of a linear model.

    Args:
      clients: N, all of which take part in every round.
      features: F of a record.
      epsilon: budget of all rounds together.
      delta: its delta.
      honest_senders: clients that do not collude with the server; default: all but one.
      rounds: T, where communication decides it.
      records: a typical number of records of a client, for what is said about it; None if that is not public.
      length: L, a public bound or typical value of the length of a record with its 1; default sqrt(1 + 0.35 F).

    Raises:
      ValueError: a count is below 1, or epsilon and delta are no budget.

    >>> found = client_recipe(clients=200, features=20, epsilon=3.0, delta=1e-3)
    >>> found.rounds, round(found.clip_norm, 2), found.epochs, round(found.learning_rate, 2)
    (30, 1.24, 10, 0.5)
    """
    honest = clients - 1 if honest_senders is None else honest_senders
    for name, value in {"clients": clients, "features": features, "rounds": rounds, "records": records}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; give a count of at least 1.")
    if length is not None and not (length > 0 and math.isfinite(length)):
        raise ValueError(
            f"length={length}; give the positive length of a typical record, such as {math.sqrt(1 + _SQUARE * features):.2g}."
        )
    check_honest(honest, clients)
    mu = math.sqrt(accounting.variance_budget(epsilon, delta).total)
    own = math.sqrt(1 + _SQUARE * features) if length is None else length
    spread, count = math.sqrt(clients / honest), ROUNDS if rounds is None else rounds
    distance = _REACH * clients * mu / (own * spread)
    clip = min(distance / count, _LONGEST / own)
    signal = clients * mu / ((features + 1) * spread)
    return ClientRecipe(
        rounds=count,
        clip_norm=clip,
        learning_rate=_STEP / own**2,
        epochs=EPOCHS,
        average_from=count // 2,
        signal=signal,
        reasons=_reasons(clients, features, epsilon, delta, count * clip, signal, records),
    )


def _reasons(
    clients: int, features: int, epsilon: float, delta: float, distance: float, signal: float, records: int | None
) -> tuple[str, ...]:
    found = [
        f"client recipe: the parameters may travel {distance:.3g} in all rounds together, from {clients:,} clients, {features + 1} parameters, "
        f"epsilon {epsilon:g} and delta {delta:g}",
        f"signal {signal:.3g}: "
        + (
            "too few clients for so many parameters; more of either clients or epsilon, or fewer columns, would do"
            if signal < 2
            else "expect to lose .01 to .05 of AUC against a model without privacy"
            if signal < 10
            else "expect the AUC of a model without privacy within about .02"
        ),
    ]
    if records is not None:
        found.append(
            f"hiding a client of about {records:,} records costs the noise of one whole client: the same records with record-level privacy would have "
            f"about {records:,} times the signal"
        )
    return tuple(found)
