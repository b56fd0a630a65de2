"""The sizes of a norm proof, which follow from a round's ring and from B^2; everybody computes them, nobody sends them.

A client shares what fixes, in every prime field, two polynomials: A by its values on the P-th roots of unity, and S, said to be A^2, by those on the 2P-th
roots. A's values are bits of the digits d_gb + 2^(b-1), bits of the slack B^2 - T, bits of masks, the digits themselves (linear in their bits, so they are not
shared again), blinds, and zeros. Of S are shared its values where A has digits and blinds, and those on the roots that are no P-th roots: where A has a bit,
S is that bit, and where A is zero so is S. So S = A^2 says that every bit is its own square.

Soundness of what the sizes fix (*proved*, given the two conditions that `chain_is_good` checks numerically):
  - S and A^2 that differ agree at all points with ((2P - 1) / (q - 1 - 2P))^points, at most 2^-96 a field: a polynomial of degree below 2P that is not 0 has
    fewer than 2P roots, and points are drawn from what is neither 0 nor a 2P-th root of unity;
  - bits that differ between primes would make digits that are no integers. They are weighed with uniform weights of a = `weight_bits` bits, once for each of
    `tests`; two weights that both pass for the same other bits differ by 0 < c < 2^a such that c d, d in {0, 1}^L not constant, are the residues of a number
    below 2^(a + 43). Where there is none (a reduced basis of a lattice of two dimensions), each test misses with 2^-a, all of them with 2^-80.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS

__all__ = ["MASK_BITS", "ProofShape", "chain_is_good", "proof_shape"]

MASK_BITS = 42
"""Bits by which a mask is longer than a weight."""
_POINT_BITS = 96
_TEST_BITS = 80
_MOST_TESTS = 8


class ProofShape(NamedTuple):
    """Sizes of a proof.

    Attributes:
      squared_bound: B^2.
      blocks: k, fields of a coefficient.
      digit_bits: b, of one digit d_gb + 2^(b-1).
      slack_bits: of B^2 - T.
      weight_bits: a; 0 with one prime, where bits cannot differ.
      tests: weighings of all bits.
      points: at which squares are compared.
      size: P, a power of two.
    """

    squared_bound: int
    blocks: int
    digit_bits: int
    slack_bits: int
    weight_bits: int
    tests: int
    points: int
    size: int

    @property
    def digits(self) -> int:
        """Digits d_gb, functional by functional."""
        return FUNCTIONALS_OF_COUNTS * self.blocks

    @property
    def plain_bits(self) -> int:
        """Bits of digits and slack."""
        return self.digits * self.digit_bits + self.slack_bits

    @property
    def bits(self) -> int:
        """All bits: of digits, slack and masks."""
        return self.plain_bits + self.tests * self.mask_width

    @property
    def mask_width(self) -> int:
        """Bits of one mask."""
        return self.weight_bits + MASK_BITS

    @property
    def squares(self) -> int:
        """Squares of digits and blinds: of A's values those that are neither a bit nor zero."""
        return self.digits + self.points

    @property
    def unused(self) -> int:
        """Places of A that are zero."""
        return self.size - self.bits - self.squares

    @property
    def parts(self) -> tuple[int, int, int]:
        """Where what is shared is cut in bits, blinds, squares, and S on the roots between."""
        return self.bits, self.bits + self.points, self.bits + self.points + self.squares

    @property
    def length(self) -> int:
        """Values that are shared in each field: bits, blinds, squares, and S on the roots between."""
        return self.parts[-1] + self.size

    @property
    def opened(self) -> int:
        """Scalars that are opened of one proof in each field: both polynomials at each point, the sum, the weighings, and each functional."""
        return 2 * self.points + 1 + self.tests + FUNCTIONALS_OF_COUNTS

    @property
    def window(self) -> tuple[int, int]:
        """Least and largest integer that a weighing of an honest client can give; fewer than 2^(a + 43) numbers."""
        reach = self.plain_bits << max(self.weight_bits - 1, 0)
        return -reach, (1 << self.mask_width) + reach


def proof_shape(squared_bound: int, blocks: int, degree: int, moduli: tuple[int, ...], field_bits: int) -> ProofShape:
    """The sizes for a ring.

    Args:
      squared_bound: B^2.
      blocks: k, fields of a coefficient.
      degree: N.
      moduli: primes of the ring.
      field_bits: w.

    Raises:
      ValueError: the ring is too small for a proof, with what is missing.
    """
    modulus = math.prod(moduli)
    largest = math.isqrt(squared_bound)
    digit_bits = largest.bit_length() + 1
    if largest >= 1 << (field_bits - 1):
        raise ValueError(f"digits up to {largest} do not fit into fields of {field_bits} bits")
    if FUNCTIONALS_OF_COUNTS * blocks * 4 ** (digit_bits - 1) + 4**digit_bits >= modulus:
        raise ValueError("the sum of squared digits could wrap around the modulus")
    weight_bits = 0
    if len(moduli) > 1:
        if math.log2(modulus) < 80:
            raise ValueError("with several primes a proof needs a modulus of 80 bits")
        weight_bits = _weight_bits(moduli)
    tests = -(-_TEST_BITS // weight_bits) if weight_bits else 0
    if tests > _MOST_TESTS:
        raise ValueError(
            f"a proof would need {tests} weighings of {weight_bits} bits; what screening adds to delta counts {_MOST_TESTS}"
        )
    shape = ProofShape(squared_bound, blocks, digit_bits, squared_bound.bit_length(), weight_bits, tests, 0, 1)
    while True:
        roots = 2 * shape.size
        if min(moduli) <= 4 * roots:
            raise ValueError(f"a prime of {min(moduli)} is too small for a proof on {roots} roots of unity")
        points = math.ceil(_POINT_BITS / math.log2((min(moduli) - 1 - roots) / (roots - 1)))
        needed = shape.bits + shape.digits + points
        if needed <= shape.size:
            return shape._replace(points=points)
        shape = shape._replace(size=2 * shape.size)
        if shape.size > degree:
            raise ValueError(f"a proof of {needed} values needs 2P-th roots of unity, and the ring has N = {degree}")


@functools.lru_cache(maxsize=256)
def _weight_bits(moduli: tuple[int, ...]) -> int:
    """The largest a for which the chain of primes is good."""
    largest = math.floor(min(math.log2(min(moduli)), (math.log2(math.prod(moduli)) - 56) / 2))
    for bits in range(largest, 7, -1):
        if chain_is_good(moduli, bits):
            return bits
    raise ValueError(f"bits that differ between the primes {moduli} could pass for one integer")


def chain_is_good(moduli: Sequence[int], weight_bits: int) -> bool:
    """Whether no number below 2^(a + 43) has residues c d, 0 < c < 2^a, d in {0, 1}^L not constant: checked by reducing one lattice for each d."""
    modulus = math.prod(moduli)
    if 1 << weight_bits > min(moduli):  # c = q has residue 0 where it should not
        return False
    for pattern in itertools.product((0, 1), repeat=len(moduli)):
        if len(set(pattern)) == 1:
            continue
        lifted = sum(d * (modulus // q) * pow(modulus // q, -1, q) for d, q in zip(pattern, moduli, strict=True))
        if _shortest((1 << 43, lifted % modulus), (0, modulus)) <= 2 * 4 ** (weight_bits + 43):
            return False
    return True


def _shortest(u: tuple[int, int], v: tuple[int, int]) -> int:
    """The squared length of the shortest vector of a lattice of two dimensions (Gauss and Lagrange)."""

    def dot(a: tuple[int, int], b: tuple[int, int]) -> int:
        return a[0] * b[0] + a[1] * b[1]

    while True:
        if dot(u, u) > dot(v, v):
            u, v = v, u
        factor = (2 * dot(u, v) + dot(u, u)) // (2 * dot(u, u))
        if factor == 0:
            return dot(u, u)
        v = (v[0] - factor * u[0], v[1] - factor * u[1])
