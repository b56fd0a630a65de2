"""A round of zeros on a thread of its own, and the yardstick's training of zeros, so that a run's programs are compiled while the run begins.

Most of a short run's time goes by before its first training round: the standardisation compiles its programs one after another, then the training its own.
The compiler needs no interpreter, so a second core can do the one while the first does the other. What is compiled is decided by a round itself, made
beforehand: of records whose features and labels are zeros, with keys, shares and a stream of its own. All that it knows of the sites is which places of a
table hold a record. It is charged nowhere, since nothing of it is released: its result is thrown away, and no transcript of it is kept. A program that both
need is made by whoever comes first (`traced_programs`).
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from fedjax_poisson.federated import standardize
from fedjax_poisson.federated.records import Records
from fedjax_poisson.platforms import usable_cores
from fedjax_poisson.randomness import stream
from fedjax_poisson.runs.build import RunSetup
from fedjax_poisson.runs.record_level import without_privacy
from fedjax_poisson.runs.scoring import trained_without_privacy
from fedjax_poisson.runs.training import aggregator_for, blank_records, training_for
from fedjax_poisson.runs.verdict import yardstick_wanted
from fedjax_poisson.traced_programs import FOLDER

__all__ = ["MOST_NUMBERS", "rehearsed"]

MOST_NUMBERS = 1 << 18
"""Places for records times parameters: a round of more takes long enough to be noticed beside the one that it prepares."""


@contextlib.contextmanager
def rehearsed(setting: RunSetup) -> Iterator[None]:
    """While it is entered a round of zeros is made on another thread; leaving waits for the program that it is making.

    Only where it helps: programs are kept (the command), by a CPU with a second core, for a run of its own on few numbers.
    """
    if not _helps(setting):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_rehearse, args=(setting, ended.is_set), name="rehearsal")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _helps(setting: RunSetup) -> bool:
    numbers = math.prod((*setting.train.mask.shape, setting.dimension))
    kept = bool(os.environ.get(FOLDER)) and jax.default_backend() == "cpu"
    plain = setting.network is None and setting.model.fixed is None and setting.config.aggregator != "tenseal"
    return kept and plain and usable_cores() > 1 and numbers <= MOST_NUMBERS


def _rehearse(setting: RunSetup, ended: Callable[[], bool]) -> None:
    try:
        _training(setting, ended)
        if yardstick_wanted(setting) and setting.kind.without_privacy is without_privacy and not ended():
            _yardstick(setting)
    except _Over:
        pass
    except Exception as error:  # the run makes the same programs, and says what is wrong where it is
        warnings.warn(f"programs could not be compiled beforehand ({error!r}): the run compiles them", stacklevel=2)


class _Over(Exception):
    """The run has no use for the rest of the round."""


def _training(setting: RunSetup, ended: Callable[[], bool]) -> None:
    """A training round, left between two programs as soon as the run is over."""

    def unless_over(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if ended():
                raise _Over
            return function(*arguments)

        return call

    scaler, records = _zeros(setting)
    made = aggregator_for(setting, setting.plan.train.mechanism, setting.dimension, "train")
    aggregator = made._replace(
        begin=unless_over(made.begin),
        encrypt=unless_over(made.encrypt),
        check=unless_over(made.check),
        open=unless_over(made.open),
    )
    algorithm, cohort_of = training_for(setting, scaler, records, aggregator)
    state = algorithm.init(jax.random.key(0))
    unless_over(algorithm.apply)(state, cohort_of(1), stream(), unless_over(lambda: None))


def _yardstick(setting: RunSetup) -> None:
    """The training of records without privacy, which is one program, for the run's summary."""
    scaler, records = _zeros(setting)
    trained_without_privacy(setting, scaler, records, stream())


def _zeros(setting: RunSetup) -> tuple[standardize.Scaler, Records]:
    """Training records whose features and labels are zeros, with a public standardisation."""
    blank = blank_records(setting)
    records = blank._replace(labels=jax.device_put(np.zeros(blank.labels.shape, blank.labels.dtype)))
    return standardize.bounds_scaler(setting.sites.feature_bounds, 1.0), records
