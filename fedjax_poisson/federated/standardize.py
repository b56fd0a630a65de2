"""Global feature means and standard deviations from one private, encrypted sum over the sites.

A record contributes one vector: a constant (for the count), its clipped features, and the squares, less 0.15, of the features that are not binary
(for a binary feature x**2 = x, so its variance follows from its mean; less a typical square, squares are shorter, and more records stay within the clip).
Features enter relative to public bounds: a binary feature as
0 or 1, any other as t in [-1, 1] across its range. A patient with several records contributes the mean of their vectors: the moments are over
patients, and no count of records has to be clipped. One release, clipped, embedded and accounted like any other.

Per-site means and deviations cost the same epsilon: every site writes its moments into a separate block of one long vector, so a
unit still contributes one clipped moment vector. They are noisier, since a block has the noise of all sites but the count of only one. (A site
that standardised by its exact moments, even without sharing them, would void a record-level guarantee: one record would change the features of all.)
Where public bounds are enough, as for pixels in 0..1, nothing needs to be released (`bounds_scaler`).

A label that is a number to be predicted (regression) is one more column of the vector: its mean and deviation are released with the others, and the model
learns the standardised number, so that one clip fits any unit. With `by_site` the label's moments are still those of all sites together.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.federated import records as records_lib
from fedjax_poisson.federated.host_sums import in_order, is_summed_on_host, sums_of_sites
from fedjax_poisson.federated.private_sum import Gate, SumInfo, private_sum
from fedjax_poisson.federated.records import Records
from fedjax_poisson.mechanisms.types import Mechanism, partial_of
from fedjax_poisson.randomness import Stream
from fedjax_poisson.traced_programs import traced_once

_LEAST_DEVIATION, _LEAST_OF_NOISE = 0.05, 0.35
"""Bounds on the least deviation, in halves of a feature's public range: it grows with the noise of a mean, so that no column whose deviation is not known is
blown up."""

_SQUARE = 0.15  # a typical square of t in [-1, 1]
_LARGEST_SCORE = 3.0  # standardised values are cut at +-3: bounds every record's leverage


class Scaler(NamedTuple):
    """Standardisation of features, a function of one release and public bounds only.

    Attributes:
      centre: float32 `[F]`, or `[S, 1, F]` for sites that are standardised separately; subtracted from the clipped raw feature.
      scale: float32 of the same shape, positive, divides it.
      lower: float32 `[F]` public bound.
      upper: float32 `[F]` public bound.
      records: float32 `[]`, number of training units: privately estimated, or public where nothing was released.
      target: float32 `[2]`, what is subtracted from a label that is a number, and what divides it then; None where labels are classes.
    """

    centre: Array
    scale: Array
    lower: Array
    upper: Array
    records: Array
    target: Array | None = None


LabelBounds = tuple[float, float] | None
"""Public range of a label that is a number; None for classes."""


def blank_scaler(features: int, sites: int | None = None, *, regression: bool = False) -> Scaler:
    """A scaler of the right shapes that standardises nothing: the structure a checkpoint is read into.

    Args:
      features: F.
      sites: S if each site is standardised separately.
      regression: whether the label is a number.
    """
    zeros, ones = np.zeros(features, np.float32), np.ones(features, np.float32)
    own = (features,) if sites is None else (sites, 1, features)
    target = np.array([0.0, 1.0], np.float32) if regression else None
    return _on_device(np.zeros(own, np.float32), np.ones(own, np.float32), zeros, ones, np.float32(1), target)


def _on_device(*numbers: Any) -> Scaler:
    """A scaler of the host's numbers. They are computed there: on a device each operation on a handful of numbers would be a program to compile."""
    return Scaler(*jax.device_put(numbers))


def bounds_scaler(bounds: np.ndarray, records: float, label_bounds: LabelBounds = None) -> Scaler:
    """Public bounds mapped to -1..1, no release: for pixels.

    Args:
      bounds: float32 `[F, 2]` public lower and upper bounds.
      records: public (declared or published) number of training units; it scales the step.
      label_bounds: public range of a label that is a number.
    """
    lower, upper = np.asarray(bounds, np.float32).T
    half = (upper - lower) / np.float32(2)
    target = None
    if label_bounds is not None:
        low, high = label_bounds
        target = np.array([(low + high) / 2, (high - low) / 2], np.float32)
    return _on_device(lower + half, half, lower, upper, np.float32(records), target)


def moment_dimension(binary: np.ndarray, label_bounds: LabelBounds = None) -> int:
    """Length of a record's moment vector: 1 + F + (features that are not binary), and 2 for a label that is a number."""
    return 1 + binary.size + int((~np.asarray(binary, bool)).sum()) + (0 if label_bounds is None else 2)


def check_flat(features: Any) -> None:
    """Refuse features that are not one array: what is standardised here is float32 `[..., F]`, against public bounds of each of its F columns.

    Raises:
      TypeError: with what to do for a dict of arrays.
    """
    if not hasattr(features, "shape"):
        raise TypeError(
            f"the features are a {type(features).__name__}, and standardisation is for one float array [..., F]: scale the arrays with a function of your own "
            "that uses public numbers only, such as records._replace(features={**features, 'age': (features['age'] - 50) / 20}), or standardise one array "
            "by itself and put it back."
        )


def moments(x: Array, bounds: Array | np.ndarray, binary: np.ndarray) -> Array:
    """Moment vector float32 `[1 + F + F_continuous]` of one raw record float32 `[F]`, every entry in [-1, 1]."""
    t = relative(x, bounds, binary)
    continuous = np.flatnonzero(~binary)
    return jnp.concatenate([jnp.ones(1, jnp.float32), t, t[continuous] ** 2 - jnp.float32(_SQUARE)])


def relative(x: Array, bounds: Array | np.ndarray, binary: np.ndarray) -> Array:
    """Clipped features relative to public bounds: 0..1 where binary, -1..1 elsewhere; float32 `[..., F]`."""
    lower, upper, flags = (
        jnp.broadcast_to(each, x.shape) for each in (bounds[:, 0], bounds[:, 1], jnp.asarray(binary))
    )
    fraction = (jnp.clip(x, lower, upper) - lower) / (upper - lower)
    return jnp.where(flags, fraction, jnp.float32(2) * fraction - jnp.float32(1))


def private_scaler(
    cohort: Records,
    bounds: np.ndarray,
    binary: np.ndarray,
    *,
    mechanism: Mechanism,
    aggregator: Aggregator,
    stream: Stream,
    gate: Gate | None = None,
    largest_unit: int = 1,
    by_site: bool = False,
    label_bounds: LabelBounds = None,
) -> tuple[Scaler, SumInfo]:
    """One release: the moments of clipped features, global or of each site, turned into a `Scaler`.

    Args:
      cohort: raw training records of all sites.
      bounds: float32 `[F, 2]` public lower and upper bounds.
      binary: bool `[F]`.
      mechanism: record-level integer mechanism; its `clip_norm` bounds one unit's moment vector (at most
        sqrt(1 + F + F_continuous) for a record).
      aggregator: encryption backend.
      stream: this release's stream.
      gate: asked before the sum is opened.
      largest_unit: records of the largest unit.
      by_site: moments of each site in a separate block; the aggregator then sums vectors of S times the length.
      label_bounds: public range of a label that is a number, whose moments are released with the features'.

    Returns:
      The scaler and the cost of the release.
    """
    check_flat(cohort.features)
    bounds32, flags = with_label(bounds, binary, label_bounds)
    cohort = label_as_column(cohort, label_bounds)
    noise = math.sqrt(mechanism.variance(cohort.features.shape[0]))
    records_lib.check_sums_fit(mechanism, cohort.features.shape[1])
    grids = _summed_moments(mechanism, cohort, bounds32, flags, largest_unit)
    if by_site:
        sites, width = grids.shape
        blocks = np.eye(sites, dtype=np.int32)[:, :, None] * grids[:, None, :]  # each site's moments in its own block
        total, info = private_sum(mechanism, aggregator, blocks.reshape(sites, sites * width), stream, gate=gate)
        totals = total.reshape(sites, width)
        found = scaler_of_sites(totals, bounds32, flags, noise)
        if label_bounds is not None:
            pooled = scaler_from_moments(np.sum(np.asarray(totals), axis=0), bounds32, flags, noise * math.sqrt(sites))
            found = without_label(found, pooled)
        return found, info
    total, info = private_sum(mechanism, aggregator, grids, stream, gate=gate)
    found = scaler_from_moments(total, bounds32, flags, noise)
    return (found if label_bounds is None else without_label(found, found)), info


def with_label(bounds: np.ndarray, binary: np.ndarray, label_bounds: LabelBounds) -> tuple[np.ndarray, np.ndarray]:
    """Bounds float32 `[F, 2]` and flags bool `[F]` of the features, and of the label as one more column where it is a number."""
    bounds, binary = np.asarray(bounds, np.float32), np.asarray(binary, bool)
    if label_bounds is None:
        return bounds, binary
    return np.concatenate([bounds, np.array([label_bounds], np.float32)]), np.append(binary, False)


def label_as_column(cohort: Records, label_bounds: LabelBounds) -> Records:
    """Records whose label, where it is a number, is one more feature."""
    if label_bounds is None:
        return cohort
    return cohort._replace(features=jnp.concatenate([cohort.features, cohort.labels[..., None]], axis=-1))


def without_label(scaler: Scaler, pooled: Scaler) -> Scaler:
    """A scaler of columns of which the last is the label, as one of the columns before it, with the label's own moments from all sites."""
    target = np.stack([np.asarray(pooled.centre)[-1], np.asarray(pooled.scale)[-1]])
    centre, scale, lower, upper = (np.asarray(each) for each in scaler[:4])
    return _on_device(centre[..., :-1], scale[..., :-1], lower[:-1], upper[:-1], scaler.records, target)


def standardize_labels(scaler: Scaler, labels: Array) -> Array:
    """Labels as the model learns them: standardised where they are numbers, else as they are."""
    if scaler.target is None:
        return labels
    return (labels - scaler.target[0]) / scaler.target[1]


def in_units(scaler: Scaler, outputs: np.ndarray, label_bounds: tuple[float, float]) -> np.ndarray:
    """A regression's outputs `[...]` in the unit of the label, cut to its public range; float64."""
    assert scaler.target is not None
    centre, scale = np.asarray(scaler.target, np.float64)
    return np.clip(np.asarray(outputs, np.float64) * scale + centre, *label_bounds)


def scaler_of_sites(totals: Array | np.ndarray, bounds: np.ndarray, binary: np.ndarray, noise: float = 0.0) -> Scaler:
    """`scaler_from_moments` of each row of float32 `[S, 1 + F + F_continuous]`; their records are added."""
    own = [scaler_from_moments(total, bounds, binary, noise) for total in np.asarray(totals, np.float32)]
    centre, scale = (np.stack(each)[:, None, :] for each in ([o.centre for o in own], [o.scale for o in own]))
    records = np.sum([o.records for o in own], dtype=np.float32)
    return _on_device(centre, scale, own[0].lower, own[0].upper, records)


def _summed_moments(
    mechanism: Mechanism, cohort: Records, bounds: np.ndarray, binary: np.ndarray, largest_unit: int
) -> Array | np.ndarray:
    """Each site's summed moment vectors on the mechanism's grid, int32 `[S, 1 + F + F_continuous]`: of few records on the host, without a program."""
    sites, room, features = cohort.features.shape
    width = moment_dimension(binary)
    # The claim decides, as in the program: where a unit is a record, its number means nothing.
    units = records_lib.units_of(np.asarray(cohort.unit), "record" if largest_unit == 1 else "patient")
    if not is_summed_on_host(mechanism, sites * room, width):
        clip = partial_of(mechanism.clip, width)
        return _moment_grids(tuple(binary.tolist()), largest_unit, clip, cohort, bounds)
    order = in_order(units, sites * room)
    rows = np.asarray(cohort.features, np.float32).reshape(-1, features)[order.place]
    vectors = moments_of_rows(rows, bounds, binary)
    return sums_of_sites(mechanism.clip, vectors, order, units, sites, average=True)


@np.errstate(all="ignore")  # what is not finite becomes zeros, and nobody shall see that there was some
def moments_of_rows(rows: np.ndarray, bounds: np.ndarray, binary: np.ndarray) -> np.ndarray:
    """`moments` of each row float32 `[R, F]`, on the host."""
    one, two = np.float32(1), np.float32(2)
    lower, upper = np.asarray(bounds, np.float32).T
    fraction = (np.clip(rows, lower, upper) - lower) / (upper - lower)
    t = np.where(binary, fraction, two * fraction - one)
    return np.concatenate([np.ones((len(rows), 1), np.float32), t, t[:, ~binary] ** 2 - np.float32(_SQUARE)], axis=1)


@traced_once((0, 1))  # a module's function: one compilation for all mechanisms whose clip has one structure
def _moment_grids(binary: tuple[bool, ...], largest_unit: int, clip: Partial, cohort: Records, bounds: Array) -> Array:
    """Each site's summed moment vectors on the mechanism's grid, int32 `[S, 1 + F + F_continuous]`; every unit takes part."""
    everyone, flags = jnp.ones(cohort.features.shape[1], bool), np.asarray(binary, bool)

    def one_site(x: Array, y: Array, unit: Array) -> Array:
        return records_lib.summed_contributions(
            lambda row, label: moments(row, bounds, flags),
            clip,
            x,
            y,
            unit,
            everyone,
            largest_unit=largest_unit,
            average=True,
        )

    return jax.vmap(one_site)(cohort.features, cohort.labels, cohort.unit)


def scaler_from_moments(
    total: Array | np.ndarray, bounds: np.ndarray, binary: np.ndarray, noise: float = 0.0
) -> Scaler:
    """Post-process an (estimated or exact) moment sum into a scaler; never divides by noise alone.

    A variance is taken to be at least 0.05**2 and at least the standard deviation of the noise in a mean, up to 0.35**2.

    Args:
      total: float32 `[1 + F + F_continuous]`, as `moments` summed over units.
      bounds: float32 `[F, 2]`.
      binary: bool `[F]`.
      noise: standard deviation of the noise in each entry of `total`.
    """
    one, two, total = np.float32(1), np.float32(2), np.asarray(total, np.float32)
    width = binary.size
    continuous = np.flatnonzero(~binary)
    count = np.maximum(total[0], one)
    mean = np.clip(total[1 : 1 + width] / count, np.where(binary, np.float32(0), -one), one)
    variance = mean * (one - mean)
    squares = total[1 + width :] / count + np.float32(_SQUARE)
    variance[continuous] = squares - mean[continuous] ** 2
    least = np.clip(np.float32(noise) / count, np.float32(_LEAST_DEVIATION**2), np.float32(_LEAST_OF_NOISE**2))
    deviation = np.sqrt(np.clip(variance, least, one))
    lower, upper = np.asarray(bounds, np.float32).T
    span = np.where(binary, upper - lower, (upper - lower) / two)
    start = np.where(binary, lower, (upper + lower) / two)
    return _on_device(start + mean * span, deviation * span, lower, upper, count)


def standardize(scaler: Scaler, x: Array) -> Array:
    """Clip raw features to their public bounds, centre, scale and cut at +-3: float32 `[..., F]`.

    Raises:
      TypeError: the features are not one array.
    """
    check_flat(x)
    return _standardized(scaler[:4], x)


@jax.jit
def _standardized(numbers: tuple[Array, ...], x: Array) -> Array:
    centre, scale, lower, upper = (jnp.broadcast_to(each, x.shape) for each in numbers)
    clipped = jnp.clip(x, lower, upper)
    return jnp.clip((clipped - centre) / scale, -_LARGEST_SCORE, _LARGEST_SCORE).astype(jnp.float32)
