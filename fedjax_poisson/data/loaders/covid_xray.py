"""Three public COVID-19 chest X-ray collections, read from the folders that their publishers distribute.

The classes of these collections come from different hospitals and machines, so a network can tell them apart without
looking at a lung: the border of four pixels alone reaches an AUC of 0.95 on such a set. Every loader here warns about this in
`Sites.warnings`; `border_only` builds the control data set whose score should accompany a model's.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from fedjax_poisson.data.images.records import Entry, assemble, patient_of, pictures, require_folder
from fedjax_poisson.data.sites import Sites
from fedjax_poisson.data.splitting import SplitRules

_CONFOUNDED = (
    "the classes come from different sources, which a classifier can recognise by borders and exposure alone: "
    "report the score of data.border_only beside the model's, and make no diagnostic claim"
)
_RADIOGRAPHY_CLASSES = ("Normal", "Lung_Opacity", "Viral Pneumonia", "COVID")
_QU_EX_CLASSES = ("Normal", "Non-COVID", "COVID-19")


def from_covid_radiography(
    root: str | os.PathLike[str],
    *,
    size: int = 64,
    classes: Sequence[str] = _RADIOGRAPHY_CLASSES,
    test_fraction: float = 0.2,
    split_seed: int = 0,
) -> Sites:
    """Read the COVID-19 Radiography Database: `{COVID,Lung_Opacity,Normal,Viral Pneumonia}[/images]/*.png`.

    Args:
        root: The folder COVID-19_Radiography_Dataset, of the current release or of the older one without images/.
        size: Side in pixels.
        classes: Which classes to take, in label order.
        test_fraction: Fraction held out; the database has no official split and no patients.
        split_seed: Seed of that split.

    Returns:
        Gray images at one site called "all".

    Raises:
        FileNotFoundError: The folder or one of the class folders is not there.
        ValueError: A picture does not decode.
    """
    folder = pathlib.Path(os.fspath(root))
    title = "COVID-19 Radiography Database"
    require_folder(
        folder, title, "COVID-19_Radiography_Dataset/{COVID,Lung_Opacity,Normal,Viral Pneumonia}/images/*.png"
    )
    entries = []
    for label in classes:
        class_folder = folder / label
        require_folder(class_folder, title, f"{label}/images/*.png")
        deeper = class_folder / "images"
        for path in pictures(deeper if deeper.is_dir() else class_folder, deep=False):
            entries.append(Entry(path, label, "all", patient_of(path, None), None, str(path)))
    return assemble(
        entries,
        name="covid_radiography",
        classes=tuple(classes),
        source=f"{title}, {folder}",
        unit_is_patient=False,
        size=size,
        rules=SplitRules(test_fraction=test_fraction, split_seed=split_seed),
        warnings=(_CONFOUNDED,),
    )


def from_covid_qu_ex(root: str | os.PathLike[str], *, size: int = 64, classes: Sequence[str] = _QU_EX_CLASSES) -> Sites:
    """Read COVID-QU-Ex with its official split, validation joined to training.

    The layout is `.../{Train,Val,Test}/{COVID-19,Non-COVID,Normal}/images/*.png`; mask folders are not read.

    Args:
        root: A folder above exactly one set of Train, Val and Test, for example "Lung Segmentation Data".
        size: Side in pixels.
        classes: Which classes to take, in label order.

    Returns:
        Gray images at one site called "all" with the official split.

    Raises:
        FileNotFoundError: The folder, or Train, Val or Test in it, is not there.
        ValueError: A picture does not decode, or there are several sets below the folder.
    """
    folder = pathlib.Path(os.fspath(root))
    title = "COVID-QU-Ex"
    require_folder(folder, title, "Lung Segmentation Data/Lung Segmentation Data/{Train,Val,Test}/<class>/images/*.png")
    entries = []
    for split in ("Train", "Val", "Test"):
        found = sorted(path for path in [folder / split, *folder.rglob(split)] if path.is_dir())
        if len(set(found)) != 1:
            fact = "no folder" if not found else f"{len(set(found))} folders"
            error = ValueError if found else FileNotFoundError
            raise error(
                f"{folder}: {fact} called {split} below it; give the folder above one set of Train, Val and Test"
            )
        for label in classes:
            require_folder(found[0] / label / "images", title, f"{split}/{label}/images/*.png")
            for path in pictures(found[0] / label / "images", deep=False):
                entries.append(Entry(path, label, "all", patient_of(path, None), split != "Test", str(path)))
    return assemble(
        entries,
        name="covid_qu_ex",
        classes=tuple(classes),
        source=f"{title}, {folder}",
        unit_is_patient=False,
        size=size,
        rules=SplitRules(),
        warnings=(_CONFOUNDED,),
    )


def from_covidx(
    root: str | os.PathLike[str],
    *,
    train_list: str = "train.txt",
    test_list: str = "test.txt",
    classes: Sequence[str] = ("negative", "positive"),
    size: int = 64,
    sites_per_patient: int = 1,
    min_site_records: int = 20,
) -> Sites:
    """Read COVIDx with its official split; the source of an image is its site.

    The layout is train/ and test/ with a list each, of lines `patient_id filename class source`.

    Args:
        root: The folder that holds train/, test/ and the two lists.
        train_list: Name of the training list.
        test_list: Name of the test list.
        classes: Class names in label order: `("negative", "positive")` for the B versions, `("normal", "pneumonia",
            "COVID-19")` for the A versions.
        size: Side in pixels.
        sites_per_patient: The most sites that a patient may have records at; a patient at more is refused
            (`splitting.check_sites_per_patient` says what each costs).
        min_site_records: Sources with fewer images are merged into "other".

    Returns:
        Gray images with the official split, the patient being the privacy unit.

    Raises:
        FileNotFoundError: The folder, a list or a listed image is missing.
        ValueError: A line is malformed, a class is not declared, a patient is in both lists, or a picture does not
            decode.
    """
    folder = pathlib.Path(os.fspath(root))
    require_folder(folder, "COVIDx", "train/, test/, train.txt and test.txt")
    entries = []
    for split, list_name in (("train", train_list), ("test", test_list)):
        file = folder / list_name
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: no such file; COVIDx comes with a list of lines 'patient_id filename class source'"
            )
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{file}, line {number}"
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 4:
                raise ValueError(f"{where}: {len(fields)} fields; expected 'patient_id filename class source'")
            patient, name, label, source = fields
            path = folder / split / name
            if not path.is_file():
                raise FileNotFoundError(f"{where}: {path} does not exist")
            entries.append(Entry(path, label, source, patient, split == "train", where))
    return assemble(
        entries,
        name="covidx",
        classes=tuple(classes),
        source=f"COVIDx, {folder}",
        unit_is_patient=True,
        size=size,
        rules=SplitRules(sites_per_patient=sites_per_patient, min_site_records=min_site_records),
        warnings=(_CONFOUNDED,),
    )
