"""Decoding one image: PNG, JPEG and DICOM to a square float32 array in 0..1.

Pillow and pydicom are imported only when a file needs them, so that users of tables need neither.
Only the pixels of a DICOM file are used; its header, which names the patient, is neither kept nor passed on.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".dcm"})


def decode_image(path: pathlib.Path, size: int, channels: int) -> np.ndarray:
    """Read an image, scale its full range to 0..1, and resize it to a square (the aspect ratio is not kept).

    Args:
        path: A .png, .jpg, .jpeg or .dcm file.
        size: Side of the result in pixels.
        channels: 1 for gray, 3 for RGB.

    Returns:
        float32 `[size, size, channels]` in 0..1.

    Raises:
        ValueError: The file does not decode; the message names it.
        ModuleNotFoundError: Pillow, or pydicom for a .dcm file, is not installed.
    """
    picture = _dicom(path) if path.suffix.lower() == ".dcm" else _bitmap(path, channels)
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], channels, axis=2)
    elif channels == 1:
        # Luma of ITU-R BT.601, as in Pillow's conversion to gray.
        picture = picture @ np.array([[0.299], [0.587], [0.114]], np.float32)
    planes = [_resize(picture[..., c], size) for c in range(channels)]
    return np.clip(np.stack(planes, axis=-1), 0, 1).astype(np.float32)


def _bitmap(path: pathlib.Path, channels: int) -> np.ndarray:
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            image.load()
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):
                return np.asarray(image).astype(np.float32) / np.float32(65535)
            return np.asarray(image.convert("L" if channels == 1 else "RGB")).astype(np.float32) / np.float32(255)
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise ValueError(f"{path}: does not decode as an image ({error}); remove or replace the file") from error


def _dicom(path: pathlib.Path) -> np.ndarray:
    try:
        import pydicom  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path}: reading DICOM needs pydicom; pip install pydicom") from error
    try:
        file = pydicom.dcmread(path)
        pixels = file.pixel_array.astype(np.float32)
        bits, signed = int(file.BitsStored), int(getattr(file, "PixelRepresentation", 0))
        slope, intercept = float(getattr(file, "RescaleSlope", 1)), float(getattr(file, "RescaleIntercept", 0))
        inverted = str(file.PhotometricInterpretation) == "MONOCHROME1"
    except Exception as error:  # pydicom's decoders raise many kinds; all mean that this file cannot be used.
        raise ValueError(f"{path}: does not decode as DICOM ({error}); remove or replace the file") from error
    if pixels.ndim != 2:
        raise ValueError(f"{path}: pixels of shape {pixels.shape}; expected one gray frame")
    lowest = -(2.0 ** (bits - 1)) if signed else 0.0
    ends = np.sort(np.array([lowest, lowest + 2.0**bits - 1]) * slope + intercept)
    # The range comes from the stored depth, never from this picture's own extremes: one scale for all.
    scaled = (pixels * np.float32(slope) + np.float32(intercept) - np.float32(ends[0])) / np.float32(ends[1] - ends[0])
    return 1 - scaled if inverted else scaled


def _resize(plane: np.ndarray, size: int) -> np.ndarray:
    if plane.shape == (size, size):
        return plane
    image_module = _pillow()
    image: Image.Image = image_module.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((size, size), image_module.Resampling.BILINEAR))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("reading PNG and JPEG needs Pillow; pip install pillow") from error
    return Image
