"""`fedsgd` as the algorithm of a run: a record or a patient is protected, and every site sums the clipped gradients of its units."""

from __future__ import annotations

from typing import Any

from fedjax_poisson.data import Sites
from fedjax_poisson.data.placement import Placement
from fedjax_poisson.federated import fedsgd, reference
from fedjax_poisson.randomness import Stream
from fedjax_poisson.runs.algorithm_entry import AlgorithmEntry, Parts, Training
from fedjax_poisson.runs.config import Config


def make(parts: Parts) -> Training:
    """DP-SGD over the sites, all of whose records are there in every round."""
    assert parts.mechanism is not None and parts.unit != "client"
    who = parts.participation
    algorithm = fedsgd(
        parts.model,
        features=parts.cohort.features.shape[2:],
        records=parts.records,
        sampling_rate=who.sampling_rate,
        mechanism=parts.mechanism,
        controller=parts.controller,
        aggregator=parts.aggregator,
        server_optimizer=parts.server_optimizer,
        senders=who.senders,
        honest_senders=who.honest_senders,
        unit=parts.unit,
        adjacency=who.adjacency,
        largest_unit=parts.largest_unit,
        average_from=parts.average_from,
    )
    return Training(algorithm, lambda number: parts.cohort)


def check(config: Config, data: Placement | Sites) -> None:
    """Refuse settings of local training, which this algorithm has none of."""
    del data
    given = [name for name in ("local_rate", "local_epochs", "batch_size") if getattr(config, name) is not None]
    if given:
        raise ValueError(
            f"--{', --'.join(name.replace('_', '-') for name in given)}: {config.algorithm} takes one gradient a round, so no client trains by itself; leave "
            "it out, or choose --algorithm fedavg."
        )


def without_privacy(parts: Parts, rounds: int, sampling_rate: float, stream: Stream) -> Any:
    """SGD on the exact mean gradient of all records."""
    return reference.train_without_privacy(
        parts.model,
        parts.cohort,
        rounds=rounds,
        sampling_rate=sampling_rate,
        server_optimizer=parts.server_optimizer,
        stream=stream,
        average_from=parts.average_from,
    )


ENTRY = AlgorithmEntry(make, unit="record", check=check, steered=True, without_privacy=without_privacy)
