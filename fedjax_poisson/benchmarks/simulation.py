"""How long a round of many clients takes, privacy and encryption on or off: `fedjax-poisson bench simulation --workload W1 --privacy on`.

Prints one JSON object a line. A workload is run for its full number of rounds and its accuracy printed beside the time, because a fast round that does not
learn is worth nothing. Times are wall clock of `apply` per round after the first, data on the device, waited for.

Privacy: W1 and W3 take what their peers take (L2 clip 1, noise of standard deviation 1 on the sum), as a Poisson embedding of the same variance. W2's peers
have no privacy; its noise here is small enough to learn from in ten rounds of fifty clients, which protects nobody, and the printed epsilon says so: the
row measures what privacy costs in time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fedjax_poisson.benchmarks import workloads

__all__ = ["NOISE", "accuracy", "as_parameters", "dark_count", "main", "run"]

DELTA = 1e-5
_SCORED_AT_ONCE = 500


class Noise(NamedTuple):
    """Settings of a workload's embedding.

    Attributes:
      clip_norm: L2 bound of one client's update.
      coordinate_bound: bound of each coordinate.
      multiplier: standard deviation of the noise in the sum over clip_norm.
      modulation: r.
    """

    clip_norm: float
    coordinate_bound: float
    multiplier: float
    modulation: float


NOISE = {"W1": Noise(1.0, 0.2, 1.0, 0.05), "W2": Noise(4.0, 0.2, 0.01, 0.1), "W3": Noise(1.0, 0.2, 1.0, 0.05)}


def dark_count(noise: Noise, senders: int) -> float:
    """The mu at which the sum of `senders` embeddings has the standard deviation `multiplier * clip_norm`."""
    return senders * noise.coordinate_bound**2 / (2 * (noise.modulation * noise.multiplier * noise.clip_norm) ** 2)


def as_parameters(name: str, arrays: dict[str, np.ndarray]) -> Any:
    """A workload's initial weights as the parameters of this package's model of the same shape."""
    if name == "W2":
        places = {"conv0": ("c0", "d0"), "conv1": ("c1", "d1"), "dense": ("w0", "b0"), "logits": ("w1", "b1")}
        return {layer: {"kernel": arrays[kernel], "bias": arrays[bias]} for layer, (kernel, bias) in places.items()}
    return {"layers": [{"weight": arrays[f"w{i}"], "bias": arrays[f"b{i}"]} for i in range(3)]}


def run(
    *,
    workload: str,
    privacy: bool,
    encryption: str = "off",
    fidelity: str | None = None,
    chunk: int | None = None,
    transforms: str = "summed",
    rounds_per_call: int = 1,
    devices: int = 1,
    quick: bool = False,
) -> dict[str, Any]:
    """Measure one setting.

    Args:
      workload: "W1", "W2" or "W3".
      privacy: embed every update.
      encryption: "on" or "off"; needs privacy.
      fidelity: "release" or "messages" (`federated.fidelity`); None for the first where it is possible.
      chunk: clients vmapped at once; None for the default of the device.
      transforms: "summed" or "each" (`federated.Chunking`).
      rounds_per_call: rounds fused into one program.
      devices: devices of a mesh.
      quick: three rounds only; the accuracy is then not that of the workload.

    Returns:
      One JSON row.

    Raises:
      ValueError: encryption without privacy, or fused rounds on a mesh.
    """
    import jax

    from fedjax_poisson import accounting

    if encryption != "off" and not privacy:
        raise ValueError("Only counts can be encrypted: encryption needs --privacy on.")
    if rounds_per_call > 1 and devices > 1:
        raise ValueError("Rounds are fused on one device only: use --devices 1 or --rounds-per-call 1.")
    bench = _prepare(workload, privacy, encryption, fidelity, chunk, transforms, devices)
    rounds = 3 if quick else bench.config.rounds
    state, timing = _timed(bench, rounds, min(rounds_per_call, rounds))
    algorithm, config = bench.algorithm, bench.config
    peak = _peak_bytes()  # of training, as the peers have it
    reached = accuracy(bench.model, algorithm.parameters(state), bench.x_test, bench.y_test)
    epsilon = None
    if privacy:
        orders = np.asarray(accounting.DEFAULT_ORDERS)
        epsilon = float(accounting.epsilon(orders, rounds * algorithm.rdp(orders), DELTA))
    median = float(np.median(timing.seconds))
    return {
        "workload": workload,
        "privacy": "on" if privacy else "off",
        "encryption": encryption,
        "fidelity": algorithm.fidelity if privacy else None,
        "median_ms": median * 1e3,
        "min_ms": min(timing.seconds) * 1e3,
        "p90_ms": float(np.quantile(timing.seconds, 0.9)) * 1e3,
        "cpu_ms": float(np.median(timing.processor)) * 1e3,
        "compile_s": timing.first - median * min(rounds_per_call, rounds),
        "accuracy": reached,
        "peak_bytes": peak,
        "clients_per_s": config.cohort / median,
        "device": f"{jax.devices()[0].platform}:{jax.devices()[0].device_kind}",
        "devices": devices,
        "rounds": rounds,
        "rounds_per_call": rounds_per_call,
        "transforms": transforms,
        "chunk": chunk,
        "epsilon": epsilon,
        "bytes_up_per_client": bench.bytes_up,
        "date": datetime.date.today().isoformat(),
    }


class _Bench(NamedTuple):
    """What is measured: the federation, its first state, who trains in which round (row 0 is for compilation), and test records."""

    config: workloads.Workload
    model: Any
    algorithm: Any
    state: Any
    cohorts: Any
    x_test: np.ndarray
    y_test: np.ndarray
    bytes_up: int | None


class _Timing(NamedTuple):
    """Seconds of the first call with its compilation, and wall and processor seconds of a round, call by call."""

    first: float
    seconds: list[float]
    processor: list[float]


def _prepare(
    workload: str,
    privacy: bool,
    encryption: str,
    fidelity: str | None,
    chunk: int | None,
    transforms: str,
    devices: int,
) -> _Bench:
    """The federation of a setting, its parameters those of the peers."""
    import jax
    import jax.numpy as jnp
    import optax

    from fedjax_poisson import aggregation, federated, models
    from fedjax_poisson.mechanisms import poisson_embedding

    config, x, y, x_test, y_test = workloads.make(workload)
    mesh = federated.client_mesh(devices) if devices > 1 else None
    model = models.cnn() if workload == "W2" else models.mlp((64, 32))
    size, noise = workloads.n_params(config), NOISE[workload]
    mechanism = aggregator = None
    if privacy:
        mechanism = poisson_embedding(
            clip_norm=noise.clip_norm,
            coordinate_bound=noise.coordinate_bound,
            dark_count=dark_count(noise, config.cohort),
            modulation=noise.modulation,
        )
    if encryption != "off":
        assert mechanism is not None
        bound = mechanism.count_bound(config.cohort, size)
        aggregator = aggregation.aggregator("round", count_bound=bound, senders=config.cohort, size=size)
    algorithm = federated.fedavg(
        model,
        client=federated.local_sgd(config.local_lr, batch_size=config.batch),
        population=federated.make_population(x, y, mesh=mesh),
        senders=config.cohort,
        server_optimizer=optax.sgd(config.server_lr),
        mechanism=mechanism,
        aggregator=aggregator,
        encryption=encryption,  # type: ignore[arg-type]
        fidelity=fidelity,  # type: ignore[arg-type]
        layout=federated.Chunking(chunk=chunk, transforms=transforms),  # type: ignore[arg-type]
        mesh=mesh,
    )
    state = algorithm.init(jax.random.key(0))
    params = jax.tree.map(jnp.asarray, as_parameters(workload, workloads.init_params(config)))
    state = state._replace(server=state.server._replace(params=params))
    bytes_up = None if aggregator is None else aggregator.message_bytes(size)
    return _Bench(config, model, algorithm, state, workloads.cohorts(config), x_test, y_test, bytes_up)


def _timed(bench: _Bench, rounds: int, per_call: int) -> tuple[Any, _Timing]:
    """Train, each call timed by itself; the state after the last.

    What is timed is the simulation; the algorithm's ledger would add about half a millisecond a round, and the peers keep none.
    """
    import jax

    from fedjax_poisson import randomness
    from fedjax_poisson.federated.charging import UnaccountedWarning

    root, state, algorithm = randomness.stream(), bench.state, bench.algorithm
    seconds: list[float] = []
    processor: list[float] = []

    def call(state: Any, number: int, stream: Any) -> Any:
        if per_call == 1:
            return algorithm.apply(state, bench.cohorts[number], stream, "unaccounted")[0]
        return algorithm.apply_rounds(state, bench.cohorts[number : number + per_call], stream, "unaccounted")[0]

    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnaccountedWarning)
        call(state, 0 if per_call == 1 else 1, randomness.fold_in(root, "warm"))
    first = time.perf_counter() - began
    for number in range(1, rounds - per_call + 2, per_call):
        began, used = time.perf_counter(), time.process_time()
        state = call(state, number, root)
        jax.block_until_ready(state)
        seconds.append((time.perf_counter() - began) / per_call)
        processor.append((time.process_time() - used) / per_call)
    return state, _Timing(first, seconds, processor)


def accuracy(model: Any, params: Any, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Share of the test records that are right, scored in blocks: all pictures of W2 at once would take more memory than the training."""
    import jax

    apply, size = jax.jit(model.apply), min(_SCORED_AT_ONCE, len(x_test))
    logits = np.concatenate([np.asarray(apply(params, x_test[i : i + size])) for i in range(0, len(x_test), size)])
    decided = logits.argmax(axis=-1) if logits.ndim == 2 else (logits > 0)
    return float(np.mean(decided == y_test))


def _peak_bytes() -> int:
    """Most bytes held so far: of the device where it tells, else of this process."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` would remember the process that this one was started from
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The asked settings, or for each workload the usual ones: without privacy, and with it, without and with encryption, at each fidelity."""
    common = {
        "chunk": options.chunk,
        "transforms": options.transforms,
        "rounds_per_call": options.rounds_per_call,
        "devices": options.devices,
        "quick": options.quick,
    }
    for workload in [options.workload] if options.workload else sorted(workloads.CONFIGS):
        if options.privacy is not None or options.encryption is not None:
            level = options.encryption or "off"
            fidelity = options.fidelity
            yield run(
                workload=workload, privacy=options.privacy != "off", encryption=level, fidelity=fidelity, **common
            )
            continue
        yield run(workload=workload, privacy=False, **common)
        for fidelity in ("release", "messages") if options.fidelity is None else (options.fidelity,):
            for level in ("off", "on"):
                yield run(workload=workload, privacy=True, encryption=level, fidelity=fidelity, **common)


def main(arguments: list[str] | None = None) -> None:
    """Print the measurements as JSON lines."""
    parser = argparse.ArgumentParser(description="Rounds of many clients, privacy and encryption included.")
    parser.add_argument("--workload", choices=sorted(workloads.CONFIGS), help="default: all of them")
    parser.add_argument("--privacy", choices=["on", "off"])
    parser.add_argument("--encryption", choices=["on", "off"])
    parser.add_argument(
        "--fidelity", choices=["release", "messages"], help="one draw for a sum, or every client's message"
    )
    parser.add_argument("--chunk", type=int, help="clients vmapped at once")
    parser.add_argument("--transforms", choices=["summed", "each"], default="summed")
    parser.add_argument("--rounds-per-call", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1, help="on a CPU: host devices, one for each core is usual")
    parser.add_argument("--quick", action="store_true", help="three rounds only")
    options = parser.parse_args(arguments)
    if options.devices > 1:  # read when the backend starts, which is after this line; without effect on accelerators
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={options.devices}"
        os.environ["XLA_FLAGS"] = flags.strip()
    for row in rows(options):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
