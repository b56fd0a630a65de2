"""What a round costs each party, beside its peers in the same process: `fedjax-poisson bench aggregation --size 1048576 --senders 1000 --members 5`.

Prints one JSON line. Times are processor times of all threads, medians over repetitions in which the calls take turns, each after one of its own that is not
counted (so that it finds its own data in the caches, not another's), in nanoseconds a parameter of the vector (`_ns`) or milliseconds (`_ms`), with `spread`
the 10th and 90th percentile; `wall_ns` has the same calls by the clock. Two measurements run one after the other: pinned to one core (the numbers of the
line itself) and with all cores (`all_cores`).

client: secrets, encoding, rows, shares and corrections, from counts on the device to residues on the device. expand: the common `a`, once a round. server:
one addition of a client's rows. open: summed rows and t answers to exact counts with every check, the expanded `a` at hand. member: one client's box, share
and projections, of sixteen clients in a row. pk: one public-key encryption by `ckks`. tenseal: one encryption in NVFLARE's setting (N = 8192, [60, 40, 40]).
secagg: the masks of one Flower SecAgg+ client (pseudo-random vectors for `neighbours` others), where flwr is installed.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import bare, contribution, host_shares, keys, opening, rows, screening
from fedjax_poisson.aggregation.opening import Expected
from fedjax_poisson.aggregation.parameters import RoundParameters, choose, default_malicious, least_threshold
from fedjax_poisson.aggregation.round_setting import message_bytes
from fedjax_poisson.ckks import encryption, modular
from fedjax_poisson.ckks.parameters import choose_parameters
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.platforms import usable_cores
from fedjax_poisson.randomness import fold_in, stream

__all__ = ["main", "measure"]

DARK_COUNT = 8.0
_DIGEST = bytes(range(32))
_CLIENTS = 16
"""Clients that a member takes one after the other in one call."""
_ONE_CORE = "FEDJAX_POISSON_BENCH_CORES"


def _parameters(size: int, senders: int, members: int) -> RoundParameters:
    mechanism = poisson_embedding(clip_norm=1.0, coordinate_bound=0.05, dark_count=DARK_COUNT, modulation=0.05)
    threshold = least_threshold(members, default_malicious(members))
    return choose(size, mechanism.count_bound(senders, size), senders, members, threshold, corrupt=min(1, senders - 1))


def _calls(params: RoundParameters, senders: int) -> dict[str, Callable[[], object]]:
    """The parties' work, each compiled and ready."""
    root = stream()
    size, ring = params.size, params.ring
    use = bare.device_functions(params, _DIGEST, Expected(senders, 1, ring.count_bound))
    counts = np.random.default_rng(0).integers(-9, 10, size).astype(np.int32)

    def one_client(own: Any) -> np.ndarray:
        made, secret = contribution.sealed_rows(params, use.key.a, counts, own)
        host_shares.dealt(params, _DIGEST, secret, np.asarray(contribution.kappas_of(params, own)))
        return made

    add = jax.jit(lambda a, b: modular.add(a, b, modular.constants(ring.moduli).q), donate_argnums=0)
    made = jax.device_put(one_client(root))
    total = bare.encrypt_one(use, counts, root)
    answers = {k + 1: np.asarray(share) for k, share in enumerate(total.shares)}
    summed, expected = np.asarray(total.rows), Expected(senders, 1, ring.count_bound)
    held = [made + jnp.uint32(0)]

    def server() -> object:
        held[0] = add(held[0], made)
        return held[0].block_until_ready()

    found: dict[str, Callable[[], object]] = {
        "client": lambda: one_client(fold_in(root, 1)),
        "expand": lambda: rows.common_of(params, _DIGEST).block_until_ready(),
        "server": server,
        "open": lambda: opening.open_sum(params, _DIGEST, summed, answers, expected, common=use.key.a),
    }
    if keys.available() is None:
        seed = keys.new_box_seed()
        box = keys.seal_box(keys.box_public(seed), bytes(32), b"bench")
        opener = keys.box_opener(seed)
        drawn = screening.functionals(params, bytes(32))
        correction = np.zeros((ring.limbs, ring.degree), np.uint32)

        def one_share() -> np.ndarray:
            words = np.frombuffer(opener(box, b"bench").value, "<u4").astype(np.uint32)
            return host_shares.share_of(params, words, correction)

        found["member"] = lambda: screening.projected(
            params, drawn.signs, drawn.uniform, [one_share() for _ in range(_CLIENTS)]
        )
    return found


def _peers(params: RoundParameters, senders: int, neighbours: int) -> dict[str, Callable[[], object]]:
    size = params.size
    counts = np.random.default_rng(0).integers(-9, 10, size).astype(np.int32)
    found: dict[str, Callable[[], object]] = {}
    ring = choose_parameters(count_bound=params.ring.count_bound, senders=senders, values=size)
    _, public = encryption.generate_keys(ring, stream())
    encrypt = jax.jit(functools.partial(encryption.encrypt, ring))
    on_device, own = jnp.asarray(counts), stream()
    found["pk"] = lambda: jax.block_until_ready(encrypt(public, on_device, own))
    if importlib.util.find_spec("tenseal") is not None:
        import tenseal

        context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1
        )
        context.global_scale = 2.0**40
        values = counts.astype(np.float64)
        found["tenseal"] = lambda: tenseal.ckks_vector(context, values)
    if importlib.util.find_spec("flwr") is not None:
        from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition
        from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

        def secagg() -> object:
            total = [counts.astype(np.int64)]
            for other in range(neighbours + 1):
                total = parameters_addition(total, pseudo_rand_gen(bytes([other]) * 32, 1 << 32, [(size,)]))
            return total

        found["secagg"] = secagg
    return found


def _times(calls: Mapping[str, Callable[[], object]], repeats: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Seconds [repeats, 2] of each call, of the processors and by the clock; the calls take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for turn in range(max(repeats.values())):
        for name, call in calls.items():
            if turn < repeats[name]:
                call()
                clock, cpu = time.perf_counter(), time.process_time()
                call()
                times[name].append((time.process_time() - cpu, time.perf_counter() - clock))
    return {name: np.asarray(found) for name, found in times.items()}


def measure(*, size: int, senders: int, members: int, repeats: int = 15, neighbours: int = 20) -> dict[str, Any]:
    """One line of this process, with the cores that it may use.

    Args:
      size: D.
      senders: n.
      members: m.
      repeats: of the parties' calls; peers that take seconds are called less often.
      neighbours: Flower SecAgg+: neighbours of a client.
    """
    params = _parameters(size, senders, members)
    ours, peers = _calls(params, senders), _peers(params, senders, neighbours)
    counted = {**dict.fromkeys(ours, repeats), **dict.fromkeys(peers, max(2, repeats // 5))}
    times = _times({**ours, **peers}, counted)
    row: dict[str, Any] = {}
    spread: dict[str, Any] = {}
    wall: dict[str, float] = {}
    for name, found in times.items():
        unit, key = (1e3 / _CLIENTS, "member_ms") if name == "member" else (1e9 / size, f"{name}_ns")
        key = {"tenseal_ns": "tenseal_client_ns", "pk_ns": "pk_client_ns", "secagg_ns": "secagg_client_ns"}.get(
            key, key
        )
        row[key] = round(float(np.median(found[:, 0])) * unit, 3)
        spread[key] = [round(float(v) * unit, 3) for v in np.percentile(found[:, 0], (10, 90))]
        wall[key] = round(float(np.median(found[:, 1])) * unit, 3)
    ring = params.ring
    return {
        **row,
        "bytes_per_parameter": round(message_bytes(params) / size, 4),
        "spread": spread,
        "wall_ns": wall,
        "ring": {
            "degree": ring.degree, "log2_q": round(math.log2(ring.modulus), 1), "primes": ring.limbs,
            "values_per_coefficient": ring.values_per_coefficient, "field_bits": ring.field_bits, "rows": params.rows,
        },
        "threshold": params.threshold,
        "cores": usable_cores(),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--senders", type=int, default=1000)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a small vector, few repetitions")
    given = parser.parse_args(arguments)
    facts = {"size": given.size, "senders": given.senders, "members": given.members, "repeats": given.repeats}
    if given.quick:
        facts |= {"size": min(given.size, 5000), "repeats": 3}
    inner = os.environ.get(_ONE_CORE)
    if inner is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-1:] if inner == "1" else cores)
        print(json.dumps(measure(**facts)))
        return
    found = [_in_a_process(facts, cores) for cores in ("1", "all")]
    line = {
        "benchmark": "aggregation",
        **facts,
        **found[0],
        "all_cores": {
            key: found[1][key] for key in ("cores", "wall_ns", *(k for k in found[1] if k.endswith(("_ns", "_ms"))))
        },
        "device": f"{jax.devices()[0].platform}:{jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }
    print(json.dumps(line))


def _in_a_process(facts: Mapping[str, int], cores: str) -> dict[str, Any]:
    """The line of a process of its own: a processor's number of threads is fixed when jax starts."""
    command = [sys.executable, "-m", "fedjax_poisson.benchmarks.aggregation"]
    command += [part for name, value in facts.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(command, env={**os.environ, _ONE_CORE: cores}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The measurement failed:\n{done.stderr[-2000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


if __name__ == "__main__":
    main()
