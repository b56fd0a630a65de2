"""Classical security of the parameters that a round of the aggregation protocol may use, by the lattice-estimator.

A round publishes `c = a s + e + message mod Q` for every row, secret s and errors e both CBD(42) (variance 21), and opens the sums of s and of e. Given
the sums, what is left of one client is an LWE secret and error of variance 10.5: standard deviation 3.24. Screening opens linear functionals of s; each
is an exact equation and takes one of the N dimensions. Three counts are estimated, and the least of all numbers is the security of a set:

* N - hints dimensions and 2 N samples;
* N - hints dimensions and as many samples as there are rows (1024 rows here, more than any round has, and the secret's own N);
* N - weighted hints dimensions and 2 N samples. An equation with weights z, known over the integers, also multiplies the volume of the lattice by |z|
  (Dachman-Soled, Ducas, Gong and Rossi, CRYPTO 2020: a perfect hint), which an equation modulo Q does not. At log2 Q = 18 this makes a hint worth a
  quarter more, at 213 a fortieth, see `weighted_hints`.

Attacks: primal by unique shortest vector (usvp), primal by bounded distance decoding (bdd), dual, and the dual hybrids of Espitau, Joux and Kharchenko
(dual_hybrid) and of MATZOV (matzov); at the limits also the primal hybrids without and with meet in the middle (bdd_hybrid, bdd_mitm_hybrid). Costs are
the estimator's defaults: MATZOV's for lattice reduction, shapes of reduced bases by the geometric series assumption. Coded BKW needs 2^279 samples
at the smallest ring, algebraic attacks need N^2: neither is run.

The estimate depends on N, log2 Q and the hints alone and falls as log2 Q grows, so that the largest log2 Q of every N speaks for all that a chooser with
these limits returns. `LIMITS` are the limits of the guideline of 2024 (ternary secrets, standard deviation 3.19, no hints) scaled by 1 - hints / N.

The estimator (https://github.com/malb/lattice-estimator) needs Sage; an environment of its own is enough, this package is not needed in it:

    python3.11 -m venv sage && sage/bin/pip install passagemath-standard-no-symbolics passagemath-symbolics passagemath-gsl passagemath-maxima
    git clone https://github.com/malb/lattice-estimator
    sage/bin/python experiments/security_table.py --estimator lattice-estimator

A quarter of an hour of one core. Writes results/security.json beside this file. `--sets FILE` estimates other sets instead: a JSON list of
`{"degree": 4096, "log2_modulus": 96, "kind": "light"}`.

Result (2026-11-26): at least 129.6 bits at every limit, bdd the cheapest attack everywhere; more than 2 N samples change nothing. The estimator's searches
find their minima to about a tenth of a bit.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = 128
WIDTH = math.sqrt(10.5)
"""Standard deviation of a secret or error of variance 21 given the opened sum of two: the others give theirs away."""

SIGNS = {"light": {"secret": 12, "rows": 0}, "norm": {"secret": 12, "rows": 16}}
"""Functionals with weights 0, 0, +1, -1: of the secret's N coefficients, of the errors of all rows."""
UNIFORM = 3
"""Functionals of the secret with uniform weights modulo Q."""
HINTS = {kind: sum(signs.values()) + UNIFORM for kind, signs in SIGNS.items()}
ROWS = 1024

LIMIT_2024 = {1024: 26, 2048: 53, 4096: 106, 8192: 214}


def limit(degree: int, kind: str = "light") -> int:
    """Most bits of Q that a chooser may use."""
    return math.floor(LIMIT_2024[degree] * (1 - HINTS[kind] / degree))


LIMITS = {degree: limit(degree) for degree in LIMIT_2024}
LOG2_MODULI = {1024: (18, 21), 2048: (45, 51), 4096: (72, 91, 97, 100, 104), 8192: (196, 205)}
"""Sizes below the limit that the chooser returns at usual sizes."""

Attack = Callable[[Any], Any]


def parameter_sets() -> list[dict[str, Any]]:
    """Degree, log2 Q and kind of round of every set: the limit of each degree, and what is below it for light rounds.

    Until `fedjax_poisson.aggregation` has its chooser this is the grid of what one with these limits can return.
    """
    light = [
        {"degree": degree, "log2_modulus": bits, "kind": "light"}
        for degree in LIMITS
        for bits in (*LOG2_MODULI[degree], LIMITS[degree])
    ]
    return light + [{"degree": d, "log2_modulus": limit(d, "norm"), "kind": "norm"} for d in LIMITS]


def weighted_hints(degree: int, log2_modulus: float, kind: str) -> int:
    """How many plain dimensions the hints are worth, rounded up.

    The attacker compares log2(V) / d - d log2(delta) with the length of the solution, for a lattice of dimension d and volume V. At the best d, about
    2 N, both terms are log2(Q) / 2 in size, so that a lost dimension is worth log2 Q bits of volume. Weights z add log2 |z| to them.
    """
    squares = {"secret": degree / 2, "rows": ROWS * degree / 2}
    worth = {on: 1 + math.log2(square) / 2 / log2_modulus for on, square in squares.items()}
    return UNIFORM + math.ceil(sum(count * worth[on] for on, count in SIGNS[kind].items()))


@functools.cache
def attacks() -> tuple[dict[str, Attack], dict[str, Attack]]:
    """The attacks that are always estimated, and the slow ones."""
    primal, dual = (importlib.import_module(f"estimator.lwe_{name}") for name in ("primal", "dual"))
    usual = {
        "usvp": primal.primal_usvp,
        "bdd": primal.primal_bdd,
        "dual": dual.dual,
        "dual_hybrid": dual.dual_hybrid,
        "matzov": dual.matzov,
    }
    slow = {
        "bdd_hybrid": functools.partial(primal.primal_hybrid, mitm=False, babai=False),
        "bdd_mitm_hybrid": functools.partial(primal.primal_hybrid, mitm=True, babai=True),
    }
    return usual, slow


def cost(attack: str, dimension: int, log2_modulus: int, samples: int, secret: str, width: float) -> tuple[float, int]:
    """One estimate: log2 of the operations and the block size."""
    nd, lwe = importlib.import_module("estimator.nd"), importlib.import_module("estimator.lwe_parameters")
    usual, slow = attacks()
    error = nd.DiscreteGaussian(width)
    problem = lwe.LWEParameters(
        n=dimension,
        q=2**log2_modulus,
        Xs=nd.UniformMod(3) if secret == "ternary" else error,
        Xe=error,
        m=samples,
    )
    found = (usual | slow)[attack](problem)
    return round(math.log2(found["rop"]), 2), int(found["beta"])


def estimate(
    dimension: int,
    log2_modulus: int,
    samples: int,
    *,
    secret: str = "like the error",
    width: float = WIDTH,
    slow: bool = False,
) -> dict[str, Any]:
    """All attacks on one LWE problem.

    Each runs in a process of its own: the estimator keeps state between attacks that changes the next one's result by some tenths of a bit.
    """
    usual, hybrids = attacks()
    found = {}
    for attack in (usual | hybrids) if slow else usual:
        with multiprocessing.get_context("fork").Pool(1) as alone:
            found[attack] = alone.apply(cost, (attack, dimension, log2_modulus, samples, secret, width))
    least = min(found, key=lambda attack: found[attack][0])
    bits, block_size = found[least]
    return {
        "dimension": dimension,
        "samples": samples,
        "bits": bits,
        "attack": least,
        "block_size": block_size,
        "attacks": {attack: bits for attack, (bits, _) in found.items()},
    }


def measure(given: dict[str, Any]) -> dict[str, Any]:
    """The three counts of one set."""
    degree, log2_modulus, kind = given["degree"], given["log2_modulus"], given["kind"]
    hints, weighted = HINTS[kind], weighted_hints(degree, log2_modulus, kind)
    at_limit = kind == "light" and log2_modulus == LIMITS.get(degree)
    counts = {
        "plain": estimate(degree - hints, log2_modulus, 2 * degree, slow=at_limit),
        "rows": estimate(degree - hints, log2_modulus, (ROWS + 1) * degree),
        "weighted": estimate(degree - weighted, log2_modulus, 2 * degree),
    }
    bits, count = min((found["bits"], name) for name, found in counts.items())
    attack = counts[count]["attack"]
    row = {**given, "hints": hints, "weighted_hints": weighted, "bits": bits, "count": count, "attack": attack}
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return {**row, "counts": counts}


def largest(degree: int) -> dict[str, Any]:
    """The largest log2 Q with `TARGET` bits in light rounds, weighted hints, and the first one without."""
    before = None
    for log2_modulus in range(LIMITS[degree], 2 * LIMITS[degree]):
        found = estimate(degree - weighted_hints(degree, log2_modulus, "light"), log2_modulus, 2 * degree)
        if found["bits"] < TARGET:
            break
        before = log2_modulus, found["bits"]
    size, bits = before or (None, None)
    row = {"degree": degree, "limit": LIMITS[degree], "largest": size, "bits": bits, "bits_above": found["bits"]}
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return row


def alternatives() -> list[dict[str, Any]]:
    """What was rejected, beside what is used: N = 8192, log2 Q = 193, and CBD(21) at the limits."""
    half, at = math.sqrt(5.25), (8192, 193)
    cases = [("CBD(42), no hints", *at, 0, {}), ("CBD(42)", *at, HINTS["norm"], {})]
    cases += [("CBD(21)", *at, HINTS["norm"], {"width": half})]
    cases += [("CBD(21)", degree, bits, HINTS["light"], {"width": half}) for degree, bits in LIMITS.items()]
    ternary = {"secret": "ternary"}
    fixed = math.ceil(8192 * 2 / 9)
    cases += [
        ("ternary secret, sums closed", *at, 0, ternary),
        ("ternary secret, sums opened", *at, fixed, ternary),
        ("ternary secret, sums opened", *at, fixed + HINTS["norm"], ternary),
    ]
    rows = []
    for name, degree, bits, lost, law in cases:
        found = estimate(degree - lost, bits, 2 * degree, **law)
        row = {"name": name, "degree": degree, "log2_modulus": bits, "lost_dimensions": lost, "bits": found["bits"]}
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row | found)
    return rows


def versions(estimator: Path) -> dict[str, str]:
    """Of the estimator, Sage and Python."""
    asked = subprocess.run(["git", "-C", str(estimator), "rev-parse", "HEAD"], capture_output=True, text=True)
    try:
        sage = f"passagemath {metadata.version('passagemath-symbolics')}"
    except metadata.PackageNotFoundError:
        sage = str(importlib.import_module("sage.version").version)
    return {
        "estimator": "https://github.com/malb/lattice-estimator",
        "estimator_commit": asked.stdout.strip() or "unknown",
        "sage": sage,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimator", type=Path, required=True, help="a clone of the lattice-estimator")
    parser.add_argument("--sets", type=Path, help="a JSON list of sets instead of parameter_sets()")
    parser.add_argument("--sets-only", action="store_true", help="neither the largest moduli nor the alternatives")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "security.json")
    found = parser.parse_args(arguments)

    sys.path.insert(0, str(found.estimator))
    conf = importlib.import_module("estimator.conf")
    importlib.import_module("estimator").io.Logging.set_level("CRITICAL")
    started = time.perf_counter()
    sets = json.loads(found.sets.read_text(encoding="utf-8")) if found.sets else parameter_sets()
    rows = [measure(given) for given in sets]
    result: dict[str, Any] = {
        "target": TARGET,
        "least": min(row["bits"] for row in rows),
        "limits": LIMITS,
        "width": WIDTH,
        "cost_model": str(conf.red_cost_model.__name__),
        "shape_model": str(getattr(conf.red_shape_model, "__name__", conf.red_shape_model)),
        "sets": rows,
    }
    if not found.sets_only:
        result |= {"largest": [largest(degree) for degree in LIMITS], "alternatives": alternatives()}
    result |= {
        **versions(found.estimator),
        "seconds": round(time.perf_counter() - started),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    found.out.parent.mkdir(parents=True, exist_ok=True)
    found.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"least {result['least']} bits, {result['seconds']} s")


if __name__ == "__main__":
    main()
