"""Images that are already arrays, in memory or in a user's `.npz` file, as `Sites`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from fedjax_poisson.data.placement import Placement, place_records
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules


def from_image_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: Sequence[str],
    name: str,
    source: str,
    site: Sequence[str] | np.ndarray | None = None,
    patient: Sequence[str] | np.ndarray | None = None,
    train: np.ndarray | None = None,
    sites_per_patient: int = 1,
    min_site_records: int = 20,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Sites:
    """Images that are already arrays, for example from your own `.npz` file.

    Args:
        images: uint8 (divided by 255) or float32 in 0..1, `[n, height, width]` or `[n, height, width, channels]`
            with 1 or 3 channels.
        labels: Integers `[n]`, 0..len(classes)-1.
        classes: Class names in label order.
        name: Short name of the data set.
        source: Where it is from.
        site: n names; one site called "all" if None.
        patient: n names; the patient is then the privacy unit, and the image is if None.
        train: bool `[n]`, an official split; made here by patient if None.
        sites_per_patient: The most sites that a patient may have records at; a patient at more is refused
            (`splitting.check_sites_per_patient` says what each costs).
        min_site_records: Sites with fewer pictures are merged into "other".
        test_fraction: Fraction of each site's patients held out, where no split is given.
        split_seed: Seed of that split.
        notes: What was done before.
        warnings: What a user must hear.

    Returns:
        Images float32 `[n, height, width, channels]`.

    Raises:
        ValueError: Shapes, types or ranges are not as described, or a patient is on both sides of the given split; the
            message names the source and the row.

    >>> pictures = np.zeros((40, 4, 4), np.uint8)
    >>> sites = from_image_arrays(pictures, np.arange(40) % 2, classes=("a", "b"), name="x", source="made up")
    >>> sites.features.shape, sites.site_names
    ((40, 4, 4, 1), ('all',))
    """
    pixels = _unit_pixels(images)
    labels = _checked_labels(labels, len(pixels), tuple(classes), source)
    _check_records(len(pixels), source, site=site, patient=patient, train=train)
    placement = place_records(
        labels,
        ["all"] * len(pixels) if site is None else site,
        patient,
        SplitRules(
            sites_per_patient=sites_per_patient,
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
        train=None if train is None else np.asarray(train, bool),
        source=source,
    )
    return image_sites(
        pixels, labels, placement, tuple(classes), Provenance(name=name, source=source, notes=tuple(notes)), warnings
    )


def from_image_npz(
    path: str | os.PathLike[str],
    *,
    images: str = "images",
    labels: str = "labels",
    classes: Sequence[str] | None = None,
    site: str | None = None,
    patient: str | None = None,
    only: Mapping[str, str] | None = None,
    sites_per_patient: int = 1,
    min_site_records: int = 20,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Sites:
    """Read images from an `.npz` file whose arrays have one entry per image.

    Args:
        path: The file.
        images: Key of the images, in the form that `from_image_arrays` takes.
        labels: Key of the labels: class names `[n]`, or integers `[n]` that number the file's array "classes" (or, where
            there is none, the argument).
        classes: Classes to use, in label order; images of other classes are left out. All classes of the file if None.
        site: Key of the array with the source of each image; a single site called "all" if None.
        patient: Key of the array with the patient of each image; the image is the privacy unit if None.
        only: Values that other arrays must have, such as `{"source": "nih"}`; other images are left out.
        sites_per_patient: The most sites that a patient may have records at; a patient at more is refused
            (`splitting.check_sites_per_patient` says what each costs).
        min_site_records: Sites with fewer pictures are merged into "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.

    Returns:
        Images float32 `[n, height, width, channels]` in 0..1.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, lacks a key, or its arrays do not fit together; the message names file, key and row.
    """
    file = pathlib.Path(os.fspath(path))
    wanted = [images, labels, *(key for key in (site, patient) if key is not None), *(only or {})]
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; a set of pictures is expected as an .npz with {', '.join(wanted)}"
        )
    arrays = read_npz(file)
    for key in wanted:
        if key not in arrays:
            raise ValueError(f"{file}: no array {key!r}; the file holds: {', '.join(sorted(arrays))}")
        if arrays[key].shape[:1] != arrays[images].shape[:1]:
            raise ValueError(f"{file}: {key} has shape {arrays[key].shape} for {len(arrays[images])} pictures")
    named = _class_names(file, arrays[labels], arrays.get("classes"), classes)
    kept = tuple(classes) if classes is not None else tuple(np.unique(named).tolist())
    if classes is None and "classes" in arrays:
        kept = tuple(str(name) for name in arrays["classes"])
    unknown = [name for name in kept if name not in named]
    if unknown and classes is not None:
        raise ValueError(f"{file}: no picture has the class {unknown[0]!r}; there are: {', '.join(np.unique(named))}")
    chosen = np.isin(named, kept)
    for key, value in (only or {}).items():
        chosen &= arrays[key].astype(str) == value
    if not chosen.any():
        raise ValueError(f"{file}: no picture is of {', '.join(kept)} with {dict(only or {})}")
    notes = [f"{int(chosen.sum())} of {len(chosen)} pictures taken: {', '.join(kept)}"]
    notes += [f"only pictures whose {key} is {value}" for key, value in (only or {}).items()]
    return from_image_arrays(
        arrays[images][chosen],
        np.array([kept.index(name) for name in named[chosen].tolist()], np.int32),
        classes=kept,
        name=file.stem,
        source=str(file),
        site=None if site is None else arrays[site][chosen],
        patient=None if patient is None else arrays[patient][chosen],
        sites_per_patient=sites_per_patient,
        min_site_records=min_site_records,
        test_fraction=test_fraction,
        split_seed=split_seed,
        notes=notes,
    )


def read_npz(file: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file, nothing of it executed.

    Raises:
        ValueError: It is truncated, damaged, not an `.npz`, or holds pickled objects.
    """
    try:
        stored = np.load(file, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("it holds one bare array")
        with stored:
            return {key: stored[key] for key in stored.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, KeyError) as error:
        raise ValueError(
            f"{file}: not a readable .npz of plain arrays ({error}); it may be truncated, download it again"
        ) from error


def image_sites(
    pixels: np.ndarray,
    labels: np.ndarray,
    placement: Placement,
    classes: tuple[str, ...],
    provenance: Provenance,
    warnings: Sequence[str],
) -> Sites:
    """Put pixels float32 `[n, height, width, channels]` in 0..1, labels and placement together, with what they imply for privacy."""
    notes = [*provenance.notes, *placement.notes]
    if placement.unit == "record":
        notes.append("no patients are known: a privacy claim holds for one image, not for one person")
    channels = pixels.shape[3]
    return Sites(
        features=pixels,
        labels=labels,
        site=placement.site,
        site_names=placement.site_names,
        train=placement.train,
        group=placement.group,
        unit=placement.unit,
        sites_per_unit=placement.sites_per_unit,
        feature_names=("gray",) if channels == 1 else ("red", "green", "blue"),
        feature_bounds=np.tile(np.array([[0, 1]], np.float32), (channels, 1)),
        binary=np.zeros(channels, bool),
        class_names=classes,
        provenance=dataclasses.replace(provenance, notes=tuple(notes)),
        warnings=(*warnings, *placement.warnings, *_sources_that_tell(labels, placement, classes)),
    )


def _checked_labels(labels: np.ndarray, n: int, classes: tuple[str, ...], source: str) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{source}: labels are {labels.dtype} of shape {labels.shape}; expected integers [{n}], one for each picture, "
            f"0..{len(classes) - 1} for {', '.join(classes)}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise ValueError(
            f"{source}: row {wrong[0]} has the label {labels[wrong[0]]}; "
            f"declared classes are {', '.join(classes)} (0..{len(classes) - 1})"
        )
    return labels.astype(np.int32)


def _check_records(
    n: int,
    source: str,
    *,
    site: Sequence[str] | np.ndarray | None,
    patient: Sequence[str] | np.ndarray | None,
    train: np.ndarray | None,
) -> None:
    """One entry for each picture, and no patient on both sides of an official split."""
    for name, values in (("site", site), ("patient", patient), ("train", train)):
        if values is not None and np.shape(values) != (n,):
            raise ValueError(
                f"{source}: {name} has shape {np.shape(values)} for {n} pictures; one entry each is needed"
            )
    if patient is None or train is None:
        return
    people, fit = np.asarray(patient, str), np.asarray(train, bool)
    both = np.intersect1d(people[fit], people[~fit])
    if len(both):
        rows = [int(np.flatnonzero((people == both[0]) & (fit == side))[0]) for side in (True, False)]
        raise ValueError(
            f"{source}: patient {str(both[0])!r} is in training (row {rows[0]}) and test (row {rows[1]}) at once, as are "
            f"{len(both) - 1} others; a patient's pictures must stay on one side of the split"
        )


def _unit_pixels(images: np.ndarray) -> np.ndarray:
    """Pictures as float32 `[n, height, width, channels]` in 0..1."""
    images = np.asarray(images)
    if len(images) == 0:
        raise ValueError("there is no picture to learn from")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise ValueError(f"images have shape {images.shape}; expected [n, height, width] or [n, height, width, 1 or 3]")
    if images.dtype == np.uint8:
        pixels = images.astype(np.float32)
        pixels /= np.float32(255)
    elif images.dtype == np.float32 and images.size and 0 <= images.min() and images.max() <= 1:
        pixels = images
    else:
        raise ValueError(f"images are {images.dtype} outside uint8 and float32 in 0..1; scale them first")
    return pixels if pixels.ndim == 4 else pixels[..., None]


def _class_names(
    file: pathlib.Path, labels: np.ndarray, stored: np.ndarray | None, given: Sequence[str] | None
) -> np.ndarray:
    """The class of each picture by name."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind == "U":
        return labels
    names = stored if stored is not None else np.array(given) if given is not None else None
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or names is None:
        raise ValueError(
            f"{file}: labels are {labels.dtype} of shape {labels.shape}; expected class names, or integers [n] with their "
            "names in the file's array 'classes' or in the argument classes"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        raise ValueError(
            f"{file}: row {wrong[0]} has the label {labels[wrong[0]]}; declared classes are {', '.join(map(str, names))} "
            f"(0..{len(names) - 1})"
        )
    return names.astype(str)[labels]


def _sources_that_tell(labels: np.ndarray, placement: Placement, classes: tuple[str, ...]) -> list[str]:
    """A warning where knowing the site nearly gives the class: then a model may learn sites instead of findings."""
    if labels.ndim != 1 or len(placement.site_names) < 2:
        return []
    table = np.zeros((len(placement.site_names), len(classes)), np.int64)
    np.add.at(table, (placement.site, labels), 1)
    by_site, overall = table.max(axis=1).sum() / len(labels), table.sum(axis=0).max() / len(labels)
    if by_site - overall < 0.2:
        return []
    return [
        f"the site alone gives the class of {by_site:.0%} of the pictures (the largest class has {overall:.0%}), so a model "
        "may recognise sites instead of findings: report the score of data.border_only beside the model's"
    ]
