"""Opening a round: anyone who holds the summed rows and t answers computes the exact integer sum, or a named refusal, and which member answered wrongly.

An answer is a member's share of S, the sum of the secrets of the set U. An opening counts only if
  1. S is one small polynomial in all fields, |S| <= 2^20 and rms <= sqrt(21) (1.2 sqrt(|U|) + 3), without the 3 where no client is assumed corrupt;
  2. what C - a S leaves beside whole steps keeps to the same rms, and nowhere comes nearer to half a step than the parameters' margin;
  3. the counts keep to the stated bound and rms, and what lies behind the vector is zero; in norm rounds it counts as part of the vector, since one client
     whose proof holds may put something small there;
  4. with more than t answers, the others are compared with the polynomial.
A small residue alone proves nothing with one row: adding a^-1 encode(x) to an answer shifts the sum by x and leaves a perfect residue, but a secret sum
of rms 10^5. With 1 to 3 at most one S is accepted for given rows (`parameters`). Any client of a light round can make 2 and 3 fail: a refusal names no client.
A member is named only where t + f answers agree, since t honest ones are then among them. With fewer, a client whose rows and shares hold different secrets,
and one member together, can make honest answers look off, and decide whether the round opens at all.
An honest round fails 1 or 2 with at most 2^-53 (rms of 1,024 coefficients 1.2 times too large), and is opened wrongly with at most 2^-128.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation import host_rows, host_shares, rows
from fedjax_poisson.aggregation.parameters import RoundParameters, allowed_rms
from fedjax_poisson.aggregation.refusals import NoQuorum, OpeningRefused
from fedjax_poisson.ckks import modular, ntt, packing
from fedjax_poisson.ckks.parameters import MARGIN
from fedjax_poisson.traced_programs import traced_once

__all__ = ["Expected", "OpenedSum", "centred", "checked", "decode_sum", "open_sum", "small_secret"]

LARGEST_SECRET = 1 << 20
_MOST_SUBSETS = 40_000
_AT_ONCE = 1 << 22
"""Values that are decoded at once."""


class Expected(NamedTuple):
    """What an honest sum keeps to.

    Attributes:
      clients: |U|.
      corrupt: c.
      count_bound: bound on |any coordinate|.
      count_rms: bound on the root mean square of the coordinates; None if not stated.
      malicious: f.
    """

    clients: int
    corrupt: int
    count_bound: int
    count_rms: float | None = None
    malicious: int = 0


class OpenedSum(NamedTuple):
    """An opened round.

    Attributes:
      counts: int32 `[D]`, the exact sum.
      wrong: numbers of the members whose answers are proved wrong: t + f others agree.
      disputed: numbers of the members whose answers were not on the polynomial, while too few agree to say who is wrong.
    """

    counts: np.ndarray
    wrong: tuple[int, ...]
    disputed: tuple[int, ...] = ()


@functools.partial(jax.jit, static_argnums=0, inline=True)
def centred(params: RoundParameters, form: Array) -> tuple[Array, Array]:
    """A polynomial uint32 `[L, N]` in NTT form as small integers: int32 `[N]`, and bool `[]` whether all fields agree on them."""
    moduli = params.ring.moduli
    residues = ntt.inverse(form, moduli)
    q = modular.constants(moduli).q
    small = modular.centre(residues, q)
    first = small[0]
    return first, jnp.all(small == first[None]) & jnp.all(jnp.abs(first) <= _largest(params))


def _largest(params: RoundParameters) -> int:
    """What no coefficient of a sum of secrets exceeds."""
    return min(LARGEST_SECRET, min(params.ring.moduli) // 2)


@functools.partial(jax.jit, static_argnums=0, inline=True)
def decode_sum(params: RoundParameters, a: Array, total: Array, secret: Array) -> tuple[Array, Array, Array]:
    """Counts int32 `[R N k]` of summed rows under a sum of secrets, and the residue's largest and rms distance to whole steps, in steps."""
    found: tuple[Array, Array, Array] = packing.open_rows(
        params.ring, total, rows.multiply_rows(params, a, secret), params.padded
    )
    return found


def _decoded(
    params: RoundParameters, a: Array, total: np.ndarray, secret: np.ndarray
) -> tuple[Array | np.ndarray, float, float]:
    """As `decode_sum`; of a large vector a few rows at a time, so that beside the counts little memory is needed."""
    if host_rows.is_small(params):
        return host_rows.decode(params, np.asarray(a), total, secret)
    pieces = -(-params.padded // _AT_ONCE)
    if pieces == 1:
        counts, largest, rms = _decode(params, a, total, secret)
        return counts, float(largest), float(rms)
    step = -(-params.rows // pieces)
    fields = params.ring.values_per_coefficient
    out = np.empty((fields, params.ring.degree, params.rows), np.int32)
    most, squares = 0.0, 0.0
    for first in range(0, params.rows, step):
        rows_now = slice(first, min(first + step, params.rows))
        part = params._replace(rows=rows_now.stop - first)
        counts, largest, rms = _decode(part, a[rows_now], total[rows_now], secret)
        out[:, :, rows_now] = np.asarray(counts).reshape(fields, params.ring.degree, part.rows)
        most, squares = max(most, float(largest)), squares + float(rms) ** 2 * part.rows
    return out.reshape(-1), most, math.sqrt(squares / params.rows)


def _pieces(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[first : first + _AT_ONCE] for first in range(0, values.size, _AT_ONCE))


@traced_once(0)
def _decode(params: RoundParameters, a: Array, total: Array, secret: Array) -> tuple[Array, Array, Array]:
    return decode_sum(params, a, total, secret)


@traced_once(0)
def _centred(params: RoundParameters, form: Array) -> tuple[Array, Array]:
    found: tuple[Array, Array] = centred(params, form)
    return found


def small_secret(params: RoundParameters, form: np.ndarray, expected: Expected) -> str | None:
    """None if a sum of secrets, uint32 `[L, N]`, is as small as an honest one; else what is wrong."""
    if host_rows.is_small(params):
        values, same = host_rows.centred(params, form, _largest(params))
    else:
        values, same = _centred(params, form)
    if not bool(same):
        return "the sum of secrets is not one small polynomial"
    rms = math.sqrt(float(np.mean(np.asarray(values, np.float64) ** 2)))
    if rms > allowed_rms(expected.clients, expected.corrupt):
        return "the sum of secrets is larger than that of so many clients"
    return None


def checked(
    params: RoundParameters,
    form: np.ndarray,
    counts: Array | np.ndarray,
    largest: float,
    rms: float,
    expected: Expected,
) -> tuple[np.ndarray | None, str]:
    """The counts int32 `[D]` if checks 1 to 3 hold, else None and what failed.

    Args:
      params: of the round.
      form: uint32 `[L, N]`, the sum of secrets.
      counts: int32 `[R N k]`, decoded.
      largest: largest distance of a coefficient to whole steps.
      rms: root mean square of these distances.
      expected: what an honest sum keeps to.
    """
    wrong = small_secret(params, form, expected)
    if wrong is not None:
        return None, wrong
    if largest > MARGIN or rms * params.ring.step > allowed_rms(expected.clients, expected.corrupt):
        return None, "what is left beside whole counts is larger than the errors of so many clients"
    everything = np.asarray(counts)
    if params.proof is None and everything[params.size :].any():
        return None, "something stands behind the vector"
    found = everything[: params.size]
    if max(int(found.max()), -int(found.min())) > expected.count_bound:
        return None, f"a coordinate is beyond count_bound = {expected.count_bound}"
    energy = sum(float(np.sum(part.astype(np.float64) ** 2)) for part in _pieces(everything))
    if expected.count_rms is not None and math.sqrt(energy / params.size) > expected.count_rms:
        return None, "the counts are larger than those of so many honest clients"
    return found, ""


def open_sum(
    params: RoundParameters,
    terms_hash: bytes,
    total: np.ndarray,
    answers: Mapping[int, np.ndarray],
    expected: Expected,
    *,
    common: Array | None = None,
) -> OpenedSum:
    """The exact sum from at least t answers.

    Args:
      params: of the round.
      terms_hash: of the round.
      total: uint32 `[R, L, N]`, the summed rows of U.
      answers: member number to uint32 `[L, N]`.
      expected: what an honest sum keeps to.
      common: the round's `a` (`rows.common_of`), if it was expanded already.

    Raises:
      NoQuorum: fewer than t answers.
      OpeningRefused: no t of them give an opening that counts; nothing of what was decoded is in the message.
    """
    t, numbers = params.threshold, sorted(answers)
    if len(numbers) < t:
        raise NoQuorum(f"{len(numbers)} members answered, {t} are needed.")
    reason, a = "", rows.common_of(params, terms_hash) if common is None else common
    for tried, subset in enumerate(itertools.combinations(numbers, t)):
        if tried == _MOST_SUBSETS:
            break
        shares = np.stack([answers[k] for k in subset])
        secret = host_shares.combine(params, terms_hash, subset, shares)
        if tried and small_secret(params, secret, expected) is not None:
            continue
        decoded, largest, rms = _decoded(params, a, total, secret)
        counts, why = checked(params, secret, decoded, largest, rms, expected)
        reason = reason or why
        others = [k for k in numbers if k not in subset]
        off = tuple(
            k for k in others if (host_shares.combine(params, terms_hash, subset, shares, at=k) != answers[k]).any()
        )
        if counts is not None:
            proved = len(numbers) - len(off) >= t + expected.malicious
            return OpenedSum(counts, off if proved else (), () if proved else off)
        if not off:  # all answers agree on this polynomial: every subset gives the same
            break
    raise OpeningRefused(f"Nothing was opened: {reason}.")
