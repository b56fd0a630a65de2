"""Several rounds of a simulation in one compiled program, without returning to the host between rounds.

The opening is made inside the program, so this is only for a single machine that plays all the roles. The checks that normally precede
opening run afterwards here, and nothing is returned if one fails; every release is charged before the program starts. A round draws the same noise as
`apply` for the same stream and round number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import Aggregator, RoundRefused
from fedjax_poisson.federated.charging import Paying, RoundAccount, check_paying
from fedjax_poisson.federated.checks import check_stream
from fedjax_poisson.federated.cohort import CohortSum
from fedjax_poisson.federated.population import Cohort, Population, check_ids
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.federated.reuse import Openings, round_stream
from fedjax_poisson.federated.sent import Encryption
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.randomness import Stream


class RoundParts(NamedTuple):
    """The pure pieces of a round.

    Attributes:
      programs: the sum over a cohort.
      add_block: `(carry, state, client_state, cohort, stream, numbers, held=None) -> (carry, client_state, report)`.
      mean_update: `(total, present, numbers) -> float32 [D]`.
      step: `(state, client_state, update, present, numbers) -> (state, norm)`.
      open: `DeviceFunctions.open`; None where no program encrypts.
    """

    programs: CohortSum
    add_block: Callable[..., tuple[Any, Any, Array]]
    mean_update: Callable[..., Array]
    step: Callable[..., tuple[Any, Array]]
    open: Callable[..., tuple[Array, Array]] | None


class FusedInfo(NamedTuple):
    """Diagnostics of T rounds.

    Attributes:
      update_norms: float32 `[T]`, L2 norms of the released mean updates.
      exact: every opened value was within the backend's margin of an integer.
      epsilon: as in `RoundInfo`.
      fidelity: as in `RoundInfo`.
      refused: int `[T]`, clients that were left out of each round's sum because of their norm; zeros in light rounds.
    """

    update_norms: np.ndarray
    exact: bool
    epsilon: float | None
    refused: np.ndarray
    fidelity: str


def rounds_in_one(
    parts: RoundParts,
    level: Encryption,
    state: Any,
    examples: Any,
    ids: Array,
    present: Array,
    stream: Stream,
    numbers: Numbers,
) -> tuple[Any, Any]:
    """T rounds: the last state, and of each round the update's norm, whether all was exact, the largest count, what was opened (`reuse`) and the senders."""

    def one(state: Any, xs: tuple[Array, Array]) -> tuple[Any, Any]:
        rows, here = xs
        of_round = round_stream(stream, state.server.round)
        cohort = Cohort(rows, None, here)
        start = parts.programs.start()
        carry, client_state, _ = parts.add_block(start, state, state.client_state, cohort, of_round, numbers, examples)
        total = parts.programs.close(carry, numbers, of_round)
        if total.sealed is None:
            assert total.values is not None
            values, exact = total.values, jnp.bool_(True)
        else:
            assert parts.open is not None
            values, exact = parts.open(numbers.key, total.sealed)
        most = jnp.uint32(0) if level == "off" else largest_count(total.largest, values)
        mark = jnp.zeros(2, jnp.uint32) if total.fingerprint is None else total.fingerprint
        update = parts.mean_update(values, total.senders, numbers)
        state, norm = parts.step(state, client_state, update, total.senders, numbers)
        return state, (norm, exact, most, mark, total.senders)

    return jax.lax.scan(one, state, (ids, present))


def largest_count(of_senders: Array, values: Array) -> Array:
    """The largest |count| of single senders, int32 `[]`, or of an opened sum, int32 `[D]`; uint32 `[]`, since -2^31 has no absolute value of 32 bits."""
    return jnp.maximum(of_senders.astype(jnp.uint32), jnp.max(jnp.abs(values).astype(jnp.uint32)))


def fused_rounds(
    run: Callable[..., tuple[Any, Any]],
    numbers: Callable[[], Numbers],
    population: Population,
    aggregator: Aggregator | None,
    level: Encryption,
    participation: Participation,
    account: RoundAccount,
    opened: Openings,
    fidelity: str,
) -> Callable[..., tuple[Any, FusedInfo]]:
    """`(state, ids [T, K], stream, gates=None) -> (state, FusedInfo)`; see `fedavg`. `run` is the compiled `rounds_in_one`, `fidelity` in words."""
    senders, minimum = participation.senders, participation.minimum_senders
    bound = None if aggregator is None else aggregator.info.count_bound
    opens = aggregator is not None and aggregator.device is not None

    def apply_rounds(
        state: Any, ids: Any, stream: Stream, gates: Sequence[Gate] | Literal["unaccounted"] | None = None
    ) -> tuple[Any, FusedInfo]:
        check_stream(stream)
        if population.device is None:
            raise ValueError(
                "fused rounds take their clients from the device; make the population with on_device=True."
            )
        if level != "off" and not opens:
            raise ValueError(
                "fused rounds open sums inside the program, which only rounds can; use aggregator('round', ...), or apply, one round at a time."
            )
        table = np.asarray(ids)
        if table.ndim != 2 or table.shape[1] != senders or not len(table):
            raise ValueError(
                f"ids has shape {table.shape}, expected [rounds, {senders}]: one row of client numbers a round."
            )
        paying: Sequence[Paying] = [gates] * len(table) if gates is None or isinstance(gates, str) else gates
        for one in paying:
            check_paying(one)
        if len(paying) != len(table):
            raise ValueError(f"{len(paying)} gates for {len(table)} rounds: every release needs its own gate.")
        for row in table:
            check_ids(population.size, row)
        here = np.ones(table.shape, bool)
        before = int(state.server.round)
        for number, one in enumerate(paying, before + 1):
            account.charge(one, number, senders)
        moved, (norms, exact, most, marks, counted) = run(
            state, population.device, table.astype(np.uint32), here, stream, numbers()
        )
        _check_opened(aggregator, bool(jnp.all(exact)), int(jnp.max(most)), bound)
        _check_counted(int(jnp.min(counted)), minimum)
        for number, mark in enumerate(np.asarray(marks), before):
            opened.check(stream, number, mark)
        for number, mark in enumerate(np.asarray(marks), before):
            opened.remember(stream, number, mark)
        return moved, FusedInfo(
            np.asarray(norms),
            bool(jnp.all(exact)),
            account.epsilon(next(filter(callable, paying), paying[0])),
            senders - np.asarray(counted, np.int64),
            fidelity,
        )

    return apply_rounds


def _check_counted(fewest: int, minimum: int) -> None:
    if fewest < minimum:
        raise RoundRefused(
            f"After clients were refused for their norm, {fewest} were left in a fused round, at least {minimum} were announced: nothing is returned; "
            "the rounds stay paid for."
        )


def _check_opened(aggregator: Aggregator | None, exact: bool, most: int, bound: int | None) -> None:
    if aggregator is None or bound is None:
        return
    if not exact or most > bound:
        what = f"above count_bound = {bound}" if exact else "that was not within the margin of an integer"
        raise RoundRefused(
            f"A fused round opened to a value {what}: nothing is returned. Make the aggregator with mechanism.count_bound(senders, dimension); "
            "the rounds stay paid for."
        )
