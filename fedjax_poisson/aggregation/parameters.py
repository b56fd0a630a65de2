"""Ring and packing of a round, chosen so that a client sends the fewest bytes: exact, secure, and with one secret sum that explains an opening.

Security. Secrets and errors are centred binomials of 42 pairs. Who knows an opened sum of them and all but two clients knows each of the two up to a law of
half the variance, 10.5, the width (3.24) that the guideline's limits are stated for; every opened functional of a client's secret is an exact linear equation
in it, so the limits are scaled by 1 - hints / N. *Checked numerically* by the lattice-estimator (`experiments/security_table.py`, at least 128 bits for every
set that can be returned); *assumed*: ring-LWE, and that hints cost no more than their dimensions.

One opening. Counts that are opened with a false sum of secrets S + d, d not 0, must still look right. Every accepted S has rms at most s, so there are at
most (8.3 s)^N such d (the difference lies in a ball of twice the radius; 8.3 > 2 sqrt(2 pi e)). Row j then opens to what it holds minus a_j d, and
a_j is a random function of the terms: per coefficient the residue looks small with probability 8.3 rms / step, a field beyond the vector is zero with
2^-w, and a count lies within its norm with 8.3 rms / 2^w. If the bits of all of these exceed N log2(8.3 s) + 128 then no false S exists
but with probability 2^-128 for each choice of terms, which the server makes (*proved* for d that vanish in no slot of the transform; *assumed* for the others).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_poisson.aggregation.norm_bound import FUNCTIONALS_OF_COUNTS, NormScreening, squared_bound
from fedjax_poisson.aggregation.proof_shape import ProofShape, proof_shape
from fedjax_poisson.ckks.noise_bound import WIDE_PAIRS, WIDE_VARIANCE
from fedjax_poisson.ckks.parameters import LIMITS, PACKED_PRIME_BITS, CkksParameters, candidate

__all__ = [
    "FUNCTIONALS",
    "HINTS",
    "UNIFORM",
    "RoundParameters",
    "allowed_rms",
    "choose",
    "default_malicious",
    "least_threshold",
]

FUNCTIONALS = 12
"""Functionals of a client's secret that screening opens."""
UNIFORM = 3
"""Uniform functionals of the shares: a wrong share is missed by each with probability 1/q."""
HINTS = FUNCTIONALS + UNIFORM
BALL = 8.3
"""Above 2 sqrt(2 pi e): the ball of twice the radius, per coefficient."""
LARGEST_RESIDUE = 8.3
"""Standard deviations within which an opened functional of secrets or errors is accepted."""
_PROVED_PRIME_BITS = (
    31  # in norm rounds a prime fewer is worth more than sparse reductions: a field fewer to prove in too
)
_MOST_ROWS_ADDED = 64
_MOST_BITS_ADDED = 3
_FUNCTIONAL_NOISE = 0.17  # a functional of errors, at 8.3 standard deviations, is as large as the noise bound of so many senders times R N


class RoundParameters(NamedTuple):
    """What a round's arithmetic needs; hashable, fit to be a static argument.

    Attributes:
      ring: degree, primes and packing; `ring.values` is what all rows hold, so counts are padded to it.
      rows: R polynomials that each client sends.
      size: D.
      members: m.
      threshold: t.
      proof: sizes of the clients' norm proofs; None in light rounds.
      noise_senders: l, parties whose noise, and so whose secrets, are in every sum besides those of clients; 0 in light rounds.
    """

    ring: CkksParameters
    rows: int
    size: int
    members: int
    threshold: int
    proof: ProofShape | None = None
    noise_senders: int = 0

    @property
    def scalars(self) -> int:
        """Scalars that a member sends for each client, in each field: functionals of its secret, and what is opened of its proof."""
        return HINTS + (0 if self.proof is None else self.proof.opened)

    @property
    def proof_bytes(self) -> int:
        """Bytes of one correction of a proof; 0 in light rounds."""
        return 0 if self.proof is None else sum(-(-self.proof.length * bits // 8) for bits in self.ring.residue_bits)

    @property
    def padded(self) -> int:
        """Fields in all rows."""
        return self.rows * self.ring.values_per_row

    @property
    def polynomial_bytes(self) -> int:
        """Bytes of one polynomial."""
        return sum(-(-self.ring.degree * bits // 8) for bits in self.ring.residue_bits)

    @property
    def rows_bytes(self) -> int:
        """Bytes of a client's rows."""
        return sum(-(-self.rows * self.ring.degree * bits // 8) for bits in self.ring.residue_bits)

    @property
    def corrections(self) -> int:
        """Correction polynomials that each client sends."""
        return self.members - self.threshold + 1


def default_malicious(members: int) -> int:
    """f with m >= 3 f + 1: t members are left without f that stay away. What f that lie can cost, see `docs/explanation/one_round_one_key.md`."""
    return (members - 1) // 3


def least_threshold(members: int, malicious: int) -> int:
    """The least t with 2 t > m + f. Below it two sets could be opened: an honest member answers once, t - f of m - f honest ones are needed for each set."""
    return (members + malicious) // 2 + 1


def allowed_rms(clients: Any, corrupt: int = 0, *, sqrt: Callable[[Any], Any] = math.sqrt) -> Any:
    """Root mean square that the sum of secrets, and the residue, of so many clients keeps to: 1.2 times the expected one, and 3 for a corrupt client.

    One corrupt client is tolerated, however many are assumed: a secret three times too large passes screening. More of them can stop a light round, which
    any one client can by gross counts, and a wider bound would leave room for false openings. `sqrt` is `jnp.sqrt` where the number of clients is traced.
    """
    return math.sqrt(WIDE_VARIANCE) * (1.2 * sqrt(clients) + 3 * min(corrupt, 1))


def _enough_rows(ring: CkksParameters, rows: int, asked: _Asked) -> bool:
    """Whether one sum of secrets explains an opening (module docstring)."""
    rms = allowed_rms(asked.senders, asked.corrupt)
    fields = rows * ring.values_per_row
    bits = rows * ring.degree * max(0.0, math.log2(ring.step) - math.log2(BALL * rms))
    if asked.norm is not None:  # what stands behind the vector belongs to it: one client must not stop a round by it
        assert asked.count_rms is not None
        spread = asked.count_rms * math.sqrt(asked.size / fields)
        bits += fields * max(0.0, ring.field_bits - math.log2(BALL * max(spread, 1.0)))
    else:
        bits += (fields - asked.size) * ring.field_bits
        if asked.count_rms is not None:
            bits += asked.size * max(0.0, ring.field_bits - math.log2(BALL * max(asked.count_rms, 1.0)))
    return bits >= ring.degree * math.log2(BALL * rms) + 128


class _Asked(NamedTuple):
    """What parameters are chosen for; `senders` counts everybody whose secrets are in a sum."""

    size: int
    senders: int
    members: int
    threshold: int
    corrupt: int
    count_rms: float | None
    norm: NormScreening | None
    squared_bound: int
    failure: float


@functools.lru_cache(maxsize=256)
def choose(
    size: int,
    count_bound: int,
    senders: int,
    members: int,
    threshold: int,
    *,
    corrupt: int = 0,
    count_rms: float | None = None,
    malicious: int = 0,
    norm: NormScreening | None = None,
    failure: float = 2.0**-128,
) -> RoundParameters:
    """The cheapest parameters: fewest bits in rows and corrections of one client, (R + m - t + 1) N log2 Q, and of its proof.

    Args:
      size: D, at least 1.
      count_bound: bound on |any coordinate of the sum|, 1 to 2^31 - 1 (`Mechanism.count_bound`).
      senders: most clients in one sum.
      members: m, 1 to 20.
      threshold: t.
      corrupt: clients assumed corrupt; an opening tolerates one (`allowed_rms`).
      count_rms: root mean square that the counts of a sum keep to, if it is known; saves rows for short vectors. Norm rounds need it.
      malicious: f; only norm rounds depend on it.
      norm: of a norm round; None for a light one.
      failure: probability that an honest sum is opened wrongly or refused for its noise.

    Raises:
      ValueError: an argument out of range, or nothing fits, with what would help.
    """
    if not 1 <= count_bound < 1 << 31:
        raise ValueError(
            f"count_bound = {count_bound}; give 1 <= count_bound < 2^31, the bound on |any coordinate of the sum|."
        )
    if size < 1 or senders < 1:
        raise ValueError(f"size = {size} and senders = {senders} must be at least 1.")
    if not 1 <= threshold <= members:
        raise ValueError(f"threshold = {threshold} of members = {members}: 1 <= t <= m is needed.")
    if corrupt < 0 or not (count_rms is None or 0 <= count_rms < math.inf):
        raise ValueError(f"corrupt = {corrupt} and count_rms = {count_rms} must not be negative.")
    field_bits, bound, everybody, hints = count_bound.bit_length() + 1, 0, senders, HINTS
    if norm is not None:
        if norm.squared_norm < 1 or not 1 <= norm.honest_noise <= norm.noise_senders or count_rms is None:
            raise ValueError(
                f"squared_norm = {norm.squared_norm}, {norm.honest_noise} of {norm.noise_senders} noise senders honest, count_rms = {count_rms}: a norm "
                "round needs a norm of at least 1, one honest noise sender or more, and count_rms."
            )
        bound = squared_bound(norm.squared_norm, members, threshold, malicious)
        field_bits = max(field_bits, math.isqrt(bound).bit_length() + 2)
        everybody, hints = senders + norm.noise_senders, HINTS + FUNCTIONALS_OF_COUNTS
    asked = _Asked(size, everybody, members, threshold, corrupt, count_rms, norm, bound, failure)
    best: tuple[float, RoundParameters] | None = None
    for degree, limit in LIMITS["2024"].items():
        scaled = math.floor(limit * (1 - hints / degree))
        for fields in range(1, scaled // field_bits + 1):
            made = _with_rows(degree, fields, field_bits, scaled, asked)
            if made is None:
                break
            if made.proof is None and norm is not None:
                continue
            proof = 0 if made.proof is None else made.proof.length
            bits = sum(made.ring.residue_bits)
            cost = made.rows * degree * bits + (members - threshold + 1) * (degree + proof) * bits
            if best is None or cost < best[0]:
                best = cost, made
    if best is None:
        raise ValueError(
            f"No ring up to N = {max(LIMITS['2024'])} holds sums up to {count_bound} of {everybody} senders"
            + (", or their norm proofs" if norm else "")
            + ": fewer senders or a smaller count_bound would help."
        )
    found = best[1]
    sent = found.rows_bytes + found.corrections * (found.polynomial_bytes + found.proof_bytes)
    ring = dataclasses.replace(
        found.ring,
        count_bound=(1 << (field_bits - 1))
        - 1,  # what a field holds: bounds of one width share their programs, terms state the bound
        bytes_per_value=sent / size,
        explanation=(
            f"N = {found.ring.degree}, {found.ring.limbs} primes, log2 Q = {math.log2(found.ring.modulus):.1f} (2024 guideline, scaled for {hints} opened "
            f"functionals), {found.ring.values_per_coefficient} counts of {field_bits} bits a coefficient, {found.rows} rows and {found.corrections} "
            f"corrections, {sent / size:.3f} bytes a parameter; failure 2^{math.log2(failure):.0f}"
        ),
    )
    return found._replace(ring=ring)


def _with_rows(degree: int, fields: int, field_bits: int, limit: int, asked: _Asked) -> RoundParameters | None:
    """The cheapest ring with so many fields a coefficient and the fewest rows that leave one opening; None where the modulus would be too large.

    In a norm round one with room for a proof, which may take a few bits or rows more; `proof` is None where even these do not do.
    """
    least = -(-asked.size // (degree * fields))
    for rows in range(least, least + _MOST_ROWS_ADDED):
        noise_of = asked.senders
        if asked.norm is not None:
            noise_of = max(noise_of, math.ceil(_FUNCTIONAL_NOISE * rows * degree))
        unproved = None
        for more in range(1 if asked.norm is None else 1 + _MOST_BITS_ADDED):
            made = candidate(
                degree,
                fields,
                field_bits=field_bits,
                limit=limit,
                mode="round",
                senders=noise_of << (2 * more),  # twice the noise: a bit more
                failure=asked.failure,
                values=rows * degree * fields,
                least_prime=2 * WIDE_PAIRS * asked.senders + 2,  # a sum of secrets is below half of every prime
                prime_bits=PACKED_PRIME_BITS if asked.norm is None else _PROVED_PRIME_BITS,
            )
            if isinstance(made, tuple):
                if more:
                    break
                return None
            if not _enough_rows(made, rows, asked):
                continue
            made = dataclasses.replace(made, senders=asked.senders)
            found = RoundParameters(made, rows, asked.size, asked.members, asked.threshold)
            if asked.norm is None:
                return found
            try:
                shape = proof_shape(asked.squared_bound, fields, degree, made.moduli, field_bits)
            except ValueError:
                unproved = found
                continue
            return found._replace(proof=shape, noise_senders=asked.norm.noise_senders)
        if unproved is not None and rows - least == _MOST_BITS_ADDED:
            return unproved
    return None
