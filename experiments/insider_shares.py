"""Inconsistent shares and false proofs in real rounds at the size of W2: who is kept out, and that what is opened is the sum of all others.

    python experiments/insider_shares.py [--size 421642] [--clients 50] [--corrupt 10] [--members 5] [--toy]

Whole norm rounds in one process, every message made, signed, boxed and checked: 50 clients with 421,642 parameters of whom ten are corrupt, five members of
whom four must answer. Honest clients send short vectors; each kind of corrupt software has a round of its own:

* one residue: a member's correction of the secret has one residue changed;
* another polynomial: the last member's share lies on no polynomial with the others';
* another secret in one prime: shares are those of another secret there;
* shares of the proof: the last member's correction of the proof has one residue changed;
* ten times the length: counts ten times as long as a norm allows, with the proof of a short vector.

A twin of each kind is a round in which all clients are honest: nobody is kept out. What is left to a training is what the simulation of norm rounds calls
"the corrupt stay away" (`insiders.py`), as the opened sum is, bit for bit, that of the honest clients and all noise.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from common import parser, save  # first: it sets where compiled programs are kept

from fedjax_poisson import randomness
from fedjax_poisson.aggregation import (
    bodies,
    client,
    committee,
    host_shares,
    judging,
    keys,
    prover,
    round_keys,
    server,
    signs,
)
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.parameters import default_malicious, least_threshold
from fedjax_poisson.aggregation.round_setting import RoundSetting, message_bytes, parameters_for
from fedjax_poisson.mechanisms.committee_noise import committee_noise

NONE = "nobody is corrupt"
HONEST_NOISE = 2


def plus_one(corrections: np.ndarray, moduli: tuple[int, ...], limbs: slice = slice(0, 1)) -> np.ndarray:
    """The last member's correction with one residue of some fields changed."""
    out = np.array(corrections)
    for limb, q in list(enumerate(moduli))[limbs]:
        out[-1, limb, 3] = (int(out[-1, limb, 3]) + 1) % q
    return out


def other_polynomial(corrections: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """The last member's correction, uniform."""
    out, rng = np.array(corrections), np.random.default_rng()
    for limb, q in enumerate(moduli):
        out[-1, limb] = rng.integers(0, q, out.shape[-1])
    return out


@contextlib.contextmanager
def lying(kind: str, moduli: tuple[int, ...]) -> Iterator[None]:
    """While this lasts, a client's software is another."""
    dealt, proved, digits = host_shares.dealt, prover.proof_corrections, prover.sketch.digits_of

    def other_secret(params: Any, digest: bytes, secret: Any, kappas: Any) -> np.ndarray:
        own, q = np.array(secret), moduli[-1]
        own[-1] = (own[-1] + np.uint32(1)) % q
        return dealt(params, digest, own, kappas)

    changed: dict[str, Callable[[], Any]] = {
        "one residue": lambda: mock.patch.object(host_shares, "dealt", lambda *given: plus_one(dealt(*given), moduli)),
        "another polynomial": lambda: mock.patch.object(
            host_shares, "dealt", lambda *given: other_polynomial(dealt(*given), moduli)
        ),
        "another secret in one prime": lambda: mock.patch.object(host_shares, "dealt", other_secret),
        "shares of the proof": lambda: mock.patch.object(
            prover, "proof_corrections", lambda *given: plus_one(proved(*given), moduli)
        ),
        "ten times the length": lambda: mock.patch.multiple(client, squared_norm=lambda values: 0),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(changed[kind]())
        if kind == "ten times the length":
            stack.enter_context(mock.patch.object(prover.sketch, "digits_of", lambda *given: digits(*given) // 10))
        yield


KINDS = (
    "one residue",
    "another polynomial",
    "another secret in one prime",
    "shares of the proof",
    "ten times the length",
)


def setting_of(size: int, clients: int, corrupt: int, members: int) -> tuple[RoundSetting, int]:
    """Norm rounds whose noise is a tenth of a clip, and the norm of a client in counts."""
    malicious = default_malicious(members)
    threshold = least_threshold(members, malicious)
    length = int(2 * math.sqrt(size))
    mechanism = committee_noise(
        clip_norm=1.0, coordinate_bound=0.25, scale=float(length), noise_variance=(0.1 * length) ** 2 / members,
        noise_senders=members, honest_noise=HONEST_NOISE,
    )  # fmt: skip
    norm = NormScreening(length**2, members, HONEST_NOISE)
    rms = 10 * clients * length / math.sqrt(size)
    setting = RoundSetting(
        os.urandom(16), mechanism.count_bound(clients, size), rms, clients, clients - corrupt, 1, members, threshold, malicious, "{}",
        size, norm, mechanism.noise,
    )  # fmt: skip
    return setting, length


def dense(size: int, length: float, seed: int) -> np.ndarray:
    """Counts of a dense vector a little shorter than this."""
    drawn = np.random.default_rng(seed).normal(size=size)
    return np.rint(drawn / np.linalg.norm(drawn) * 0.9 * length).astype(np.int32)


def one_round(setting: RoundSetting, length: int, corrupt: int, kind: str) -> dict[str, Any]:
    """A round in which the first clients have other software: who is kept out, and whether the rest is exact."""
    size, moduli = setting.size or 1, parameters_for(setting, setting.size or 1).ring.moduli
    bad = 0 if kind == NONE else corrupt
    people, root = committee.Committee(setting), randomness.stream()
    began = time.process_time()
    under = committee.open_round(people, setting, 1, size, randomness.fold_in(root, "noise"))
    counts = [
        dense(size, length * (10 if kind == "ten times the length" and i < bad else 1), i)
        for i in range(setting.senders)
    ]
    for i, own in enumerate(counts):
        with lying(kind, moduli) if i < bad else contextlib.nullcontext():
            under, _ = committee.add_contribution(people, under, own, randomness.fold_in(root, i))
    state, outgoing = server.advance(under.state)
    corrupt_keys = {keys.public_of(one.key) for one in people.clients[:bad]}
    while state.phase != "opened":
        if state.phase == "proof":
            state = _proofs(people, state, outgoing[0].blob, kind, corrupt_keys, moduli)
        else:
            state = people.say(state, outgoing)
        state, outgoing = server.advance(state)
    left = {key: reason for key, reason in bodies.read_include(state.included, state.draft).left_out}
    inside = [i for i, one in enumerate(people.clients) if keys.public_of(one.key) not in left]
    shown = signs.read_certificate(
        under.certificate, state.draft, state.digest, round_keys.check_round_keys(state.draft)
    )
    turn = signs.signs_of(size, state.draft, state.digest, shown)
    noise = sum(
        np.asarray(committee.noise_sent(setting, k, size, randomness.fold_in(root, "noise"))[0], np.int64)
        for k in range(setting.noise_senders)
    )
    expected = sum(counts[i].astype(np.int64) for i in inside) + turn * noise
    return {
        "kind": kind,
        "corrupt": bad,
        "kept_out_right": sum(key in left for key in corrupt_keys),
        "kept_out_wrong": len(left) - sum(key in left for key in corrupt_keys),
        "reasons": sorted({judging.REASONS[reason] for reason in left.values()}),
        "exact": bool((state.opened.counts == expected).all()),
        "processor_seconds": time.process_time() - began,
    }


def _proofs(people: Any, state: Any, blob: bytes, kind: str, corrupt_keys: set[bytes], moduli: tuple[int, ...]) -> Any:
    """All clients' proofs, those of corrupt ones by other software."""
    reader = committee.Reader(committee.messages.decode_notice(blob, 1 << 26, ["prove"]).body)
    given = [reader.prefixed() for _ in range(3)]
    for one in people.clients:
        if keys.public_of(one.key) in dict(state.committed):
            with lying(kind, moduli) if keys.public_of(one.key) in corrupt_keys else contextlib.nullcontext():
                state = server.receive(state, prover.prove(one, *given))
    return state


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--size", type=int, default=421_642)
    options.add_argument("--clients", type=int, default=50)
    options.add_argument("--corrupt", type=int, default=10)
    options.add_argument("--members", type=int, default=5)
    given = options.parse_args(argv)
    size, clients, corrupt = (3_000, 6, 2) if given.toy else (given.size, given.clients, given.corrupt)
    setting, length = setting_of(size, clients, corrupt, given.members)
    params = parameters_for(setting, size)
    rows = []
    for kind in (NONE, *KINDS):
        rows.append(one_round(setting, length, corrupt, kind))
        row = rows[-1]
        print(f"{kind:28s} kept out {row['kept_out_right']} of {row['corrupt']}, honest {row['kept_out_wrong']}, exact {row['exact']}, "
              f"{', '.join(row['reasons'])}  {row['processor_seconds']:.0f} s", flush=True)  # fmt: skip
        if not row["exact"] or row["kept_out_wrong"] or row["kept_out_right"] != row["corrupt"]:
            raise SystemExit(f"{kind}: not kept out, or not exact: {row}")
    facts = {"size": size, "clients": clients, "members": given.members, "threshold": params.threshold, "primes": params.ring.limbs,
             "bytes_up": message_bytes(params), "rows": rows}  # fmt: skip
    save("insider_shares", given, facts)


if __name__ == "__main__":
    main()
