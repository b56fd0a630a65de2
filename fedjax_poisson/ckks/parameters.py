"""Automatic choice of ring parameters: the fewest bytes on the wire at a stated security level and failure probability.

`CkksParameters` is a hashable record of Python scalars, fit to be a static argument under jit. `choose_parameters` finds the cheapest one
for integer sums: k signed fields of w bits share one coefficient of the ring, the sum of the packed integers M is carried as
round(Q M / 2^(k w)), and the scale Q / 2^(k w) (the *step*) is large enough that the noise of the sum stays below 7/16 of it except with
probability `failure` over the whole vector (`noise_bound.noise_bound`). So an honest sum always decrypts to the exact integers, and a coefficient
further than 7/16 from an integer means a wrong key or foreign bytes.

Security: ternary secrets, log2 Q within the limits for 128 bits (classical) of Bossuat et al. 2024, "Security Guidelines for Implementing Homomorphic
Encryption", Table 5.2 (eprint 2024/463), or, on request, within the slightly wider ones SEAL enforces (HE standard 2018).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

from fedjax_poisson.ckks import noise_bound, ntt

__all__ = ["LIMITS", "MARGIN", "CkksParameters", "candidate", "choose_parameters", "sum_bound"]

Mode = Literal["public_key", "seeded", "round"]
MODES = ("public_key", "seeded", "round")

LIMITS = {
    "2024": {1024: 26, 2048: 53, 4096: 106, 8192: 214},
    "seal": {1024: 27, 2048: 54, 4096: 109, 8192: 218},
}
"""Most bits of the whole modulus (special prime included) at 128 bits of classical security, by guideline and ring degree."""

MARGIN = 7 / 16
"""The noise stays below this part of a step; a coefficient further than this from an integer is refused."""

PACKED_PRIME_BITS = 30
"""Chosen primes stay below 2^30 if nothing else is asked for: four multiples of a prime then fit in a uint32, which halves the reductions of the transform."""

SEED_BYTES = 32
DEFAULT_VALUES = 1 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class CkksParameters:
    """One ring, one key kind and one packing; everything static.

    Attributes:
        degree: Ring degree N, a power of two.
        moduli: The data primes q_0 .. q_{L-1}, distinct, below 2^31, each 1 modulo 2N. Q is their product.
        special_modulus: Last prime of a SEAL or TenSEAL key chain (interchange only); None for parameters chosen here.
        mode: "public_key", "seeded" (symmetric; half of each ciphertext is a 32-byte seed) or "round" (fresh secrets of every sender under a public `a`,
            for `fedjax_poisson.aggregation`, whose `choose` makes these; one polynomial a row).
        count_bound: Bound on |any coordinate of the sum over all senders|, below 2^31. 0: no integer packing (interchange of real vectors).
        senders: Most ciphertexts that may be added.
        values: Longest vector for which `failure` holds; longer ones are refused.
        failure: Probability that any coordinate of an honest sum is opened wrongly or refused.
        values_per_coefficient: Fields k in one coefficient.
        field_bits: Bits w of a field.
        scale: Factor of real values in slots before they are rounded (interchange, `slots`); 0 for parameters that pack integers, whose
            factor is `step`.
        security_bits: Classical security level of the guideline.
        bytes_per_value: Bytes on the wire for each packed value (bit-packed residues).
        guideline: "2024" or "seal", or "none" for foreign parameters outside both.
        explanation: Why these, in words.
    """

    degree: int
    moduli: tuple[int, ...]
    special_modulus: int | None = None
    mode: Mode = "public_key"
    count_bound: int = 0
    senders: int = 1
    values: int = DEFAULT_VALUES
    failure: float = 2.0**-128
    values_per_coefficient: int = 0
    field_bits: int = 0
    scale: float = 0.0
    security_bits: int = 128
    bytes_per_value: float = 0.0
    guideline: str = "2024"
    explanation: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check what the arithmetic relies on.

        Raises:
            ValueError: If a field is out of range or the record contradicts itself.
        """
        if self.degree < 2 or self.degree & (self.degree - 1):
            raise ValueError(f"degree must be a power of two, not {self.degree}")
        if not self.moduli:
            raise ValueError("moduli is empty; at least one data prime is needed")
        chain = self.moduli if self.special_modulus is None else (*self.moduli, self.special_modulus)
        if len(set(chain)) != len(chain):
            raise ValueError(f"the primes must be distinct, seen {chain}")
        for q in self.moduli:
            if q >= 1 << 31 or q % (2 * self.degree) != 1 or not ntt.is_prime(q):
                raise ValueError(
                    f"{q} is not a prime below 2^31 that is 1 modulo 2 * degree = {2 * self.degree}; use ntt.primes_below"
                )
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {MODES}, not {self.mode!r}")
        if not 0 <= self.count_bound < 1 << 31:
            raise ValueError(f"count_bound must be in [0, 2^31), not {self.count_bound}: sums are returned as int32")
        if self.values_per_coefficient and (1 << (self.field_bits - 1)) - 1 < self.count_bound:
            raise ValueError(
                f"a field of {self.field_bits} bits does not hold sums up to {self.count_bound} of either sign"
            )
        if self.field_bits * self.values_per_coefficient >= self.modulus.bit_length():
            raise ValueError(
                f"{self.values_per_coefficient} fields of {self.field_bits} bits exceed the modulus of {self.modulus.bit_length()} bits"
            )

        if self.scale and (self.values_per_coefficient or not 1 <= self.scale < self.modulus):
            raise ValueError(
                f"scale = {self.scale!r} must be 0 where integers are packed ({self.values_per_coefficient} a coefficient), else at least 1 and below the "
                f"modulus of {self.modulus.bit_length()} bits"
            )

    @property
    def limbs(self) -> int:
        """Number L of data primes."""
        return len(self.moduli)

    @property
    def modulus(self) -> int:
        """Q, the product of the data primes."""
        return math.prod(self.moduli)

    @property
    def step(self) -> int:
        """floor(Q / 2^(k w)): how far apart two neighbouring packed integers lie (a big Python integer)."""
        return self.modulus >> (self.values_per_coefficient * self.field_bits)

    @property
    def noise_limit(self) -> float:
        """Largest noise of one coefficient of the sum that is accepted: 7/16 of a step."""
        return MARGIN * self.step

    @property
    def values_per_row(self) -> int:
        """Values in one full ciphertext."""
        return self.degree * self.values_per_coefficient

    @property
    def residue_bits(self) -> tuple[int, ...]:
        """Bits on the wire of one residue of each data prime."""
        return tuple((q - 1).bit_length() for q in self.moduli)

    def rows(self, size: int) -> int:
        """Ciphertexts needed for a vector of `size` values.

        Raises:
            ValueError: If these parameters pack no integers, or the vector is longer than the failure probability was stated for.
        """
        if not self.values_per_coefficient:
            raise ValueError("these parameters pack no integers (interchange only); make some with choose_parameters")
        if not 0 < size <= self.values:
            raise ValueError(
                f"the vector has {size} values, these parameters are stated for 1 to {self.values}; choose_parameters(values={size})"
            )
        return -(-size // self.values_per_row)


def sum_bound(bits: int, senders: int) -> int:
    """Bound on |a coordinate of the sum| of `senders` signed counts of `bits` bits each, in [-2^(bits-1), 2^(bits-1))."""
    if bits < 1 or senders < 1:
        raise ValueError(f"bits and senders must be at least 1, not {bits} and {senders}")
    return senders << (bits - 1)


@functools.lru_cache(maxsize=4096)
def _cheapest_chain(
    degree: int, least: int, limit_bits: int, least_prime: int, prime_bits: int
) -> tuple[int, ...] | None:
    """Primes of `least_prime` to 2^`prime_bits`, product >= `least`, fewest bits in all, at most `limit_bits`; then the fewest primes. None: there are none."""
    for total in range(max(least.bit_length() - 1, 1), limit_bits + 1):
        limbs = -(-total // prime_bits)
        chain: list[int] = []
        for bits, count in ((total // limbs + 1, total % limbs), (total // limbs, limbs - total % limbs)):
            chain += ntt.primes_below(1 << bits, degree, count) if count else ()
        if len(chain) == limbs and math.prod(chain) >= least and min(chain) >= least_prime:
            return tuple(chain)
    return None


def candidate(
    degree: int,
    fields: int,
    *,
    field_bits: int,
    limit: int,
    mode: Mode,
    senders: int,
    failure: float,
    values: int,
    least_prime: int = 2,
    prime_bits: int = PACKED_PRIME_BITS,
) -> CkksParameters | tuple[int, int]:
    """The cheapest parameters with `fields` values a coefficient and primes of `least_prime` to 2^`prime_bits`, or (bits needed, limit) beyond the limit."""
    rows = -(-values // (degree * fields))
    bound = noise_bound.noise_bound(
        degree=degree,
        senders=senders,
        mode=mode,
        coefficients=rows * degree,
        failure=failure,
    )
    # Each sender rounds Q M / 2^(k w) to an integer, half a unit at most; decoding is off by less than 2^-27 of a step.
    step = math.ceil((bound + senders / 2) / (MARGIN - 2.0**-20)) + 1
    least = step << (fields * field_bits)
    chain = _cheapest_chain(degree, least, limit, least_prime, prime_bits)
    if chain is None:
        return least.bit_length(), limit
    bits = sum((q - 1).bit_length() for q in chain)
    polynomials = 2 if mode == "public_key" else 1
    return CkksParameters(
        degree=degree,
        moduli=chain,
        mode=mode,
        senders=senders,
        values=values,
        failure=failure,
        values_per_coefficient=fields,
        field_bits=field_bits,
        bytes_per_value=(rows * degree * polynomials * bits / 8 + (SEED_BYTES if mode == "seeded" else 0)) / values,
    )


def choose_parameters(
    *,
    count_bound: int,
    senders: int,
    mode: Mode = "public_key",
    failure: float = 2.0**-128,
    values: int | None = None,
    guideline: str = "2024",
) -> CkksParameters:
    """The parameters with the fewest bytes on the wire that are exact and secure; among equals those with the least work.

    Args:
        count_bound: Bound on |any coordinate of the sum over all senders| (what a mechanism's `count_bound` returns), 1 to 2^31 - 1. For
            signed counts of b bits from each sender it is `sum_bound(b, senders)`. A single sender's coordinates must keep to it as well.
        senders: Most ciphertexts that are added before opening, at least 1.
        mode: "public_key" or "seeded" (senders share the secret key).
        failure: Probability that any coordinate of the whole vector is opened wrongly or refused, in (0, 1).
        values: Length of the vector, if known: short vectors then get a small ring. Default: cost is that of long vectors, failure is
            stated for up to 2^30 values.
        guideline: "2024" (log2 Q <= 26/53/106/214 for N = 1024/2048/4096/8192) or "seal" (27/54/109/218).

    Returns:
        Parameters whose `explanation` says what was weighed.

    Raises:
        ValueError: If an argument is out of range or no ring up to N = 8192 is large enough; the message says what would help.
    """
    if not 1 <= count_bound < 1 << 31:
        raise ValueError(
            f"count_bound must be in [1, 2^31), not {count_bound}: sums are opened as int32; lower the rate, or split the senders"
        )
    if senders < 1:
        raise ValueError(f"senders must be at least 1, not {senders}")
    if mode not in ("public_key", "seeded"):
        raise ValueError(
            f"mode must be 'public_key' or 'seeded', not {mode!r}; aggregation.choose makes parameters of rounds"
        )
    if not 0 < failure < 1:
        raise ValueError(f"failure must be a probability in (0, 1), not {failure}; the default is 2**-128")
    if guideline not in LIMITS:
        raise ValueError(f"guideline must be one of {tuple(LIMITS)}, not {guideline!r}")
    if values is not None and not 1 <= values <= DEFAULT_VALUES:
        raise ValueError(f"values must be in [1, 2^30], not {values}; encrypt longer vectors in parts")
    field_bits = count_bound.bit_length() + 1
    found: list[CkksParameters] = []
    missed: list[tuple[int, int]] = []
    for degree, limit in LIMITS[guideline].items():
        for fields in range(1, limit // field_bits + 1):
            tried = candidate(
                degree,
                fields,
                field_bits=field_bits,
                limit=limit,
                mode=mode,
                senders=senders,
                failure=failure,
                values=DEFAULT_VALUES if values is None else values,
            )
            if isinstance(tried, tuple):
                missed.append(tried)
                break
            found.append(tried)
    if not found:
        needed, limit = missed[-1] if missed else (field_bits + 1, max(LIMITS[guideline].values()))
        raise ValueError(
            f"one field of {field_bits} bits (|sum| <= {count_bound}) with room for the noise of {senders} senders needs a modulus of {needed} bits, "
            f"the {guideline} guideline allows {limit} at N = {max(LIMITS[guideline])}; fewer senders, a smaller count_bound, a larger failure "
            "probability would help"
        )

    def cost(p: CkksParameters) -> tuple[float, int]:
        return p.bytes_per_value, p.rows(p.values) * p.degree * p.limbs

    best = min(found, key=cost)
    spare = max(1, best.step).bit_length() - 1
    explanation = (
        f"N = {best.degree}, {best.limbs} primes of {min(best.residue_bits)} to {max(best.residue_bits)} bits, log2 Q = {math.log2(best.modulus):.1f} "
        f"(limit {LIMITS[guideline][best.degree]}, {'2024 guideline' if guideline == '2024' else 'SEAL (HE standard 2018)'}, 128 bits classical): "
        f"{best.values_per_coefficient} values of {field_bits} bits in a coefficient above {spare} bits for the noise of {senders} senders"
        + f"; failure 2^{math.log2(failure):.0f} over {best.values} values; {best.bytes_per_value:.3f} bytes a value ({mode})"
    )
    return dataclasses.replace(best, count_bound=count_bound, guideline=guideline, explanation=explanation)
