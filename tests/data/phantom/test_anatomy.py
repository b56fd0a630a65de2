"""Anatomy: depths that are possible, two lungs beside a dense middle, patients that differ."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.data.phantom import anatomy, patient

SIZE = 32


@pytest.fixture(scope="module")
def chests():
    def one(key):
        who, how = jax.random.split(key)
        body, pose = patient.draw_anatomy(who), patient.draw_pose(how)
        x, y = anatomy.grid(pose, SIZE)
        view = anatomy.chest(body, pose, x, y, 2 / SIZE)
        return view, anatomy.depths(view, jnp.zeros_like(x)), anatomy.depths(view, jnp.ones_like(x))

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 200)))


def test_depths_are_possible_and_a_full_lung_is_water(chests):
    view, (water, bone), (full, _) = chests
    for depth in (water, bone, view.air):
        assert np.isfinite(depth).all() and depth.min() > -1e-4
    assert water.max() < 40 and 1 < bone.max() < 8
    np.testing.assert_allclose(full - water, (1 - 0.28) * view.air, atol=1e-4)


def test_there_are_two_lungs_beside_a_dense_middle(chests):
    view, (water, _), _ = chests
    row = slice(SIZE * 3 // 8, SIZE // 2)
    left, middle, right = (
        water[:, row, columns].mean(axis=(1, 2))
        for columns in (
            slice(SIZE // 4, SIZE * 3 // 8),
            slice(SIZE // 2 - 1, SIZE // 2 + 1),
            slice(SIZE * 5 // 8, SIZE * 3 // 4),
        )
    )
    assert (middle > left + 3).all() and (middle > right + 3).all()
    # Patients differ: lungs in size, bodies in depth.
    size = (view.air > 2).mean(axis=(1, 2))
    assert 0.1 < size.min() and size.max() < 0.5 and size.std() > 0.01 and middle.std() > 1


def test_the_wave_is_smooth_periodic_and_within_one():
    t = np.linspace(-2, 2, 401, dtype=np.float32)
    wave = jax.jit(anatomy.wave)
    found = np.asarray(wave(t))
    np.testing.assert_allclose(found, np.sin(2 * np.pi * np.asarray(t)), atol=0.061)
    np.testing.assert_allclose(np.asarray(wave(t + 1)), found, atol=1e-5)
