"""Rounds without messages: the counts, secrets and errors of every simulated client, summed and opened by the arithmetic of real rounds.

For programs that simulate many clients on one machine. What is simulated: every client's counts, secret and errors from its own stream, added up (the
transform is linear, so it runs once on the sums; the bits are those of the sum of all clients' rows), and the opening with its checks. The sums of the
first t - 1 members' shares are uniform and independent of all of that, so they are drawn once for the sum; `encrypt` deals one client's own shares. What
is not: signatures, boxes, the agreement on the set, screening; and the common `a` is that of one set of terms for all rounds. The counts that come out are
the same bits.

A program that draws the counts of a sum at once needs no client's secret either: `draw_sum` draws the secret and errors of the sum from their own law, so that
the rows are distributed as the sum of n clients' rows, up to the distance of one table (below 2^-66 a coefficient, computed).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from fedjax_poisson.aggregation import opening, rows, sharing
from fedjax_poisson.aggregation.contribution import kappas_of
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import RoundParameters, allowed_rms
from fedjax_poisson.aggregation.refusals import OpeningRefused
from fedjax_poisson.aggregation.rows import Secrets
from fedjax_poisson.ckks import modular
from fedjax_poisson.ckks.parameters import MARGIN
from fedjax_poisson.platforms import by_platform
from fedjax_poisson.randomness import SamplingTables, Stream

__all__ = [
    "DeviceFunctions",
    "RoundKey",
    "RoundSum",
    "add_two",
    "as_noise",
    "device_functions",
    "encrypt_one",
    "open_one",
]


class RoundKey(NamedTuple):
    """Public constants of a round, as arguments of programs.

    Attributes:
      a: uint32 `[R, L, N]`.
      dealing: uint32 `[m - t + 1, t, L]` (`sharing.dealing_weights`).
      opening: uint32 `[t, L]`: weights of the first t members' answers.
    """

    a: Array
    dealing: Array
    opening: Array


class RoundSum(NamedTuple):
    """The sum of clients' contributions.

    Attributes:
      rows: uint32 `[R, L, N]`.
      shares: uint32 `[t, L, N]`, the first t members' sums of shares.
      senders: uint32 `[]`, everybody whose secrets are in it, noise senders of norm rounds too.
      noise: uint32 `[]`, how many of them are noise senders: in norm rounds a sum without all of them is not opened.
    """

    rows: Array
    shares: Array
    senders: Array
    noise: Array

    def __repr__(self) -> str:
        """Facts only."""
        return f"RoundSum(senders={self.senders})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled: the shares open the sum."""
        raise TypeError("a sum of a round is not pickled")


class DeviceFunctions(NamedTuple):
    """For programs that simulate clients inside `jit`, `vmap` or `scan`; all pure.

    Attributes:
      params: of the round.
      corrupt: clients assumed corrupt, which an opening tolerates.
      states_rms: whether an opening is also held to a root mean square of the counts, which `open` does not check.
      key: public constants, to be passed as an argument.
      draw: `(stream) -> Secrets`: one client's.
      draw_sum: `(stream, rows.sum_secret_tables(n)) -> Secrets`: with the law of the sum of n clients'.
      none: `() -> Secrets`: the empty sum.
      add_up: `(Secrets, streams with a leading axis, present bool [K]) -> Secrets`: the sum with those of present clients drawn and added; integers, so several
        devices' sums are added as they are.
      close: `(key, counts int32[D], Secrets, senders, stream, noise=0) -> RoundSum`: the rows and shares of summed counts; the stream draws the sums of
        shares, `noise` says how many of the senders are noise senders.
      encrypt: `(key, counts, stream) -> RoundSum`: one client's.
      add: `(RoundSum, RoundSum) -> RoundSum`.
      zero: `() -> RoundSum`.
      open: `(key, RoundSum) -> (int32 [D], bool [])`, and whether every check held; for programs that open their sums themselves.
    """

    params: RoundParameters
    corrupt: int
    states_rms: bool
    key: Any
    draw: Callable[[Stream], Secrets]
    draw_sum: Callable[[Stream, SamplingTables], Secrets]
    none: Callable[[], Secrets]
    add_up: Callable[[Secrets, Stream, Array], Secrets]
    close: Callable[..., RoundSum]
    encrypt: Callable[[RoundKey, Array, Stream], RoundSum]
    add: Callable[[RoundSum, RoundSum], RoundSum]
    zero: Callable[[], RoundSum]
    open: Callable[[RoundKey, RoundSum], tuple[Array, Array]]


def round_key(params: RoundParameters, terms_hash: bytes) -> RoundKey:
    """The public constants of a round."""
    moduli = params.ring.moduli
    at = sharing.points(terms_hash, params.members, moduli)[: params.threshold]
    return RoundKey(
        rows.common_of(params, terms_hash),
        jax.device_put(sharing.dealing_weights(terms_hash, params.members, params.threshold, moduli)),
        jax.device_put(sharing.lagrange(at, (0,) * len(moduli), moduli)),
    )


def device_functions(params: RoundParameters, terms_hash: bytes, expected: Expected) -> DeviceFunctions:
    """The functions of programs that simulate rounds with these parameters."""
    return structure_functions(params, expected.corrupt)._replace(
        key=round_key(params, terms_hash), states_rms=expected.count_rms is not None
    )


@functools.lru_cache(maxsize=64)
def structure_functions(params: RoundParameters, corrupt: int) -> DeviceFunctions:
    """The same without public constants, for programs that are shared by all rounds with these parameters and so many corrupt clients.

    They get the constants as an argument, as they always do; `key` is None, and nothing is said of a root mean square.
    """
    bind = functools.partial
    return DeviceFunctions(
        params=params,
        corrupt=corrupt,
        states_rms=False,
        key=None,
        draw=bind(rows.draw, params),
        draw_sum=bind(rows.draw_sum, params),
        none=bind(_none, params),
        add_up=bind(_add_up, params),
        close=bind(_close, params),
        encrypt=bind(_encrypt, params),
        add=bind(_add, params),
        zero=bind(_zero, params),
        open=bind(_open, params, corrupt),
    )


def _none(params: RoundParameters) -> Secrets:
    degree = params.ring.degree
    return Secrets(jnp.zeros(degree, jnp.int32), jnp.zeros((degree, params.rows), jnp.int32))


def _add_up(params: RoundParameters, total: Secrets, streams: Stream, present: Array) -> Secrets:
    """On a CPU client after client: what one draws is added while it is in the cache. So on a TPU, whose compiler takes four times as long for all at once."""

    def here(leaf: Array, present: Array) -> Array:
        return jnp.where(present.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, jnp.int32(0))

    def one_by_one(total: Secrets, streams: Stream, present: Array) -> Secrets:
        def one(total: Secrets, client: tuple[Stream, Array]) -> tuple[Secrets, None]:
            drawn = rows.draw(params, client[0])
            return jax.tree.map(lambda old, new: old + here(new, client[1]), total, drawn), None

        return jax.lax.scan(one, total, (streams, present))[0]

    def at_once(total: Secrets, streams: Stream, present: Array) -> Secrets:
        drawn = jax.vmap(functools.partial(rows.draw, params))(streams)
        return jax.tree.map(lambda old, new: old + jnp.sum(here(new, present), axis=0, dtype=jnp.int32), total, drawn)

    found: Secrets = by_platform(total, streams, present, cpu=one_by_one, tpu=one_by_one, default=at_once)
    return found


def _close(
    params: RoundParameters,
    key: RoundKey,
    counts: Array,
    drawn: Secrets,
    senders: Array,
    stream: Stream,
    noise: Array | None = None,
) -> RoundSum:
    """The sum of contributions of summed counts and secrets; for one client these are its own rows and shares."""
    kappas = kappas_of(params, stream)[: params.threshold - 1]
    expanded = jax.vmap(functools.partial(sharing.expand_share, params))(kappas)
    last = sharing.later_share(params, key.dealing, rows.small_form(params, drawn.secret), expanded, params.threshold)
    shares = jnp.concatenate([expanded, last[None]])
    return RoundSum(
        rows.encrypt(params, key.a, counts, drawn), shares, senders, jnp.uint32(0) if noise is None else noise
    )


def _encrypt(params: RoundParameters, key: RoundKey, counts: Array, stream: Stream) -> RoundSum:
    return _close(params, key, counts, rows.draw(params, stream), jnp.uint32(1), stream)


def _add(params: RoundParameters, a: RoundSum, b: RoundSum) -> RoundSum:
    q = modular.constants(params.ring.moduli).q
    return RoundSum(
        modular.add(a.rows, b.rows, q), modular.add(a.shares, b.shares, q), a.senders + b.senders, a.noise + b.noise
    )


def as_noise(total: RoundSum) -> RoundSum:
    """The same contributions, as those of noise senders."""
    return total._replace(noise=total.senders)


def _zero(params: RoundParameters) -> RoundSum:
    ring = params.ring
    return RoundSum(
        jnp.zeros((params.rows, ring.limbs, ring.degree), jnp.uint32),
        jnp.zeros((params.threshold, ring.limbs, ring.degree), jnp.uint32),
        jnp.uint32(0),
        jnp.uint32(0),
    )


def _open(params: RoundParameters, corrupt: int, key: RoundKey, total: RoundSum) -> tuple[Array, Array]:
    """Counts int32 `[D]`, and whether checks 1 and 2 of `opening` hold and what lies behind the vector is zero."""
    form = sharing.weighted_sum(key.opening, total.shares, params.ring.moduli)
    values, small = opening.centred(params, form)
    allowed = allowed_rms(total.senders.astype(jnp.float32), corrupt, sqrt=jnp.sqrt)
    size = jnp.sqrt(jnp.mean(jnp.square(values.astype(jnp.float32))))
    counts, largest, rms = opening.decode_sum(params, key.a, total.rows, form)
    ok = small & (size <= allowed) & (largest <= jnp.float32(MARGIN))
    ok = ok & (rms * jnp.float32(params.ring.step) <= allowed)
    if params.proof is None:
        ok = ok & ~jnp.any(counts[params.size :] != 0)
    return counts[: params.size], ok


_encrypt_alone = jax.jit(_encrypt, static_argnums=0)
_add_alone = jax.jit(_add, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _read_alone(params: RoundParameters, key: RoundKey, total: RoundSum) -> tuple[Array, ...]:
    form = sharing.weighted_sum(key.opening, total.shares, params.ring.moduli)
    return form, *opening.decode_sum(params, key.a, total.rows, form)


def encrypt_one(use: DeviceFunctions, counts: np.ndarray, stream: Stream) -> RoundSum:
    """One client's contribution, outside a program."""
    return _encrypt_alone(use.params, use.key, jnp.asarray(counts), stream)


def add_two(use: DeviceFunctions, a: RoundSum, b: RoundSum) -> RoundSum:
    """The sum of two, outside a program."""
    return _add_alone(use.params, a, b)


def open_one(use: DeviceFunctions, total: RoundSum, expected: Expected) -> np.ndarray:
    """The exact counts int32 `[D]` of a sum, with every check of `opening`.

    Raises:
      OpeningRefused: a check failed; nothing of what was decoded is in the message.
    """
    form, counts, largest, rms = _read_alone(use.params, use.key, total)
    found, why = opening.checked(use.params, form, counts, float(largest), float(rms), expected)
    if found is None:
        raise OpeningRefused(f"Nothing was opened: {why}.")
    return found
