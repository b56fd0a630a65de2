"""Steps before a sum over many clients is opened: the checks, the call to the gate, and the sums of backends outside the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import Aggregator, RoundRefused
from fedjax_poisson.federated.algorithm import check_sampling
from fedjax_poisson.federated.cohort import Total
from fedjax_poisson.federated.population import Cohort, Population, named_twice
from fedjax_poisson.federated.private_sum import Gate
from fedjax_poisson.federated.reuse import fingerprint
from fedjax_poisson.federated.sent import Encryption
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import Stream, fold_in

_AT_ONCE = 16  # clients whose counts are fetched at once for a backend on the host


def check_parts(
    population: Population,
    participation: Participation,
    mechanism: Mechanism | None,
    aggregator: Aggregator | None,
    level: Encryption,
    mesh: Mesh | None,
) -> None:
    """Refuse parts of an algorithm that do not fit one another; the arguments are those of `fedavg`."""
    senders, minimum, sampling_rate = (
        participation.senders,
        participation.minimum_senders,
        participation.sampling_rate,
    )
    check_sampling(sampling_rate, participation.adjacency)
    if not 1 <= senders <= population.size:
        raise ValueError(
            f"senders={senders}, but the population has {population.size} clients: a client takes part once a round."
        )
    if sampling_rate < 1 and senders != population.size:
        raise ValueError(
            f"sampling_rate={sampling_rate} claims amplification: then every client of the population must send its noise in every round, "
            f"so senders must be {population.size}, not {senders}. With smaller cohorts leave sampling_rate at 1 and cap each client's rounds."
        )
    if sampling_rate < 1 and minimum < senders:
        raise ValueError(
            f"minimum_senders={minimum} with sampling_rate={sampling_rate}: with secret sampling all {senders} must send in every round (who is missing may "
            "depend on who was sampled, and takes its noise along); leave minimum_senders out, or set sampling_rate=1."
        )
    if not 1 <= minimum <= senders:
        raise ValueError(f"minimum_senders={minimum} must be between 1 and senders={senders}.")
    if mechanism is not None and minimum < 2:
        raise ValueError("A sum over one client hides nothing: minimum_senders must be at least 2.")
    if level == "off":
        return
    if aggregator is None or mechanism is None:
        raise ValueError(
            f"encryption={level!r} needs a mechanism that sends integers and an aggregator; or use encryption='off'."
        )
    if aggregator.info.backend == "round" and aggregator.device is None:
        raise ValueError(
            "rounds of many simulated clients need the size of their vectors: aggregator('round', ..., size=D)."
        )
    if aggregator.device is None and mesh is not None:
        raise ValueError(
            f"the {aggregator.info.backend} backend encrypts every client's counts on the host, so it takes no mesh: use aggregator('round', ...)."
        )


Screening = Literal["light", "norm"]


def check_screening(mechanism: Mechanism | None, screening: Screening | None, turns: bool) -> None:
    """Refuse a screening that the mechanism's counts do not fit, and clean counts where cohorts take turns.

    Raises:
      ValueError: the reason and the remedy.
    """
    clean = mechanism is not None and mechanism.noise_senders is not None
    name = "training without a mechanism" if mechanism is None else mechanism.facts.name
    if screening not in (None, "light", "norm"):
        raise ValueError(f'screening={screening!r}; there are "light" and "norm".')
    if screening == "norm" and not clean:
        raise ValueError(
            f"screening='norm' bounds clean counts, and {name} sends none: a norm test of counts that carry noise would let through what that noise hides. Use "
            "committee_noise."
        )
    if screening == "light" and clean:
        raise ValueError(f"screening='light' with {name}: in light rounds nobody adds the noise; use screening='norm'.")
    if clean and turns:
        raise ValueError(
            f"fixed cohorts with {name}: banded messages of clean counts are not priced; leave cohorts out, or use poisson_embedding."
        )


def check_clean_counts(
    mechanism: Mechanism, participation: Participation, aggregator: Aggregator | None, level: Encryption
) -> None:
    """Refuse what would open clean counts without the noise senders' noise, or claims more of them than is stated.

    Raises:
      ValueError: the reason and the remedy.
    """
    if participation.sampling_rate < 1:
        raise ValueError(
            f"sampling_rate={participation.sampling_rate} with {mechanism.facts.name}: the amplified price needs a set of senders that does not depend on the "
            "secret sample, and norm rounds leave clients out by what they send; set sampling_rate=1."
        )
    if level != "off" and (aggregator is None or aggregator.device is None):
        name = "no" if aggregator is None else aggregator.info.backend
        raise ValueError(
            f"{mechanism.facts.name} sends clean counts, and the {name} backend has no noise senders: use aggregator('round', "
            "norm=NormScreening(...), noise=mechanism.noise, ..., size=D)."
        )


def check_once(ids: np.ndarray) -> None:
    """Refuse a client that stands twice in a round: it would move the sum twice, and its noise would be counted twice.

    Raises:
      ValueError: it does.
    """
    if named_twice(ids):
        raise ValueError("a client stands twice in the cohort, or in two of its blocks: each takes part once a round.")


def check_round(
    ids: np.ndarray, present: int, participation: Participation, judged: Callable[[], None] = lambda: None
) -> None:
    """Refuse a release that was not accounted for; nothing has been opened or charged yet.

    With secret sampling all must be present. The sampling theorem speaks of a sum whose senders do not depend on the sample, with the dark
    noise of all of them. Who is missing may depend on who was sampled (one that has nothing to train is quicker, or fails where training fails), and every
    one that is missing takes its noise along: the price of a smaller sum is not the amplified price that was planned.

    `judged` is called before too few are refused: members of a norm round have then judged proofs, which costs a little (`RoundAccount.judged`).
    """
    senders, minimum, asked = participation.senders, participation.minimum_senders, ids.size
    if asked > senders:
        raise ValueError(f"the cohort has {asked} clients, the guarantee was stated for senders={senders}.")
    if participation.everybody and asked != senders:
        raise ValueError(
            f"with sampling every client must send, noise at least: the cohort has {asked} of {senders} clients."
        )
    if participation.everybody and present < senders:
        raise RoundRefused(
            f"{present} of {senders} clients sent. With secret sampling all of them must: who is missing may depend on who was sampled, and the noise of the "
            "missing is missing. Nothing was opened and nothing was charged: repeat the round when all are there, or make the algorithm with "
            "sampling_rate=1, where lost clients cost their share only."
        )
    if present < minimum:
        judged()
        raise RoundRefused(
            f"{present} of {asked} clients sent, at least {minimum} were announced. Nothing was opened and no release was charged: "
            "take a new cohort, or make the algorithm for fewer senders."
        )


def open_total(
    aggregator: Aggregator | None, total: Any, size: int, level: Encryption, gate: Gate, number: int
) -> tuple[Array, bool]:
    """Ask the gate, then open: the summed values, and whether they are exact.

    The gate comes first though an opened sum may be refused for its bound: whoever opens has seen it by then, so it is paid for. Insiders can burn one round's
    budget so each time they are asked. (A single count beyond the bound is refused before; only a simulation sees that.)
    """
    if level == "off" or aggregator is None:
        gate()
        return total.values, True
    sealed = total
    if isinstance(total, Total):
        if int(total.largest) > aggregator.info.count_bound:
            raise RoundRefused(
                f"A client sent a count above count_bound = {aggregator.info.count_bound}. Nothing was opened and nothing was "
                "charged: make the aggregator with mechanism.count_bound(senders, dimension)."
            )
        assert aggregator.wrap is not None
        sealed = aggregator.wrap(total.sealed, size, round=number)
    aggregator.check(sealed, size)
    gate()
    opened = aggregator.open(sealed, size)
    return jnp.asarray(opened.counts), opened.exact


def sums_on_host(
    aggregator: Aggregator, counts_of: Any, state: Any, parts: Iterable[Cohort], stream: Stream, numbers: Any
) -> tuple[Any, Any, list[Any], Array]:
    """For backends outside the program: counts come from the device a few clients at a time, each is encrypted and added.

    The fingerprint beside the sum is that of the summed counts: messages of these backends differ from one run to the next.
    """
    total, client_state, seen, summed = None, state.client_state, [], np.zeros(0, np.int32)
    number = int(state.server.round)
    for part in parts:
        for first in range(0, part.present.shape[0], _AT_ONCE):
            few = jax.tree.map(lambda leaf, first=first: leaf[first : first + _AT_ONCE], arrays(part))
            who = part.numbers[first : first + _AT_ONCE]
            counts, client_state, report = counts_of(state, client_state, few, stream, numbers)
            here = np.asarray(few.present)
            rows = np.asarray(counts)
            summed = (rows.sum(axis=0) + (summed if summed.size else 0)).astype(np.int32)
            for i, row in enumerate(rows):
                if here[i]:
                    sealed = aggregator.encrypt(row, fold_in(stream, few.ids[i], "encrypt"), round=number)
                    total = sealed if total is None else aggregator.add(total, sealed)
            seen.append((who, report))
    return total, client_state, seen, fingerprint(jnp.asarray(summed))


def arrays(cohort: Cohort) -> Cohort:
    """The device part of a cohort, for a compiled program."""
    return cohort._replace(numbers=())


def reports(seen: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Client numbers and report bits of all blocks, padding left out."""
    if not seen:
        raise ValueError("the cohort has no block: there are no clients to sum over.")
    if len(seen) == 1:
        numbers, report = seen[0]
        return np.asarray(numbers, np.uint32), np.asarray(report)[: len(numbers)]
    ids = np.concatenate([np.asarray(numbers, np.uint32) for numbers, _ in seen])
    flags = np.concatenate([np.asarray(report)[: len(numbers)] for numbers, report in seen])
    return ids, flags


def named(ids: np.ndarray, flags: np.ndarray, bit: int) -> tuple[int, ...]:
    """The clients whose report has this bit."""
    found = (flags & bit) != 0
    return tuple(int(i) for i in ids[found]) if found.any() else ()
