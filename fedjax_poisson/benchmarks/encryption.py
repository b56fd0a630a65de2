"""How long it takes to encrypt an update, here and in TenSEAL, in one process: `python -m fedjax_poisson.benchmarks.encryption`.

Prints one JSON object a line. The setting is that of the README's table: signed 8-bit counts, sums over 1000 senders, failure 2^-128. "one call" is one
sender's encryption from counts on the device to finished residues on the device, waited for; "accumulated" encrypts one sender after the other inside one
program and adds up the residues, which is what a simulation does, and counts the time of each.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_poisson.ckks import encryption, ntt
from fedjax_poisson.ckks.encryption import Plan, PublicKey, SecretKey
from fedjax_poisson.ckks.parameters import CkksParameters, choose_parameters, sum_bound
from fedjax_poisson.randomness import chacha

__all__ = ["main", "run"]

SENDERS = 1000
COUNT_BITS = 8
MILLION = 1 << 20
RESNET50 = 25_600_000
PLANS = {
    f"{'columns' if columns else 'rows'} radix {1 << radix}": Plan(columns=columns, radix=radix)
    for columns in (True, False)
    for radix in (1, 2, 3, 4)
}


def _device() -> str:
    device = jax.devices()[0]
    return f"{device.platform}:{device.device_kind}"


def _seconds(call: Callable[[], object], repeats: int) -> np.ndarray:
    """Wall seconds of `repeats` calls, after one that is not counted."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return np.asarray(times)


def _row(
    setting: str, backend: str, mode: str, values: int, seconds: np.ndarray, bytes_per_value: float | None, **more: Any
) -> dict[str, Any]:
    median = float(np.median(seconds))
    return {
        "setting": setting,
        "backend": backend,
        "mode": mode,
        "values": values,
        "median_s": median,
        "p10_s": float(np.quantile(seconds, 0.1)),
        "p90_s": float(np.quantile(seconds, 0.9)),
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


def _one_call(mode: str, values: int, repeats: int, plan: Plan | None = None, name: str = "default") -> dict[str, Any]:
    params, key, counts, stream = _prepared(mode, values)
    compiled = jax.jit(lambda c, s: encryption.encrypt(params, key, c, s, plan=plan)).lower(counts, stream).compile()
    seconds = _seconds(lambda: jax.block_until_ready(compiled(counts, stream)), repeats)
    return _row(
        "one call",
        "device",
        mode,
        values,
        seconds,
        params.bytes_per_value,
        plan=name,
        log2_q=params.modulus.bit_length(),
    )


def _accumulated(
    mode: str, values: int, repeats: int, clients: int, plan: Plan | None = None, name: str = "default"
) -> dict[str, Any]:
    params, key, counts, stream = _prepared(mode, values)

    def body(total: encryption.Ciphertext, client: jax.Array) -> tuple[encryption.Ciphertext, None]:
        own = counts ^ client.astype(jnp.int32) & jnp.int32(
            1
        )  # another vector for each sender, so that nothing is hoisted
        fresh = encryption.encrypt(params, key, own, chacha.fold_in(stream, client), plan=plan)
        return encryption.add(params, total, fresh), None

    def run_all(salt: jax.Array) -> encryption.Ciphertext:
        return jax.lax.scan(body, encryption.zero(params, values), salt + jnp.arange(clients, dtype=jnp.uint32))[0]

    compiled = jax.jit(run_all).lower(jnp.uint32(0)).compile()
    seconds = _seconds(lambda: jax.block_until_ready(compiled(jnp.uint32(0))), repeats) / clients
    return _row("accumulated", "device", mode, values, seconds, params.bytes_per_value, plan=name, clients=clients)


def _transform(radix: int, columns: int, rows: int, repeats: int) -> dict[str, Any]:
    """Coefficients a second of the transform alone: [rows, L, N, columns] at N = 8192 and seven primes."""
    params = _parameters("public_key", MILLION)
    table, capacity = ntt.tables(params.degree, params.moduli), ntt.capacity(params.moduli)
    x = jnp.ones((rows, params.limbs, params.degree, columns), jnp.uint32)
    compiled = jax.jit(lambda v: ntt.forward_columns(v, table, capacity, radix=radix)).lower(x).compile()
    loops = 10

    def call() -> None:
        y = x
        for _ in range(loops):
            y = compiled(y)
        jax.block_until_ready(y)

    seconds = _seconds(call, repeats) / loops
    median = float(np.median(seconds))
    return {
        "setting": "transform alone",
        "backend": "device",
        "radix": 1 << radix,
        "layout": f"[{rows}, {params.limbs}, {params.degree}, {columns}]",
        "median_s": median,
        "coefficients_per_s": x.size / median,
        "device": _device(),
    }


def _tenseal(mode: str, values: int, repeats: int) -> Iterator[dict[str, Any]]:
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

    conversion = _seconds(convert, repeats)
    sealed: list[Any] = []

    def encrypt() -> None:
        sealed[:] = [tenseal.ckks_vector(context, part) for part in parts]

    seconds = _seconds(encrypt, repeats)
    bytes_per_value = sum(len(vector.serialize()) for vector in sealed[:8]) / (8 * slots)
    label = "symmetric" if mode == "seeded" else "public_key"
    yield _row(
        "NVFLARE: N=8192 [60,40,40] 2^40",
        "tenseal",
        label,
        values,
        seconds,
        bytes_per_value,
        list_conversion_s=float(np.median(conversion)),
    )


def run(*, quick: bool = False, plans: bool = False, tenseal: bool = True) -> Iterator[dict[str, Any]]:
    """Yield one record for each measurement.

    Args:
        quick: Fewer repetitions.
        plans: Measure every layout and radix, and the transform alone, rather than the default only.
        tenseal: Measure TenSEAL in the same process, if it is installed.
    """
    accelerator = jax.default_backend() != "cpu"
    repeats = 5 if quick else 30
    for mode in ("public_key", "seeded"):
        yield _one_call(mode, MILLION, repeats)
        yield _accumulated(mode, MILLION, 3 if quick else 10, 64 if accelerator else 4)
    if tenseal:
        try:
            import tenseal as _  # noqa: F401
        except ImportError:
            yield {
                "setting": "NVFLARE: N=8192 [60,40,40] 2^40",
                "backend": "tenseal",
                "missing": "tenseal is not installed here",
            }
        else:
            for mode in ("public_key", "seeded"):
                yield from _tenseal(mode, MILLION, 2 if quick else 5)
    if plans:
        for radix in (1, 2, 3, 4, 5):
            for columns, rows in ((39, 1), (1, 39)):
                yield _transform(radix, columns, rows, repeats)
        for name, plan in PLANS.items():
            for mode in ("public_key", "seeded"):
                yield _accumulated(mode, MILLION, 3, 64 if accelerator else 4, plan, name)
    if accelerator:
        for row in (_one_call("public_key", RESNET50, repeats), _accumulated("public_key", RESNET50, 3, 8)):
            stats = jax.devices()[0].memory_stats() or {}
            yield {**row, "peak_bytes": stats.get("peak_bytes_in_use")}


def main(arguments: list[str] | None = None) -> None:
    """Print the measurements as JSON lines."""
    parser = argparse.ArgumentParser(description="Encryption of an update: this package's device path and TenSEAL.")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--plans", action="store_true", help="every layout and radix, and the transform alone")
    parser.add_argument("--no-tenseal", action="store_true", help="leave TenSEAL out")
    options = parser.parse_args(arguments)
    for record in run(quick=options.quick, plans=options.plans, tenseal=not options.no_tenseal):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
