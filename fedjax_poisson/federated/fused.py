"""Several rounds of a simulation in one compiled program: no trip to the host between them.

The key holder's part is simulated inside the program, so this is for one machine that plays all the roles. What a round checks before it is opened is
checked afterwards here, and nothing is returned if a check fails; every release is paid for before the program starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.ckks import MARGIN, Aggregator, RoundRefused
from fedjax_poisson.federated.cohort import CohortSum, Encryption
from fedjax_poisson.federated.population import Cohort, Population, check_ids
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.randomness import Stream, fold_in


class RoundParts(NamedTuple):
    """The pure pieces of a round.

    Attributes:
      programs: the sum over a cohort.
      add_block: `(carry, state, own, cohort, stream, key) -> (carry, own, report)`.
      mean_update: `(total, senders) -> float32 [D]`.
      step: `(state, own, update) -> (state, norm)`.
      key: what senders encrypt under, or None.
      size: D.
    """

    programs: CohortSum
    add_block: Callable[..., tuple[Any, Any, Array]]
    mean_update: Callable[[Array, Array], Array]
    step: Callable[..., tuple[Any, Array]]
    key: Any
    size: int


class FusedInfo(NamedTuple):
    """Diagnostics of T rounds: L2 norms of the released mean updates float32 `[T]`, and the largest distance of an opened value from an integer."""

    update_norms: np.ndarray
    distance: float


def fused_rounds(
    parts: RoundParts, population: Population, aggregator: Aggregator | None, level: Encryption, senders: int
) -> Callable[..., tuple[Any, FusedInfo]]:
    """`(state, ids [T, K], stream, gates=None) -> (state, FusedInfo)`; see `fedavg`."""
    bound = None if aggregator is None else aggregator.info.count_bound
    opener = None if aggregator is None else aggregator.holder.in_program

    @jax.jit
    def run(
        opener: Any, key: Any, state: Any, examples: Any, ids: Array, present: Array, rounds: Array, stream: Stream
    ) -> tuple[Any, Any]:
        def one(state: Any, xs: tuple[Array, Array, Array]) -> tuple[Any, Any]:
            rows, here, number = xs
            own_stream = fold_in(stream, number)
            cohort = Cohort(rows, jax.tree.map(lambda leaf: leaf[rows], examples), here)
            carry, own, _ = parts.add_block(parts.programs.start(), state, state.own, cohort, own_stream, key)
            total = parts.programs.close(carry, key, own_stream)
            if total.ciphertext is None:
                assert total.values is not None
                values, distance = total.values, jnp.float32(0)
            else:
                assert opener is not None
                values, distance = opener(total.ciphertext, parts.size)
            most = jnp.int32(0) if level == "off" else jnp.maximum(total.largest, jnp.max(jnp.abs(values)))
            state, norm = parts.step(state, own, parts.mean_update(values, total.senders))
            return state, (norm, distance, most)

        return jax.lax.scan(one, state, (ids, present, rounds))

    def apply_rounds(
        state: Any, ids: Any, stream: Stream, gates: Sequence[Gate] | None = None
    ) -> tuple[Any, FusedInfo]:
        if population.device is None:
            raise ValueError(
                "fused rounds take their clients from the device; make the population with on_device=True."
            )
        if level != "off" and opener is None:
            raise ValueError(
                "fused rounds open sums inside the program: that needs the device backend and a single key holder; "
                "use apply, one round at a time."
            )
        table = np.asarray(ids)
        if table.ndim != 2 or table.shape[1] != senders:
            raise ValueError(
                f"ids has shape {table.shape}, expected [rounds, {senders}]: one row of client numbers a round."
            )
        if gates is not None and len(gates) != len(table):
            raise ValueError(f"{len(gates)} gates for {len(table)} rounds: every release is paid for by its own.")
        for row in table:
            check_ids(population.size, row)
        here = np.ones(table.shape, bool)
        for gate in gates or ():
            gate()
        rounds = np.arange(len(table), dtype=np.uint32)
        moved, (norms, distances, most) = run(
            opener, parts.key, state, population.device, table.astype(np.uint32), here, rounds, stream
        )
        _check_opened(aggregator, float(jnp.max(distances)), int(jnp.max(most)), bound)
        return moved, FusedInfo(np.asarray(norms), float(jnp.max(distances)))

    return apply_rounds


def _check_opened(aggregator: Aggregator | None, distance: float, most: int, bound: int | None) -> None:
    if aggregator is None or bound is None:
        return
    if not distance <= MARGIN or most > bound:
        raise RoundRefused(
            f"A fused round opened to values {distance:.3g} from an integer (at most {MARGIN}) or of size {most} (count_bound = {bound}): "
            "nothing is returned. Raise count_bound for these senders; the rounds stay paid for."
        )
