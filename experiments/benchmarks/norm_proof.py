"""What a norm round costs each party beside a light one, at full size: processor time and bytes.

    python experiments/benchmarks/norm_proof.py [--size 1048576] [--senders 1000] [--members 5] [--repeats 7] [--toy]

Times are processor times of all threads, medians over repetitions in which the calls take turns, each after one of its own that is not counted; `spread` is
the 10th and 90th percentile. client: rows, shares and corrections of counts; noise, light: what a light client draws besides, and a norm client does not;
prove: the digits of the sixteen functionals, the proof, its shares; sketch: drawing the functionals, once a round and party; prepare: the members' weights of
the secret, once a round; prepare, server: the same for the server's weights of rows; member: the functionals of one client's share, in norm rounds with what
is opened of its proof; server: the functionals of one client's rows, of a batch of `server_batch`; verdict: the check of what was opened. Writes
experiments/results/norm_proof.json whole.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import contribution, proof, prover, row_sums, rows, screening, sharing, sketch
from fedjax_poisson.aggregation.norm_bound import NormScreening
from fedjax_poisson.aggregation.parameters import HINTS, RoundParameters, choose, default_malicious, least_threshold
from fedjax_poisson.aggregation.round_setting import message_bytes
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.randomness import fold_in, stream

DIGEST, SEED, CLIENT = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
KAPPA, NOISE_MULTIPLIER = 0.05, 1.0
LIGHT = poisson_embedding(clip_norm=1.0, coordinate_bound=KAPPA, dark_count=8.0, modulation=0.05)
OUT = Path(__file__).resolve().parent.parent / "results" / "norm_proof.json"


def light(size: int, senders: int, members: int) -> RoundParameters:
    """A light round of the Poisson embedding with a dark count of 8."""
    threshold = least_threshold(members, default_malicious(members))
    return choose(size, LIGHT.count_bound(senders, size), senders, members, threshold, corrupt=1)


def norm(size: int, senders: int, members: int) -> RoundParameters:
    """A norm round: Delta = 2 sqrt(D), noise of multiplier 1 that m - t + 1 of m members count for."""
    malicious = default_malicious(members)
    threshold = least_threshold(members, malicious)
    honest = members - threshold + 1
    delta = 2 * math.sqrt(size)
    variance = members / honest * (NOISE_MULTIPLIER * delta) ** 2
    bound = math.ceil(senders * KAPPA * delta + 12 * math.sqrt(variance))
    rms = math.sqrt(variance * (1 + 10 * math.sqrt(2 / size))) + (senders + 3) * delta / math.sqrt(size)
    screening_ = NormScreening(int(delta**2), members, honest)
    return choose(
        size, bound, senders, members, threshold, corrupt=1, count_rms=rms, malicious=malicious, norm=screening_
    )


def sealing(params: RoundParameters, counts: jax.Array) -> Callable[[], object]:
    """A client's rows, shares and corrections."""
    a, root = rows.common_of(params, DIGEST), stream()
    weights = jnp.asarray(sharing.dealing_weights(DIGEST, params.members, params.threshold, params.ring.moduli))

    @jax.jit
    def one(a: jax.Array, counts: jax.Array, own: Any) -> Any:
        secrets = rows.draw(params, own)
        form = rows.small_form(params, secrets.secret)
        expanded = jax.vmap(lambda kappa: sharing.expand_share(params, kappa))(contribution.kappas_of(params, own))
        return rows.encrypt(params, a, counts, secrets), sharing.corrections(params, weights, form, expanded)

    return lambda: jax.block_until_ready(one(a, counts, root))


def noise_of_one(size: int) -> Callable[[], object]:
    """A light client's counts from its update."""
    update, root = jnp.full((size,), 0.9 / math.sqrt(size), jnp.float32), stream()
    one = jax.jit(LIGHT.privatize)
    return lambda: jax.block_until_ready(one(root, update))


def calls(size: int, senders: int, members: int) -> tuple[dict[str, Callable[[], object]], dict[str, Any]]:
    """The parties' work, and facts of both kinds of round."""
    plain, proved = light(size, senders, members), norm(size, senders, members)
    assert proved.proof is not None
    rng = np.random.default_rng(0)
    noisy = jnp.asarray(rng.integers(-9, 10, size), jnp.int32)
    drawn_counts = rng.normal(size=size)
    clean = np.rint(drawn_counts / np.linalg.norm(drawn_counts) * 1.9 * math.sqrt(size)).astype(np.int32)
    drawn = sketch.sketch_of(proved, SEED)
    weights = sketch.secret_weights(proved, drawn, DIGEST)
    functionals = {params: screening.functionals(params, SEED) for params in (plain, proved)}
    share = {
        params: jnp.asarray(
            np.stack([rng.integers(0, q, params.ring.degree) for q in params.ring.moduli]).astype(np.uint32)
        )
        for params in (plain, proved)
    }
    uniform = {
        plain: jnp.asarray(functionals[plain].uniform),
        proved: jnp.concatenate([jnp.asarray(functionals[proved].uniform), weights]),
    }
    signs = {params: jnp.asarray(functionals[params].signs) for params in (plain, proved)}
    secrets = rows.draw(proved, stream())
    made = np.asarray(rows.encrypt(proved, rows.common_of(proved, DIGEST), jnp.asarray(clean), secrets))
    digits, kappas, own = sketch.digits_of(proved, drawn, clean), [bytes([k]) * 32 for k in range(members)], stream()
    values = proof.proof_values(proved, digits, own)
    corrections = prover.shared(proved, DIGEST, values, kappas)
    challenge = proof.challenge_of(proved, SEED, CLIENT, CLIENT)
    opened = proof.member_scalars(proved, challenge, values, np.zeros((16, proved.ring.limbs), np.uint32))
    of_rows, gram = row_sums.row_weights(proved, drawn), sketch.gram(drawn)
    batch = [made.copy() for _ in range(row_sums.clients_at_once(proved))]
    (sums,) = row_sums.row_sums(proved, of_rows, [made])
    moduli = np.asarray(proved.ring.moduli, np.uint32)[:, None]

    def project(params: RoundParameters) -> np.ndarray:
        return np.asarray(screening.project(params, signs[params], uniform[params], share[params]))

    def member() -> object:
        projected = project(proved)[HINTS:]
        share = (prover.expanded_share(proved, kappas[-1]) + corrections[-1]) % moduli
        return proof.member_scalars(proved, proof.challenge_of(proved, SEED, CLIENT, CLIENT), share, projected)

    def prove() -> object:
        found = sketch.digits_of(proved, drawn, clean)
        return prover.proof_corrections(proved, DIGEST, found, fold_in(own, 1), kappas)

    found: dict[str, Callable[[], object]] = {
        "client, light": sealing(plain, noisy),
        "noise, light": noise_of_one(size),
        "client": sealing(proved, jnp.asarray(clean)),
        "prove": prove,
        "sketch": lambda: sketch.sketch_of(proved, SEED),
        "prepare": lambda: sketch.secret_weights(proved, drawn, DIGEST).block_until_ready(),
        "prepare, server": lambda: row_sums.row_weights(proved, drawn),
        "member, light": lambda: project(plain),
        "member": member,
        "server": lambda: row_sums.row_sums(proved, of_rows, batch),
        "verdict": lambda: proof.verdict(proved, opened) and proof.of_rows(proved, opened, sums, gram),
    }
    facts = {
        name: {
            "degree": params.ring.degree,
            "log2_q": round(math.log2(params.ring.modulus), 1),
            "primes": params.ring.limbs,
            "values_per_coefficient": params.ring.values_per_coefficient,
            "rows": params.rows,
            "bytes_per_parameter": round(message_bytes(params) / size, 4),
        }
        for name, params in (("light", plain), ("norm", proved))
    }
    facts["server_batch"] = len(batch)
    return found, facts


def measured(found: dict[str, Callable[[], object]], size: int, repeats: int, batch: int) -> dict[str, Any]:
    """Milliseconds, and nanoseconds a parameter, of each call; the calls take turns. The server's is for a batch of clients and is given for one of them."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for call in found.values():
        call()
    for _ in range(repeats):
        for name, call in found.items():
            call()
            begun = time.process_time()
            call()
            times[name].append((time.process_time() - begun) / (batch if name == "server" else 1))
    return {
        name: {
            "ms": round(1e3 * float(np.median(taken)), 3),
            "ns_per_parameter": round(1e9 * float(np.median(taken)) / size, 3),
            "spread_ms": [round(1e3 * float(v), 3) for v in np.percentile(taken, (10, 90))],
        }
        for name, taken in times.items()
    }


def main() -> None:
    """Measure, print, and write the row."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--size", type=int, default=1 << 20)
    options.add_argument("--senders", type=int, default=1000)
    options.add_argument("--members", type=int, default=5)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--machine", default="2 cores of a shared AMD EPYC")
    options.add_argument("--toy", action="store_true", help="a small vector, once: shows that the script works")
    options.add_argument("--out", type=Path, default=OUT)
    given = options.parse_args()
    size, repeats = (3_000, 1) if given.toy else (given.size, given.repeats)
    found, facts = calls(size, given.senders, given.members)
    times = measured(found, size, repeats, facts["server_batch"])
    row = {
        "size": size,
        "senders": given.senders,
        "members": given.members,
        "times": times,
        "server_batch": facts.pop("server_batch"),
        "rings": facts,
        "machine": given.machine,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }
    for name, one in times.items():
        print(f"{name:16} {one['ms']:10.2f} ms {one['ns_per_parameter']:8.2f} ns a parameter  {one['spread_ms']}")
    print(json.dumps(facts, indent=1))
    if given.toy:
        return
    kept = [one for one in json.loads(given.out.read_text())["rows"]] if given.out.exists() else []
    same = ("size", "senders", "members")
    kept = [one for one in kept if any(one[key] != row[key] for key in same)]
    temporary = given.out.with_suffix(".tmp")
    temporary.write_text(json.dumps({"rows": [*kept, row]}, indent=1) + "\n")
    os.replace(temporary, given.out)


if __name__ == "__main__":
    main()
