"""Disease as fluid in the air of the lung: one focal consolidation, or ground-glass patches at both lungs' rims.

A lesion is a fraction of the air along a ray that is replaced by water, so it can only show where there is lung, it is
covered by ribs and vessels, and it attenuates as tissue does. Severity, place, size and texture are drawn without
regard to patient or site; faint lesions are meant to be missed by eye and model alike.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_poisson.data.phantom.anatomy import Chest, smooth_step, wave
from fedjax_poisson.data.phantom.patient import uniform

CLASSES = ("normal", "focal consolidation", "bilateral ground-glass")


class Lesion(NamedTuple):
    """Where and how strong a disease would be: float32 scalars; lengths in half picture widths.

    Attributes:
        side: Below 0 the right lung (left in the picture), else the left one.
        out: Distance of the focus from the midline.
        y: Height of the focus.
        width: Half axis across.
        height: Half axis downwards.
        focal: Fraction of air filled in the focus.
        diffuse: Fraction of air filled in the patches.
        balance: How much stronger one lung is than the other.
        rim: Where the periphery begins, 0 in the middle of the cage and 1 at its wall.
        lower: y above which the patches fade.
        grain: Frequency of the texture.
        phase_x: Phase of the texture, in turns.
        phase_y: The same, downwards.
    """

    side: jax.Array
    out: jax.Array
    y: jax.Array
    width: jax.Array
    height: jax.Array
    focal: jax.Array
    diffuse: jax.Array
    balance: jax.Array
    rim: jax.Array
    lower: jax.Array
    grain: jax.Array
    phase_x: jax.Array
    phase_y: jax.Array


_RANGES = {
    "side": (-1.0, 1.0),
    "out": (0.26, 0.52),
    "y": (-0.38, 0.26),
    "width": (0.10, 0.22),
    "height": (0.10, 0.24),
    "focal": (0.16, 0.60),
    "diffuse": (0.20, 0.60),
    "balance": (-0.35, 0.35),
    "rim": (0.12, 0.36),
    "lower": (-0.35, 0.10),
    "grain": (2.2, 3.8),
    "phase_x": (0.0, 1.0),
    "phase_y": (0.0, 1.0),
}


def draw_lesion(key: jax.Array) -> Lesion:
    """A lesion: independent uniform draws from fixed ranges."""
    return Lesion(**uniform(key, _RANGES))


def filled(lesion: Lesion, label: jax.Array, strength: jax.Array, view: Chest, x: jax.Array, y: jax.Array) -> jax.Array:
    """Fraction of the air along each ray that is fluid.

    Args:
        lesion: Where and how strong.
        label: int32 scalar: 0 none, 1 focal, 2 bilateral (`CLASSES`).
        strength: float32 scalar that multiplies the severity: another day of the same patient.
        view: The chest.
        x: float32 `[size, size]`, body coordinates.
        y: The same, downwards.

    Returns:
        float32 `[size, size]` in 0..0.9.
    """
    texture = _texture(lesion, x, y)
    side = jnp.where(lesion.side < 0, jnp.float32(-1), jnp.float32(1))
    u, v = (side * x - lesion.out) / lesion.width, (y - lesion.y) / lesion.height
    focus = lesion.focal * smooth_step((0.8 - u * u - v * v + 0.5 * texture) / 0.6)
    rim = smooth_step((view.rim - lesion.rim - 0.18) / 0.22)
    low = 0.25 + 0.75 * smooth_step((y - lesion.lower) / 0.30)
    tilt = 1.0 + jnp.where(x < 0, -lesion.balance, lesion.balance)
    patches = lesion.diffuse * tilt * rim * low * smooth_step((texture + 0.25) / 0.7)
    shown = jnp.where(label == 1, focus, jnp.where(label == 2, patches, jnp.float32(0)))
    return jnp.clip(strength * shown, 0.0, 0.9)


def _texture(lesion: Lesion, x: jax.Array, y: jax.Array) -> jax.Array:
    """Cloudy unevenness in about -1..1: three waves in directions that share no period."""
    g = lesion.grain
    first = wave(g * (0.8 * x + 0.6 * y) + lesion.phase_x)
    second = wave(g * (0.5 * x - 1.0 * y) + lesion.phase_y + 0.15 * first)
    third = wave(1.9 * g * (x + 0.2 * y) - lesion.phase_y + 0.2 * second)
    return 0.42 * first + 0.36 * second + 0.22 * third
