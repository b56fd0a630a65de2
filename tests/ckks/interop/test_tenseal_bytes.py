"""Both directions with TenSEAL: keys, ciphertexts, sums, and bytes that are not what they should be."""

from __future__ import annotations

import struct

import jax
import numpy as np
import pytest
import tenseal as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from fedjax_poisson.ckks import encryption, ntt, slots
from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.interop import tenseal_bytes
from fedjax_poisson.randomness.chacha import fold_in, stream

pytest.importorskip("zstandard", reason="TenSEAL compresses with Zstandard; the `test` extra brings the reader")

RINGS = {
    "4096 [30,30,30]": (4096, [30, 30, 30], 33),
    "4096 [27,27,27,28]": (4096, [27, 27, 27, 28], 30),
    "8192 [30,30,30,30]": (8192, [30, 30, 30, 30], 40),
}
KINDS = {"public": ts.ENCRYPTION_TYPE.ASYMMETRIC, "symmetric": ts.ENCRYPTION_TYPE.SYMMETRIC}


def tenseal_context(ring: str, kind: str = "public"):
    degree, bits, scale = RINGS[ring]
    context = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=bits, encryption_type=KINDS[kind])
    context.global_scale = 2.0**scale
    return context


PHASE = jax.jit(encryption.phase, static_argnums=0)
INVERSE = jax.jit(ntt.inverse, static_argnums=1)


class Both:
    """One TenSEAL context and what is read from its bytes here."""

    def __init__(self, ring: str, kind: str) -> None:
        self.context = tenseal_context(ring, kind)
        self.params, self.public, self.secret = tenseal_bytes.read_tenseal_context(
            self.context.serialize(save_secret_key=True)
        )
        self.key = self.secret if kind == "symmetric" else self.public
        self.size = self.params.degree // 2 + 37
        self.stream = stream()
        # Direct encryption at data level has noise near sqrt(n 10.5 (4N/3 + 1)) a coefficient; 12 sigma at sqrt(N/2) a
        # slot.
        sigma = 3.24 * np.sqrt(4 * self.params.degree / 3 + 1) if kind == "public" else 3.24
        self.tolerance = 12 * sigma * np.sqrt(self.params.degree / 2) / slots.slot_scale(self.params)

    def ours(self, values, label: int):
        return slots.encrypt_slots(self.params, self.key, values, fold_in(self.stream, label))

    def theirs(self, values) -> bytes:
        return ts.ckks_vector(self.context, values.tolist()).serialize()

    def open_there(self, blob: bytes) -> np.ndarray:
        return np.asarray(ts.ckks_vector_from(self.context, blob).decrypt())

    def open_here(self, ciphertext) -> np.ndarray:
        return slots.decrypt_slots(self.params, self.secret, ciphertext, self.size)


AGAIN = [
    ("4096 [27,27,27,28]", "symmetric"),
    ("8192 [30,30,30,30]", "public"),
]  # each ring and each kind is there without
MATRIX = [
    pytest.param((ring, kind), id=f"{ring} {kind}", marks=pytest.mark.long if (ring, kind) in AGAIN else ())
    for ring in RINGS
    for kind in KINDS
]


@pytest.fixture(scope="module", params=MATRIX)
def both(request) -> Both:
    return Both(*request.param)


@pytest.fixture(scope="module")
def small() -> Both:
    return Both("4096 [30,30,30]", "public")


def values_of(both: Both, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, both.size)


def test_our_ciphertext_opens_there(both):
    values = values_of(both, 0)
    found = both.open_there(tenseal_bytes.tenseal_vector(both.params, both.ours(values, 0), both.size))
    assert len(found) == both.size
    np.testing.assert_allclose(found, values, atol=both.tolerance)


def test_their_ciphertext_opens_here(both):
    values = values_of(both, 1)
    ciphertext = tenseal_bytes.from_tenseal_vector(both.params, both.theirs(values))
    np.testing.assert_allclose(both.open_here(ciphertext), values, atol=both.tolerance)


def test_mixed_sums_open_on_both_sides(both):
    a, b = values_of(both, 2), values_of(both, 3)
    mine, yours = both.ours(a, 2), both.theirs(b)
    here = encryption.add(both.params, mine, tenseal_bytes.from_tenseal_vector(both.params, yours))
    np.testing.assert_allclose(both.open_here(here), a + b, atol=2 * both.tolerance)
    np.testing.assert_allclose(
        both.open_there(tenseal_bytes.tenseal_vector(both.params, here, both.size)), a + b, atol=2 * both.tolerance
    )
    there = ts.ckks_vector_from(both.context, tenseal_bytes.tenseal_vector(both.params, mine, both.size))
    there = there + ts.ckks_vector_from(both.context, yours)
    np.testing.assert_allclose(np.asarray(there.decrypt()), a + b, atol=2 * both.tolerance)
    back = tenseal_bytes.from_tenseal_vector(both.params, there.serialize())
    np.testing.assert_allclose(both.open_here(back), a + b, atol=2 * both.tolerance)


def test_our_bytes_come_back_unchanged(both):
    ciphertext = encryption.expand(both.params, both.ours(values_of(both, 4), 4))
    again = tenseal_bytes.from_tenseal_vector(both.params, tenseal_bytes.tenseal_vector(both.params, ciphertext))
    np.testing.assert_array_equal(np.asarray(again.data), np.asarray(ciphertext.data))


def test_keys_belong_together(both):
    """pk0 + pk1 s is minus an error of at most 21 in absolute value, modulo every prime."""
    coefficients = slots.centred_float(np.asarray(INVERSE(both.secret.data, both.params.moduli)), both.params.moduli)
    assert set(np.unique(coefficients)) == {-1.0, 0.0, 1.0}
    if both.public is None:  # a symmetric context has no public key
        return
    pair = Ciphertext(both.public.data[None], None, np.uint32(1))
    noise = slots.centred_float(np.asarray(PHASE(both.params, both.secret, pair)), both.params.moduli)
    assert 0 < np.max(np.abs(noise)) <= 21
    assert abs(np.std(noise) - 3.24) < 0.3


def test_a_public_context_has_no_secret(small):
    public_only = small.context.copy()
    public_only.make_context_public()
    params, public, secret = tenseal_bytes.read_tenseal_context(public_only.serialize())
    assert secret is None and params == small.params
    np.testing.assert_array_equal(np.asarray(public.data), np.asarray(small.public.data))
    _, public, secret = tenseal_bytes.read_tenseal_context(
        small.context.serialize(save_public_key=False, save_secret_key=True)
    )
    assert public is None and secret is not None


def test_a_wrong_key_opens_noise(small):
    other = Both("4096 [30,30,30]", "public")
    blob = tenseal_bytes.tenseal_vector(small.params, small.ours(values_of(small, 5), 5), small.size)
    assert np.max(np.abs(other.open_there(blob))) > 1e3
    assert np.max(np.abs(other.open_here(tenseal_bytes.from_tenseal_vector(other.params, blob)))) > 1e3


@pytest.mark.parametrize(
    ("degree", "bits", "scale", "words"),
    [
        (8192, [60, 40, 40], 2.0**40, "primes below 2\\^31"),
        (4096, [30, 30, 30], 2.0**70, "does not fit"),
    ],
)
def test_contexts_beyond_reach_are_named(degree, bits, scale, words):
    context = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=bits)
    context.global_scale = scale
    with pytest.raises(WireError, match=words):
        tenseal_bytes.read_tenseal_context(context.serialize())


def test_the_global_scale_is_read_and_kept_whatever_it_is(small):
    """Scales differ by a factor of 0.75 from the ring's others: bytes of one scale are not taken for the other's."""
    context = tenseal_context("4096 [30,30,30]")
    context.global_scale = 0.75 * 2.0**33
    params, public, secret = tenseal_bytes.read_tenseal_context(context.serialize(save_secret_key=True))
    assert params.scale == 0.75 * 2.0**33 and small.params.scale == 2.0**33
    values = np.linspace(-1, 1, small.size)
    theirs = ts.ckks_vector(context, values.tolist()).serialize()
    found = slots.decrypt_slots(params, secret, tenseal_bytes.from_tenseal_vector(params, theirs), small.size)
    np.testing.assert_allclose(found, values, atol=2 * small.tolerance)
    ours = tenseal_bytes.tenseal_vector(params, slots.encrypt_slots(params, public, values, stream()), small.size)
    opened = np.asarray(ts.ckks_vector_from(context, ours).decrypt())
    np.testing.assert_allclose(opened, values, atol=2 * small.tolerance)
    with pytest.raises(WireError, match="scale"):
        tenseal_bytes.from_tenseal_vector(small.params, ours)


def test_contexts_without_scale_or_of_bfv_are_refused():
    context = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[30, 30, 30])
    with pytest.raises(WireError, match="global scale"):
        tenseal_bytes.read_tenseal_context(context.serialize())
    with pytest.raises(WireError, match="scheme"):
        tenseal_bytes.read_tenseal_context(ts.context(ts.SCHEME_TYPE.BFV, 4096, plain_modulus=1032193).serialize())


# -- bytes that are not what they should be ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blobs(small) -> dict[str, bytes]:
    values = values_of(small, 6)
    return {
        "ours": tenseal_bytes.tenseal_vector(small.params, small.ours(values, 6), small.size),
        "theirs": small.theirs(values),
        "context": small.context.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False),
    }


def read(small, name: str, blob: bytes) -> None:
    if name == "context":
        tenseal_bytes.read_tenseal_context(blob)
    else:
        tenseal_bytes.from_tenseal_vector(small.params, blob)


@pytest.mark.parametrize("name", ["ours", "theirs", "context"])
@settings(max_examples=120)
@given(data=st.data())
def test_random_changes_raise_nothing_but_wire_errors(small, blobs, name, data):
    blob = bytearray(blobs[name])
    early = st.integers(0, min(300, len(blob) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(early, st.integers(0, len(blob) - 1)))
        blob[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del blob[data.draw(st.integers(0, len(blob))) :]
    try:
        read(small, name, bytes(blob))
    except WireError:
        pass


@settings(max_examples=150)
@given(blob=st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_wire_errors(small, blob):
    for name in ("context", "ours"):
        with pytest.raises(WireError):
            read(small, name, blob)


@pytest.mark.parametrize("name", ["ours", "theirs", "context"])
def test_every_truncation_is_seen(small, blobs, name):
    blob = blobs[name]
    cuts = [*range(0, 200), *np.random.default_rng(1).integers(200, len(blob), 60).tolist(), len(blob) - 1]
    for length in cuts:
        with pytest.raises(WireError):
            read(small, name, blob[:length])


def patched(blob: bytes, find: bytes, change: bytes) -> bytes:
    assert blob.count(find) >= 1
    return blob.replace(find, change, 1)


def test_lying_heads_are_refused_without_allocating(small, blobs):
    ours = blobs["ours"]
    degree = small.params.degree
    huge = struct.pack("<Q", 2**62)
    head = struct.pack("<QQQd", 2, degree, 2, 2.0**33)
    lies = {
        "polynomials": patched(ours, head, struct.pack("<QQQd", 2**40, degree, 2, 2.0**33)),
        "N": patched(ours, head, struct.pack("<QQQd", 2, 2**50, 2, 2.0**33)),
        "L": patched(ours, head, struct.pack("<QQQd", 2, degree, 2**50, 2.0**33)),
        "scale": patched(ours, head, struct.pack("<QQQd", 2, degree, 2, 2.0**32)),
        "scale nan": patched(ours, head, struct.pack("<QQQd", 2, degree, 2, float("nan"))),
        "array": patched(ours, struct.pack("<Q", 4 * degree), huge),
        "sizes": patched(ours, ours[:5], b"\x0a\x03\x80\xf0\x7f"),
    }
    for name, blob in lies.items():
        with pytest.raises(WireError):
            tenseal_bytes.from_tenseal_vector(small.params, blob)
            pytest.fail(name)


def test_residues_must_be_below_their_primes(small):
    ciphertext = small.ours(values_of(small, 7), 7)
    data = np.array(ciphertext.data)
    data[0, 1, 0, 5] = small.params.moduli[0]
    blob = tenseal_bytes.tenseal_vector(small.params, ciphertext._replace(data=data))
    with pytest.raises(WireError, match="not below its prime"):
        tenseal_bytes.from_tenseal_vector(small.params, blob)


def test_a_decompression_bomb_is_cut_off(small):
    import zlib

    import zstandard

    body = bytes(10**8)
    for kind, packed in ((1, zlib.compress(body)), (2, zstandard.compress(body))):
        obj = struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, kind, 0, 16 + len(packed)) + packed
        from fedjax_poisson.ckks.interop.seal_format import write_double, write_field

        blob = write_field(1, b"\x80\x10") + write_field(2, obj) + write_double(3, 2.0**33)
        with pytest.raises(WireError, match=r"at most|more than"):
            tenseal_bytes.from_tenseal_vector(small.params, blob)


def test_a_missing_reader_is_named(small, blobs, monkeypatch):
    import sys

    if sys.version_info >= (3, 14):
        pytest.skip("Python 3.14 brings its own Zstandard reader")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match="pip install zstandard"):
        tenseal_bytes.from_tenseal_vector(small.params, blobs["theirs"])
    tenseal_bytes.from_tenseal_vector(small.params, blobs["ours"])  # uncompressed bytes need no reader


def test_shapes_and_sizes_are_checked_before_writing(small):
    ciphertext = small.ours(values_of(small, 8), 8)
    with pytest.raises(ValueError, match="exactly 2 ciphertexts"):
        tenseal_bytes.tenseal_vector(small.params, ciphertext, 10)
    with pytest.raises(ValueError, match="shape"):
        tenseal_bytes.tenseal_vector(small.params, ciphertext._replace(data=ciphertext.data[:, :, :1]))
