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

from fedjax_poisson.ckks.noise_bound import WIDE_PAIRS, WIDE_VARIANCE
from fedjax_poisson.ckks.parameters import LIMITS, CkksParameters, candidate

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
_MOST_ROWS_ADDED = 64


class RoundParameters(NamedTuple):
    """What a round's arithmetic needs; hashable, fit to be a static argument.

    Attributes:
      ring: degree, primes and packing; `ring.values` is what all rows hold, so counts are padded to it.
      rows: R polynomials that each client sends.
      size: D.
      members: m.
      threshold: t.
    """

    ring: CkksParameters
    rows: int
    size: int
    members: int
    threshold: int

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
    """f with m >= 3 f + 1: t members are left without f that stay away. What f that lie can cost, see `docs/aggregation.md`."""
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


def _enough_rows(
    ring: CkksParameters, rows: int, size: int, senders: int, corrupt: int, count_rms: float | None
) -> bool:
    """Whether one sum of secrets explains an opening (module docstring)."""
    rms = allowed_rms(senders, corrupt)
    fields = rows * ring.values_per_row
    bits = rows * ring.degree * max(0.0, math.log2(ring.step) - math.log2(BALL * rms))
    bits += (fields - size) * ring.field_bits
    if count_rms is not None:
        bits += size * max(0.0, ring.field_bits - math.log2(BALL * max(count_rms, 1.0)))
    return bits >= ring.degree * math.log2(BALL * rms) + 128


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
    failure: float = 2.0**-128,
) -> RoundParameters:
    """The cheapest parameters: fewest bits in rows and corrections of one client, (R + m - t + 1) N log2 Q.

    Args:
      size: D, at least 1.
      count_bound: bound on |any coordinate of the sum|, 1 to 2^31 - 1 (`Mechanism.count_bound`).
      senders: most clients in one sum.
      members: m, 1 to 20.
      threshold: t.
      corrupt: clients assumed corrupt; an opening tolerates one (`allowed_rms`).
      count_rms: root mean square that the counts of a sum keep to, if it is known; saves rows for short vectors.
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
    field_bits = count_bound.bit_length() + 1
    best: tuple[float, RoundParameters] | None = None
    for degree, limit in LIMITS["2024"].items():
        scaled = math.floor(limit * (1 - HINTS / degree))
        for fields in range(1, scaled // field_bits + 1):
            made = _with_rows(degree, fields, field_bits, scaled, size, senders, corrupt, count_rms, failure)
            if made is None:
                break
            ring, rows = made
            cost = (rows + members - threshold + 1) * degree * sum(ring.residue_bits)
            if best is None or cost < best[0]:
                best = cost, RoundParameters(ring, rows, size, members, threshold)
    if best is None:
        raise ValueError(
            f"No ring up to N = {max(LIMITS['2024'])} holds sums up to {count_bound} of {senders} clients: fewer senders or a smaller count_bound would help."
        )
    found = best[1]
    sent = found.rows_bytes + found.corrections * found.polynomial_bytes
    ring = dataclasses.replace(
        found.ring,
        count_bound=(1 << (field_bits - 1))
        - 1,  # what a field holds: bounds of one width share their programs, terms state the bound
        bytes_per_value=sent / size,
        explanation=(
            f"N = {found.ring.degree}, {found.ring.limbs} primes, log2 Q = {math.log2(found.ring.modulus):.1f} (2024 guideline, scaled for {HINTS} opened "
            f"functionals), {found.ring.values_per_coefficient} counts of {field_bits} bits a coefficient, {found.rows} rows and {found.corrections} "
            f"corrections, {sent / size:.3f} bytes a parameter; failure 2^{math.log2(failure):.0f}"
        ),
    )
    return found._replace(ring=ring)


def _with_rows(
    degree: int,
    fields: int,
    field_bits: int,
    limit: int,
    size: int,
    senders: int,
    corrupt: int,
    count_rms: float | None,
    failure: float,
) -> tuple[CkksParameters, int] | None:
    """The cheapest ring with so many fields a coefficient and the fewest rows that leave one opening; None where the modulus would be too large."""
    least = -(-size // (degree * fields))
    for rows in range(least, least + _MOST_ROWS_ADDED):
        made = candidate(
            degree,
            fields,
            field_bits=field_bits,
            limit=limit,
            mode="round",
            senders=senders,
            failure=failure,
            values=rows * degree * fields,
            least_prime=2 * WIDE_PAIRS * senders + 2,  # a sum of secrets is below half of every prime
        )
        if isinstance(made, tuple):
            return None
        if _enough_rows(made, rows, size, senders, corrupt, count_rms):
            return made, rows
    return None
