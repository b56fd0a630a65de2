"""A geometric chest in front view: how many centimetres of soft tissue and of bone lie behind every pixel.

The chest is a body full of water with one air cavity; heart, great vessels and diaphragm displace air, ribs, spine,
clavicles, scapulae and humeri add bone, pulmonary vessels and lesions put water back into the air. All shapes are
closed forms of the pixel's coordinates (ellipsoids seen in projection, tubes, domes), so a picture is one fused
elementwise program and a batch is `vmap`.

Coordinates: x runs over -1..1 to the right of the picture (the patient's left), y over -1..1 downwards; one unit is
20 centimetres. A float32 quantity in centimetres is called a depth.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.data.phantom.patient import Anatomy, Pose

_LUNG_DENSITY = 0.28  # of inflated lung against water


def grid(pose: Pose, size: int) -> tuple[jax.Array, jax.Array]:
    """Body coordinates of the pixel centres: two float32 `[size, size]` (x, y), rows downwards."""
    axis = jnp.asarray((2 * np.arange(size) + 1) / size - 1, jnp.float32)
    u, v = axis[None, :] - pose.shift_x, axis[:, None] - pose.shift_y
    return (u + pose.turn * v) / pose.zoom, (v - pose.turn * u) / pose.zoom


class Chest(NamedTuple):
    """What lies behind every pixel: float32 `[size, size]`.

    Attributes:
        flesh: cm of water-like tissue without the lungs' own.
        bone: cm of bone.
        air: cm of inflated lung.
        rim: 0 in the middle of the rib cage, 1 at its wall.
    """

    flesh: jax.Array
    bone: jax.Array
    air: jax.Array
    rim: jax.Array


def chest(patient: Anatomy, pose: Pose, x: jax.Array, y: jax.Array, pixel: float) -> Chest:
    """Depths of tissue, bone and lung along the ray of every pixel.

    Args:
        patient: Who.
        pose: How.
        x: float32 `[size, size]`, body coordinates from `grid`.
        y: The same, downwards.
        pixel: Width of a pixel in units; edges are never sharper.

    Returns:
        The four maps.
    """
    out = jnp.abs(x)
    right = jnp.where(x > 0, jnp.float32(1), jnp.float32(0))
    body = _body(patient, out, y)
    across = out / patient.chest_width
    rim = _cage(patient, across, y)
    dome = patient.diaphragm + pose.inspiration + patient.diaphragm_tilt * right
    dome = dome + patient.diaphragm_curve * _square(out - 0.36)
    above = smooth_step((dome - y) / (0.012 + pixel))
    recess = smooth_step((dome + 0.14 - y) / 0.08)
    cavity = patient.lung_depth * _root(1.0 - rim) * (0.88 * above + 0.12 * recess)
    inner = _heart(patient, pose, x, y) + _vessels_of_the_middle(patient, x, y)
    air = jnp.maximum(jnp.minimum(cavity, 0.8 * body) - inner, 0.0)
    markings = _pulmonary_vessels(patient, x, y, out, right)
    air = jnp.maximum(air - jnp.minimum(markings, 0.6 * air), 0.0)
    windpipe = 1.6 * _root(1.0 - _square((x - 0.01) / patient.trachea)) * smooth_step((-0.24 - y) / 0.03)
    gas = jnp.maximum(patient.gas, 0.0) * _ellipsoid((x - 0.36) / 0.17, (y - dome - 0.13) / 0.09) * right
    breast = jnp.maximum(patient.breast, 0.0) * _ellipsoid((out - 0.40) / 0.34, (y - patient.breast_y) / 0.30)
    flesh = body + breast - air - jnp.minimum(windpipe + gas, 0.5 * body)
    return Chest(
        flesh, _bones(patient, x, y, out, across, rim, pixel) * smooth_step(body / 2.0), air, jnp.clip(rim, 0.0, 1.0)
    )


def depths(view: Chest, filled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Water and bone along each ray, with a fraction of the air filled by fluid.

    Args:
        view: The chest.
        filled: float32 `[size, size]` in 0..1.

    Returns:
        float32 `[size, size]` cm of water and cm of bone.
    """
    return view.flesh + view.air * (_LUNG_DENSITY + (1.0 - _LUNG_DENSITY) * filled), view.bone


def wave(t: jax.Array) -> jax.Array:
    """A smooth wave of period 1 in -1..1: the sine's parabolic approximation, without a transcendental function."""
    f = t - jnp.floor(t + 0.5)
    return f * (8.0 - 16.0 * jnp.abs(f))


def smooth_step(t: jax.Array) -> jax.Array:
    """0 below -1, 1 above 1, a cubic between."""
    s = jnp.clip(0.5 * t + 0.5, 0.0, 1.0)
    return s * s * (3.0 - 2.0 * s)


def _square(t: jax.Array) -> jax.Array:
    return t * t


def _root(t: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(t, 0.0))


def _ellipsoid(u: jax.Array, v: jax.Array) -> jax.Array:
    """Depth of a ball of depth 1, seen from the front."""
    return _root(1.0 - u * u - v * v)


def _body(patient: Anatomy, out: jax.Array, y: jax.Array) -> jax.Array:
    slope = 0.30 + patient.shoulder_slope * jnp.maximum(y - patient.shoulder_height, 0.0)
    trunk = patient.body_width + 0.30 * _square(jnp.clip((0.1 - y) / 0.9, 0.0, 1.0)) + 0.04 * jnp.maximum(y, 0.0)
    half = jnp.minimum(slope, trunk)
    part = _square(out / half)
    depth = patient.body_depth * (0.55 + 0.45 * smooth_step((y + 0.70) / 0.35)) * (1.0 + 0.10 * jnp.maximum(y, 0.0))
    return depth * _root(1.0 - part * (0.25 + 0.75 * part))


def _cage(patient: Anatomy, across: jax.Array, y: jax.Array) -> jax.Array:
    """The rib cage's superellipse: below 1 inside, 1 at its wall."""
    up = (y - 0.40) / jnp.where(y < 0.40, patient.chest_apex, jnp.float32(0.36))
    side, high = _square(across), _square(up)
    return side * (0.45 + 0.55 * side) + high * (0.40 + 0.60 * high)


def _heart(patient: Anatomy, pose: Pose, x: jax.Array, y: jax.Array) -> jax.Array:
    low = patient.diaphragm + pose.inspiration - 0.10
    u, v = x - patient.heart_x, y - low
    along, over = u + patient.heart_slant * v, v - patient.heart_slant * u
    scale = jax.lax.rsqrt(1.0 + _square(patient.heart_slant))
    left = _ellipsoid(along * scale / patient.heart_length, over * scale / patient.heart_width)
    right = _ellipsoid((x + 0.03) / 0.145, (y - low + 0.05) / 0.27)
    return 13.0 * jnp.maximum(left, 0.85 * right)


def _vessels_of_the_middle(patient: Anatomy, x: jax.Array, y: jax.Array) -> jax.Array:
    knob = patient.aortic_knob * jnp.maximum(1.0 - _square((y + 0.22) / 0.16), 0.0)
    half = patient.mediastinum + 0.06 * _square(jnp.clip((y + 0.15) / 0.4, 0.0, 1.0)) + knob
    centre = 0.02 + 0.9 * knob
    return (10.0 + 4.0 * smooth_step((y + 0.4) / 0.3)) * _root(1.0 - _square((x - centre) / half))


def _pulmonary_vessels(patient: Anatomy, x: jax.Array, y: jax.Array, out: jax.Array, right: jax.Array) -> jax.Array:
    """Branches that leave each hilum, divide and thin out: waves of the angle whose number doubles with distance."""
    u, v = out - 0.20, y + 0.02 + 0.05 * right
    distance = jnp.sqrt(u * u + v * v) + 0.02
    # The angle's monotone stand-in (a diamond instead of a circle): -1..1 from up to down on the lateral side.
    angle = v / (jnp.abs(u) + jnp.abs(v) + 0.02) + jnp.where(u < 0, jnp.float32(0.5), jnp.float32(0.0))
    turns = angle + patient.vessel_phase + 0.37 * right + patient.vessel_bend * distance
    wobble = 0.10 * wave(3.1 * distance + patient.wave_x) + 0.05 * wave(7.3 * distance + patient.wave_y + 0.3 * right)
    trunk = jnp.maximum(wave(2.5 * (turns + wobble)) - 0.55, 0.0)
    branch = jnp.maximum(wave(5.5 * (turns - wobble) + 0.3) - 0.45, 0.0)
    twig = jnp.maximum(wave(11.0 * (turns + 0.7 * wobble) + 0.1) - 0.2, 0.0)
    near = 1.0 / (1.0 + _square(distance / 0.22))
    hilum = _square(1.0 / (1.0 + _square(distance / 0.11)))
    tree = near * (0.9 * trunk + 0.7 * branch) + (1.0 - near) * near * 0.9 * twig
    return patient.vessel_depth * (hilum + 1.1 * tree)


def _bones(
    patient: Anatomy, x: jax.Array, y: jax.Array, out: jax.Array, across: jax.Array, rim: jax.Array, pixel: float
) -> jax.Array:
    spine = (x - patient.spine_curve * y * (1.0 - y)) / 0.085
    discs = 0.80 + 0.20 * wave(y / patient.vertebra + patient.rib_phase)
    bone = 1.5 * _root(1.0 - _square(spine)) * discs
    bone += patient.rib_bone * _ribs(patient, y, across, rim)
    inner = out - 0.07
    rise = patient.clavicle_rise + jnp.where(x > 0, -patient.clavicle_skew, patient.clavicle_skew)
    line = patient.clavicle - rise * inner / 0.6 - 0.06 * wave(0.8 * inner)
    bone += (
        1.0
        * _root(1.0 - _square((y - line) / (0.032 + 0.3 * pixel)))
        * smooth_step(inner / 0.03)
        * smooth_step((0.62 - inner) / 0.05)
    )
    blade = (
        smooth_step((out - 0.70 - 0.16 * (y + 0.35)) / 0.05)
        * smooth_step((0.05 - y) / 0.12)
        * smooth_step((y + 0.62) / 0.08)
    )
    bone += patient.scapula * blade * smooth_step((0.98 - out) / 0.10)
    return bone + 1.8 * _ellipsoid((out - 1.00) / 0.15, (y + 0.52) / 0.15)


def _ribs(patient: Anatomy, y: jax.Array, across: jax.Array, rim: jax.Array) -> jax.Array:
    """Twelve arcs behind and, fainter, their front halves, each brightest where the ray runs along the rib."""
    side = _square(across)
    fall = patient.rib_drop * side * (0.6 + 0.4 * side * side)
    phase = (y - fall) / patient.rib_gap + patient.rib_phase
    behind = _tube(phase, 0.19)
    front = _tube((y + 0.62 * across - 0.25 * side) / (1.1 * patient.rib_gap) + 1.7 * patient.rib_phase, 0.17)
    front *= smooth_step((across - 0.42) / 0.10) * 0.55
    tangent = 1.0 / (0.45 + _root(1.0 - rim))
    seen = smooth_step((1.04 - rim) / 0.08) * smooth_step((y + 0.78) / 0.10) * smooth_step((0.58 - y) / 0.14)
    return (behind + front) * tangent * seen


def _tube(phase: jax.Array, half: float) -> jax.Array:
    """A row of tubes, one for each whole number of the phase, of the given half width; walls denser than marrow."""
    part = _square((phase - jnp.floor(phase + 0.5)) / half)
    return _root(1.0 - part) * (0.6 + 0.6 * part)
