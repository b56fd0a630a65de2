"""A committee, clients and a server in one process, with a hand on every message: what the tests of rounds are driven by.

All worlds have the same sizes, so that every test uses the same compiled programs: 40 values, one row of a ring of 1,024, six or five members, t = 4, f = 1.
In norm rounds the members send the noise.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import (
    bodies,
    client,
    contribution,
    host_shares,
    keys,
    member,
    messages,
    noise,
    proof,
    prover,
    round_keys,
    rows,
    server,
    server_state,
    sharing,
    signs,
    sketch,
    store,
)
from fedjax_poisson.aggregation import terms as terms_module
from fedjax_poisson.aggregation.messages import Notice
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.aggregation.terms import Pinned, Terms
from fedjax_poisson.aggregation.wire import Reader, prefixed, residue_bytes
from fedjax_poisson.randomness import Stream, stream

SIZE, BOUND, SENDERS, MINIMUM, THRESHOLD, MALICIOUS = 40, 200, 6, 3, 4, 1
DELTA = 60
"""Bound on the norm of the counts of norm rounds; those of `World` are at most 9 sqrt(40) = 57."""
MODEL = hashlib.sha256(b"model").digest()
Tamper = Callable[[bytes], bytes | list[bytes] | None]
"""Bytes to what is delivered instead: other bytes, several, or None for nothing."""


class World:
    """Everybody of a run.

    Attributes:
      members, states: of the committee; `states[k - 1]` is member k's.
      clients: all on the roster; the first `SENDERS` or fewer take part.
      counts: int32 `[clients, SIZE]`, what the clients contribute.
      server: the server's state.
      out: what the server has to send.
      refused: (who, label, refusal), in order.
      heard: every message that a member or client said, as bytes.
    """

    def __init__(
        self,
        m: int = 6,
        clients: int = 5,
        *,
        least_honest: int = 2,
        norm: bool = False,
        stores: Callable[[int], store.Store] | None = None,
    ) -> None:
        self.m = m
        self.member_keys = [keys.new_signing_key() for _ in range(m)]
        self.client_keys = [keys.new_signing_key() for _ in range(clients)]
        self.roster = frozenset(keys.public_of(key) for key in self.client_keys)
        self.run = hashlib.sha256(b"".join(sorted(self.roster))).digest()[:16]
        publics = tuple(keys.public_of(key) for key in self.member_keys)
        self.norm = NormScreening(DELTA**2, m, m - THRESHOLD + 1) if norm else None
        self.pinned = Pinned(
            publics,
            THRESHOLD,
            MALICIOUS,
            terms_module.roster_hash(tuple(self.roster)),
            least_honest,
            noise=tuple(sorted(publics)) if norm else (),
            honest_noise=self.norm.honest_noise if self.norm else 0,
            squared_norm=self.norm.squared_norm if self.norm else 0,
        )
        make = stores or (lambda k: store.memory_store())
        self.members = [
            member.Member(number=k, key=key, pinned=self.pinned, roster=self.roster, run=self.run, store=make(k))
            for k, key in enumerate(self.member_keys, 1)
        ]
        self.states = [member.State() for _ in range(m)]
        self.clients = [
            client.Client(key, self.pinned, self.roster, self.run, store.memory_store()) for key in self.client_keys
        ]
        self.noise_senders = [
            noise.NoiseSender(key, self.pinned, self.run, store.memory_store()) for key in self.member_keys if norm
        ]
        self.noise = np.random.default_rng(1).integers(-9, 10, (m, SIZE)).astype(np.int32)
        self.counts = np.random.default_rng(0).integers(-9, 10, (clients, SIZE)).astype(np.int32)
        self.tampers: dict[tuple[str, int | None], Tamper] = {}
        self.refused: list[tuple[str, str, RoundRefused]] = []
        self.heard: list[bytes] = []
        self.server: server.State | None = None
        self.out: list[server.Outgoing] = []

    def fresh(self) -> World:
        """The same people before their first round."""
        other = copy.copy(self)
        other.members = [dataclasses.replace(one, store=store.memory_store()) for one in self.members]
        other.states = [member.State() for _ in self.members]
        other.clients = [one._replace(store=store.memory_store()) for one in self.clients]
        other.noise_senders = [one._replace(store=store.memory_store()) for one in self.noise_senders]
        other.tampers, other.refused, other.heard, other.server, other.out = {}, [], [], None, []
        return other

    # What the parties are

    def public(self, i: int) -> bytes:
        """The key of client i = 0.."""
        return keys.public_of(self.client_keys[i])

    def draft(self, number: int = 1, **changes: Any) -> Terms:
        """Terms of a round, without round keys."""
        facts: dict[str, Any] = {
            "run": self.run,
            "round": number,
            "model": MODEL,
            "mechanism": "{}",
            "charge": "none",
            "size": SIZE,
            "count_bound": BOUND,
            "senders": SENDERS,
            "minimum": MINIMUM,
            "corrupt": 1,
            "threshold": THRESHOLD,
            "malicious": MALICIOUS,
            "members": self.pinned.members,
            "round_keys": (),
            "roster": self.pinned.roster,
        }
        if self.norm is not None:
            facts |= {
                "noise": self.pinned.noise,
                "honest_noise": self.norm.honest_noise,
                "squared_norm": self.norm.squared_norm,
                "count_bound": 1_500,
                "count_rms": 200_000,
            }
        return Terms(**{**facts, **changes})

    @property
    def params(self):
        return self.server.params

    @property
    def digest(self) -> bytes:
        return self.server.digest

    # What the parties do

    def tamper(self, label: str, fn: Tamper, who: int | None = None) -> None:
        """Change what is delivered under a label: a notice's to member `who`, or a message's of member or client `who`; None means all of them."""
        self.tampers[label, who] = fn

    def _delivered(self, label: str, who: int, blob: bytes) -> list[bytes]:
        fn = self.tampers.get((label, who)) or self.tampers.get((label, None))
        found = blob if fn is None else fn(blob)
        return [] if found is None else found if isinstance(found, list) else [found]

    def tell(self, k: int, blob: bytes) -> bytes:
        """One notice to member k."""
        self.states[k - 1], reply = member.step(self.members[k - 1], self.states[k - 1], blob)
        return reply

    def say(self, k: int, label: str, body: bytes) -> bytes:
        """One notice to member k, from its parts."""
        return self.tell(k, messages.encode_notice(Notice(label, body)))

    def hear(self, blob: bytes) -> None:
        """One message to the server."""
        self.server = server.receive(self.server, blob)

    def restart(self, k: int) -> None:
        """Member k loses its memory and has its store."""
        self.states[k - 1] = member.restore(self.members[k - 1])

    def signed(self, k: int, label: str, body: bytes, digest: bytes | None = None) -> bytes:
        """A message that member k's key signs, whatever member k would say."""
        return messages.encode(
            messages.make(self.member_keys[k - 1], label, self.digest if digest is None else digest, body)
        )

    def begin(self, number: int = 1, **changes: Any) -> None:
        """The server starts a round."""
        self.server, self.out = server.start(self.draft(number, **changes), self.roster)

    def contributions(self, senders: Iterable[int]) -> None:
        """Clients answer the invitation that is in `out`."""
        (invite,) = self.out
        for i in senders:
            try:
                blob = self.contribute(i, invite.blob)
            except RoundRefused as error:
                self.refused.append((f"client {i}", "invite", error))
                continue
            for found in self._delivered("contribution", i, blob):
                self._receive(found, f"client {i}", "contribution")

    def contribute(self, i: int, invite: bytes, *, model: bytes = MODEL) -> bytes:
        """What client i says to an invitation."""
        reader = Reader(messages.decode_notice(invite, 1 << 20, ["invite"]).body)
        return client.contribute(
            self.clients[i], reader.prefixed(), reader.prefixed(), self.counts[i], stream(), model=model
        )

    def send_noise(self, blob: bytes) -> None:
        """All noise senders answer the server's notice."""
        body = messages.decode_notice(blob, 1 << 20, ["send noise"]).body
        for k, sender in enumerate(self.noise_senders):
            try:
                sent = noise.contribute_noise(sender, body, self.noise[k], stream())
            except RoundRefused as error:
                self.refused.append((f"noise {k}", "send noise", error))
                continue
            for found in self._delivered("noise", k, sent):
                self._receive(found, f"noise {k}", "noise")

    def prove(self, blob: bytes) -> None:
        """All clients of D answer the server's notice; what a tamper makes of a client that has no proof (empty bytes) is delivered too."""
        inside = {key for key, _ in self.server.committed}
        for i in range(len(self.clients)):
            if self.public(i) not in inside:
                continue
            try:
                sent = self.proof_of(i, blob)
            except RoundRefused as error:
                self.refused.append((f"client {i}", "prove", error))
                sent = b""
            for found in self._delivered("proof", i, sent):
                if found:
                    self._receive(found, f"client {i}", "proof")

    def proof_of(self, i: int, blob: bytes) -> bytes:
        """What client i says to a notice that asks for its proof."""
        reader = Reader(messages.decode_notice(blob, 1 << 20, ["prove"]).body)
        return prover.prove(self.clients[i], *(reader.prefixed() for _ in range(3)))

    def signs(self) -> np.ndarray:
        """The public signs, int32 [SIZE]."""
        terms = self.server.draft
        found = signs.read_certificate(self.server.certificate, terms, self.digest, round_keys.check_round_keys(terms))
        return signs.signs_of(SIZE, terms, self.digest, found)

    def _receive(self, blob: bytes, who: str, label: str) -> None:
        self.heard.append(blob)
        try:
            self.hear(blob)
        except RoundRefused as error:
            self.refused.append((who, label, error))

    def phase(self, senders: Iterable[int] | None = None) -> str:
        """Deliver what the server has to send, hand it the replies, and end the phase."""
        label = self.server.phase
        if label == "contribution":
            self.contributions(range(len(self.clients)) if senders is None else senders)
        elif label == "noise":
            self.send_noise(self.out[0].blob)
        elif label == "proof":
            self.prove(self.out[0].blob)
        else:
            for one in self.out:
                notice = messages.decode_notice(one.blob, 1 << 24, member.LABELS).label
                for blob in self._delivered(notice, one.to, one.blob):
                    try:
                        reply = self.tell(one.to, blob)
                    except RoundRefused as error:
                        self.refused.append((f"member {one.to}", notice, error))
                        continue
                    for found in self._delivered(label, one.to, reply):
                        self._receive(found, f"member {one.to}", label)
        self.server, self.out = server.advance(self.server)
        return self.server.phase

    def go(self, until: str = "opened", senders: Iterable[int] | None = None) -> World:
        """Phases until the server waits for `until`; a round that is dead raises its refusal."""
        while self.server.phase != until:
            self.phase(senders)
        return self

    # What is asked afterwards

    def names(self, who: str | None = None) -> list[str]:
        """Names of the refusals so far."""
        return [type(error).__name__ for party, _, error in self.refused if who in (None, party)]

    def include(self) -> bodies.Include:
        return bodies.read_include(self.server.included, self.server.draft)

    def inside(self) -> list[int]:
        """The clients in U."""
        chosen = {key for key, _ in self.include().clients}
        return [i for i in range(len(self.clients)) if self.public(i) in chosen]

    def exact(self) -> bool:
        """Whether the opened counts are the sum over U, with the noise in norm rounds."""
        expected = self.counts[self.inside()].sum(0)
        if self.norm is not None:
            expected = expected + self.signs() * self.noise.sum(0)
        return bool((self.server.opened.counts == expected).all())


def opened(m: int = 6, clients: int = 5, *, norm: bool = False, **changes: Any) -> World:
    """A world after one honest round."""
    world = World(m, clients, norm=norm)
    world.begin(**changes)
    return world.go()


@dataclasses.dataclass
class Parts:
    """A contribution that is still open to changes; all arrays are numpy."""

    secret: np.ndarray  # int64 [N]
    rows: np.ndarray  # uint32 [R, L, N]
    kappas: list[bytes]
    corrections: np.ndarray  # uint32 [m - t + 1, L, N]


def common(world: World) -> np.ndarray:
    """The common a, uint32 [R, L, N]."""
    return np.asarray(rows.common(world.params, jnp.asarray(rows.hash_words("a", world.digest))))


def form(world: World, small: np.ndarray) -> np.ndarray:
    """NTT form uint32 [L, N] of a polynomial of any integers."""
    residues = np.stack([np.mod(small, q) for q in world.params.ring.moduli])
    centred = np.where(
        residues > np.asarray(world.params.ring.moduli)[:, None] // 2,
        residues - np.asarray(world.params.ring.moduli)[:, None],
        residues,
    )
    return np.asarray(rows.small_form(world.params, jnp.asarray(centred[0].astype(np.int32))))


def product(world: World, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of NTT forms modulo each prime."""
    q = np.asarray(world.params.ring.moduli, np.uint64)[:, None]
    return (a.astype(np.uint64) * b.astype(np.uint64) % q).astype(np.uint32)


def plus(world: World, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of residues modulo each prime."""
    q = np.asarray(world.params.ring.moduli, np.uint64)[:, None]
    return ((a.astype(np.uint64) + b.astype(np.uint64)) % q).astype(np.uint32)


def parts(
    world: World,
    i: int,
    *,
    shift: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    root: Stream | None = None,
) -> Parts:
    """What client i would send, with `shift` added to its secret (rows and shares both), other counts and another stream if given."""
    params, root = world.params, stream() if root is None else root
    weights = jnp.asarray(sharing.dealing_weights(world.digest, params.members, params.threshold, params.ring.moduli))
    values = world.counts[i] if counts is None else counts
    sent, own = contribution.sealed_rows(params, rows.common_of(params, world.digest), np.asarray(values), root)
    drawn = np.asarray(contribution.kappas_of(params, root))
    secret = np.asarray(rows.draw(params, root).secret, np.int64)
    corrections = host_shares.dealt(params, world.digest, own, drawn)
    if shift is not None:
        # a (s + d) + e + m, and the polynomial of s + d: its values at t.. move by weights[:, 0] d
        moved = form(world, shift)
        secret = secret + shift
        sent = plus(world, sent, product(world, common(world), moved[None]))
        weight = np.asarray(weights)[:, 0, :, None]
        corrections = plus(world, corrections, product(world, np.broadcast_to(weight, corrections.shape), moved[None]))
    kappas = [row.astype("<u4").tobytes() for row in np.asarray(drawn)]
    return Parts(secret, sent, kappas, corrections)


def seal(
    world: World,
    i: int,
    made: Parts,
    *,
    key: keys.Hidden | None = None,
    boxes: dict[int, bytes] | None = None,
    raw_rows: bytes | None = None,
    raw_corrections: dict[int, bytes] | None = None,
) -> bytes:
    """A signed contribution of parts; `boxes` and `raw_corrections` replace a member's by its number, all as the client itself signs them."""
    params, digest = world.params, world.digest
    key = world.client_keys[i] if key is None else key
    public, moduli = keys.public_of(key), params.ring.moduli
    sealed = []
    for k, found in enumerate(round_keys.check_round_keys(world.server.draft), 1):
        own = (boxes or {}).get(k)
        if own is None:
            own = (
                b""
                if found is None
                else keys.seal_box(found.box_key, made.kappas[k - 1], contribution.box_info(digest, public, k))
            )
        sealed.append(own)
    listed = [
        (raw_corrections or {}).get(k, residue_bytes(one, moduli))
        for k, one in enumerate(made.corrections, params.threshold)
    ]
    row_bytes = residue_bytes(made.rows, moduli) if raw_rows is None else raw_rows
    shown = server_state.certificate_of(world.server).name
    hashes = [hashlib.sha256(row_bytes).digest(), shown]
    body = b"".join([*hashes, *(hashlib.sha256(part).digest() for part in (*sealed, *listed))])
    attached = prefixed(row_bytes) + b"".join(prefixed(part) for part in (*sealed, *listed))
    return messages.encode(messages.make(key, "contribution", digest, body, attached))


def reread(blob: bytes) -> messages.Message:
    """A message in parts, unchecked."""
    reader = Reader(blob)
    label, found, sender = reader.prefixed().decode(), reader.take(32), reader.take(32)
    body, signature = reader.prefixed(), reader.take(64)
    return messages.Message(label, found, sender, body, signature, reader.prefixed())


def share_of(world: World, k: int, i: int) -> np.ndarray:
    """Member k's share of client i's secret: for tests, no party can ask for it."""
    return np.asarray(world.states[k - 1].shares[world.public(i)].share.value)


def careless(world: World, i: int, made: Parts) -> bytes:
    """A contribution of parts, as of a client that keeps what a proof needs and makes no check of its own."""
    blob = seal(world, i, made)
    own = world.clients[i].store
    own.put(world.run, world.server.draft.round, "terms", world.digest)
    return own.put(world.run, world.server.draft.round, "contribution", blob)


def forged_proof(
    world: World,
    i: int,
    made: Parts,
    counts: np.ndarray,
    *,
    digits: np.ndarray | None = None,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: bytes | None = None,
) -> bytes:
    """A signed proof of parts for the round's seed: of the digits of turned counts, or of other ones, with its values changed if given."""
    params, seed = world.params, world.server.seed if seed is None else seed
    if digits is None:
        digits = sketch.digits_of(params, sketch.sketch_of(params, seed), counts)
    values = proof.proof_values(params, digits, stream())
    if change is not None:
        values = change(values)
    listed = [
        residue_bytes(one, params.ring.moduli) for one in prover.shared(params, world.digest, values, made.kappas)
    ]
    body = seed + b"".join(hashlib.sha256(part).digest() for part in listed)
    attached = b"".join(prefixed(part) for part in listed)
    return messages.encode(messages.make(world.client_keys[i], "proof", world.digest, body, attached))
