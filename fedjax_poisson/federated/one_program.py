"""A round of `fedavg` as one program, opening and step included, and the one array that the host reads of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.federated.federation import FedState
from fedjax_poisson.federated.fused import largest_count
from fedjax_poisson.federated.population import Cohort
from fedjax_poisson.federated.reuse import round_stream
from fedjax_poisson.federated.sharing_programs import Numbers
from fedjax_poisson.randomness import Stream

__all__ = ["Looked", "platform_of", "read", "whole_round"]

_FACTS, _MARK = 4, 2  # words of the array that the host reads: facts, the mark if there is one, and one for each client


class Looked(NamedTuple):
    """What the host looks at of a round that one program made. It comes as one array, since each one costs a wait.

    Attributes:
      norm: of the released mean update.
      exact: whether the opening's checks hold; true where nothing is encrypted.
      most: the largest |count| of the opened sum or of a single sender; 0 where nothing is encrypted.
      number: rounds done before this one.
      mark: uint32 `[2]`, fingerprint of what would be opened (`reuse`); None without noise.
      report: uint8 `[K]`, what each client did (`sent`).
    """

    norm: float
    exact: bool
    most: int
    number: int
    mark: np.ndarray | None
    report: np.ndarray


def whole_round(
    whole: Callable[..., tuple[Any, Any, Array]],
    opens: Callable[..., tuple[Array, Array]] | None,
    finish: Callable[..., tuple[FedState, Array]],
    state: FedState,
    cohort: Cohort,
    stream: Stream,
    numbers: Numbers,
    held: Any,
) -> tuple[FedState, Array]:
    """The next state, and what the host looks at (`read`).

    Args:
      whole: `(state, cohort, stream, numbers, held) -> (total, client_state, report)`, with the stream of the round.
      opens: the opening of an encrypted sum.
      finish: `(state, client_state, values, senders, numbers) -> (state, norm)`.
      state: before the round.
      cohort: its arrays.
      stream: of all rounds.
      numbers: of the round.
      held: the population's records for a cohort without its own, else None.
    """
    number = state.server.round
    total, client_state, report = whole(state, cohort, round_stream(stream, number), numbers, held)
    values, exact, most = total.values, jnp.bool_(True), jnp.uint32(0)
    if total.sealed is not None:
        assert opens is not None
        values, exact = opens(numbers.key, total.sealed)
        most = largest_count(total.largest, values)
    if total.fingerprint is not None:
        values = jax.lax.optimization_barrier(values)  # so that the step has the last bits of one made apart
    state, norm = finish(state, client_state, values, total.senders, numbers)
    bits = jax.lax.bitcast_convert_type(norm, jnp.uint32)
    facts = jnp.stack([bits, exact.astype(jnp.uint32), most, number.astype(jnp.uint32)])
    mark = () if total.fingerprint is None else (total.fingerprint,)
    return state, jnp.concatenate([facts, *mark, report.astype(jnp.uint32)])


def read(words: np.ndarray, clients: int) -> Looked:
    """What `whole_round` says about a round of so many places, padding counted."""
    own = words.size - clients
    return Looked(
        norm=float(words[:1].view(np.float32)[0]),
        exact=bool(words[1]),
        most=int(words[2]),
        number=int(words[3]),
        mark=words[_FACTS:own] if own == _FACTS + _MARK else None,
        report=words[own:].astype(np.uint8),
    )


def platform_of(program: Any, arguments: Any) -> str:
    """The platform of the devices that arguments lie on, which is where a program of them runs; looked up at the first call of the program."""
    known = _platforms(program)
    if not known:
        found = {
            device.platform
            for leaf in jax.tree.leaves(arguments)
            if isinstance(leaf, Array)
            for device in leaf.devices()
        }
        known.append(found.pop() if len(found) == 1 else jax.default_backend())
    return known[0]


@functools.lru_cache(maxsize=256)
def _platforms(_: Any) -> list[str]:
    return []
