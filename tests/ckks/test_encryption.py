from __future__ import annotations

import copy
import functools
import json
import pickle
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson.ckks import encryption, modular, ntt, packing, rlwe_samplers
from fedjax_poisson.ckks.encryption import Ciphertext, PublicKey, SecretKey
from fedjax_poisson.ckks.parameters import MARGIN, choose_parameters, sum_bound
from tests.ckks.core import combine_crt, negacyclic, random_residues, seeded_stream, tiny

MODES = ("public_key", "seeded")


def keys_of(params, label=0):
    return encryption.generate_keys(params, rlwe_samplers.fold_in(seeded_stream(), "keys", label))


def encrypt(params, mode, secret, public, counts, *labels) -> Ciphertext:
    key = public if mode == "public_key" else secret
    return encryption.encrypt(params, key, counts, rlwe_samplers.fold_in(seeded_stream(), "send", *labels))


def test_keys_are_what_they_should_be():
    params = tiny(degree=128, bits=30, limbs=2)
    secret, public = keys_of(params)
    coefficients = np.asarray(
        modular.centre(ntt.inverse(secret.data, params.moduli), modular.constants(params.moduli).q)
    )
    assert set(np.unique(coefficients)) <= {-1, 0, 1} and np.array_equal(coefficients[0], coefficients[1])
    s = [int(v) for v in coefficients[0]]
    for limb, q in enumerate(params.moduli):
        pk0, pk1 = ([int(v) for v in np.asarray(ntt.inverse(public.data[i], params.moduli))[limb]] for i in range(2))
        error = [(a + b) % q for a, b in zip(pk0, negacyclic(pk1, s, q), strict=True)]
        error = [e - q if e > q // 2 else e for e in error]
        assert 0 < max(map(abs, error)) <= 21
    other, _ = keys_of(params, 1)
    assert not np.array_equal(np.asarray(other.data), np.asarray(secret.data))


@pytest.mark.parametrize("mode", MODES)
def test_a_ciphertext_is_the_equation_of_the_docstring(mode):
    """c0 + c1 s = message + small noise in big integers, with the ring product by definition."""
    params = tiny(degree=32, bits=29, limbs=2, fields=1, width=12, mode=mode)
    secret, public = keys_of(params)
    counts = jnp.asarray(np.random.default_rng(0).integers(-2000, 2000, size=32), jnp.int32)
    ciphertext = encryption.expand(params, encrypt(params, mode, secret, public, counts))
    data = np.asarray(ntt.inverse(ciphertext.data, params.moduli))[0]
    s = [
        int(v)
        for v in np.asarray(
            modular.centre(ntt.inverse(secret.data, params.moduli), modular.constants(params.moduli).q)
        )[0]
    ]
    message = np.asarray(packing.encode(params, counts))[0]
    difference = np.zeros((2, 32), np.uint32)
    for limb, q in enumerate(params.moduli):
        product = negacyclic([int(v) for v in data[1, limb]], s, q)
        difference[limb] = [
            (int(a) + b - int(m)) % q for a, b, m in zip(data[0, limb], product, message[limb], strict=True)
        ]
    noise = combine_crt(difference, params.moduli)
    assert 0 < max(map(abs, noise)) <= (21 if mode == "seeded" else 21 * (1 + 2 * 32))
    assert ciphertext.data.dtype == jnp.uint32
    assert (np.asarray(ciphertext.data) < np.asarray(params.moduli)[:, None]).all()


@pytest.mark.as_shipped
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [1, pytest.param(63, marks=pytest.mark.long), 64, 65, 500])
def test_round_trip_of_every_length(mode, size):
    params = tiny(mode=mode)
    secret, public = keys_of(params)
    counts = jnp.asarray(np.random.default_rng(size).integers(-500_000, 500_000, size=size), jnp.int32)
    ciphertext = encrypt(params, mode, secret, public, counts)
    assert ciphertext.data.shape == (params.rows(size), 2 if mode == "public_key" else 1, params.limbs, params.degree)
    opened, distance = encryption.decrypt_with_margin(params, secret, ciphertext, size)
    assert opened.dtype == jnp.int32
    assert np.array_equal(np.asarray(opened), np.asarray(counts))
    assert float(distance) < MARGIN


@pytest.mark.as_shipped
@settings(max_examples=12)
@given(st.integers(0, 2**31), st.integers(2, 6), st.sampled_from(MODES))
def test_sums_open_to_sums_at_the_ends_of_the_range(seed, senders, mode):
    params = tiny(mode=mode)
    secret, public = keys_of(params)
    rng = np.random.default_rng(seed)
    top = params.count_bound // senders
    counts = rng.choice(np.asarray([-top, -top + 1, -1, 0, 1, top - 1, top]), size=(senders, 150))
    counts[:, :3] = [top, -top, 0]
    total = encryption.zero(params, 150)
    for i in rng.permutation(senders):
        total = encryption.add(
            params, total, encrypt(params, mode, secret, public, jnp.asarray(counts[i], jnp.int32), int(i))
        )
    opened, distance = encryption.decrypt_with_margin(params, secret, total, 150)
    assert np.array_equal(np.asarray(opened), counts.sum(axis=0))
    assert float(distance) < MARGIN
    assert int(total.senders) == senders


@pytest.mark.as_shipped
@pytest.mark.parametrize(("mode", "senders"), [("public_key", 2), ("seeded", 100)])
def test_exact_sums_at_real_parameters(mode, senders):
    params = choose_parameters(count_bound=sum_bound(8, senders), senders=senders, mode=mode, values=700)
    secret, public = keys_of(params)
    key = public if mode == "public_key" else secret
    counts = jnp.asarray(np.random.default_rng(0).integers(-128, 128, size=(senders, 700)), jnp.int32)
    counts = counts.at[:, 0].set(-128).at[:, 1].set(127)
    stream = rlwe_samplers.fold_in(seeded_stream(), "round")

    def body(total, xs):
        fresh = encryption.encrypt(params, key, xs[0], rlwe_samplers.fold_in(stream, xs[1]))
        return encryption.add(params, total, fresh), None

    labels = jnp.arange(senders, dtype=jnp.uint32)
    total, _ = jax.jit(lambda c: jax.lax.scan(body, encryption.zero(params, 700), (c, labels)))(counts)
    opened, distance = encryption.decrypt_with_margin(params, secret, total, 700)
    assert np.array_equal(np.asarray(opened), np.asarray(counts).sum(axis=0))
    assert float(distance) < MARGIN
    assert int(total.senders) == senders


@functools.partial(jax.jit, static_argnums=0)
def encrypted_sum(params, key, counts, streams):
    """The sum of the ciphertexts of counts [K, D], each under its own stream, for one transform instead of K."""

    def body(carry, xs):
        return (carry[0] + xs[0], carry[1] + encryption.draw_masks(params, counts.shape[1], xs[1])), None

    rows = params.rows(counts.shape[1])
    start = (jnp.zeros(counts.shape[1], jnp.int32), jnp.zeros((3, params.degree, rows), jnp.int32))
    (total, masks), _ = jax.lax.scan(body, start, (counts, streams))
    return encryption.encrypt_with_masks(params, key, total, masks, senders=jnp.uint32(counts.shape[0]))


@pytest.mark.as_shipped
@pytest.mark.long  # half a minute; seeded ones below
def test_up_to_ten_thousand_senders_are_exact_on_a_real_ring():
    """N = 4096 and three primes, chosen for 10,000 senders of 8 bits: 1, 2, 100 and 10,000 of them, at the ends of the range in most coordinates."""
    senders, size, part = 10_000, 8000, 100
    params = choose_parameters(count_bound=sum_bound(8, senders), senders=senders, values=size)
    assert (params.degree, params.security_bits, params.guideline) == (4096, 128, "2024")
    secret, public = keys_of(params)
    base = rlwe_samplers.fold_in(seeded_stream(), "ten thousand")
    counts = np.random.default_rng(0).integers(-128, 128, size=(part, size))
    counts[:, :3000], counts[:, 3000:6000] = -128, 127

    @jax.jit
    def first(chosen, label):
        stream = rlwe_samplers.fold_in(base, label)
        return encryption.encrypt(params, public, chosen, stream)

    @jax.jit
    def hundred(total, chosen, label):
        labels = label * jnp.uint32(part) + jnp.arange(part, dtype=jnp.uint32)
        streams = jax.vmap(lambda i: rlwe_samplers.fold_in(base, i))(labels)
        return encryption.add(params, total, encrypted_sum(params, public, chosen, streams))

    @jax.jit
    def opened(key, total):
        return encryption.decrypt_with_margin(params, key, total, size)

    def check(total, expected, n):
        found, distance = opened(secret, total)
        assert np.array_equal(np.asarray(found), expected) and float(distance) < MARGIN and int(total.senders) == n

    rows = jnp.asarray(counts, jnp.int32)
    one = first(rows[0], jnp.uint32(1))
    check(one, counts[0], 1)
    check(encryption.add(params, one, first(rows[1], jnp.uint32(2))), counts[:2].sum(axis=0), 2)
    total = encryption.zero(params, size)
    for i in range(senders // part):
        total = hundred(total, rows, jnp.uint32(i))
        if i == 0:
            check(total, counts.sum(axis=0), part)
    expected = (senders // part) * counts.sum(axis=0)
    assert expected[0] == -1_280_000 == -params.count_bound and expected[3000] == 1_270_000
    check(total, expected, senders)
    other, _ = keys_of(params, "other")
    assert float(opened(other, total)[1]) > MARGIN  # the twin: another key opens nothing


@pytest.mark.as_shipped
def test_ten_thousand_seeded_senders_are_exact():
    """Every sender encrypts, the sum is a carry: memory does not grow with the senders. The extremes -128 and 127 are sent by all."""
    senders, size = 10_000, 40
    chosen = choose_parameters(count_bound=sum_bound(8, senders), senders=senders, mode="seeded")
    params = tiny(
        degree=32,
        bits=29,
        limbs=2,
        fields=1,
        width=chosen.field_bits,
        senders=senders,
        mode="seeded",
        count_bound=chosen.count_bound,
    )
    secret, _ = keys_of(params)
    stream = rlwe_samplers.fold_in(seeded_stream(), "round")

    def body(carry, label):
        total, plain = carry
        own = rlwe_samplers.fold_in(stream, label)
        counts = jax.lax.bitcast_convert_type(
            rlwe_samplers.bits(rlwe_samplers.fold_in(own, "counts"), size) & jnp.uint32(255), jnp.int32
        )
        counts = (counts - jnp.int32(128)).at[0].set(-128).at[1].set(127)
        fresh = encryption.encrypt(params, secret, counts, rlwe_samplers.fold_in(own, "encryption"))
        return (encryption.add(params, total, fresh), plain + counts), None

    start = (encryption.zero(params, size), jnp.zeros(size, jnp.int32))
    (total, plain), _ = jax.jit(lambda: jax.lax.scan(body, start, jnp.arange(senders, dtype=jnp.uint32)))()
    opened, distance = encryption.decrypt_with_margin(params, secret, total, size)
    assert np.array_equal(np.asarray(opened), np.asarray(plain))
    assert int(plain[0]) == -1_280_000 and int(plain[1]) == 1_270_000
    assert float(distance) < MARGIN and int(total.senders) == senders


@pytest.mark.as_shipped
def test_summed_counts_under_summed_masks_have_the_bits_of_the_sum_of_ciphertexts():
    params = tiny(degree=512, bits=29)
    secret, public = keys_of(params)
    counts = jnp.asarray(np.random.default_rng(0).integers(-128, 128, size=(5, 5000)), jnp.int32)
    base = rlwe_samplers.fold_in(seeded_stream(), "round")
    streams = jax.vmap(lambda i: rlwe_samplers.fold_in(base, i))(jnp.arange(5, dtype=jnp.uint32))
    quick = encrypted_sum(params, public, counts, streams)
    each = jax.jit(jax.vmap(lambda c, s: encryption.encrypt(params, public, c, s)))(counts, streams)
    total = encryption.zero(params, 5000)
    for i in range(5):
        total = encryption.add(params, total, jax.tree.map(lambda leaf, i=i: leaf[i], each))
    assert np.array_equal(np.asarray(quick.data), np.asarray(total.data))
    assert int(quick.senders) == int(total.senders) == 5
    opened = encryption.decrypt(params, secret, quick, 5000)
    assert np.array_equal(np.asarray(opened), np.asarray(counts).sum(axis=0))


def test_one_compilation_for_many_rounds():
    params = tiny()
    _, public = keys_of(params)
    traces = []

    @jax.jit
    def send(counts, stream):
        traces.append(1)
        return encryption.encrypt(params, public, counts, stream)

    for i in range(3):
        send(jnp.full(100, i, jnp.int32), rlwe_samplers.fold_in(seeded_stream(), i))
    assert len(traces) == 1


@pytest.mark.parametrize("mode", MODES)
def test_another_key_a_changed_bit_or_too_many_senders_are_noticed(mode):
    params = choose_parameters(count_bound=1000, senders=4, mode=mode, values=500)
    secret, public = keys_of(params)
    counts = jnp.arange(-250, 250, dtype=jnp.int32)
    good = encryption.expand(params, encrypt(params, mode, secret, public, counts))
    other, _ = keys_of(params, "other")
    assert float(encryption.decrypt_with_margin(params, secret, good, 500)[1]) < MARGIN
    assert float(encryption.decrypt_with_margin(params, other, good, 500)[1]) > MARGIN
    for place in ((0, 0, 0, 5), (0, 1, params.limbs - 1, 77)):
        changed = good._replace(data=good.data.at[place].set(good.data[place] ^ jnp.uint32(1 << 10)))
        assert float(encryption.decrypt_with_margin(params, secret, changed, 500)[1]) > MARGIN
    crowd = encryption.zero(params, 500)
    for i in range(8):  # doubling 2^i: 10,000 times the announced senders
        crowd = encryption.add(params, crowd, encrypt(params, mode, secret, public, 0 * counts, i))
    for _ in range(24):
        crowd = encryption.add(params, crowd, crowd)
    assert float(encryption.decrypt_with_margin(params, secret, crowd, 500)[1]) > MARGIN


def test_ciphertexts_of_the_same_counts_differ_and_look_uniform():
    params = tiny(degree=1024, bits=30, limbs=2, fields=1, width=12)
    secret, public = keys_of(params)
    zeros = jnp.zeros(1024, jnp.int32)
    for mode in MODES:
        a = encryption.expand(params, encrypt(params, mode, secret, public, zeros, 0)).data
        b = encryption.expand(params, encrypt(params, mode, secret, public, zeros, 1)).data
        assert float(jnp.mean((a == b).astype(jnp.float32))) < 0.01
        cells = np.asarray(a)[0].astype(np.float64) / np.asarray(params.moduli)[:, None]
        assert np.all(np.abs(cells.mean(axis=-1) - 0.5) < 6 / np.sqrt(12 * 1024))


def test_a_seed_stands_for_the_second_polynomial():
    params = tiny(mode="seeded")
    secret, _ = keys_of(params)
    counts = jnp.arange(200, dtype=jnp.int32)
    batch = jnp.stack([counts, -counts])
    streams = jax.vmap(lambda i: rlwe_samplers.fold_in(seeded_stream(), i))(jnp.arange(2, dtype=jnp.uint32))
    sealed = jax.vmap(lambda c, s: encryption.encrypt(params, secret, c, s))(batch, streams)
    assert sealed.seed.shape == (2, 8) and sealed.data.shape[-3] == 1
    assert not np.array_equal(np.asarray(sealed.seed[0]), np.asarray(sealed.seed[1]))
    whole = encryption.expand(params, sealed)
    assert whole.seed is None and whole.data.shape[-3] == 2
    one = encryption.expand(params, jax.tree.map(lambda leaf: leaf[1], sealed))
    assert np.array_equal(np.asarray(whole.data[1]), np.asarray(one.data))
    assert encryption.expand(params, whole) is not None


def test_nothing_secret_in_repr_pickle_json_or_errors():
    params = tiny()
    secret, _ = keys_of(params)
    digits = [str(int(v)) for v in np.asarray(secret.data).ravel()[:50] if v > 1000]
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        repr([secret]),
        repr({"key": secret}),
        repr(jax.tree.map(lambda x: x, secret)),
    ]
    for attempt in (
        lambda: pickle.dumps(secret),
        lambda: copy.deepcopy(secret),
        lambda: encryption.encrypt(params, secret, jnp.zeros((2, 3), jnp.int32), seeded_stream()),
        lambda: encryption.encrypt(params, "key", jnp.zeros(3, jnp.int32), seeded_stream()),
        lambda: encryption.decrypt(params, secret, encryption.zero(params, 10), -1),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            attempt()
        shown.append("".join(traceback.format_exception(caught.value)))
    with pytest.raises(TypeError):
        json.dumps({"key": secret.data})
    for text in shown:
        assert not any(d in text for d in digits)
    assert "hidden" in repr(secret)


def test_wrong_inputs_are_refused():
    params = tiny()
    secret, public = keys_of(params)
    stream = seeded_stream()
    with pytest.raises(ValueError, match="int32"):
        encryption.encrypt(params, public, jnp.zeros(5, jnp.uint32), stream)
    with pytest.raises(ValueError, match="vmap"):
        encryption.encrypt(params, public, jnp.zeros((2, 5), jnp.int32), stream)
    with pytest.raises(TypeError, match="PublicKey"):
        encryption.encrypt(params, public.data, jnp.zeros(5, jnp.int32), stream)
    seeded = tiny(mode="seeded")
    with pytest.raises(ValueError, match="public-key noise"):
        encryption.encrypt(seeded, public, jnp.zeros(5, jnp.int32), stream)
    short = choose_parameters(count_bound=10, senders=2, values=50)
    with pytest.raises(ValueError, match="choose_parameters"):
        encryption.encrypt(short, public, jnp.zeros(51, jnp.int32), stream)
    assert isinstance(public, PublicKey) and isinstance(secret, SecretKey)


@pytest.mark.as_shipped
def test_residues_of_foreign_size_at_the_top_of_the_range_add_without_overflow():
    params = tiny(bits=31, limbs=2, fields=1)
    top = np.broadcast_to(np.asarray(params.moduli, np.uint32)[:, None] - np.uint32(1), (1, 2, 2, 64))
    full = Ciphertext(jnp.asarray(top), None, jnp.uint32(1))
    total = encryption.add(params, full, full)
    assert np.array_equal(np.asarray(total.data), top - 1)
    rng = np.random.default_rng(0)
    a, b = (random_residues(rng, params.moduli, (1, 2, 64)) for _ in range(2))
    found = encryption.add(params, *(Ciphertext(jnp.asarray(x), None, jnp.uint32(1)) for x in (a, b)))
    q = np.asarray(params.moduli, np.uint64)[:, None]
    assert np.array_equal(np.asarray(found.data), (a.astype(np.uint64) + b) % q)
