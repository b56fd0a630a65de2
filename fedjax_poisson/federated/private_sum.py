"""One private, encrypted sum over the senders: the only way anything leaves a sender.

Every release of an experiment (standardisation, training, clip bits, private scores) goes through `private_sum`: each sender embeds its
integers and encrypts the counts, the server adds the ciphertexts and checks the announced conditions, the *gate* is called (the ledger records the
release or refuses), and only then is the sum opened. If the gate raises, nothing is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.aggregation import Aggregator, Opened, RoundRefused
from fedjax_poisson.federated.fidelity import EVERY_MESSAGE
from fedjax_poisson.mechanisms.noise_source import check_own_noise
from fedjax_poisson.mechanisms.types import Mechanism, can_on_host, on_host, partial_of
from fedjax_poisson.randomness import Stream, fold_in
from fedjax_poisson.randomness.host_draws import MOST_DRAWS
from fedjax_poisson.small_programs import few_values

Gate = Callable[[], None]
"""Asked after the ciphertexts are summed and before the sum is released; raises to forbid it. Before the sum is opened, too, but for simulated rounds of one
program, which hold the opened sum on the device until this has returned (`round_programs.straight_round`)."""

_EMBED, _ENCRYPT = "embed", "encrypt"  # purposes of a sender's two streams


class SumInfo(NamedTuple):
    """The cost of one opened sum.

    Attributes:
      senders: how many ciphertexts are in the sum.
      bytes_up_per_sender: bytes of the largest message one sender sent.
      exact: every opened value was within the backend's margin of an integer; a round where one was not is refused. False for a sum of real numbers.
      embed_seconds: all senders' embedding, wall clock; None where it was not measured by itself, as in one program with the training.
      encrypt_seconds: all senders' encryption, wall clock; None likewise.
      add_seconds: the server's additions; None likewise.
      open_seconds: agreement on the set, screening and opening of the one sum; None likewise.
      fidelity: whether messages were made (`fidelity`), in words.
    """

    senders: int
    bytes_up_per_sender: int
    exact: bool
    embed_seconds: float | None
    encrypt_seconds: float | None
    add_seconds: float | None
    open_seconds: float | None
    fidelity: str = EVERY_MESSAGE


def private_sum(
    mechanism: Mechanism,
    aggregator: Aggregator,
    grids: Array | np.ndarray,
    stream: Stream,
    *,
    gate: Gate | None = None,
    senders: Sequence[int] | None = None,
    insiders: Callable[[Array, Array], Array] | None = None,
) -> tuple[Array, SumInfo]:
    """Embed, encrypt, add, call the gate, open, estimate.

    Args:
      mechanism: an integer mechanism; one that sends real numbers (the Gaussian baseline) is added in the clear, by the "plain" aggregator only.
      aggregator: the encryption backend; it refuses sums of fewer senders than its announced minimum.
      grids: int32 `[S, D]`, of the device or the host, each sender's summed contributions on the mechanism's grid (`mechanism.clip`).
      stream: this release's stream; used for nothing else. Each sender derives a separate part of it.
      gate: called once right before the sum is opened; None opens without asking (nothing is accounted then). Where the other senders are elsewhere it is
        called before this sender's message leaves.
      senders: indices of those that send in this round; None means all.
      insiders: `(counts [S, D], grids [S, D]) -> counts`: what corrupt senders of a simulation send (`insiders.lying_sites`); None where all are honest.

    Returns:
      float32 `[D]` unbiased estimate of the sum of the contributions over the senders, and its cost.

    Raises:
      ValueError: the mechanism's output cannot be summed exactly, or is clean counts, or senders is empty, repeats a sender or names one that does not exist.
      RoundRefused: the aggregator refused to open (too few senders, a value that is not near an integer, tampering).
    """
    check_own_noise(mechanism, "a private sum")
    if not mechanism.facts.integer and aggregator.info.backend != "plain":
        raise ValueError(
            f'{mechanism.facts.name} does not send integers, so no exact encrypted sum exists; use an integer mechanism, or the "plain" aggregator, '
            "which encrypts nothing."
        )
    present = list(range(grids.shape[0])) if senders is None else list(senders)
    _check_senders(present, grids.shape[0])
    size = grids.shape[-1]

    clock = _Clock()
    if aggregator.recall is not None and (known := aggregator.recall(size)) is not None:
        return _known_sum(mechanism, aggregator, known, gate, clock)
    if aggregator.own is not None:
        present = [aggregator.own]
    if not mechanism.facts.integer:
        return _sum_of_reals(mechanism, aggregator.info.minimum_senders, grids, stream, present, gate, clock)
    aggregator.begin()
    drawn = _embed_all(mechanism, grids, stream)
    counts = np.asarray(drawn if insiders is None else insiders(jnp.asarray(drawn), jnp.asarray(grids)))
    embed_seconds = clock.lap()
    sealed = [aggregator.encrypt(counts[i], fold_in(stream, i, _ENCRYPT)) for i in present]
    encrypt_seconds = clock.lap()
    total = sealed[0]
    for one in sealed[1:]:
        total = aggregator.add(total, one)
    add_seconds = clock.lap()
    # What could be refused for the announced conditions is refused here: nothing is charged for a sum that nobody may open.
    aggregator.check(total, size)
    agree_seconds = clock.lap()
    if gate is not None:
        gate()
    clock.lap()
    opened = aggregator.open(total, size)
    open_seconds = agree_seconds + clock.lap()
    here = on_host(mechanism.estimate, opened.counts, opened.senders)
    estimate = (
        mechanism.estimate(jax.device_put(opened.counts), opened.senders) if here is None else jax.device_put(here)
    )
    info = SumInfo(
        senders=opened.senders,
        bytes_up_per_sender=max(aggregator.bytes_up(one) for one in sealed),
        exact=opened.exact,
        embed_seconds=embed_seconds,
        encrypt_seconds=encrypt_seconds,
        add_seconds=add_seconds,
        open_seconds=open_seconds,
    )
    return estimate, info


def _known_sum(
    mechanism: Mechanism, aggregator: Aggregator, known: Opened, gate: Gate | None, clock: _Clock
) -> tuple[Array, SumInfo]:
    """A sum that was opened while this sender was away, or before it could write down what it made of it: nothing is sent.

    It is charged where this sender's counts are not in it as well: the ledger then states no less than what was released of its records.
    """
    if gate is not None:
        gate()
    clock.lap()
    estimate = mechanism.estimate(jnp.asarray(known.counts), known.senders)
    return estimate, SumInfo(
        senders=known.senders,
        bytes_up_per_sender=0,
        exact=known.exact,
        embed_seconds=0.0,
        encrypt_seconds=0.0,
        add_seconds=0.0,
        open_seconds=clock.lap(),
    )


def _sum_of_reals(
    mechanism: Mechanism,
    minimum: int,
    grids: Array | np.ndarray,
    stream: Stream,
    present: list[int],
    gate: Gate | None,
    clock: _Clock,
) -> tuple[Array, SumInfo]:
    """The sum of real numbers, in the clear: float64 on the host, so that it does not depend on an order of float32 additions."""
    if len(present) < minimum:
        raise RoundRefused(f"{len(present)} senders, at least {minimum} were announced: nothing is opened.")
    values = np.asarray(_embed_all(mechanism, grids, stream))[present]
    embed_seconds = clock.lap()
    if gate is not None:
        gate()
    clock.lap()
    total = values.astype(np.float64).sum(axis=0).astype(np.float32)
    add_seconds = clock.lap()
    size = values.itemsize * values.shape[1]
    return mechanism.estimate(jnp.asarray(total), len(present)), SumInfo(
        senders=len(present),
        bytes_up_per_sender=size,
        exact=False,
        embed_seconds=embed_seconds,
        encrypt_seconds=0.0,
        add_seconds=add_seconds,
        open_seconds=0.0,
    )


def _check_senders(present: list[int], count: int) -> None:
    if not present:
        raise ValueError("No sender took part in this round: nothing can be opened.")
    if not all(0 <= i < count for i in present):
        raise ValueError(
            f"senders={present} names a sender that is not there; the {count} rows of grids are 0..{count - 1}."
        )
    if len(set(present)) != len(present):
        raise ValueError(
            f"senders={present} names a sender twice: its units would count twice while its noise was counted once; name each once."
        )


def _embed_all(mechanism: Mechanism, grids: Array | np.ndarray, stream: Stream) -> Array | np.ndarray:
    if can_on_host(mechanism.embed) and grids.size <= MOST_DRAWS:
        streams = [fold_in(stream, i, _EMBED) for i in range(grids.shape[0])]
        if (drawn := on_host(mechanism.embed, streams, np.asarray(grids))) is not None:
            return drawn
    return _embed_rows(partial_of(mechanism.embed, grids.shape[-1]), grids, stream)


@few_values(lambda embed, grids, stream: grids.size)
def _embed_rows(embed: Partial, grids: Array, stream: Stream) -> Array:
    indices = jnp.arange(grids.shape[0], dtype=jnp.uint32)
    return jax.vmap(lambda i, grid: embed(fold_in(stream, i, _EMBED), grid))(indices, grids)


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        elapsed, self._last = now - self._last, now
        return elapsed
