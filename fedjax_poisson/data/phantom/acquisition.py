"""From tissue to picture: attenuation by Beer and Lambert, photons that are counted, a logarithm, and a display curve.

    fluence = photons * ((1 - h) exp(-m50 . t) + h exp(-m80 . t) + scatter),   counts ~ Poisson(fluence)

with t the centimetres of water and bone along a ray and m the attenuation of each at 50 and 80 keV (NIST XCOM tables:
water 0.2269 and 0.1837 per cm, cortical bone of 1.92 g/cm3 0.8145 and 0.4280 per cm). Two energies are the least that
shows beam hardening: the share h of hard photons decides how much ribs stand out from flesh.

The photon noise here is physics of a detector. It is NOT a privacy mechanism: its variance follows the signal, nobody
bounds what one person changes, it is drawn from an ordinary reproducible generator, and no epsilon follows from it.

The counts are drawn on the host by NumPy's `Generator.poisson` (in float64; above rate 10 the transformed rejection of
W. Hormann, Insurance: Mathematics and Economics 12, 1993): a Poisson sampler in float32 is wrong at large rates, and the
package's exact samplers are tables of one public rate shared by all draws while here every pixel has its own. It costs
30 ns a pixel on one core and runs outside Python's lock, which leaves the phantom several times faster than it must be.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_WATER, _BONE = (0.2269, 0.1837), (0.8145, 0.4280)  # per cm, at 50 and 80 keV
_WIDEST_BLUR = 0.03


Value = float | jax.Array


class Scanner(NamedTuple):
    """How a site takes pictures; for one picture, its jittered copy. Floats or float32 scalars.

    Attributes:
        photons: Photons that would reach one pixel's share of a 64 x 64 picture through air.
        hardness: Share of photons at 80 keV, the others having 50 keV.
        scatter: Scattered photons over those that come straight through the trunk.
        blur: Standard deviation of the detector's blur, picture widths being 2.
        level: Log attenuation that is shown mid gray, over that of the trunk.
        contrast: Slope of the display curve at mid gray, per unit of log attenuation.
        gamma: Exponent of the display, above 1 darker.
        field_x: Half width of the collimated field.
        field_y: Half height of the collimated field.
    """

    photons: Value
    hardness: Value
    scatter: Value
    blur: Value
    level: Value
    contrast: Value
    gamma: Value
    field_x: Value
    field_y: Value


SCANNERS = {
    "A digital": Scanner(60000.0, 0.75, 0.20, 0.008, 0.62, 1.20, 1.00, 1.10, 1.10),
    "B film": Scanner(15000.0, 0.35, 0.45, 0.018, 0.66, 1.70, 1.10, 1.10, 1.10),
    "C portable": Scanner(6000.0, 0.45, 0.90, 0.022, 0.62, 1.15, 0.90, 1.10, 1.10),
    "D computed": Scanner(20000.0, 0.55, 0.30, 0.014, 0.66, 1.40, 0.75, 0.97, 1.10),
    "E low dose": Scanner(3000.0, 0.60, 0.35, 0.012, 0.62, 1.20, 1.15, 1.10, 1.10),
    "F collimated": Scanner(30000.0, 0.65, 0.25, 0.010, 0.58, 1.55, 1.30, 0.90, 0.96),
}
# Half widths of the jitter from picture to picture, as fractions of the value.
_JITTER = Scanner(0.30, 0.06, 0.25, 0.15, 0.05, 0.10, 0.08, 0.02, 0.02)


def jitter(scanner: Scanner, key: jax.Array) -> Scanner:
    """One picture's settings: each value of the site changed by an independent uniform factor."""
    factor = jax.random.uniform(key, (len(scanner),), jnp.float32, minval=-1.0, maxval=1.0)
    return Scanner(
        *(value * (1.0 + width * factor[k]) for k, (value, width) in enumerate(zip(scanner, _JITTER, strict=True)))
    )


def fluence(scanner: Scanner, water: jax.Array, bone: jax.Array, trunk: jax.Array) -> jax.Array:
    """Expected photons of every pixel, float32 of the shape of `water`.

    The tube's output follows a chart of the patient's thickness, never the picture: an exposure that measured the
    picture would carry the disease into every pixel.

    Args:
        scanner: The picture's settings.
        water: float32 `[size, size]`, cm of water.
        bone: float32 `[size, size]`, cm of bone.
        trunk: float32 scalar, the depth in cm that the chart is read at.
    """
    size = water.shape[-1]
    soft, hard = (jnp.exp(-(w * water + b * bone)) for w, b in zip(_WATER, _BONE, strict=True))
    through = (1.0 - scanner.hardness) * soft + scanner.hardness * hard
    veil = scanner.scatter * _open(scanner, trunk)
    return scanner.photons * (64.0 / size) ** 2 * _chart(trunk) * (through + veil)


def count_photons(expected: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Photons that were counted: float32 of the shape of `expected`, exact integers below 2^24."""
    return generator.poisson(expected).astype(np.float32)


def develop(scanner: Scanner, counts: jax.Array, trunk: jax.Array) -> jax.Array:
    """The picture that is looked at, float32 `[size, size]` in 0..1, dense tissue bright.

    Args:
        scanner: The picture's settings.
        counts: float32 `[size, size]`.
        trunk: float32 scalar as for `fluence`.
    """
    size = counts.shape[-1]
    air = scanner.photons * (64.0 / size) ** 2 * _chart(trunk)
    attenuation = jnp.log(air) - jnp.log(_blur(counts, scanner.blur) + 0.5)
    dense = -jnp.log(_open(scanner, trunk) * (1.0 + scanner.scatter))
    shown = jax.nn.sigmoid(scanner.contrast * (attenuation - scanner.level * dense))
    shown = jnp.exp(scanner.gamma * jnp.log(shown + 1e-4))
    axis = jnp.abs(jnp.asarray((2 * np.arange(size) + 1) / size - 1, jnp.float32))
    inside = jnp.clip((scanner.field_x - axis) * size / 2 + 0.5, 0.0, 1.0)[None, :]
    inside *= jnp.clip((scanner.field_y - axis) * size / 2 + 0.5, 0.0, 1.0)[:, None]
    return jnp.clip(shown * inside, 0.0, 1.0)


def _open(scanner: Scanner, trunk: jax.Array) -> jax.Array:
    """Share of photons that pass the trunk's full depth."""
    soft, hard = (jnp.exp(-w * trunk) for w in _WATER)
    return (1.0 - scanner.hardness) * soft + scanner.hardness * hard


def _chart(trunk: jax.Array) -> jax.Array:
    """The technique chart: the output doubles with every 4 cm above 20."""
    return jnp.exp2((trunk - 20.0) / 4.0)


def _blur(image: jax.Array, width: jax.Array | float) -> jax.Array:
    """Separable Gaussian with edges repeated; as many taps as the widest blur of any site needs at this size."""
    size = image.shape[-1]
    reach = int(np.ceil(1.25 * _WIDEST_BLUR * size))
    offsets = np.arange(-reach, reach + 1, dtype=np.float32)
    sigma = width * size / 2
    taps = jnp.exp(-0.5 * jnp.square(offsets / sigma))
    taps = taps / taps.sum()
    for axis in (0, 1):
        edges = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        wide = jnp.pad(image, edges, mode="edge")
        image = jnp.zeros_like(image)
        for k in range(2 * reach + 1):
            image += taps[k] * jax.lax.slice_in_dim(wide, k, k + size, axis=axis)
    return image
