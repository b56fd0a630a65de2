"""Image folders as `Sites`: `root/[site/]class/*`, and the border-only control for any set of pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fedjax_poisson.data.images.arrays import image_sites
from fedjax_poisson.data.images.files import EXTENSIONS, decode_image
from fedjax_poisson.data.placement import place_records
from fedjax_poisson.data.sites import Provenance, Sites
from fedjax_poisson.data.splitting import SplitRules


class Entry(NamedTuple):
    """One image: its path, class, source, patient, and official side of the split."""

    path: pathlib.Path
    label: str
    site: str
    patient: str
    train: bool | None
    where: str


def from_image_folder(
    root: str | os.PathLike[str],
    *,
    size: int = 64,
    channels: int = 1,
    classes: Sequence[str] | None = None,
    patient: str | None = None,
    sites_per_patient: int = 1,
    min_site_records: int = 20,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Sites:
    """Read `root/class/*.png` (one site) or `root/site/class/*.png`, with .png, .jpg, .jpeg and .dcm files.

    Args:
        root: The folder.
        size: Side in pixels to which every image is resized.
        channels: 1 for gray, 3 for RGB.
        classes: Class names in label order; the sorted folder names if None.
        patient: Regular expression whose first group, found in the file name, is the patient, for example
            `"^([A-Z0-9]+)_"`. None makes the image the privacy unit; files of identical content then count as one
            record of one group.
        sites_per_patient: The most sites that a patient may have records at; a patient at more is refused
            (`splitting.check_sites_per_patient` says what each costs).
        min_site_records: Sites with fewer images are merged into "other".
        test_fraction: Fraction of each site's patients held out.
        split_seed: Seed of that split.

    Returns:
        Images float32 `[n, size, size, channels]` in 0..1.

    Raises:
        FileNotFoundError: The folder does not exist or contains no image in either layout.
        ValueError: An image does not decode, a class folder is not declared, or a file name has no patient.
    """
    folder = pathlib.Path(os.fspath(root))
    require_folder(folder, "a folder of images", "class/*.png or site/class/*.png")
    entries = []
    for path in pictures(folder):
        parts = path.relative_to(folder).parts
        if len(parts) not in (2, 3):
            raise ValueError(f"{path}: lies {len(parts)} levels below {folder}; expected class/file or site/class/file")
        site = parts[0] if len(parts) == 3 else "all"
        entries.append(Entry(path, parts[-2], site, patient_of(path, patient), None, str(path)))
    depths = {len(entry.path.relative_to(folder).parts) for entry in entries}
    if len(depths) > 1:
        raise ValueError(f"{folder}: holds both class/file and site/class/file pictures; use one layout")
    return assemble(
        entries,
        name=folder.name,
        classes=tuple(classes) if classes else tuple(sorted({entry.label for entry in entries})),
        source=str(folder),
        unit_is_patient=patient is not None,
        size=size,
        channels=channels,
        rules=SplitRules(
            sites_per_patient=sites_per_patient,
            min_site_records=min_site_records,
            test_fraction=test_fraction,
            split_seed=split_seed,
        ),
    )


def border_only(sites: Sites, width: int = 4) -> Sites:
    """Only the border of each image, as a table: the control that shows how much of a score does not come from anatomy.

    Args:
        sites: Images `[n, height, width, channels]`.
        width: Width of the border in pixels.

    Returns:
        The same records with features float32 `[n, border pixels]`.

    Raises:
        ValueError: The features are not images, or the border would be the whole image.
    """
    if sites.features.ndim != 4:
        raise ValueError(
            f"features have shape {sites.features.shape}; a border needs images [n, height, width, channels]"
        )
    height, across, _ = sites.features.shape[1:]
    if not 0 < 2 * width < min(height, across):
        raise ValueError(f"a border of {width} pixels leaves nothing of a picture of {height} x {across}")
    frame = np.ones((height, across), bool)
    frame[width:-width, width:-width] = False
    features = sites.features[:, frame].reshape(len(sites.features), -1)
    rows, columns = np.nonzero(frame)
    names = tuple(f"pixel {i},{j} {c}" for i, j in zip(rows, columns, strict=True) for c in sites.feature_names)
    note = f"only the border of {width} pixels kept, as a control"
    return dataclasses.replace(
        sites,
        features=features,
        feature_names=names,
        feature_bounds=np.tile(sites.feature_bounds, (int(frame.sum()), 1)),
        binary=np.zeros(features.shape[1], bool),
        provenance=dataclasses.replace(sites.provenance, notes=(*sites.provenance.notes, note)),
    )


def assemble(
    entries: Sequence[Entry],
    *,
    name: str,
    classes: tuple[str, ...],
    source: str,
    unit_is_patient: bool,
    size: int,
    channels: int = 1,
    rules: SplitRules,
    warnings: tuple[str, ...] = (),
) -> Sites:
    """Decode and split the images that were found (see `from_image_folder` for the arguments).

    Raises:
        FileNotFoundError: There is none.
        ValueError: A class is not declared, a patient is on both sides, or an image does not decode.
    """
    if not entries:
        raise FileNotFoundError(f"{source}: no picture found; expected files ending in {', '.join(sorted(EXTENSIONS))}")
    if size < 1 or channels not in (1, 3):
        raise ValueError(f"size is {size} and channels {channels}; expected a positive size and 1 or 3 channels")
    for entry in entries:
        if entry.label not in classes:
            raise ValueError(
                f"{entry.where}: the class {entry.label!r} is not among the declared ones: {', '.join(classes)}"
            )
    listed, entries = len(entries), _without_straddlers(entries, unit_is_patient)
    notes = [f"pictures resized to {size} x {size} (aspect ratio not kept), full range scaled to 0..1"]
    if len(entries) < listed:
        notes.append(f"{listed - len(entries)} test pictures that are copies of training pictures left out")
    official = entries[0].train is not None
    labels = np.array([classes.index(entry.label) for entry in entries], np.int32)
    placement = place_records(
        labels,
        [entry.site for entry in entries],
        [entry.patient for entry in entries],
        rules,
        train=np.array([bool(entry.train) for entry in entries]) if official else None,
        people_are_patients=unit_is_patient,
        source=source,
    )
    if not unit_is_patient:
        # The groups are copies of one file, not people: they share a side of the split and the image stays the unit.
        copies = len(placement.group) - len(np.unique(placement.group))
        if copies:
            notes.append(f"{copies} files repeat another file's content; copies stay on one side of the split")
    pixels = np.stack([decode_image(entry.path, size, channels) for entry in entries])
    return image_sites(
        pixels, labels, placement, classes, Provenance(name=name, source=source, notes=tuple(notes)), warnings
    )


def _without_straddlers(entries: Sequence[Entry], unit_is_patient: bool) -> list[Entry]:
    """Refuse a patient in both halves of an official split; leave out test pictures whose copy is in training."""
    training = {entry.patient: entry for entry in reversed(entries) if entry.train}
    kept = []
    for entry in entries:
        other = training.get(entry.patient)
        if entry.train is False and other is not None:
            if unit_is_patient:
                raise ValueError(
                    f"{entry.where}: patient {entry.patient!r} is in training and test at once; "
                    f"also at {other.where}. Remove one side"
                )
            continue
        kept.append(entry)
    return kept


def pictures(folder: pathlib.Path, deep: bool = True) -> list[pathlib.Path]:
    """All image files in a folder, and below it if `deep`, in the order of their names."""
    files = folder.rglob("*") if deep else folder.glob("*")
    return sorted(path for path in files if path.suffix.lower() in EXTENSIONS and path.is_file())


def patient_of(path: pathlib.Path, pattern: str | None) -> str:
    """The patient in a file's name, or a digest of the content where the name holds none.

    Raises:
        ValueError: The pattern finds nothing.
    """
    if pattern is None:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    match = re.search(pattern, path.name)
    if not match or not match.groups():
        raise ValueError(f"{path}: the patient pattern {pattern!r} finds no group in the file's name")
    return match.group(1)


def require_folder(folder: pathlib.Path, title: str, expected: str) -> None:
    """Refuse a folder that is not there, with the data set's title and the layout it should have."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; {title} is expected to hold {expected}")
