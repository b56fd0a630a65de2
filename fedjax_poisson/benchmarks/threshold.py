"""Threshold opening: the time of one party's share and of the fusion, for a whole update.

    python -m fedjax_poisson.benchmarks.threshold [--parties 10] [--values 1048576] [--repeats 15] [--quick]

prints JSON lines, one for each step, with the keys of the encryption benchmark (`setting`, `backend`, `mode`, `values`,
`median_s`, `p10_s`, `p90_s`, `values_per_s`, `bytes_per_value`, `device`) and `step`: "share" (one party's partial
decryption, its guard on disk), "fusion" (all answers to exact counts) and "share + fusion", whose reference is OpenFHE
1.6.1 on 2 CPU cores, 10 parties, 1M values: 0.60 s + 0.18 s. Each row says in `exact` whether the opened counts
equalled the sum.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.aggregation import opening, threshold_keys
from fedjax_poisson.aggregation.answer_guard import answer_guard
from fedjax_poisson.ckks import encryption
from fedjax_poisson.ckks.parameters import choose_parameters, sum_bound
from fedjax_poisson.randomness.chacha import fold_in, stream

SENDERS = 10
COUNT_BITS = 8


def measure(*, parties: int, values: int, repeats: int) -> list[dict[str, Any]]:
    """Time share and fusion of an n-of-n key.

    Args:
      parties: n.
      values: D, 8-bit counts of 10 senders.
      repeats: measured rounds after one that compiles; each round opens a fresh ciphertext.

    Returns:
      One record for each step.
    """
    bound = sum_bound(COUNT_BITS, SENDERS)
    params = choose_parameters(count_bound=bound, senders=SENDERS, mode="threshold", parties=parties, values=values)
    session = threshold_keys.announce(params, minimum_senders=2)
    root = stream()
    made = [threshold_keys.make_party_key(session, i, fold_in(root, "key", i)) for i in range(1, parties + 1)]
    public = threshold_keys.joint_public_key(session, [m[1] for m in made], [m[2] for m in made])
    encrypt = jax.jit(functools.partial(encryption.encrypt, params))
    add = jax.jit(functools.partial(encryption.add, params))
    counts = np.random.default_rng(0).integers(-128, 128, (2, values)).astype(np.int32)
    expected, team = counts.sum(axis=0), tuple(range(1, parties + 1))
    shares, fusions, exact = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        roles = [
            opening.make_party(session, m[0], fold_in(root, "smudging", i), answer_guard(Path(folder) / f"{i}.sqlite"))
            for i, m in enumerate(made, 1)
        ]
        for repeat in range(repeats + 1):
            ciphertexts = [encrypt(public, jnp.asarray(row), fold_in(root, repeat, s)) for s, row in enumerate(counts)]
            total = jax.block_until_ready(functools.reduce(add, ciphertexts))
            answers, times = [], []
            for role in roles:
                seconds, answer = _timed(role.answer, total, team, ())
                answers.append(answer)
                times.append(seconds)
            seconds, (opened, _) = _timed(opening.fuse, session, total, answers, values)
            exact = exact and bool(np.array_equal(np.asarray(opened), expected))
            if repeat:
                shares.extend(times)
                fusions.append(seconds)
    bytes_per_share = params.rows(values) * params.degree * sum(params.residue_bits) / 8 / values
    both = [s + f for s, f in zip(shares[:: len(roles)], fusions, strict=True)]
    device = jax.devices()[0].device_kind
    setting = f"N={params.degree} {params.limbs}x{max(params.residue_bits)} k={params.values_per_coefficient}"
    rows = []
    for step, times, size in (
        ("share", shares, bytes_per_share),
        ("fusion", fusions, bytes_per_share * parties),
        ("share + fusion", both, bytes_per_share),
    ):
        p10, median, p90 = (float(np.quantile(times, level)) for level in (0.1, 0.5, 0.9))
        rows.append(
            {
                "setting": f"{setting} {parties}-of-{parties}",
                "step": step,
                "backend": "device",
                "mode": "threshold",
                "values": values,
                "median_s": median,
                "p10_s": p10,
                "p90_s": p90,
                "values_per_s": values / median,
                "bytes_per_value": size,
                "exact": exact,
                "device": f"{jax.default_backend()}:{device}",
                "date": datetime.date.today().isoformat(),
            }
        )
    return rows


def _timed(work: Callable[..., Any], *inputs: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = jax.block_until_ready(work(*inputs))
    return time.perf_counter() - start, result


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line (or the given arguments), measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parties", type=int, default=10)
    parser.add_argument("--values", type=int, default=1 << 20)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three parties, 100,000 values, three repeats")
    chosen = parser.parse_args(arguments)
    facts = {"parties": chosen.parties, "values": chosen.values, "repeats": chosen.repeats}
    if chosen.quick:
        facts = {"parties": 3, "values": 100_000, "repeats": 3}
    for row in measure(**facts):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
