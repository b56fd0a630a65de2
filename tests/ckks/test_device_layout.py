"""Layouts of the encryption on a device: every plan gives the same bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.ckks import device_layout, encryption, modular, ntt, packing, rlwe_samplers
from tests.ckks.core import seeded_stream, tiny
from tests.ckks.test_encryption import MODES, keys_of


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES)
def test_every_plan_jit_vmap_and_scan_give_the_same_bits(mode):
    params = tiny(mode=mode, fields=1)
    secret, public = keys_of(params)
    key = public if mode == "public_key" else secret
    counts = jnp.asarray(np.random.default_rng(1).integers(-999, 1000, size=(3, 300)), jnp.int32)  # five rows
    base = rlwe_samplers.fold_in(seeded_stream(), "plans")
    streams = jax.vmap(lambda i: rlwe_samplers.fold_in(base, i))(jnp.arange(3, dtype=jnp.uint32))
    expected = np.stack(
        [
            np.asarray(encryption.encrypt(params, key, counts[i], rlwe_samplers.fold_in(base, jnp.uint32(i))).data)
            for i in range(3)
        ]
    )
    for plan in (
        device_layout.ACCELERATOR_PLAN,
        device_layout.DeviceLayout(columns=False, radix=2, row_block=2),
        device_layout.DeviceLayout(row_block=2, limb_loops=True, join=True),
        device_layout.DeviceLayout(row_block=1, limb_loops=True, whole=1 << 20),
    ):
        found = jax.vmap(lambda c, s, plan=plan: encryption.encrypt(params, key, c, s, plan=plan))(counts, streams)
        assert np.array_equal(np.asarray(found.data), expected), plan
    scanned = jax.lax.scan(lambda _, xs: (0, encryption.encrypt(params, key, *xs)), 0, (counts, streams))[1]
    assert np.array_equal(np.asarray(scanned.data), expected)
    opened = jax.vmap(lambda c: encryption.decrypt(params, secret, c, 300))(scanned)
    assert np.array_equal(np.asarray(opened), np.asarray(counts))
    assert np.array_equal(np.asarray(encryption.decrypt(params, secret, scanned, 300)), np.asarray(counts))


PLANS = [
    device_layout.CPU_SEEDED_PLAN,
    device_layout.ACCELERATOR_PLAN,
    device_layout.DeviceLayout(columns=False, radix=2),
    device_layout.DeviceLayout(row_block=2, limb_loops=True, join=True),
]


@pytest.mark.parametrize("plan", [None, *PLANS])
def test_a_plan_transforms_the_polynomials_and_adds_the_message_to_one(plan):
    """Five rows in a small ring: blocks that do not divide them, and both ends of the errors, against one transform after the other."""
    params = tiny(degree=64, fields=1)
    rng = np.random.default_rng(0)
    counts = jnp.asarray(rng.integers(-999, 1000, 5 * params.values_per_row), jnp.int32)
    small = rng.integers(-42, 43, (3, 64, 5)).astype(np.int32)
    small[:, 0], small[:, 1] = -42, 42
    words = packing.pack_words(params, counts)
    made = jax.jit(lambda w, s: device_layout.transformed(params, plan, w, s, carrier=1))(words, jnp.asarray(small))
    q = modular.constants(params.moduli).q
    for which, found in enumerate(made):
        residues = modular.from_signed(jnp.moveaxis(jnp.asarray(small[which]), -1, 0)[:, None], q)
        if which == 1:
            residues = modular.add(residues, packing.encode(params, counts), q)
        np.testing.assert_array_equal(found, ntt.forward(residues, params.moduli))
