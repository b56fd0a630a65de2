"""MedMNIST v2, the twelve 2D data sets: `.npz` files that a user downloaded.

Reference: J. Yang et al., MedMNIST v2: A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification,
Scientific Data 10, 41 (2023). Keys, shapes and types of a file are checked strictly; a checksum or a count that differs
from the published one is only a warning, so that subsets and rebuilt files load.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from fedjax_poisson.data.images.arrays import read_npz
from fedjax_poisson.data.sites import Provenance, Sites

_DOWNLOAD = "https://zenodo.org/records/10519652"
_CITATION = (
    "Yang, J., Shi, R., Wei, D., Liu, Z., Zhao, L., Ke, B., Pfister, H., & Ni, B. (2023). MedMNIST v2: A large-scale "
    "lightweight benchmark for 2D and 3D biomedical image classification. Scientific Data, 10, 41."
)
_SPLITS = ("train", "val", "test")
_SIDES = (28, 64, 128, 224)


class Flag(NamedTuple):
    """What is published about one data set.

    Attributes:
        title: Its name.
        classes: Class names in label order.
        channels: 1 (gray) or 3 (RGB).
        counts: Images in train, val and test.
        md5: Checksums of the files of 28 and 64 pixels, None where not known.
        licence: Licence of the images.
        multi_label: Whether an image has several findings at once.
    """

    title: str
    classes: tuple[str, ...]
    channels: int
    counts: tuple[int, int, int]
    md5: tuple[str, str | None]
    licence: str = "CC BY 4.0"
    multi_label: bool = False


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

FLAGS: Mapping[str, Flag] = MappingProxyType(
    {
        "pathmnist": Flag(
            "PathMNIST",
            (
                "adipose",
                "background",
                "debris",
                "lymphocytes",
                "mucus",
                "smooth muscle",
                "normal colon mucosa",
                "cancer-associated stroma",
                "colorectal adenocarcinoma epithelium",
            ),
            3,
            (89996, 10004, 7180),
            ("a8b06965200029087d5bd730944a56c1", "55aa9c1e0525abe5a6b9d8343a507616"),
        ),
        "chestmnist": Flag(
            "ChestMNIST",
            (
                "atelectasis",
                "cardiomegaly",
                "effusion",
                "infiltration",
                "mass",
                "nodule",
                "pneumonia",
                "pneumothorax",
                "consolidation",
                "edema",
                "emphysema",
                "fibrosis",
                "pleural",
                "hernia",
            ),
            1,
            (78468, 11219, 22433),
            ("02c8a6516a18b556561a56cbdd36c4a8", "9de6cd0b934ebb5b7426cfba5efbae16"),
            multi_label=True,
        ),
        "dermamnist": Flag(
            "DermaMNIST",
            (
                "actinic keratoses and intraepithelial carcinoma",
                "basal cell carcinoma",
                "benign keratosis-like lesions",
                "dermatofibroma",
                "melanoma",
                "melanocytic nevi",
                "vascular lesions",
            ),
            3,
            (7007, 1003, 2005),
            ("0744692d530f8e62ec473284d019b0c7", "b70a2f5635c6199aeaa28c31d7202e1f"),
            licence="CC BY-NC 4.0",
        ),
        "octmnist": Flag(
            "OCTMNIST",
            ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
            1,
            (97477, 10832, 1000),
            ("c68d92d5b585d8d81f7112f81e2d0842", "e229e9440236b774d9f0dfef9d07bdaf"),
        ),
        "pneumoniamnist": Flag(
            "PneumoniaMNIST",
            ("normal", "pneumonia"),
            1,
            (4708, 524, 624),
            ("28209eda62fecd6e6a2d98b1501bb15f", "8f4eceb4ccffa70c672198ea285246c6"),
        ),
        "retinamnist": Flag(
            "RetinaMNIST",
            ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"),
            3,
            (1080, 120, 400),
            ("bd4c0672f1bba3e3a89f0e4e876791e4", "afda852cc34dcda56f86ad2b2457dbcc"),
        ),
        "breastmnist": Flag(
            "BreastMNIST",
            ("malignant", "normal or benign"),
            1,
            (546, 78, 156),
            ("750601b1f35ba3300ea97c75c52ff8f6", "742edef2a1fd1524b2efff4bd7ba9364"),
        ),
        "bloodmnist": Flag(
            "BloodMNIST",
            (
                "basophil",
                "eosinophil",
                "erythroblast",
                "immature granulocyte",
                "lymphocyte",
                "monocyte",
                "neutrophil",
                "platelet",
            ),
            3,
            (11959, 1712, 3421),
            ("7053d0359d879ad8a5505303e11de1dc", "2b94928a2ae4916078ca51e05b6b800b"),
        ),
        "tissuemnist": Flag(
            "TissueMNIST",
            (
                "collecting duct, connecting tubule",
                "distal convoluted tubule",
                "glomerular endothelial cells",
                "interstitial endothelial cells",
                "leukocytes",
                "podocytes",
                "proximal tubule segments",
                "thick ascending limb",
            ),
            1,
            (165466, 23640, 47280),
            ("ebe78ee8b05294063de985d821c1c34b", "123ece2eba09d0aa5d698fda57103344"),
        ),
        "organamnist": Flag(
            "OrganAMNIST", _ORGANS, 1, (34561, 6491, 17778), ("68e3f8846a6bd62f0c9bf841c0d9eacc", None)
        ),
        "organcmnist": Flag("OrganCMNIST", _ORGANS, 1, (12975, 2392, 8216), ("b9ceb9546e10131b32923c5bbeaea2b1", None)),
        "organsmnist": Flag("OrganSMNIST", _ORGANS, 1, (13932, 2452, 8827), ("9ab87b696fb54e2a387ebe992d6ed5f1", None)),
    }
)


def from_medmnist(
    path: str | os.PathLike[str], *, flag: str | None = None, validation: Literal["train", "test", "drop"] = "train"
) -> Sites:
    """Read a MedMNIST file with its official split.

    The files name no site: cut some with `dirichlet` or `quantity_skew`.

    Args:
        path: The `.npz` file.
        flag: Which data set it is, for example "pneumoniamnist"; read from the file's name if None.
        validation: Where the official validation images go: with the training ones, with the test ones, or nowhere.

    Returns:
        Images float32 `[n, side, side, channels]` in 0..1 at one site called "all", the image being the privacy
        unit; labels int32 `[n]`, or `[n, 14]` for ChestMNIST.

    Raises:
        FileNotFoundError: There is no such file; the message says where to get it.
        ValueError: The flag is unknown, or the file is truncated or has wrong keys, shapes, types or labels.
    """
    file = pathlib.Path(os.fspath(path))
    name = flag or _flag_of(file)
    if name not in FLAGS:
        raise ValueError(f"no 2D MedMNIST data set is called {name!r}; there are: {', '.join(FLAGS)}")
    info = FLAGS[name]
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file. {info.title} of MedMNIST v2 is at {_DOWNLOAD}; put {name}.npz (28 pixels) or "
            f"{name}_64.npz there, or give the path of yours"
        )
    arrays = read_npz(file)
    side = _check(file, arrays, info)
    warnings = _compare_with_published(file, arrays, name, info, side)
    used = [split for split in _SPLITS if split != "val" or validation != "drop"]
    counts = [len(arrays[f"{split}_images"]) for split in used]
    # Pixel arithmetic in place: the larger sets are gigabytes as float32.
    features = np.concatenate([arrays[f"{split}_images"] for split in used]).astype(np.float32)
    features /= np.float32(255)
    labels = np.concatenate([arrays[f"{split}_labels"] for split in used]).astype(np.int32)
    in_train = {"train": True, "val": validation == "train", "test": False}
    n = len(labels)
    notes = [
        f"official split; validation images: {validation if validation == 'drop' else 'to ' + validation}",
        "pixels divided by 255",
        "the file does not name patients: a privacy claim holds for one image, not for one person",
    ]
    return Sites(
        features=features.reshape(n, side, side, info.channels),
        labels=labels if info.multi_label else labels[:, 0],
        site=np.zeros(n, np.int32),
        site_names=("all",),
        train=np.repeat([in_train[split] for split in used], counts),
        group=np.arange(n, dtype=np.int64),
        unit="record",
        feature_names=("gray",) if info.channels == 1 else ("red", "green", "blue"),
        feature_bounds=np.tile(np.array([[0, 1]], np.float32), (info.channels, 1)),
        binary=np.zeros(info.channels, bool),
        class_names=info.classes,
        provenance=Provenance(
            name=name, source=f"{info.title}, {file}", licence=info.licence, citation=_CITATION, notes=tuple(notes)
        ),
        warnings=tuple(warnings),
    )


def _flag_of(file: pathlib.Path) -> str:
    match = re.match(r"[a-z]+mnist(3d)?", file.name.lower())
    if not match:
        raise ValueError(
            f"{file}: the file's name does not begin with a data set's; name it so (or give flag= in Python), one of {', '.join(FLAGS)}"
        )
    if match.group(1):
        raise ValueError(
            f"{file}: {match.group()} is three-dimensional; only the 2D data sets are read: {', '.join(FLAGS)}"
        )
    return match.group()


def _check(file: pathlib.Path, arrays: Mapping[str, np.ndarray], info: Flag) -> int:
    """Strictly: keys, types, shapes and labels. Returns the side of the images."""
    expected = {f"{split}_{kind}" for split in _SPLITS for kind in ("images", "labels")}
    if set(arrays) != expected:
        missing, extra = sorted(expected - set(arrays)), sorted(set(arrays) - expected)
        raise ValueError(f"{file}: wrong keys for MedMNIST: missing {missing or 'none'}, unexpected {extra or 'none'}")
    sides = set()
    width = len(info.classes) if info.multi_label else 1
    for split in _SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        tail = () if info.channels == 1 else (3,)
        if images.dtype != np.uint8 or images.ndim != 3 + len(tail) or images.shape[3:] != tail:
            raise ValueError(
                f"{file}: {split}_images is {images.dtype} {list(images.shape)}; {info.title} has uint8 "
                f"[n, side, side{', 3' if tail else ''}]"
            )
        if len(images) == 0 and split != "val":
            raise ValueError(f"{file}: {split}_images is empty; download the file again")
        sides.add(images.shape[1:3])
        if labels.shape != (len(images), width) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{file}: {split}_labels is {labels.dtype} {list(labels.shape)}; "
                f"expected integers [{len(images)}, {width}]"
            )
        top = 2 if info.multi_label else len(info.classes)
        wrong = np.flatnonzero(((labels < 0) | (labels >= top)).any(axis=1))
        if len(wrong):
            raise ValueError(
                f"{file}: {split}_labels row {wrong[0]} is {labels[wrong[0]].tolist()}; "
                f"{info.title} has labels 0..{top - 1}"
            )
    if len(sides) != 1 or len(set(next(iter(sides)))) != 1 or next(iter(sides))[0] not in _SIDES:
        raise ValueError(f"{file}: images are {sorted(sides)} pixels; expected squares of one size, one of {_SIDES}")
    return next(iter(sides))[0]


def _compare_with_published(
    file: pathlib.Path, arrays: Mapping[str, np.ndarray], name: str, info: Flag, side: int
) -> list[str]:
    known = dict(zip((28, 64), info.md5, strict=True)).get(side)
    if known is None:
        return []
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "md5").hexdigest()
    if found == known:
        return []
    counts = tuple(len(arrays[f"{split}_images"]) for split in _SPLITS)
    same = "the counts are the published ones" if counts == info.counts else f"counts {counts}, published {info.counts}"
    return [f"the checksum of {file.name} is {found}, not the published {known} of {name} at {side} pixels ({same})"]
