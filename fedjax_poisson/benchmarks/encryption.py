"""How long it takes to encrypt an update, here and in TenSEAL, in one process: `python -m fedjax_poisson.benchmarks.encryption`.

Prints one JSON object a line. The setting is that of the README's table: signed 8-bit counts, sums over 1000 senders, failure 2^-128. "one call" is one
sender's encryption from counts on the device to finished residues on the device, waited for; "accumulated" encrypts one sender after the other inside one
program and adds up the residues, which is what a simulation does, and counts the time of each.

Calls here and in TenSEAL take turns, so that what else the machine does slows both. A call here uses the cores that `cores` says, as XLA shares out its
work; TenSEAL uses one thread. `cpu_s` is the processor time of a call over all threads, the measure that busy neighbours change least.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import device_layout, encryption, ntt, packing
from fedjax_poisson.ckks.device_layout import DeviceLayout
from fedjax_poisson.ckks.encryption import PublicKey, SecretKey
from fedjax_poisson.ckks.parameters import CkksParameters, choose_parameters, sum_bound
from fedjax_poisson.platforms import usable_cores
from fedjax_poisson.randomness import chacha

__all__ = ["main", "run"]

SECTIONS = ("calls", "accumulated", "tenseal", "large", "transform", "plans")
MODES = ("public_key", "seeded")
NVFLARE = "NVFLARE: N=8192 [60,40,40] 2^40"
SENDERS = 1000
COUNT_BITS = 8
MILLION = 1 << 20
RESNET50 = 25_600_000
PLANS = {
    f"{'columns' if columns else 'rows'} radix {1 << radix}{' joined' if join else ''}": DeviceLayout(
        columns=columns, radix=radix, join=join
    )
    for columns, radix, join in itertools.product((True, False), (1, 2, 3, 4), (True, False))
} | {"cpu": device_layout.CPU_PLAN, "cpu seeded": device_layout.CPU_SEEDED_PLAN}


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.platform}:{device.device_kind}"


class Times(NamedTuple):
    """Seconds of each call: on the wall, and of the processors over all threads."""

    wall: np.ndarray
    cpu: np.ndarray


def _taking_turns(calls: Sequence[tuple[Callable[[], object], int]], rounds: int) -> list[Times]:
    """The times of several calls that take turns: in each round each is made as often as it says, after one round that is not counted."""
    found: list[list[tuple[float, float]]] = [[] for _ in calls]
    for index in range(rounds + 1):
        for (call, repeats), times in zip(calls, found, strict=True):
            for _ in range(repeats if index else 1):
                start, cpu = time.perf_counter(), time.process_time()
                call()
                if index:
                    times.append((time.perf_counter() - start, time.process_time() - cpu))
    return [Times(*np.asarray(times).T) for times in found]


def _times(call: Callable[[], object], repeats: int) -> Times:
    """The times of `repeats` calls, after one that is not counted."""
    return _taking_turns([(call, 1)], repeats)[0]


def _compiled(
    function: Callable[..., Any], *arguments: Any, options: dict[str, Any] | None = None
) -> tuple[Callable[..., Any], float]:
    """The function compiled for the arguments, and the seconds that took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile(compiler_options=options)
    return compiled, time.perf_counter() - start


def _row(
    setting: str, backend: str, mode: str, values: int, times: Times, bytes_per_value: float | None, **more: Any
) -> dict[str, Any]:
    median = float(np.median(times.wall))
    return {
        "setting": setting,
        "backend": backend,
        "mode": mode,
        "values": values,
        "median_s": median,
        "p10_s": float(np.quantile(times.wall, 0.1)),
        "p90_s": float(np.quantile(times.wall, 0.9)),
        "cpu_s": float(np.median(times.cpu)),
        "values_per_s": values / median,
        "bytes_per_value": bytes_per_value,
        "device": _device(),
        "date": datetime.date.today().isoformat(),
        **more,
    }


def _parameters(mode: str, values: int) -> CkksParameters:
    bound = sum_bound(COUNT_BITS, SENDERS)
    return choose_parameters(count_bound=bound, senders=SENDERS, mode=mode, values=values)  # type: ignore[arg-type]


def _prepared(mode: str, values: int) -> tuple[CkksParameters, PublicKey | SecretKey, jax.Array, chacha.Stream]:
    params = _parameters(mode, values)
    stream = chacha.stream()
    secret, public = encryption.generate_keys(params, chacha.fold_in(stream, "keys"))
    half = 1 << (COUNT_BITS - 1)
    counts = jnp.asarray(np.random.default_rng(0).integers(-half, half, size=values), jnp.int32)
    return params, public if mode == "public_key" else secret, counts, chacha.fold_in(stream, "senders")


class Timed(NamedTuple):
    """A call to be timed, how often in each round, and the facts of its record."""

    call: Callable[[], object]
    repeats: int
    facts: dict[str, Any]


def _one_call(mode: str, values: int, *, wide: bool = False) -> Timed:
    """One sender's encryption; `wide` asks XLA for 512-bit vectors, as XLA_FLAGS=--xla_cpu_prefer_vector_width=512 does for a whole process."""
    params, key, counts, stream = _prepared(mode, values)
    options = {"xla_cpu_prefer_vector_width": 512} if wide else None
    call, compile_s = _compiled(lambda c, s: encryption.encrypt(params, key, c, s), counts, stream, options=options)
    facts = {
        "setting": "one call, 512-bit vectors" if wide else "one call",
        "backend": "device",
        "mode": mode,
        "values": values,
        "bytes_per_value": params.bytes_per_value,
        "compile_s": compile_s,
        "log2_q": params.modulus.bit_length(),
        "cores": usable_cores(),
    }
    return Timed(lambda: jax.block_until_ready(call(counts, stream)), 6, facts)


def _calls(made: Sequence[Timed], rounds: int) -> Iterator[dict[str, Any]]:
    for timed, times in zip(made, _taking_turns([(t.call, t.repeats) for t in made], rounds), strict=True):
        memory = _memory() if timed.facts["backend"] == "device" else {}
        yield _row(times=times, **{**timed.facts, **memory})


def _accumulated(mode: str, values: int, repeats: int, clients: int) -> dict[str, Any]:
    params, key, counts, stream = _prepared(mode, values)

    def body(total: encryption.Ciphertext, client: jax.Array) -> tuple[encryption.Ciphertext, None]:
        own = counts ^ (client.astype(jnp.int32) & jnp.int32(1))  # another vector for each sender: nothing is hoisted
        fresh = encryption.encrypt(params, key, own, chacha.fold_in(stream, client))
        return encryption.add(params, total, fresh), None

    def run_all(first: jax.Array) -> encryption.Ciphertext:
        labels = first + jnp.arange(clients, dtype=jnp.uint32)
        return jax.lax.scan(body, encryption.zero(params, values), labels)[0]

    call, compile_s = _compiled(run_all, jnp.uint32(0))
    times = Times(*(t / clients for t in _times(lambda: jax.block_until_ready(call(jnp.uint32(0))), repeats)))
    return _row(
        "accumulated",
        "device",
        mode,
        values,
        times,
        params.bytes_per_value,
        compile_s=compile_s,
        clients=clients,
        **_memory(),
    )


def _memory() -> dict[str, int]:
    """Most bytes the device has held so far, where it tells."""
    stats = jax.devices()[0].memory_stats() or {}
    return {"peak_bytes": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}


def _transform(radix: int, columns: int, rows: int, repeats: int) -> dict[str, Any]:
    """Coefficients a second of the transform alone: [rows, L, N, columns] at N = 8192 and seven primes."""
    params = _parameters("public_key", MILLION)
    table, capacity = ntt.tables(params.degree, params.moduli), ntt.capacity(params.moduli)
    x = jnp.ones((rows, params.limbs, params.degree, columns), jnp.uint32)
    loops = 10

    def repeated(v: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, loops, lambda _, y: ntt.forward_columns(y, table, capacity, radix=radix), v)

    call, compile_s = _compiled(repeated, x)
    median = float(np.median(_times(lambda: jax.block_until_ready(call(x)), repeats).wall / loops))
    return {
        "setting": "transform alone",
        "backend": "device",
        "radix": 1 << radix,
        "layout": f"[{rows}, {params.limbs}, {params.degree}, {columns}]",
        "median_s": median,
        "coefficients_per_s": x.size / median,
        "compile_s": compile_s,
        "device": _device(),
    }


def _planned(name: str, mode: str, values: int, repeats: int) -> dict[str, Any]:
    """Encoding and transforms of one encryption under one plan, with counts packed and masks drawn beforehand."""
    params, _, counts, stream = _prepared(mode, values)
    words = packing.pack_words(params, counts)
    masks = encryption.draw_masks(params, values, stream)[: 3 if mode == "public_key" else 1]
    loops = 10

    def repeated(w: jax.Array, m: jax.Array) -> jax.Array:
        def body(_: jax.Array, carried: jax.Array) -> jax.Array:
            parts = device_layout.transformed(params, PLANS[name], w ^ carried[0, 0, 0], m, carrier=0)
            return functools.reduce(jnp.bitwise_xor, parts)

        return jax.lax.fori_loop(
            0, loops, body, jnp.zeros((params.rows(values), params.limbs, params.degree), jnp.uint32)
        )

    call, compile_s = _compiled(repeated, words, masks)
    times = Times(*(t / loops for t in _times(lambda: jax.block_until_ready(call(words, masks)), repeats)))
    return _row("encode and transform", "device", mode, values, times, None, plan=name, compile_s=compile_s)


def _tenseal(mode: str, values: int) -> Timed:
    """TenSEAL at NVFLARE's setting: N = 8192, [60, 40, 40], scale 2^40; numpy to list timed apart, as its API takes lists."""
    import tenseal

    kind = tenseal.ENCRYPTION_TYPE.SYMMETRIC if mode == "seeded" else tenseal.ENCRYPTION_TYPE.ASYMMETRIC
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40], encryption_type=kind
    )
    context.global_scale = 2**40
    slots = 4096
    array = np.random.default_rng(0).normal(0, 0.02, size=values).astype(np.float32)
    parts: list[list[float]] = []

    def convert() -> None:
        parts[:] = [array[i : i + slots].tolist() for i in range(0, values, slots)]

    conversion = _times(convert, 3)
    sealed: list[Any] = []

    def encrypt() -> None:
        sealed[:] = [tenseal.ckks_vector(context, part) for part in parts]

    sample = [tenseal.ckks_vector(context, part) for part in parts[:8]]
    facts = {
        "setting": NVFLARE,
        "backend": "tenseal",
        "mode": "symmetric" if mode == "seeded" else "public_key",
        "values": values,
        "bytes_per_value": sum(len(vector.serialize()) for vector in sample) / (8 * slots),
        "list_conversion_s": float(np.median(conversion.wall)),
        "cores": 1,
    }
    return Timed(encrypt, 1, facts)


def run(
    *, sections: Sequence[str] = ("calls", "accumulated", "tenseal", "large"), quick: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield one record for each measurement.

    Args:
        sections: Any of SECTIONS, in this order: "calls" (both modes) and "tenseal" (if installed, in this process, taking turns with the calls),
            "accumulated" (both modes), "large" (25.6M values, on an accelerator only), "transform" (the NTT alone by radix and layout),
            "plans" (encoding and transforms by plan).
        quick: Fewer repetitions.

    Raises:
        ValueError: For an unknown section.
    """
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        raise ValueError(f"unknown sections {unknown}; choose from {SECTIONS}")
    accelerator = jax.default_backend() != "cpu"
    rounds = 2 if quick else 8
    missing = "tenseal" in sections and importlib.util.find_spec("tenseal") is None
    for mode in MODES:
        widths = (False,) if accelerator else (False, True)
        made = [_one_call(mode, MILLION, wide=wide) for wide in widths] if "calls" in sections else []
        made += [_tenseal(mode, MILLION)] if "tenseal" in sections and not missing else []
        yield from _calls(made, rounds)
    if missing:
        yield {"setting": NVFLARE, "backend": "tenseal", "missing": "tenseal is not installed here"}
    if "accumulated" in sections:
        yield from (_accumulated(mode, MILLION, 3 if quick else 10, 64 if accelerator else 4) for mode in MODES)
    if "large" in sections and accelerator:
        yield from _calls([_one_call("public_key", RESNET50)], 1)
        yield _accumulated("public_key", RESNET50, 3, 8)
    if "transform" in sections:
        for radix, (columns, rows) in itertools.product((1, 2, 3, 4, 5), ((39, 1), (1, 39))):
            yield _transform(radix, columns, rows, 5)
    if "plans" in sections:
        for name, mode in itertools.product(PLANS, MODES):
            yield _planned(name, mode, MILLION, 5)


def main(arguments: list[str] | None = None) -> None:
    """Print the measurements as JSON lines."""
    parser = argparse.ArgumentParser(description="Encryption of an update: this package's device path and TenSEAL.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["calls", "accumulated", "tenseal", "large"])
    options = parser.parse_args(arguments)
    for record in run(sections=options.sections, quick=options.quick):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
