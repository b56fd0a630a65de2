"""Who is in the picture and how they stand: the parameters of the phantom's geometry and the ranges they are drawn from.

Proportions were chosen by eye from general anatomy. They model no person and no population.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Anatomy(NamedTuple):
    """One patient: float32 scalars, lengths in units of 20 cm, depths in cm.

    Attributes:
        body_width: Half width of the trunk.
        body_depth: Front-to-back depth of the trunk.
        shoulder_slope: How steeply the shoulders fall from the neck.
        shoulder_height: y at which the slope leaves the neck.
        chest_width: Half width of the rib cage.
        chest_apex: Height of the rib cage above its widest level.
        lung_depth: Depth of air in the middle of the lungs.
        diaphragm: y of the right dome.
        diaphragm_tilt: How much lower the left dome is.
        diaphragm_curve: Curvature of the domes.
        heart_x: Centre of the heart.
        heart_length: Long half axis of the heart.
        heart_width: Short half axis of the heart.
        heart_slant: Tangent of the long axis' slope.
        mediastinum: Half width of the great vessels.
        aortic_knob: How far the aortic arch stands out.
        trachea: Half width of the windpipe.
        spine_curve: Sideways bow of the spine.
        vertebra: Height of a vertebra.
        rib_gap: Distance between ribs.
        rib_phase: Where the ribs begin, in gaps.
        rib_drop: How far a rib falls from the spine to the flank.
        rib_bone: Depth of bone in a rib.
        clavicle: y of the inner end of the clavicles.
        clavicle_rise: How far the outer ends stand higher.
        clavicle_skew: How much higher the right one is than the left.
        breast: Depth of breast tissue; none if negative.
        breast_y: y of its centre.
        gas: Depth of the stomach's gas; none if negative.
        vessel_depth: Depth of the pulmonary vessels at the hilum.
        vessel_phase: Rotation of the vessel trees, in turns.
        vessel_bend: Their curvature.
        scapula: Depth of bone of the shoulder blades.
        wave_x: Phase of the large vessels' windings, in turns.
        wave_y: Phase of the small ones'.
    """

    body_width: jax.Array
    body_depth: jax.Array
    shoulder_slope: jax.Array
    shoulder_height: jax.Array
    chest_width: jax.Array
    chest_apex: jax.Array
    lung_depth: jax.Array
    diaphragm: jax.Array
    diaphragm_tilt: jax.Array
    diaphragm_curve: jax.Array
    heart_x: jax.Array
    heart_length: jax.Array
    heart_width: jax.Array
    heart_slant: jax.Array
    mediastinum: jax.Array
    aortic_knob: jax.Array
    trachea: jax.Array
    spine_curve: jax.Array
    vertebra: jax.Array
    rib_gap: jax.Array
    rib_phase: jax.Array
    rib_drop: jax.Array
    rib_bone: jax.Array
    clavicle: jax.Array
    clavicle_rise: jax.Array
    clavicle_skew: jax.Array
    breast: jax.Array
    breast_y: jax.Array
    gas: jax.Array
    vessel_depth: jax.Array
    vessel_phase: jax.Array
    vessel_bend: jax.Array
    scapula: jax.Array
    wave_x: jax.Array
    wave_y: jax.Array


class Pose(NamedTuple):
    """How the patient stands in one picture: float32 scalars.

    Attributes:
        shift_x: Sideways shift.
        shift_y: Downward shift.
        turn: Tangent of the angle in the picture plane.
        zoom: Magnification.
        inspiration: How far the diaphragm is down.
    """

    shift_x: jax.Array
    shift_y: jax.Array
    turn: jax.Array
    zoom: jax.Array
    inspiration: jax.Array


_ANATOMY = {
    "body_width": (0.80, 1.00),
    "body_depth": (17.0, 25.0),
    "shoulder_slope": (2.2, 3.6),
    "shoulder_height": (-1.02, -0.88),
    "chest_width": (0.64, 0.75),
    "chest_apex": (1.04, 1.20),
    "lung_depth": (12.0, 17.0),
    "diaphragm": (0.28, 0.48),
    "diaphragm_tilt": (0.00, 0.09),
    "diaphragm_curve": (0.9, 1.8),
    "heart_x": (0.07, 0.16),
    "heart_length": (0.31, 0.43),
    "heart_width": (0.22, 0.30),
    "heart_slant": (0.3, 0.8),
    "mediastinum": (0.12, 0.17),
    "aortic_knob": (0.02, 0.06),
    "trachea": (0.030, 0.042),
    "spine_curve": (-0.05, 0.05),
    "vertebra": (0.115, 0.14),
    "rib_gap": (0.155, 0.19),
    "rib_phase": (0.0, 1.0),
    "rib_drop": (0.16, 0.34),
    "rib_bone": (0.45, 0.85),
    "clavicle": (-0.60, -0.46),
    "clavicle_rise": (0.02, 0.16),
    "clavicle_skew": (-0.04, 0.04),
    "breast": (-3.5, 4.0),
    "breast_y": (0.22, 0.42),
    "gas": (-5.0, 6.0),
    "vessel_depth": (3.0, 5.5),
    "vessel_phase": (0.0, 1.0),
    "vessel_bend": (-0.35, 0.35),
    "scapula": (0.15, 0.45),
    "wave_x": (0.0, 1.0),
    "wave_y": (0.0, 1.0),
}
_POSE = {
    "shift_x": (-0.05, 0.05),
    "shift_y": (-0.05, 0.06),
    "turn": (-0.05, 0.05),
    "zoom": (0.94, 1.08),
    "inspiration": (-0.08, 0.06),
}


def draw_anatomy(key: jax.Array) -> Anatomy:
    """A patient: independent uniform draws from fixed ranges; nothing here knows of labels or sites."""
    return Anatomy(**uniform(key, _ANATOMY))


def draw_pose(key: jax.Array) -> Pose:
    """A stance: independent uniform draws from fixed ranges."""
    return Pose(**uniform(key, _POSE))


def uniform(key: jax.Array, ranges: Mapping[str, tuple[float, float]]) -> dict[str, jax.Array]:
    """Independent uniform draws, one float32 scalar for each named range, from one call of the generator."""
    low, high = np.array(list(ranges.values()), np.float32).T
    drawn = low + (high - low) * jax.random.uniform(key, (len(low),), jnp.float32)
    return dict(zip(ranges, drawn, strict=True))
