"""Another implementation opens a round: (C, -a) under S is an ordinary ciphertext, and SEAL's own Decryptor gives the exact counts.

SEAL wants a last prime that ciphertexts do not use: one is appended and the small S reduced modulo it, too. Its keys are ternary, but nothing asks for that.
"""

from __future__ import annotations

import functools
import pathlib
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import rows, sharing
from fedjax_poisson.aggregation.bare import RoundSum
from fedjax_poisson.ckks import encryption, ntt
from fedjax_poisson.ckks.encryption import Ciphertext, SecretKey
from fedjax_poisson.ckks.interop.seal_format import write_object, write_words
from fedjax_poisson.ckks.interop.tenseal_bytes import _parms_id
from tests.aggregation.sums import Sums, ends, shared_out, sums

seal = pytest.importorskip("tenseal.sealapi", reason="SEAL comes with TenSEAL")

CLIENTS, SIZE, BOUND, DEGREE = 20, 20_000, 500_000, 2048
INVERSE = jax.jit(ntt.inverse, static_argnums=1)
FORWARD = jax.jit(rows.small_form, static_argnums=0)


@pytest.fixture(scope="module")
def world() -> Sums:
    found = sums(SIZE, CLIENTS, BOUND)
    assert found.params.ring.degree == DEGREE and found.params.ring.limbs == 2 and found.params.rows > 1
    return found


@pytest.fixture(scope="module")
def counts(world) -> np.ndarray:
    """int64 [clients, D]: sums at the ends of the range."""
    return shared_out(ends(world.params, BOUND)["random signs"], CLIENTS)


@pytest.fixture(scope="module")
def total(world, counts) -> RoundSum:
    return world.one_by_one(counts)


@pytest.fixture(scope="module")
def secret(world, total) -> np.ndarray:
    """S, int64 [N], from the members' sums of shares."""
    moduli = world.params.ring.moduli
    form = sharing.weighted_sum(world.use.key.opening, total.shares, moduli)
    residues = np.asarray(INVERSE(form, moduli)).astype(np.int64)
    q = np.asarray(moduli)[:, None]
    centred = np.where(residues > q // 2, residues - q, residues)
    assert (centred == centred[:1]).all()
    return centred[0]


def ciphertext(world: Sums, total: RoundSum) -> np.ndarray:
    """uint32 [R, 2, L, N]: (C, -a)."""
    q = np.asarray(world.params.ring.moduli, np.uint32)[:, None]
    a = np.asarray(world.use.key.a)
    return np.stack([np.asarray(total.rows), (q - a) % q], axis=1)


def counts_in(world: Sums, phase: np.ndarray) -> np.ndarray:
    """int64 [D] from decrypted residues [R, L, N] in coefficient order: by the Chinese remainder theorem, rounding and digits, in big integers."""
    ring = world.params.ring
    big_q, width, fields = ring.modulus, ring.field_bits, ring.values_per_coefficient
    t, half = 1 << fields * width, 1 << (width - 1)
    weights = [big_q // q * pow(big_q // q, -1, q) for q in ring.moduli]
    x = sum(phase[:, limb].astype(object) * weight for limb, weight in enumerate(weights)) % big_q  # [R, N]
    packed = ((2 * x * t + big_q) // (2 * big_q)) * big_q % t
    packed = (packed + sum(half << j * width for j in range(fields))) % t
    digits = np.stack([packed >> j * width & (1 << width) - 1 for j in range(fields)]).astype(np.int64) - half
    return np.moveaxis(digits, 1, 2).reshape(-1)[: world.params.size]


class Seal:
    """SEAL with the ring's primes and one more."""

    def __init__(self, world: Sums, folder: pathlib.Path) -> None:
        self.params, self.file = world.params, str(folder / "object")
        ring = world.params.ring
        special = next(q for q in ntt.primes_below(1 << 30, ring.degree, 8) if q not in ring.moduli)
        self.chain = (*ring.moduli, special)
        wanted = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        wanted.set_poly_modulus_degree(ring.degree)
        wanted.set_coeff_modulus([seal.Modulus(q) for q in self.chain])
        self.context = seal.SEALContext(wanted, True, seal.SEC_LEVEL_TYPE.NONE)
        assert self.context.parameters_set()

    def _loaded(self, made, blob: bytes):
        pathlib.Path(self.file).write_bytes(blob)
        made.load(self.context, self.file)
        return made

    def key(self, secret: np.ndarray):
        """A secret key of any small polynomial, in NTT form modulo every prime of the chain."""
        ring = self.params.ring
        values = np.stack([np.mod(secret, q) for q in self.chain]).astype(np.uint32)
        words = np.asarray(ntt.forward(jnp.asarray(values), self.chain)).astype(np.uint64)
        head = _parms_id(ring.degree, self.chain) + struct.pack("<Qd", words.size, 1.0)
        return self._loaded(seal.SecretKey(), write_object(head + write_words(words)))

    def opened(self, key, both: np.ndarray) -> np.ndarray:
        """uint32 [L, N]: what the Decryptor makes of one row [2, L, N], NTT form."""
        ring = self.params.ring
        head = _parms_id(ring.degree, ring.moduli) + struct.pack("<BQQQd", 1, 2, ring.degree, ring.limbs, 1.0)
        one = self._loaded(seal.Ciphertext(), write_object(head + write_words(both.astype(np.uint64))))
        plain = seal.Plaintext()
        seal.Decryptor(self.context, key).decrypt(one, plain)
        words = [plain[i] for i in range(ring.limbs * ring.degree)]
        return np.asarray(words, np.uint32).reshape(ring.limbs, ring.degree)

    def counts(self, world: Sums, secret: np.ndarray, both: np.ndarray) -> np.ndarray:
        key = self.key(secret)
        phase = np.stack([self.opened(key, row) for row in both])
        return counts_in(world, np.asarray(INVERSE(jnp.asarray(phase), self.params.ring.moduli)))


@pytest.fixture(scope="module")
def theirs(world, tmp_path_factory) -> Seal:
    return Seal(world, tmp_path_factory.mktemp("seal"))


def test_the_sum_of_secrets_is_small_and_not_ternary(secret):
    assert np.abs(secret).max() > 30 and np.sqrt(np.mean(secret**2.0)) < 1.1 * np.sqrt(21 * CLIENTS)


def test_seal_opens_the_sum_of_twenty_clients_exactly(world, counts, total, secret, theirs):
    found = theirs.counts(world, secret, ciphertext(world, total))
    np.testing.assert_array_equal(found, counts.sum(axis=0))
    np.testing.assert_array_equal(found, world.opened(total))


def test_seal_opens_one_client_under_its_own_secret(world, counts, theirs):
    single = world.one_by_one(counts[:1])
    form = sharing.weighted_sum(world.use.key.opening, single.shares, world.params.ring.moduli)
    residues = np.asarray(INVERSE(form, world.params.ring.moduli)).astype(np.int64)[0]
    q = world.params.ring.moduli[0]
    own = np.where(residues > q // 2, residues - q, residues)
    assert np.abs(own).max() <= 42
    np.testing.assert_array_equal(theirs.counts(world, own, ciphertext(world, single)), counts[0])


def test_the_package_opens_the_same_ciphertext(world, counts, total, secret):
    ring = world.params.ring
    form = FORWARD(world.params, jnp.asarray(secret.astype(np.int32)))
    pair = Ciphertext(jnp.asarray(ciphertext(world, total)), None, np.uint32(CLIENTS))
    phase = jax.jit(functools.partial(encryption.phase, ring))(SecretKey(form), pair)
    np.testing.assert_array_equal(counts_in(world, np.asarray(phase)), counts.sum(axis=0))


@pytest.mark.parametrize("wrong", ["one coefficient", "sign of a", "one client missing"])
def test_what_is_not_the_round_is_not_opened_there_either(world, counts, total, secret, theirs, wrong):
    both, key = ciphertext(world, total)[:1], secret.copy()
    if wrong == "one coefficient":
        key[17] += 1
    elif wrong == "sign of a":
        both[:, 1] = np.asarray(world.use.key.a)[:1]
    else:
        both[:, 0] = np.asarray(world.one_by_one(counts[:1]).rows)[:1]
    first = np.stack([theirs.opened(theirs.key(key), row) for row in both])
    phase = np.asarray(INVERSE(jnp.asarray(first), world.params.ring.moduli))
    padded = np.concatenate([phase, np.zeros((world.params.rows - 1, *phase.shape[1:]), phase.dtype)])
    expected = counts.sum(axis=0)
    rows_of = np.arange(SIZE) % world.params.rows
    agree = counts_in(world, padded)[rows_of == 0] == expected[rows_of == 0]
    assert agree.mean() < 0.01
