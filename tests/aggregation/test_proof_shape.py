"""Sizes of norm proofs: at the published table's rounds, and chains of primes in which false digits would fit."""

from __future__ import annotations

import itertools
import math

import pytest

from fedjax_poisson.aggregation import proof_shape as proof_shape_module
from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS, NormScreening, squared_bound
from fedjax_poisson.aggregation.parameters import choose, default_malicious, least_threshold
from fedjax_poisson.aggregation.proof_shape import MASK_BITS, ProofShape, chain_is_good, proof_shape
from fedjax_poisson.ckks.ntt import is_prime

TABLE = [  # D, n; w, N, k, R of the published choice
    (100_000, 100, 15, 4096, 5, 5),
    (421_642, 50, 16, 4096, 5, 21),
    (1_000_000, 1_000, 19, 4096, 4, 62),
]


def _chosen(size: int, clients: int, members: int = 5):
    """Delta = 2 sqrt(D), coordinates up to .05 Delta, a noise multiplier of 1, l / h = 2.5."""
    t = least_threshold(members, default_malicious(members))
    squared = 4 * size
    noise = 2.5 * squared
    bound = math.ceil(clients * 0.05 * math.sqrt(squared) + 10.5 * math.sqrt(noise))
    rms = math.sqrt(noise * (1 + 10 * math.sqrt(2 / size))) + clients * math.sqrt(squared / size)
    norm = NormScreening(squared, 5, 2)
    return choose(size, bound, clients, members, t, corrupt=1, count_rms=rms, malicious=1, norm=norm), squared


@pytest.mark.parametrize(("size", "clients", "width", "degree", "blocks", "rows"), TABLE)
def test_the_published_rounds(size: int, clients: int, width: int, degree: int, blocks: int, rows: int) -> None:
    params, squared = _chosen(size, clients)
    assert params.proof is not None
    assert abs(params.ring.field_bits - width) <= 1
    assert (
        params.ring.degree == degree
        and abs(params.proof.blocks - blocks) <= 1
        and abs(params.rows - rows) <= 0.25 * rows + 1
    )
    assert params.proof.squared_bound == squared_bound(squared, 5, 4, 1)
    assert params.noise_senders == 5


@pytest.mark.parametrize(("size", "clients"), [(3_000, 10), *((row[0], row[1]) for row in TABLE)])
def test_every_condition_of_a_proof_holds_in_a_chosen_ring(size: int, clients: int) -> None:
    params, _ = _chosen(size, clients)
    shape, moduli = params.proof, params.ring.moduli
    q, top = math.prod(moduli), math.isqrt(shape.squared_bound)
    assert 2 ** (shape.digit_bits - 1) > top >= 2 ** (shape.digit_bits - 2), "the fewest bits that hold B"
    assert top < 2 ** (params.ring.field_bits - 1)
    assert FUNCTIONALS_OF_COUNTS * shape.blocks * 4 ** (shape.digit_bits - 1) + 4**shape.digit_bits < q
    roots = 2 * shape.size
    bits_a_point = math.log2((min(moduli) - 1 - roots) / (roots - 1))
    assert shape.points * bits_a_point >= 96 > (shape.points - 1) * bits_a_point
    needed = shape.bits + shape.digits + shape.points
    assert needed <= shape.size <= params.ring.degree and shape.size < 2 * needed
    assert all((p - 1) % (2 * shape.size) == 0 for p in moduli), "roots of unity"
    if len(moduli) == 1:
        assert (shape.weight_bits, shape.tests) == (0, 0)
    else:
        assert math.log2(q) >= 80 and shape.tests * shape.weight_bits >= 80 > (shape.tests - 1) * shape.weight_bits
        assert shape.tests <= 8, "what screening adds to delta counts eight weighings"
        assert chain_is_good(moduli, shape.weight_bits)
        low, high = shape.window
        assert high - low < 2 ** (shape.weight_bits + MASK_BITS + 1)


def test_parts_of_a_shape_add_up() -> None:
    shape = ProofShape(1000, 5, 7, 10, 12, 7, 8, 2048)
    assert shape.digits == 80 and shape.plain_bits == 80 * 7 + 10
    assert shape.bits == 570 + 7 * 54 and shape.squares == 80 + 8 and shape.unused == 2048 - 948 - 88
    assert shape.parts == (948, 956, 1044) and shape.length == 1044 + 2048
    assert shape.opened == 16 + 1 + 7 + 16
    assert shape.window == (-(570 << 11), (1 << 54) + (570 << 11))


def test_rings_that_are_too_small_are_refused() -> None:
    params, _ = _chosen(421_642, 50)
    shape, ring = params.proof, params.ring
    arguments = (shape.squared_bound, shape.blocks, ring.degree, ring.moduli, ring.field_bits)
    assert proof_shape(*arguments) == shape
    narrow = math.isqrt(shape.squared_bound).bit_length()
    for changed, words in (
        ((*arguments[:4], narrow), "do not fit into fields"),
        ((shape.squared_bound, shape.blocks, shape.size // 2, *arguments[3:]), "2P-th roots"),
        ((shape.squared_bound, shape.blocks, ring.degree, ring.moduli[:2], ring.field_bits), "80 bits"),
        ((1 << 60, shape.blocks, ring.degree, ring.moduli[:1], 40), "wrap around"),
    ):
        with pytest.raises(ValueError, match=words):
            proof_shape(*changed)


def test_more_weighings_than_screening_counts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    params, _ = _chosen(421_642, 50)
    shape, ring = params.proof, params.ring
    arguments = (shape.squared_bound, shape.blocks, ring.degree, ring.moduli, ring.field_bits)
    monkeypatch.setattr(proof_shape_module, "_weight_bits", lambda moduli: 10)
    assert proof_shape(*arguments).tests == 8
    monkeypatch.setattr(proof_shape_module, "_weight_bits", lambda moduli: 9)
    with pytest.raises(ValueError, match="9 weighings of 9 bits"):
        proof_shape(*arguments)


def _primes_at(last: int) -> tuple[int, int]:
    """Primes with 9 q0 = 10 q1 - 1 above 2^`last`: 9 q0 + 1 is a multiple of q1 and 9 q0 one of q0, so c = 1 times (0, -1) and more fit a small number."""
    q1 = (1 << last) | 1
    while True:
        q1 += 2
        if (10 * q1 - 1) % 9 == 0 and is_prime(q1) and is_prime((10 * q1 - 1) // 9):
            return (10 * q1 - 1) // 9, q1


def test_a_planted_chain_is_found() -> None:
    """q = (q0, q1) with 9 q0 = 10 q1 - 1: the number 9 q0 has residues 0 and -1, so one bit that differs between the primes would pass for an integer."""
    q0, q1 = _primes_at(47)
    assert 9 * q0 == 10 * q1 - 1
    weight = 8
    number = 10 * q1  # = 9 q0 + 1: residues 1 and 0
    assert (number % q0, number % q1) == (1, 0) and number < 2 ** (weight + 43)
    assert not chain_is_good((q0, q1), weight)
    assert chain_is_good(_far_apart(47), weight), "the twin: primes of the same size without such a multiple"


def _far_apart(bits: int) -> tuple[int, int]:
    found = (n for n in itertools.count((1 << bits) + (1 << 20) + 1, 2) if is_prime(n))
    first = next(found)
    second = next(n for n in itertools.count(int(first * 1.2360679) | 1, 2) if is_prime(n))
    return first, second


def test_weights_as_large_as_a_prime_are_never_good() -> None:
    first, second = _far_apart(30)
    assert not chain_is_good((first, second), 32)
