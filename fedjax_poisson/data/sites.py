"""The one container of the package's data: records of several sites, with their split, privacy unit and origin.

`Sites` is plain NumPy on the host. It keeps the *raw* features: standardisation is a separate release (a private,
encrypted sum over the sites), so it happens in the federated layer and never here. Bounds of the features are public
facts, declared beforehand; if a loader had to read them from the data, `Sites.warnings` reports it, since such bounds
are not covered by any epsilon.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.tables.declarations import check_whole
from fedjax_poisson.data.tables.new_rows import Rows, encode_rows, plain_encoder
from fedjax_poisson.data.tables.schema import Encoder

from .splitting import check_sites_per_patient

Unit = Literal["record", "patient"]
Task = Literal["binary", "multiclass", "multilabel", "regression"]
"""What a label is: yes or no, one of several classes, several yes/no labels, or a number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """The source of a data set and how it was processed.

    Attributes:
        name: Short name of the data set.
        source: Where it was published, or the path it was read from.
        licence: Licence of the data, "unknown" where the user brought the file.
        citation: How its authors ask to be cited; empty if they do not.
        notes: One sentence for every decision taken: dropped rows, imputed values, merged sites, coded labels.
        identity: What names the data set on a privacy ledger, whatever is learned from it: public facts only. A fingerprint of the records would be
            a separate release, and one changed record would look like another data set. Empty: the name.
    """

    name: str
    source: str
    licence: str = "unknown"
    citation: str = ""
    notes: tuple[str, ...] = ()
    identity: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """Records of S sites, checked when built.

    The last axis of `features` is the feature axis F: columns of a table `[n, F]`, or channels of images
    `[n, height, width, F]`. Names, bounds and the binary mask speak about that axis.

    Attributes:
        features: float32 `[n, F]` or `[n, height, width, F]`, raw (not standardised), finite.
        labels: int32 `[n]`, class index 0..len(class_names)-1; int32 `[n, classes]` of 0/1 for a multi-label task; float32 `[n]`
            within `label_bounds` for regression.
        site: int32 `[n]`, 0..S-1; every site has at least one record (but see `only`).
        site_names: S names.
        train: bool `[n]`, True for training records.
        group: int64 `[n]`, whose record it is; no group is on both sides of the split. `arange(n)` where every record
            is its own.
        unit: The privacy unit that `group` describes: "record" or "patient".
        feature_names: F names.
        feature_bounds: float32 `[F, 2]`, lower < upper: the range features are clipped to before anything private is
            computed.
        binary: bool `[F]`, True for 0/1 columns, which need no standardisation.
        class_names: Names of the label values, in order; of the K labels of a multi-label task; of the one number of a regression.
        provenance: Origin and history.
        warnings: What a user must know before trusting a privacy claim on this data; empty if nothing.
        uncovered: Facts that were taken from the records and go into what a run shows, so that no epsilon covers them, each with the declaration
            that would replace it.
        sites_per_unit: The most sites that one unit has records at, a public bound: such a unit moves that many sums at once
            and is charged for it (`splitting.check_sites_per_patient`). 1 where the record is the unit.
        label_bounds: Public range of the label where it is a number to be predicted; None for classes.
        encoder: How the rows of a table became features, for rows that come later (`encode`); None where columns are features already.
        subgroups: Columns that tell parts of the test records apart, whose scores a report shows beside each other (`federated.subgroups`).
        only: The one site whose records these are, where those of the others lie elsewhere (`one_site`); None where all sites' records are here.
    """

    features: np.ndarray
    labels: np.ndarray
    site: np.ndarray
    site_names: tuple[str, ...]
    train: np.ndarray
    group: np.ndarray
    unit: Unit
    feature_names: tuple[str, ...]
    feature_bounds: np.ndarray
    binary: np.ndarray
    class_names: tuple[str, ...]
    provenance: Provenance
    warnings: tuple[str, ...] = ()
    uncovered: tuple[tuple[str, str], ...] = ()
    sites_per_unit: int = 1
    label_bounds: tuple[float, float] | None = None
    encoder: Encoder | None = None
    subgroups: tuple[str, ...] = ()
    only: str | None = None

    @property
    def task(self) -> Task:
        """What there is to learn: one of two classes, one of several, several yes/no labels, or a number."""
        if self.label_bounds is not None:
            return "regression"
        if self.labels.ndim == 2:
            return "multilabel"
        return "binary" if len(self.class_names) == 2 else "multiclass"

    def encode(self, rows: Rows) -> np.ndarray:
        """Features of new rows, with the columns, ranges, levels and fill values of this data: no label is needed.

        Args:
            rows: A CSV file's path, a mapping of columns (a dict of lists or arrays, a data frame), or a sequence of dicts.

        Returns:
            float32 `[m, F]`, raw like `features`.

        Raises:
            ValueError: These are images, a column is absent, or a value does not fit its column; the message names row and column.
        """
        if self.features.ndim != 2:
            raise ValueError(
                f"{self.provenance.name} holds pictures, which need no encoding: pass them as float32 [m, {', '.join(map(str, self.features.shape[1:]))}]"
            )
        return encode_rows(self.encoder or plain_encoder(self.feature_names, self.feature_bounds), rows)

    def __post_init__(self) -> None:
        _check_arrays(self)
        _check_values(self)
        _check_split(self)


class Padded(NamedTuple):
    """Records of every site in one rectangle, so that sites can be vmapped.

    Attributes:
        features: float32 `[S, n_max, ...]`, zero where padded.
        labels: int32 `[S, n_max]` (`[S, n_max, classes]` if multi-label, float32 `[S, n_max]` for regression), zero where padded.
        mask: bool `[S, n_max]`, True for real records.
    """

    features: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


def site_split(sites: Sites, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test records of one site.

    Args:
        sites: The data.
        s: Index of the site, 0..S-1.

    Returns:
        `(x_train, y_train, x_test, y_test)` in the order of the file.

    Raises:
        IndexError: There is no such site.

    >>> from fedjax_poisson import data
    >>> x_train, y_train, x_test, y_test = data.site_split(data.load("heart"), 2)
    >>> x_train.shape, y_test.shape
    ((30, 13), (16,))
    """
    if not 0 <= s < len(sites.site_names):
        raise IndexError(
            f"site {s} does not exist: sites are 0..{len(sites.site_names) - 1} ({', '.join(sites.site_names)})"
        )
    here = sites.site == s
    fit, held_out = here & sites.train, here & ~sites.train
    return sites.features[fit], sites.labels[fit], sites.features[held_out], sites.labels[held_out]


def padded(sites: Sites, train: bool = True) -> Padded:
    """Stack the training (or test) records of every site, padded with zeros to the largest site.

    Args:
        sites: The data.
        train: True for the training records, False for the test records.

    Returns:
        `Padded(features [S, n_max, ...], labels [S, n_max], mask [S, n_max])`; records keep the order of the file.
    """
    rows, mask = padded_rows(sites, train)
    features = np.where(_spread(mask, sites.features.ndim - 1), sites.features[rows], np.float32(0))
    labels = np.where(_spread(mask, sites.labels.ndim - 1), sites.labels[rows], sites.labels.dtype.type(0))
    return Padded(features, labels, mask)


def padded_rows(sites: Sites, train: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers behind `padded`: int64 `[S, n_max]` (0 where padded) and the bool mask `[S, n_max]`."""
    members = [np.flatnonzero((sites.site == s) & (sites.train == train)) for s in range(len(sites.site_names))]
    rows = np.zeros((len(members), max(map(len, members))), np.int64)
    mask = np.zeros(rows.shape, bool)
    for s, own in enumerate(members):
        rows[s, : len(own)] = own
        mask[s, : len(own)] = True
    return rows, mask


def padded_groups(sites: Sites, train: bool = True) -> np.ndarray:
    """Which patient of its site each padded record belongs to: int32 `[S, n_max]`, 0..P_s-1, and -1 where padded."""
    rows, mask = padded_rows(sites, train)
    groups = np.full(rows.shape, -1, np.int32)
    for s in range(len(rows)):
        groups[s, mask[s]] = np.unique(sites.group[rows[s, mask[s]]], return_inverse=True)[1]
    return groups


def site_sizes(sites: Sites) -> np.ndarray:
    """Training and test records of each site: int64 `[S, 2]`. A data-dependent fact: publishing it is a release."""
    count = len(sites.site_names)
    return np.stack([np.bincount(sites.site[sites.train == t], minlength=count) for t in (True, False)], axis=1)


def clipped_fraction(sites: Sites) -> np.ndarray:
    """Fraction of each feature's values outside its bounds, float64 `[F]`; not private, for the owner of the data."""
    values = sites.features.reshape(-1, sites.features.shape[-1])
    lower, upper = sites.feature_bounds[:, 0], sites.feature_bounds[:, 1]
    return np.mean((values < lower) | (values > upper), axis=0)


def describe(sites: Sites) -> str:
    """A text of a few lines: sites, sizes, labels, privacy unit, origin and warnings.

    It prints exact counts: it is for the person who may see the data, not for a report that leaves the site.

    >>> from fedjax_poisson import data
    >>> print(data.describe(data.load("heart")).splitlines()[0])
    heart: 740 records x 13 features, 4 sites, privacy unit record
    """
    shape = " x ".join(map(str, sites.features.shape[1:]))
    lines = [
        f"{sites.provenance.name}: {len(sites.features)} records x {shape} features, {len(sites.site_names)} sites, "
        f"privacy unit {sites.unit}"
    ]
    width = max(map(len, sites.site_names))
    for s, (name, (fit, held_out)) in enumerate(zip(sites.site_names, site_sizes(sites), strict=True)):
        lines.append(
            f"  {name:<{width}}  train {fit:>6}  test {held_out:>6}  {_shares(sites, sites.labels[sites.site == s])}"
        )
    if sites.unit == "patient":
        each = "one site" if sites.sites_per_unit == 1 else f"at most {sites.sites_per_unit} sites"
        lines.append(f"  {len(np.unique(sites.group))} patients, each at {each}")
    lines.append(f"  source: {sites.provenance.source}; licence: {sites.provenance.licence}")
    lines += [f"  note: {note}" for note in sites.provenance.notes]
    lines += [f"  WARNING: {warning}" for warning in sites.warnings]
    lines += [f"  NOT COVERED BY EPSILON: {fact}; instead: {remedy}" for fact, remedy in sites.uncovered]
    return "\n".join(lines)


def _shares(sites: Sites, labels: np.ndarray) -> str:
    """How often each class or label occurs, or the mean of a number."""
    if sites.task == "regression":
        return f"{sites.class_names[0]} {labels.mean():.4g} on average"
    share = (
        labels.mean(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(sites.class_names)) / len(labels)
    )
    return ", ".join(f"{c} {p:.0%}" for c, p in zip(sites.class_names, share, strict=True))


def _spread(mask: np.ndarray, axes: int) -> np.ndarray:
    return mask.reshape(mask.shape + (1,) * axes)


def _check_arrays(sites: Sites) -> None:
    for field in ("features", "labels", "site", "train", "group", "feature_bounds", "binary"):
        if not isinstance(getattr(sites, field), np.ndarray):
            kind = type(getattr(sites, field)).__name__
            raise ValueError(f"{field} is a {kind}; expected a NumPy array: wrap it in numpy.asarray")
    for field in ("site_names", "feature_names", "class_names"):
        names = getattr(sites, field)
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{field} is {names!r}; expected a tuple of text")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{field} holds {twice!r} twice; rename one of them")
    if sites.features.ndim not in (2, 4) or sites.features.dtype != np.float32:
        raise ValueError(
            f"features are {sites.features.dtype} of shape {sites.features.shape}; "
            "expected float32 [n, F] or [n, height, width, F]"
        )
    n, width = len(sites.features), sites.features.shape[-1]
    if n == 0 or width == 0:
        raise ValueError(f"features have shape {sites.features.shape}: there is no record or no feature to learn from")
    wanted: dict[str, tuple[type, tuple[int, ...]]] = {
        "site": (np.int32, (n,)),
        "train": (np.bool_, (n,)),
        "group": (np.int64, (n,)),
        "feature_bounds": (np.float32, (width, 2)),
        "binary": (np.bool_, (width,)),
    }
    wanted["labels"] = (np.int32, (n,) if sites.labels.ndim == 1 else (n, len(sites.class_names)))
    if sites.label_bounds is not None:
        wanted["labels"] = (np.float32, (n,))
    for field, (dtype, shape) in wanted.items():
        array = getattr(sites, field)
        if array.dtype != dtype or array.shape != shape:
            expected = f"{np.dtype(dtype).name} {list(shape)}"
            raise ValueError(
                f"{field} is {array.dtype} of shape {array.shape}; expected {expected}: cast or reshape it when loading"
            )
    if len(sites.feature_names) != width:
        raise ValueError(f"{len(sites.feature_names)} feature names for {width} features; name each once")
    if sites.unit not in ("record", "patient"):
        raise ValueError(f"unit is {sites.unit!r}; expected 'record' or 'patient'")
    check_whole("sites_per_unit", sites.sites_per_unit, 1, None if sites.unit == "patient" else 1)


def _check_values(sites: Sites) -> None:
    finite = np.isfinite(sites.features).reshape(-1, sites.features.shape[-1]).all(axis=0)
    if not finite.all():
        names = ", ".join(sites.feature_names[j] for j in np.flatnonzero(~finite))
        raise ValueError(f"features hold NaN or infinity in: {names}; impute missing values when loading")
    lower, upper = sites.feature_bounds.T
    if not (np.isfinite(sites.feature_bounds).all() and (lower < upper).all()):
        j = int(np.flatnonzero(~(lower < upper))[0]) if not (lower < upper).all() else 0
        raise ValueError(
            f"bounds of {sites.feature_names[j]!r} are {lower[j]}..{upper[j]}; expected finite lower < upper"
        )
    _check_labels(sites)
    if sites.site.min() < 0 or sites.site.max() >= len(sites.site_names):
        raise ValueError(
            f"site runs from {sites.site.min()} to {sites.site.max()}, but there are {len(sites.site_names)} site names"
        )
    empty = np.bincount(sites.site, minlength=len(sites.site_names)) == 0
    if sites.only is not None:
        if sites.only not in sites.site_names or not np.all(sites.site == sites.site_names.index(sites.only)):
            raise ValueError(
                f"records of several sites, or of a site that is not named, where only those of {sites.only!r} were announced"
            )
    elif empty.any():
        names = ", ".join(sites.site_names[s] for s in np.flatnonzero(empty))
        raise ValueError(f"no record belongs to the site(s) {names}; drop their names")


def _check_labels(sites: Sites) -> None:
    if sites.label_bounds is not None:
        low, high = (float(np.float32(end)) for end in sites.label_bounds)
        outside = np.flatnonzero(~((sites.labels >= low) & (sites.labels <= high)))
        if not low < high or len(outside) or len(sites.class_names) != 1:
            seen = (
                f"row {outside[0]} has {sites.labels[outside[0]]}"
                if len(outside)
                else f"the names are {sites.class_names}"
            )
            raise ValueError(
                f"label_bounds are {low:g}..{high:g} and {seen}; expected one name, lower < upper, and every label within: clip labels when loading"
            )
        return
    top = len(sites.class_names) if sites.labels.ndim == 1 else 2
    if sites.labels.min() < 0 or sites.labels.max() >= top:
        row = int(
            np.flatnonzero((sites.labels < 0) | (sites.labels >= top))[0] // (sites.labels.size // len(sites.labels))
        )
        raise ValueError(
            f"row {row} has the label {sites.labels[row]}; "
            f"declared classes are {', '.join(sites.class_names)} (0..{top - 1})"
        )


def _check_split(sites: Sites) -> None:
    split = np.intersect1d(sites.group[sites.train], sites.group[~sites.train])
    if len(split):
        rows = np.flatnonzero(sites.group == split[0])
        raise ValueError(
            f"{len(split)} group(s) are in training and test at once, first: group {split[0]} in rows "
            f"{rows[:6].tolist()}; a patient's records must stay on one side of the split"
        )
    if not sites.train.any():
        raise ValueError("no record is in the training split; lower test_fraction or bring more records")
    if sites.unit == "patient":
        check_sites_per_patient(sites.group, sites.site, sites.sites_per_unit, sites.provenance.name)
