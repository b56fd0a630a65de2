"""Opening a sum under a threshold key: each party answers once, anyone adds the answers.

Party j publishes d_j = c1 (lambda_j sigma_j) + r_j, r_j uniform on 2^k consecutive integers around 0 per
coefficient; anyone adds c0 + sum d_j = message + v + sum r_j, where v is the ciphertexts' noise.

Why the smudging hides. Let all other parties collude. They know the message, c0, c1 and all other shares, so d_j shows
them v + r_j and nothing else. With |v| <= B the laws of r_j and of v + r_j differ by at most B / 2^k in total variation
for each coefficient; 2^k >= S = B 2^smudging_bits (`CkksParameters`), so it is at most 2^-smudging_bits, and at most
that times the number of opened coefficients over the life of the key. The simulated d_j is made without the share. This
holds for one answer to each ciphertext; a party therefore keeps an `AnswerGuard`, and answers only for sums of at least
the announced minimum of senders whose contributions it has never opened.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation.answer_guard import AnswerGuard
from fedjax_poisson.aggregation.threshold_keys import PartySecret, Session
from fedjax_poisson.ckks import modular, ntt, packing, rlwe_samplers
from fedjax_poisson.ckks.encryption import Ciphertext
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.parameters import MARGIN, CkksParameters
from fedjax_poisson.ckks.rlwe_samplers import Stream, fold_in


class PartialDecryption(NamedTuple):
    """A party's answer: d_j, uint32 `[R, L, N]` in NTT form, so that a changed residue spoils a whole row and is seen.

    Attributes:
      party: who answers.
      subset: the parties whose answers belong together, ascending.
      digest: of the ciphertext's second polynomials.
      data: the share with its smudging noise.
    """

    party: int
    subset: tuple[int, ...]
    digest: bytes
    data: jax.Array


class Party(NamedTuple):
    """A key holder's role.

    Attributes:
      number: 1 .. n.
      answer: `(Ciphertext, subset, ids) -> PartialDecryption`, once per ciphertext; raises `RoundRefused`.
    """

    number: int
    answer: Callable[[Ciphertext, Sequence[int], Iterable[bytes]], PartialDecryption]

    def __repr__(self) -> str:
        """The number; what `answer` closes over is secret."""
        return f"Party({self.number})"


def make_party(session: Session, secret: PartySecret, stream: Stream, guard: AnswerGuard) -> Party:
    """A key holder's role over its secret.

    Args:
      session: the public terms.
      secret: `make_party_key`'s for n-of-n, `combine_shares`'s for t-of-n.
      stream: its secret randomness for smudging. Each answer folds in the digest of its ciphertext, and none is
        answered twice, so the noise never repeats, not even after a restart with the same stream.
      guard: what it has answered.

    Raises:
      ValueError: a secret of another key or kind.
    """
    if secret.label != session.label:
        raise ValueError("The secret belongs to another key (its label differs).")
    if secret.shared == (session.threshold == session.parties):
        kind = "combine_shares" if session.threshold < session.parties else "make_party_key"
        raise ValueError(f"{session.threshold}-of-{session.parties} needs the secret from {kind}.")

    def answer(ciphertext: Ciphertext, subset: Sequence[int], ids: Iterable[bytes] = ()) -> PartialDecryption:
        return partial_decrypt(session, secret, ciphertext, stream, subset=subset, ids=ids, guard=guard)

    return Party(secret.party, answer)


def partial_decrypt(
    session: Session,
    secret: PartySecret,
    ciphertext: Ciphertext,
    stream: Stream,
    *,
    subset: Sequence[int],
    guard: AnswerGuard,
    ids: Iterable[bytes] = (),
) -> PartialDecryption:
    """One party's answer for one sum.

    Args:
      session: the public terms.
      secret: the party's.
      ciphertext: a sum under the joint key, data uint32 `[R, 2, L, N]`.
      stream: the party's smudging randomness.
      subset: the t parties that answer together.
      guard: the party's memory.
      ids: nonces of the contributions in the sum; one that was opened before is refused.

    Raises:
      RoundRefused: too few or too many senders, a wrong subset, or a second answer.
      WireError: a ciphertext of the wrong shape.
    """
    params = session.params
    team = tuple(sorted(set(subset)))
    if (
        len(team) != session.threshold
        or len(team) != len(subset)
        or secret.party not in team
        or not _within(team, session)
    ):
        raise RoundRefused(
            f"Parties {sorted(subset)} were named; {session.threshold} different ones of 1 to {session.parties}, among "
            f"them {secret.party}, are needed."
        )
    _check_sum(session, ciphertext)
    digest = ciphertext_digest(session, ciphertext)
    guard.claim([digest, *ids])  # on disk before the answer exists
    words = jnp.asarray(np.frombuffer(digest, "<u4").astype(np.uint32))
    scalar = lagrange(team, secret.party, params.moduli) if secret.shared else np.ones(params.limbs, np.uint32)
    data = _answer(params, secret.data, jnp.asarray(scalar), ciphertext.data, words, stream)
    return PartialDecryption(secret.party, team, digest, data)


def fuse(
    session: Session, ciphertext: Ciphertext, answers: Sequence[PartialDecryption], size: int
) -> tuple[jax.Array, jax.Array]:
    """The exact counts of a sum from the answers of a subset; needs no secret.

    Args:
      session: the public terms.
      ciphertext: the sum that was answered for.
      answers: one from each party of the subset.
      size: D.

    Returns:
      counts int32 `[D]`, and bool `[]`: every coefficient was within `parameters.MARGIN` of an integer, in steps. Else the
      counts mean nothing. How near they were is noise and is not returned.

    Raises:
      RoundRefused: answers are missing, repeated, or of another ciphertext or subset.
      WireError: an answer of the wrong shape or with residues that are not below their primes.
    """
    params = session.params
    _check_sum(session, ciphertext)
    digest = ciphertext_digest(session, ciphertext)
    teams = {answer.subset for answer in answers}
    if (
        len(teams) != 1
        or sorted(a.party for a in answers) != list(next(iter(teams)))
        or len(answers) != session.threshold
    ):
        raise RoundRefused(
            f"There are answers from {sorted(a.party for a in answers)} for subsets {sorted(teams)}; every party of "
            f"one subset of {session.threshold} must answer once."
        )
    for answer in answers:
        if answer.digest != digest:
            raise RoundRefused(f"The answer of party {answer.party} is for another ciphertext.")
        expected = (ciphertext.data.shape[0], params.limbs, params.degree)
        if answer.data.shape != expected or answer.data.dtype != jnp.uint32:
            raise WireError(
                f"The answer of party {answer.party} is {answer.data.dtype}{list(answer.data.shape)} instead of "
                f"uint32{list(expected)}."
            )
    counts, exact, sound = _fuse(params, size, ciphertext.data, tuple(answer.data for answer in answers))
    if not bool(sound):
        q = np.asarray(params.moduli, np.uint32)[:, None]
        party = next(answer.party for answer in answers if np.any(np.asarray(answer.data) >= q))
        raise WireError(f"The answer of party {party} has a residue that is not below its prime: altered.")
    return counts, exact


def lagrange(team: Sequence[int], party: int, moduli: tuple[int, ...]) -> np.ndarray:
    """Lagrange's lambda_j = prod_{m != j} m / (m - j) modulo each prime, uint32 `[L]`: party j's weight at 0."""
    weights = []
    for q in moduli:
        weight = 1
        for other in team:
            if other != party:
                weight = weight * other * pow(other - party, -1, q) % q
        weights.append(weight)
    return np.asarray(weights, np.uint32)


def smudging_bits(params: CkksParameters) -> int:
    """K: smudging noise is uniform on [-2^(k-1), 2^(k-1)), the largest such interval within [-S, S]; 2^k >= S + 1/2."""
    return (2 * params.smudging_bound).bit_length() - 1


def smudging(params: CkksParameters, stream: Stream, rows: int) -> jax.Array:
    """Integers uniform on [-2^(k-1), 2^(k-1)), k = `smudging_bits(params)`, exactly: residues uint32 `[R, L, N]`."""
    k = smudging_bits(params)
    count = -(-k // 32)
    c = modular.constants(params.moduli)
    words = rlwe_samplers.bits(stream, (count, rows, 1, params.degree))
    words = words.at[-1].set(words[-1] >> jnp.uint32(32 * count - k))
    centre = np.asarray([-(1 << (k - 1)) % q for q in params.moduli], np.uint32)[:, None]
    total = jnp.broadcast_to(jnp.asarray(centre), (rows, params.limbs, params.degree))
    for i in range(count):
        weight = np.asarray([(1 << 32 * i) % q for q in params.moduli], np.uint32)[:, None]
        term = modular.multiply_shoup(words[i], weight, modular.shoup_quotient(weight, c.q), c.q)
        total = modular.add(total, modular.reduce_once(term, c.q), c.q)
    return total


def ciphertext_digest(session: Session, ciphertext: Ciphertext) -> bytes:
    """BLAKE2b-256 of the second polynomials, which are all that an answer depends on."""
    state = hashlib.blake2b(digest_size=32, person=b"fjp threshold c1")
    state.update(session.label)
    state.update(np.ascontiguousarray(np.asarray(ciphertext.data)[:, 1], "<u4").data)
    return state.digest()


def _check_sum(session: Session, ciphertext: Ciphertext) -> None:
    params = session.params
    rows = ciphertext.data.shape[0]
    if ciphertext.seed is not None or ciphertext.data.shape != (rows, 2, params.limbs, params.degree):
        raise WireError(
            f"The ciphertext has shape {ciphertext.data.shape}; [R, 2, {params.limbs}, {params.degree}] is needed."
        )
    senders = int(ciphertext.senders)
    if not session.minimum_senders <= senders <= params.senders:
        raise RoundRefused(
            f"The sum holds {senders} contributions; {session.minimum_senders} to {params.senders} were announced. "
            "Nothing was opened."
        )


def _within(team: tuple[int, ...], session: Session) -> bool:
    return 1 <= team[0] and team[-1] <= session.parties


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    params: CkksParameters, secret: jax.Array, scalar: jax.Array, data: jax.Array, digest: jax.Array, stream: Stream
) -> jax.Array:
    """C1 (lambda sigma) + r, uint32 [R, L, N] in NTT form; r's stream has the ciphertext's digest folded in."""
    c = modular.constants(params.moduli)
    second = data[:, 1]
    own = fold_in(stream, "smudging", *(digest[i] for i in range(8)))
    weighted = modular.multiply(secret, jnp.broadcast_to(scalar[:, None], secret.shape), c)
    product = modular.multiply(second, jnp.broadcast_to(weighted, second.shape), c)
    noise = ntt.forward(smudging(params, own, second.shape[0]), params.moduli)
    return modular.add(product, noise, c.q)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fuse(
    params: CkksParameters, size: int, data: jax.Array, answers: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Counts, whether they are exact, and whether all residues of all answers are below their primes."""
    q = modular.constants(params.moduli).q
    total = functools.reduce(lambda a, b: modular.add(a, b, q), answers, data[:, 0])
    sound = jnp.all(functools.reduce(jnp.maximum, answers) < jnp.asarray(q)[None])
    counts, distance = packing.decode(params, ntt.inverse(total, params.moduli), size)
    return counts, distance <= jnp.float32(MARGIN), sound
