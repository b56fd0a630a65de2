"""Speed of the exact samplers, and of `jax.random.poisson` beside them in the same run.

    python -m fedjax_poisson.benchmarks.sampling [--draws 4194304] [--clients 8] [--seconds 1] [--quick] [--forms]

prints one JSON line a sampler; `--forms` times every way the ChaCha20 rounds can be written on this device instead.
Work is done the way a round does it: a scan over clients, each with its own derived stream, whose counts are added into
one running int32 vector that is reduced to a checksum at the end; "materialized" lines write every count to memory
instead. Where several devices of one kind are visible the clients are spread over them. On a CPU `main` asks for one
host device a core before JAX starts, since XLA:CPU runs a loop on one core.

The `checksum` of the push-pull lines belongs to a fixed seed and a fixed problem, so it must agree between all devices.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from fedjax_poisson import randomness
from fedjax_poisson.platforms import usable_cores
from fedjax_poisson.randomness import chacha, chacha_block, samplers

SEED = 20261123
DARK_COUNTS = (8.0, 100.0, 2000.0, 40_000.0)
MODULATION = 0.05
CHECK_DRAWS = 100_003

Draw = Callable[[jax.Array], jax.Array]  # client index -> int32[draws]


def run_sampling_benchmark(
    *, draws: int = 1 << 22, clients: int = 8, seconds: float = 2.0, rates: tuple[float, ...] = DARK_COUNTS
) -> Iterator[dict[str, Any]]:
    """Time every sampler; yields one record each, as soon as it is known.

    Args:
        draws: draws of one client.
        clients: clients of one timed call; rounded up to a multiple of the visible devices.
        seconds: how long each sampler is repeated at least (and at least five times).
        rates: dark counts of the push-pull lines.

    Yields:
        Records with `sampler`, `dark_count`, `draws` (of one call), `median_s`, `p10_s`, `p90_s`, `draws_per_s`,
        `exact`, `device`, `devices`, `host_cpu_s` (processor time of one call, on a CPU the fairer figure where others
        use it too), `compile_s`, `date`, and for exact push-pull lines `distance` (total variation a draw) and
        `checksum`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randomness.ReproducibleStreamWarning)
        stream = randomness.stream(seed=SEED)
    measure = functools.partial(_measure, clients=clients, draws=draws, seconds=seconds)
    measure_few = functools.partial(_measure, clients=1, draws=draws, seconds=seconds)
    grid = jnp.asarray(_grid(draws))
    for rate in rates:
        tables = randomness.push_pull_tables(dark_count=rate, modulation=MODULATION)
        facts = {"exact": True, "dark_count": rate, "distance": tables.distance, "checksum": push_pull_checksum(rate)}
        arguments = (stream, grid, tables)
        yield measure("push_pull", _push_pull, arguments) | facts
        yield measure("push_pull_materialized", _push_pull, arguments, keep=True) | facts
        yield measure_few("jax_random_poisson_difference", _inexact_push_pull, (grid, jnp.float32(rate))) | {
            "exact": False,
            "dark_count": rate,
        }
    for rate in sorted({rates[0], rates[-1]}):
        facts = {"exact": True, "dark_count": rate}
        yield measure("poisson", functools.partial(_poisson, draws), (stream, randomness.poisson_tables(rate))) | facts
        yield measure("skellam", functools.partial(_skellam, draws), (stream, randomness.skellam_tables(rate))) | facts
        inexact = measure_few("jax_random_poisson", functools.partial(_inexact_poisson, draws), (jnp.float32(rate),))
        yield inexact | {"exact": False, "dark_count": rate}
    yield measure("chacha20_words", functools.partial(_words, draws), (stream,)) | {"exact": True, "dark_count": None}


def run_form_benchmark(
    *, draws: int = 1 << 22, clients: int = 8, seconds: float = 1.0, forms: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Time the forms of `chacha20_block`: words of few blocks, as in a derivation, of many, and in a push-pull draw.

    Yields:
        Records as `run_sampling_benchmark` gives, with `form`.
    """
    unknown = sorted(set(forms) - set(chacha_block.FORMS))
    if unknown:
        raise ValueError(
            f"no form of ChaCha20 is called {', '.join(unknown)}; there are {', '.join(chacha_block.FORMS)}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randomness.ReproducibleStreamWarning)
        stream = randomness.stream(seed=SEED)
    tables = randomness.push_pull_tables(dark_count=8.0, modulation=MODULATION)
    tiles, lanes = samplers._tiling(draws)
    grid = jnp.asarray(_grid(tiles * 16 * lanes)).reshape(tiles, 16, lanes)
    measure = functools.partial(_measure, clients=clients, draws=draws, seconds=seconds)
    for form in forms:
        facts = {"form": form, "exact": True, "dark_count": None}
        few = functools.partial(_measure, clients=clients, draws=16 * 128, seconds=seconds)
        cases = [
            (few, "chacha20_few_words", functools.partial(_form_words, 16 * 128, form), (stream.key,)),
            (measure, "chacha20_words", functools.partial(_form_words, draws, form), (stream.key,)),
            (measure, "push_pull_at_8", functools.partial(_form_push_pull, tiles, lanes, form), (stream, tables, grid)),
        ]
        for clock, sampler, draw, inputs in cases:
            yield clock(sampler, draw, inputs) | facts


def push_pull_checksum(dark_count: float) -> int:
    """Checksum of a fixed push-pull problem (100,003 draws over the whole grid), the same on every device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randomness.ReproducibleStreamWarning)
        stream = randomness.stream(seed=SEED)
    tables = randomness.push_pull_tables(dark_count=dark_count, modulation=MODULATION)
    counts = randomness.push_pull(randomness.fold_in(stream, "checksum"), jnp.asarray(_grid(CHECK_DRAWS)), tables)
    mixed = np.asarray(counts).astype(np.int64) * (2 * np.arange(CHECK_DRAWS, dtype=np.int64) + 1)
    return int(mixed.sum()) & 0xFFFFFFFF


def _grid(draws: int) -> np.ndarray:
    """Every part of the grid with both ends, in a fixed order."""
    steps = np.arange(draws, dtype=np.int64) * 1_048_573 % ((2 << randomness.GRID_BITS) + 1)
    return (steps - (1 << randomness.GRID_BITS)).astype(np.int32)


def _push_pull(
    client: jax.Array, stream: randomness.Stream, grid: jax.Array, tables: randomness.SamplingTables
) -> jax.Array:
    return randomness.push_pull(randomness.fold_in(stream, client), grid, tables)


def _poisson(draws: int, client: jax.Array, stream: randomness.Stream, tables: randomness.SamplingTables) -> jax.Array:
    return randomness.poisson(randomness.fold_in(stream, client), draws, tables)


def _skellam(draws: int, client: jax.Array, stream: randomness.Stream, tables: randomness.SamplingTables) -> jax.Array:
    return randomness.skellam(randomness.fold_in(stream, client), draws, tables)


def _words(draws: int, client: jax.Array, stream: randomness.Stream) -> jax.Array:
    return randomness.bits(randomness.fold_in(stream, client), draws).astype(jnp.int32)


def _form_words(draws: int, form: str, client: jax.Array, key: jax.Array) -> jax.Array:
    words = chacha.output_block(key, jnp.arange(draws // 16, dtype=jnp.uint32) + client, form)
    return jnp.stack(lax.optimization_barrier(words)).astype(jnp.int32)


def _form_push_pull(
    tiles: int,
    lanes: int,
    form: str,
    client: jax.Array,
    stream: randomness.Stream,
    tables: randomness.SamplingTables,
    grid: jax.Array,
) -> jax.Array:
    own = jnp.asarray(randomness.fold_in(stream, client).key)
    return samplers._all_at_once(tiles, lanes, own, tables, grid, form=form)


def _inexact_push_pull(client: jax.Array, grid: jax.Array, rate: jax.Array) -> jax.Array:
    plus, minus = jax.random.split(jax.random.fold_in(jax.random.key(SEED), client))
    signal = jnp.float32(MODULATION / (1 << randomness.GRID_BITS)) * grid.astype(jnp.float32)
    one = jnp.float32(1)
    return jax.random.poisson(plus, rate * (one + signal)) - jax.random.poisson(minus, rate * (one - signal))


def _inexact_poisson(draws: int, client: jax.Array, rate: jax.Array) -> jax.Array:
    return jax.random.poisson(jax.random.fold_in(jax.random.key(SEED), client), rate, (draws,))


def _measure(
    sampler: str,
    draw: Callable[..., jax.Array],
    arguments: tuple[Any, ...],
    *,
    clients: int,
    draws: int,
    seconds: float,
    keep: bool = False,
) -> dict[str, Any]:
    devices = jax.devices()
    clients = -(-clients // len(devices)) * len(devices)
    mesh = Mesh(np.array(devices), ("clients",))

    def local(ids: jax.Array, *arguments: Any) -> jax.Array:
        if keep:
            return lax.map(lambda i: draw(i, *arguments), ids)
        first = draw(ids[0], *arguments)
        total = lax.scan(lambda total, i: (total + draw(i, *arguments), None), first, ids[1:])[0]
        return total.sum()[None]

    spread = jax.shard_map(
        local, mesh=mesh, in_specs=(P("clients"), *[P()] * len(arguments)), out_specs=P("clients"), check_vma=False
    )
    ids = jnp.arange(clients, dtype=jnp.uint32)
    begin = time.perf_counter()
    call = jax.jit(spread).lower(ids, *arguments).compile()
    jax.block_until_ready(call(ids, *arguments))
    compiled = time.perf_counter() - begin
    times: list[float] = []
    busy: list[float] = []
    while len(times) < (3 if sum(times) > 10 * seconds else 5) or sum(times) < seconds:
        begin, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(call(ids, *arguments))
        times.append(time.perf_counter() - begin)
        busy.append(time.process_time() - processor)
    p10, median, p90 = (float(q) for q in np.quantile(times, (0.1, 0.5, 0.9)))
    return {
        "sampler": sampler,
        "draws": clients * draws,
        "median_s": median,
        "p10_s": p10,
        "p90_s": p90,
        "draws_per_s": clients * draws / median,
        "host_cpu_s": float(np.median(busy)),
        "compile_s": compiled,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its records as JSON lines."""
    parser = argparse.ArgumentParser(description="Time the exact samplers beside jax.random.poisson; JSON lines.")
    parser.add_argument(
        "--draws", type=int, help="draws of one client (default: 2^24 on an accelerator, 2^20 on a CPU)"
    )
    parser.add_argument("--clients", type=int, default=8, help="clients of one timed call")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time each sampler is repeated")
    parser.add_argument("--quick", action="store_true", help="a small problem at one rate")
    parser.add_argument(
        "--forms", nargs="*", metavar="FORM", help="time these forms of ChaCha20 (all if none is named) instead"
    )
    options = parser.parse_args(arguments)
    # Read when the backend starts, which importing jax does not do.
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        flag = f"--xla_force_host_platform_device_count={usable_cores()}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    draws = options.draws or (1 << 20 if jax.default_backend() == "cpu" else 1 << 24)
    size: dict[str, Any] = {"draws": draws, "clients": options.clients, "seconds": options.seconds}
    if options.quick:
        size = {"draws": 1 << 16, "clients": 2, "seconds": 0.1}
    if options.forms is not None:
        records = run_form_benchmark(**size, forms=tuple(options.forms) or tuple(chacha_block.FORMS))
    else:
        records = run_sampling_benchmark(**size, rates=DARK_COUNTS[:1] if options.quick else DARK_COUNTS)
    for record in records:
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
