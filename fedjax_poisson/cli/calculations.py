"""`account` and `bench`: what a setting costs in privacy, and what this machine takes for it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from fedjax_poisson.runs.config_checks import check_ranges

__all__ = ["AccountOptions", "BenchOptions", "account", "bench"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AccountOptions:
    """What `account` computes from.

    Attributes:
      senders: senders in every sum.
      dimension: coordinates of an update.
      epsilon: budget over all rounds.
      rounds: number of releases.
      dark_count: mean events per channel, coordinate and sender.
      delta: delta of the budget.
      honest_senders: senders whose noise is counted; default: all but one.
      sampling_rate: rate of secret Poisson sampling of units; every sender always sends its noise.
      modulation: modulation depth r.
      norm_ratio: clip_norm / coordinate_bound.
      step_ratio: coordinate_bound / total_bound (1 at client level).
      adjacency: neighbouring relation.
      members: committee of a round, for the cost of encryption.
      lines: rows of the per-round table.
    """

    senders: int
    dimension: int
    epsilon: float | None = None
    rounds: int | None = None
    dark_count: float | None = None
    delta: float = 1e-5
    honest_senders: int | None = None
    sampling_rate: float = 1.0
    modulation: float = 0.05
    norm_ratio: float = 1.0
    step_ratio: float = 1.0
    adjacency: Literal["zero_out", "replace_one"] = "zero_out"
    members: int = 5
    lines: int = 10


def account(options: Annotated[AccountOptions, tyro.conf.arg(name="")]) -> int:
    """Compute the privacy of the Poisson embedding: give two of --epsilon, --rounds and --dark-count to get the third.

    Args:
      options: the setting.
    """
    from fedjax_poisson.accounting import account as tables
    from fedjax_poisson.deployment.wire_bytes import sum_traffic
    from fedjax_poisson.mechanisms.types import check_honest
    from fedjax_poisson.runs.show import print_round_cost

    if options.senders < 1 or options.lines < 1:
        raise ValueError(f"senders={options.senders} and lines={options.lines}: give at least one of each.")
    check_ranges(
        {
            "epsilon": options.epsilon,
            "delta": options.delta,
            "sampling_rate": options.sampling_rate,
            "modulation": options.modulation,
        }
    )
    check_honest(options.senders - 1 if options.honest_senders is None else options.honest_senders, options.senders)
    setting = tables.AccountedRounds(
        delta=options.delta,
        senders=options.senders,
        honest_senders=options.honest_senders,
        modulation=options.modulation,
        norm_ratio=options.norm_ratio,
        dimension=options.dimension,
        step_ratio=options.step_ratio,
        sampling_rate=options.sampling_rate,
        adjacency=options.adjacency,
    )
    result = tables.make_account(setting, epsilon=options.epsilon, rounds=options.rounds, dark_count=options.dark_count)
    for what, value in tables.account_table(result):
        print(f"{what:<26} {value}")
    print(f"\n{'round':>8} {'epsilon':>10} {'order':>6} {'events':>12}")
    for row in tables.round_table(result, lines=options.lines):
        print(f"{row.round:>8} {row.epsilon:>10.4f} {row.order:>6g} {row.events:>12.5g}")
    terms = print_round_cost(setting, result.dark_count, options.members)
    print("between processes (`consortium run`), all messages and what carries them, a sum:")
    for who, sends, sits in (
        ("a site that is a member", True, True),
        ("another site", True, False),
        ("another member", False, True),
    ):
        up, down = sum_traffic(terms, options.senders, sends=sends, sits=sits)
        print(f"  {who} sends {up:,} bytes and gets {down:,}")
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Sizes and variants of a benchmark; None takes its own.

    Attributes:
      quick: use smaller sizes and fewer repetitions.
      size: aggregation: length of the vector.
      senders: aggregation: clients of a round.
      members: aggregation: members of the committee.
      workload: simulation: which of the three workloads; default: all.
      privacy: simulation: embed every update or not; default: both.
      encryption: simulation: encrypt the sums or not.
      fidelity: simulation: one draw with the law of the sum, or every client's message; default: both.
      chunk: simulation: clients vmapped at once.
      transforms: simulation: ciphertexts summed before or after their transforms (the same bits).
      rounds_per_call: simulation: rounds fused into one program.
      devices: simulation: devices of the mesh (on a CPU: host devices).
      target: compile: the device to compile for, which need not be here.
      programs: compile: whose programs, "W1 release", "W1 messages", W2, W3, "aggregation" or "run"; default: all.
    """

    quick: bool = False
    size: int | None = None
    senders: int | None = None
    members: int | None = None
    workload: Literal["W1", "W2", "W3"] | None = None
    privacy: Literal["on", "off"] | None = None
    encryption: Literal["on", "off"] | None = None
    fidelity: Literal["release", "messages"] | None = None
    chunk: int | None = None
    transforms: Literal["summed", "each"] | None = None
    rounds_per_call: int | None = None
    devices: int | None = None
    target: Literal["h100", "t4", "v5e", "rocm"] | None = None
    programs: str | None = None


_ONLY = {
    "simulation": (
        "workload",
        "privacy",
        "encryption",
        "fidelity",
        "chunk",
        "transforms",
        "rounds_per_call",
        "devices",
    ),
    "aggregation": ("size", "senders", "members"),
    "compile": ("target", "programs"),
}
_COUNTS = ("chunk", "rounds_per_call", "devices", "size", "senders", "members")


def bench(
    what: Annotated[Literal["sampling", "encryption", "aggregation", "simulation", "compile"], tyro.conf.Positional],
    options: Annotated[BenchOptions, tyro.conf.arg(name="")] = BenchOptions(),
) -> int:
    """Benchmark this machine and print JSON lines.

    Args:
      what: samplers compared with jax.random, encryption compared with TenSEAL, the parties of one aggregation round compared with
        peers, whole rounds of many clients, or what a device that is not here makes of the programs: its own compiler's answer.
      options: its sizes and variants.
    """
    import importlib

    given: dict[str, str] = {}
    for kind, names in _ONLY.items():
        values = {name.replace("_", "-"): getattr(options, name) for name in names}
        found = {name: str(value) for name, value in values.items() if value is not None}
        if found and what != kind:
            raise ValueError(f"--{', --'.join(found)}: only `bench {kind}` takes these; leave them out.")
        given |= found
    for name in _COUNTS:
        count = getattr(options, name)
        if count is not None and not 1 <= count <= 10**8:
            raise ValueError(f"--{name.replace('_', '-')} {count}: give a whole number between 1 and 100000000.")
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    if what == "compile" and options.quick:
        raise ValueError("--quick: `bench compile` has no smaller sizes; choose --programs instead.")
    quick = ["--quick"] if options.quick else []
    importlib.import_module(f"fedjax_poisson.benchmarks.{what}").main([*arguments, *quick])
    return 0
