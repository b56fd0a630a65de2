"""Threshold keys: n parties hold a key that none of them has; all of them, or any t of them, open a sum together.

Key generation (n-of-n; Mouchet, Troncoso-Pastoriza, Bossuat, Hubaux 2021, "Multiparty homomorphic encryption from
ring-learning-with-errors", section 4). A common a is expanded from a public label. Party i draws s_i ternary and
publishes b_i = -(a s_i + e_i); (sum b_i, a) is the public key of s = sum s_i. Each party first publishes a commitment
to b_i, so that nobody can choose its own b_i after seeing the others'.

t-of-n. Party i also shares s_i by a random polynomial f_i of degree t - 1 over the ring, f_i(0) = s_i (Shamir 1979, in
every residue field, which all contain the points 1 .. n), and sends f_i(j) to party j in private; party j keeps the sum
over i, a point of sum f_i. For a subset T of t parties s = sum_{j in T} lambda_j sigma_j with Lagrange's lambda_j at 0.
A party multiplies by lambda_j *before* it adds noise, so the noise is not blown up.

Model: honest-but-curious parties that follow the protocol; up to n - 1 (t - 1) of them may pool what they have. A party
that sends a wrong share is noticed (the opened values are far from integers) but not named. How they open sums:
`opening`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import modular, ntt, rlwe_samplers
from fedjax_poisson.ckks.ciphertext_bytes import fingerprint, parameters_fingerprint
from fedjax_poisson.ckks.encryption import PublicKey
from fedjax_poisson.ckks.errors import WireError
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.ckks.rlwe_samplers import Stream, fold_in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """What all parties agree on before a key is made; public.

    Attributes:
      params: threshold parameters for `parties` key holders.
      parties: n; they are numbered 1 .. n.
      threshold: t, how many open a sum; n for n-of-n.
      minimum_senders: fewest contributions that a party helps to open.
      label: 16 bytes that name the key; a is expanded from them.
    """

    params: CkksParameters
    parties: int
    threshold: int
    minimum_senders: int
    label: bytes


class KeyCommitment(NamedTuple):
    """First message of a party: BLAKE2b-256 of what its `KeyShare` will be."""

    party: int
    digest: bytes


class KeyShare(NamedTuple):
    """Second message of a party: b_i, uint32 `[L, N]` in NTT form, and the nonce of its commitment."""

    party: int
    label: bytes
    first: np.ndarray
    nonce: bytes


class PartySecret(NamedTuple):
    """What one party keeps: its share of the secret, uint32 `[L, N]` in NTT form. Not shown by repr, not pickled."""

    party: int
    label: bytes
    shared: bool
    data: jax.Array

    def __repr__(self) -> str:
        """The party's number and nothing of the share."""
        return f"PartySecret(party={self.party}, <hidden>)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("A PartySecret cannot be pickled; use messages.record_to_bytes, knowingly.")


class SecretShare(NamedTuple):
    """A private message, f_sender(receiver), uint32 `[L, N]`. Not shown by repr, not pickled."""

    sender: int
    receiver: int
    label: bytes
    data: jax.Array

    def __repr__(self) -> str:
        """Sender and receiver and nothing of the share."""
        return f"SecretShare(sender={self.sender}, receiver={self.receiver}, <hidden>)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("A SecretShare cannot be pickled; use messages.record_to_bytes and a private channel.")


def announce(
    params: CkksParameters,
    *,
    minimum_senders: int,
    threshold: int | None = None,
    label: bytes | None = None,
) -> Session:
    """The public terms of a threshold key.

    Args:
      params: `choose_parameters(mode="threshold", parties=n, ...)`.
      minimum_senders: fewest contributions that are opened.
      threshold: t; None means all n.
      label: 16 bytes; None draws them from the operating system.

    Raises:
      ValueError: parameters of another mode, or numbers that do not fit together.
    """
    parties = params.parties
    t = parties if threshold is None else threshold
    if params.mode != "threshold" or params.smudging_bound < 1:
        raise ValueError(
            f'params.mode = "{params.mode}"; a threshold key needs choose_parameters(mode="threshold", parties=...).'
        )
    if not 1 <= t <= parties:
        raise ValueError(f"threshold = {t} of {parties} parties; give 1 <= threshold <= parties.")
    if not 1 <= minimum_senders <= params.senders:
        raise ValueError(f"minimum_senders = {minimum_senders}; the parameters add 1 to {params.senders} senders.")
    name = secrets.token_bytes(16) if label is None else label
    if len(name) != 16:
        raise ValueError(f"label has {len(name)} bytes; give 16.")
    return Session(params=params, parties=parties, threshold=t, minimum_senders=minimum_senders, label=name)


def common_polynomial(session: Session) -> jax.Array:
    """The public a, uint32 `[L, N]`, expanded from BLAKE2b-256 of the label and the parameters: nobody chooses it."""
    seed = hashlib.blake2b(
        session.label + parameters_fingerprint(session.params), digest_size=32, person=b"fjp threshold a"
    ).digest()
    public = Stream(jnp.asarray(np.frombuffer(seed, "<u4").astype(np.uint32)), jnp.uint32(0))
    return rlwe_samplers.uniform_residues(
        fold_in(public, "common polynomial"), (session.params.degree,), session.params.moduli
    )


def make_party_key(session: Session, party: int, stream: Stream) -> tuple[PartySecret, KeyCommitment, KeyShare]:
    """One party's key material.

    Args:
      session: the public terms.
      party: its number, 1 .. n.
      stream: its secret randomness, consumed.

    Returns:
      What it keeps; what it publishes first; what it publishes when all commitments are there.
    """
    if not 1 <= party <= session.parties:
        raise ValueError(f"party = {party}; parties are numbered 1 to {session.parties}.")
    secret, first = _party_key(session.params, common_polynomial(session), stream)
    share = KeyShare(party, session.label, np.asarray(first), secrets.token_bytes(32))
    return PartySecret(party, session.label, False, secret), KeyCommitment(party, _commit(share)), share


def joint_public_key(session: Session, commitments: Sequence[KeyCommitment], shares: Sequence[KeyShare]) -> PublicKey:
    """The public key of the sum of all secrets, from public messages only.

    Raises:
      WireError: a message is missing, repeated, malformed or not what was committed to.
    """
    params = session.params
    expected = list(range(1, session.parties + 1))
    for kind, found in (("commitment", [c.party for c in commitments]), ("share", [s.party for s in shares])):
        if sorted(found) != expected:
            raise WireError(
                f"There is a key {kind} from parties {sorted(found)}; one from each of 1 to {session.parties} is "
                "needed."
            )
    digests = {c.party: c.digest for c in commitments}
    q = np.asarray(params.moduli, np.uint64)[:, None]
    total = np.zeros((params.limbs, params.degree), np.uint64)
    for share in shares:
        if share.first.shape != total.shape or share.first.dtype != np.uint32 or np.any(share.first >= q):
            raise WireError(f"The key share of party {share.party} is not uint32{list(total.shape)} below the primes.")
        if share.label != session.label or not hmac.compare_digest(_commit(share), digests[share.party]):
            raise WireError(
                f"The key share of party {share.party} is not what it committed to; start over with a new label."
            )
        total = (total + share.first) % q
    return PublicKey(jnp.stack([jnp.asarray(total.astype(np.uint32)), common_polynomial(session)]))


def deal(session: Session, secret: PartySecret, stream: Stream) -> tuple[SecretShare, ...]:
    """Shamir shares of one party's secret, one for each party (its own included), for t-of-n.

    Args:
      session: the public terms.
      secret: what `make_party_key` returned to this party.
      stream: its secret randomness, consumed.

    Returns:
      n private messages.
    """
    if secret.shared:
        raise ValueError("This is already a share of the joint secret; deal what make_party_key returned.")
    numbers = jnp.arange(1, session.parties + 1, dtype=jnp.uint32)
    points = _evaluate(session.params, session.threshold, secret.data, numbers, stream)
    return tuple(SecretShare(secret.party, j, session.label, point) for j, point in enumerate(points, 1))


def combine_shares(session: Session, party: int, shares: Sequence[SecretShare]) -> PartySecret:
    """A party's point of the joint secret's polynomial: the sum of what it received.

    Raises:
      WireError: a message is missing, repeated, or for somebody else.
    """
    if sorted(share.sender for share in shares) != list(range(1, session.parties + 1)):
        raise WireError(
            f"Party {party} has shares from {sorted(s.sender for s in shares)}; one from each of 1 to "
            f"{session.parties} is needed."
        )
    if any(share.receiver != party or share.label != session.label for share in shares):
        raise WireError(f"A share was dealt to a party other than {party} or under another label.")
    q = modular.constants(session.params.moduli).q
    total = functools.reduce(lambda a, b: modular.add(a, b, q), [share.data for share in shares])
    return PartySecret(party, session.label, True, total)


def _commit(share: KeyShare) -> bytes:
    return hashlib.blake2b(
        fingerprint(share.label, str(share.party).encode(), share.nonce)
        + share.first.astype("<u4").tobytes()
        + share.nonce,
        digest_size=32,
        person=b"fjp key commit",
    ).digest()


@functools.partial(jax.jit, static_argnums=0)
def _party_key(params: CkksParameters, common: jax.Array, stream: Stream) -> tuple[jax.Array, jax.Array]:
    c = modular.constants(params.moduli)

    def small(x: jax.Array) -> jax.Array:
        return ntt.forward(modular.from_signed(x[None], c.q), params.moduli)

    secret = small(rlwe_samplers.ternary(fold_in(stream, "secret"), (params.degree,)))
    error = small(rlwe_samplers.centred_binomial(fold_in(stream, "error"), (params.degree,)))
    return secret, modular.negate(modular.add(modular.multiply(common, secret, c), error, c.q), c.q)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _evaluate(
    params: CkksParameters, threshold: int, secret: jax.Array, points: jax.Array, stream: Stream
) -> jax.Array:
    """f at the points [n], for f(0) = secret and t - 1 uniform coefficients, by Horner's rule: uint32 [n, L, N]."""
    c = modular.constants(params.moduli)
    degree, shape = params.degree, (points.shape[0], *secret.shape)
    x = jnp.broadcast_to(points[:, None, None], shape)
    total = jnp.zeros(shape, jnp.uint32)
    for k in range(1, threshold):
        coefficient = rlwe_samplers.uniform_residues(fold_in(stream, "shamir", k), (degree,), params.moduli)
        total = modular.multiply(modular.add(total, jnp.broadcast_to(coefficient, shape), c.q), x, c)
    return modular.add(total, jnp.broadcast_to(secret, shape), c.q)
