"""Threshold keys: n parties hold a key that none of them has; all of them, or any t of them, open a sum together.

Key generation (n-of-n; Mouchet, Troncoso-Pastoriza, Bossuat, Hubaux 2021, "Multiparty homomorphic encryption from
ring-learning-with-errors", section 4). A common a is expanded from a public label. Party i draws s_i ternary and publishes b_i = -(a s_i + e_i); (sum b_i, a) is the public key of
s = sum s_i. Each party first publishes a commitment to b_i, so that nobody can choose its own b_i after seeing the
others'.

t-of-n. Party i also shares s_i by a random polynomial f_i of degree t - 1 over the ring, f_i(0) = s_i (Shamir 1979, in
every residue field, which all contain the points 1 .. n), and sends f_i(j) to party j in private; party j keeps the sum
over i, a point of sum f_i. For a subset T of t parties s = sum_{j in T} lambda_j sigma_j with Lagrange's lambda_j at 0.
A party multiplies by lambda_j *before* it adds noise, so the noise is not blown up.

Opening. Party j publishes d_j = c1 (lambda_j sigma_j) + r_j, r_j uniform on 2^k consecutive integers around 0 per
coefficient; anyone adds c0 + sum d_j = message + v + sum r_j, where v is the ciphertexts' noise.

Why the smudging hides. Let all other parties collude. They know the message, c0, c1 and all other shares, so d_j shows
them v + r_j and nothing else. With |v| <= B the laws of r_j and of v + r_j differ by at most B / 2^k in total variation
for each coefficient; 2^k >= S = B 2^smudging_bits (`CkksParameters`), so it is at most 2^-smudging_bits, and at most
that times the number of opened coefficients over the life of the key. The simulated d_j is made without the share. This
holds for one answer to each ciphertext; a party therefore keeps an `AnswerGuard`, and answers only for sums of at least
the announced minimum of senders whose contributions it has never opened.

Model: honest-but-curious parties that follow the protocol; up to n - 1 (t - 1) of them may pool what they have. A party
that sends a wrong share is noticed (the opened values are far from integers) but not named.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import modular, ntt, packing, sampling
from fedjax_poisson.ckks.encryption import Ciphertext, PublicKey
from fedjax_poisson.ckks.envelope import fingerprint
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.ckks.guard import AnswerGuard
from fedjax_poisson.ckks.parameters import CkksParameters
from fedjax_poisson.ckks.sampling import Stream, fold_in
from fedjax_poisson.ckks.wire import parameters_fingerprint


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
        raise TypeError("A PartySecret cannot be pickled; use secret_to_bytes, knowingly.")


class SecretShare(NamedTuple):
    """A private message from party `sender` to party `receiver`: f_sender(receiver), uint32 `[L, N]`. Not shown by repr, not pickled."""

    sender: int
    receiver: int
    label: bytes
    data: jax.Array

    def __repr__(self) -> str:
        """Sender and receiver and nothing of the share."""
        return f"SecretShare(sender={self.sender}, receiver={self.receiver}, <hidden>)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("A SecretShare cannot be pickled; hand its data to the receiver over a private channel.")


class PartialDecryption(NamedTuple):
    """A party's answer: d_j, uint32 `[R, L, N]`, coefficients in natural order.

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
    """The public a, uint32 `[L, N]`: expanded by ChaCha20 from BLAKE2b-256 of the label and the parameters, so nobody chooses it."""
    seed = hashlib.blake2b(
        session.label + parameters_fingerprint(session.params), digest_size=32, person=b"fjp threshold a"
    ).digest()
    public = Stream(jnp.asarray(np.frombuffer(seed, "<u4").astype(np.uint32)), jnp.uint32(0))
    return sampling.uniform_residues(
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
    params = session.params
    points = [
        _evaluate(params, secret.data, j, session.threshold, fold_in(stream, "shamir"))
        for j in range(1, session.parties + 1)
    ]
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
        raise WireError(f"A share was dealt to another party than {party} or under another label.")
    q = modular.constants(session.params.moduli).q
    total = functools.reduce(lambda a, b: modular.add(a, b, q), [share.data for share in shares])
    return PartySecret(party, session.label, True, total)


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
            f"Parties {sorted(subset)} were named; {session.threshold} different ones of 1 to {session.parties}, "
            f"among them {secret.party}, are needed."
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
      counts int32 `[D]`, and float32 the largest distance of a coefficient from an integer in steps
      (`parameters.MARGIN`).

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
            "one subset of "
            f"{session.threshold} must answer once."
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
        if bool(jnp.any(answer.data >= modular.constants(params.moduli).q)):
            raise WireError(f"The answer of party {answer.party} has a residue that is not below its prime.")
    return _fuse(params, size, ciphertext.data, tuple(answer.data for answer in answers))


def lagrange(team: Sequence[int], party: int, moduli: tuple[int, ...]) -> np.ndarray:
    """Lambda_j = prod_{m != j} m / (m - j) modulo each prime, uint32 `[L]`: the weight of party j's point at 0 (Lagrange interpolation)."""
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


def ciphertext_digest(session: Session, ciphertext: Ciphertext) -> bytes:
    """BLAKE2b-256 of the second polynomials, which are all that an answer depends on."""
    state = hashlib.blake2b(digest_size=32, person=b"fjp threshold c1")
    state.update(session.label)
    state.update(np.ascontiguousarray(np.asarray(ciphertext.data[:, 1])).astype("<u4").tobytes())
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

    secret = small(sampling.ternary(fold_in(stream, "secret"), (params.degree,)))
    error = small(sampling.centred_binomial(fold_in(stream, "error"), (params.degree,)))
    return secret, modular.negate(modular.add(modular.multiply(common, secret, c), error, c.q), c.q)


def _evaluate(params: CkksParameters, secret: jax.Array, point: int, threshold: int, stream: Stream) -> jax.Array:
    """f(point) for f(0) = secret and t - 1 uniform coefficients, by Horner's rule."""
    c = modular.constants(params.moduli)
    x = np.full((params.limbs, 1), point, np.uint32)
    quotient = modular.shoup_quotient(x, c.q)
    total = jnp.zeros_like(secret)
    for k in range(threshold - 1, 0, -1):
        coefficient = sampling.uniform_residues(fold_in(stream, k), (params.degree,), params.moduli)
        total = _times_point(modular.add(total, coefficient, c.q), x, quotient, c.q)
    return modular.add(total, secret, c.q)


def _times_point(value: jax.Array, x: np.ndarray, quotient: np.ndarray, q: np.ndarray) -> jax.Array:
    return modular.reduce_once(modular.multiply_shoup(value, x, quotient, q), q)


@functools.partial(jax.jit, static_argnums=0)
def _answer(
    params: CkksParameters, secret: jax.Array, scalar: jax.Array, data: jax.Array, digest: jax.Array, stream: Stream
) -> jax.Array:
    """C1 (lambda sigma) + r in coefficients: uint32 [R, L, N]; r's stream is the party's with the ciphertext's digest uint32 [8] folded in."""
    c = modular.constants(params.moduli)
    second = data[:, 1]
    own = fold_in(stream, "smudging", *(digest[i] for i in range(8)))
    weighted = modular.multiply(secret, jnp.broadcast_to(scalar[:, None], secret.shape), c)
    product = modular.multiply(second, jnp.broadcast_to(weighted, second.shape), c)
    noise = smudging(params, own, second.shape[0])
    return modular.add(ntt.inverse(product, params.moduli), noise, c.q)


def smudging(params: CkksParameters, stream: Stream, rows: int) -> jax.Array:
    """Residues of integers uniform on [-2^(k-1), 2^(k-1)), k = `smudging_bits(params)`: uint32 `[R, L, N]` in [0, q); exact, one draw of k bits each."""
    k = smudging_bits(params)
    count = -(-k // 32)
    c = modular.constants(params.moduli)
    words = sampling.bits(stream, (count, rows, params.degree))
    words = words.at[-1].set(words[-1] >> jnp.uint32(32 * count - k))
    weights = np.asarray([[(1 << 32 * i) % q for q in params.moduli] for i in range(count)], np.uint32)[:, :, None]
    centre = np.asarray([-(1 << (k - 1)) % q for q in params.moduli], np.uint32)[:, None]
    uniform = sampling.combine(words, weights, modular.shoup_quotient(weights, c.q), params.moduli)
    return modular.add(uniform, jnp.broadcast_to(jnp.asarray(centre), uniform.shape), c.q)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _fuse(
    params: CkksParameters, size: int, data: jax.Array, answers: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    q = modular.constants(params.moduli).q
    total = functools.reduce(lambda a, b: modular.add(a, b, q), answers, ntt.inverse(data[:, 0], params.moduli))
    return packing.decode(params, total, size)
