"""Scattering: a linear model on a fixed, public wavelet transform of an image. The transform is not learned, so it leaks nothing.

Mallat, Group Invariant Scattering, 2012; Bruna and Mallat, Invariant Scattering Convolution Networks, 2013. With little data and a privacy budget,
a linear model on such features beats networks that must learn theirs through the noise: Tramer and Boneh, Differentially Private Learning Needs
Better Features (or Much More Data), ICLR 2021 (not on all data: `experiments/chest_xrays.py`). The loss is convex. The gradient of a record,
(p - e_y) times features of norm 1 and a 1 for the bias, has norm at most 2 before any clip, sqrt 2 for one binary label.

A picture is convolved with Morlet wavelets of J scales (octaves) and L angles; moduli are taken; moduli of a fine scale are convolved with all
coarser wavelets and moduli taken again; the picture and all moduli are averaged by a Gaussian and kept at every 2**J-th pixel. These paths fall
into bands: the picture itself, one for each scale, one for each pair of scales. Each band of a record is centred and scaled to the same norm,
so that the features of a record have norm 1: exposure and contrast, which differ between devices, cancel.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .convolution import check_images
from .model import Model, on_fixed_features, recorded
from .tabular import linear

_CENTRE = 0.75 * math.pi  # radians per pixel, of the finest wavelet
_SPREAD = 0.8  # pixels, of the finest Gaussian envelope; both double from scale to scale
_TINY = 1e-12  # below every square, so that a modulus and a norm have a gradient at zero


@recorded
def scattering(classes: int, *, scales: int = 2, angles: int = 8, binary: bool = False) -> Model:
    """A linear model on scattering features; `Model.fixed` are the features, `Model.head` is the linear model.

    Args:
      classes: number of classes.
      scales: J; the sides of an image are divided by 2**J.
      angles: L.
      binary: one 0/1 label (classes = 2): logits are `[B]`.

    Returns:
      Model of images float32 `[B, H, W, C]`; parameters as those of `linear` for `feature_count` features, started at zero.

    Raises:
      ValueError: no scale or angle, or classes that do not fit `binary`; when used, images smaller than 2**J pixels.
    """
    if scales < 1 or angles < 1:
        raise ValueError(f"scales={scales}, angles={angles}; expected at least one scale and one angle.")
    return on_fixed_features(
        lambda x: scattering_features(x, scales=scales, angles=angles), linear(classes, binary=binary)
    )


def feature_count(height: int, width: int, channels: int = 1, *, scales: int = 2, angles: int = 8) -> int:
    """Features of an image: paths times positions times channels; 81 * 7 * 7 = 3,969 for 28 x 28 gray pixels."""
    paths = 1 + scales * angles + angles**2 * (scales * (scales - 1) // 2)
    return paths * -(-height // 2**scales) * -(-width // 2**scales) * channels


def scattering_features(x: Array, *, scales: int = 2, angles: int = 8) -> Array:
    """Scattering features of images, with every record of norm 1.

    Args:
      x: float32 `[B, H, W, C]`; each channel is transformed separately.
      scales: J.
      angles: L.

    Returns:
      float32 `[B, feature_count]`. A record without any structure in a band (a constant image) has zeros there.
    """
    check_images(x, 2**scales)
    batch, height, width, channels = x.shape
    step = 2**scales
    # Mirrored, so that a picture's edge is no structure; up to whole steps, so that what is kept lies evenly.
    margins = [(step, step + -side % step) for side in (height, width)]
    planes = jnp.pad(jnp.moveaxis(x.astype(jnp.float32), 3, 1), ((0, 0), (0, 0), *margins), mode="symmetric")
    planes = planes.reshape(batch * channels, *planes.shape[2:])
    rows, columns = planes.shape[1:]
    wavelets = jnp.asarray(morlet(rows, columns, scales, angles))
    down, across = (jnp.asarray(_averaging(side, scales)) for side in (rows, columns))

    def averaged(planes: Array) -> Array:
        return jnp.einsum("ir,...rc,jc->...ij", down, planes, across)

    def moduli(spectrum: Array, scale: int) -> Array:
        own, spectrum = jnp.expand_dims(wavelets[scale], range(spectrum.ndim - 2)), jnp.expand_dims(spectrum, -3)
        waves = jnp.fft.ifft2(jax.lax.complex(spectrum.real * own, spectrum.imag * own))
        return jnp.sqrt(waves.real**2 + waves.imag**2 + jnp.float32(_TINY))

    spectrum = jnp.fft.fft2(planes)
    bands = [averaged(planes)]
    for fine in range(scales):
        first = moduli(spectrum, fine)
        bands.append(averaged(first))
        again = jnp.fft.fft2(first)
        bands += [averaged(moduli(again, coarse)) for coarse in range(fine + 1, scales)]
    return jnp.concatenate([_unit(band.reshape(batch, -1)) for band in bands], axis=1) / jnp.float32(
        math.sqrt(len(bands))
    )


def morlet(rows: int, columns: int, scales: int, angles: int) -> np.ndarray:
    """Fourier transforms float32 `[scales, angles, rows, columns]` of Morlet wavelets, periodised, of mean zero.

    The envelope of scale j is a Gaussian of 0.8 * 2**j pixels along the wave and angles / 4 times that across it; the wave has 3 pi / 4 / 2**j
    radians a pixel (Bruna and Mallat 2013, section 2.1).
    """
    down, across = (2 * np.pi * np.fft.fftfreq(side) for side in (rows, columns))

    def envelope(centre: float, spread: float, angle: float) -> np.ndarray:
        total = np.zeros((rows, columns))
        for image in np.ndindex(3, 3):  # a Gaussian in frequency, summed over its periods
            y = down[:, None] + 2 * np.pi * (image[0] - 1) - centre * math.sin(angle)
            x = across[None, :] + 2 * np.pi * (image[1] - 1) - centre * math.cos(angle)
            along, aside = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
            total += np.exp(-0.5 * spread**2 * (along**2 + (aside * angles / 4) ** 2))
        return total

    found = np.empty((scales, angles, rows, columns), np.float32)
    for scale, number in np.ndindex(scales, angles):
        angle, spread = math.pi * number / angles, _SPREAD * 2**scale
        wave, flat = envelope(_CENTRE / 2**scale, spread, angle), envelope(0.0, spread, angle)
        found[scale, number] = wave - wave[0, 0] / flat[0, 0] * flat
    return found


def _averaging(side: int, scales: int) -> np.ndarray:
    """Matrix float32 `[kept, side]`: a Gaussian of 0.8 * 2**(J - 1) pixels around every 2**J-th pixel inside the margin."""
    step = 2**scales
    frequencies = 2 * np.pi * np.fft.fftfreq(side)
    spectrum = sum(
        np.exp(-0.5 * (_SPREAD * 2 ** (scales - 1) * (frequencies + 2 * np.pi * k)) ** 2) for k in (-1, 0, 1)
    )
    kernel = np.fft.ifft(spectrum / spectrum[0]).real
    # Cells of `step` pixels; their middle lies between two pixels, so both get half.
    middles = np.arange(step, side - step, step) + step // 2
    rows = np.stack([(np.roll(kernel, at) + np.roll(kernel, at - 1)) / 2 for at in middles])
    return rows.astype(np.float32)


def _unit(band: Array) -> Array:
    centred = band - jnp.mean(band, axis=1, keepdims=True)
    # A millionth of a picture's range: rounding errors of a constant band are not blown up to a signal.
    return centred / jnp.sqrt(jnp.sum(centred**2, axis=1, keepdims=True) + jnp.float32(1e-6))
