"""Light or norm rounds at client level: what each costs in noise and bytes, and who is bounded by it. Fixed before any data is touched.

*Light* rounds: every client adds noise of its own, the price counts the n - c clients that are honest, and the noise that is paid is n / (n - c) of what
one trusted adder would need. Nobody bounds what a malicious client sends: it can shift the sum by as much as an honest total may weigh.
*Norm* rounds: clients send clean counts and prove that they are short; a committee of m sends the noise, l = m vectors of which h = m - t + 1 are counted on,
so l / h times the noise and some for rounding (`mechanisms.committee_noise`). Whoever the clients are, the price is the same.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.aggregation.norm_bound import NormScreening, dense_passes, largest_mean_shift
from fedjax_poisson.aggregation.parameters import choose, default_malicious, least_threshold
from fedjax_poisson.mechanisms.dark_counts import Shape, Terms
from fedjax_poisson.mechanisms.registry import MECHANISMS
from fedjax_poisson.mechanisms.types import Mechanism


class ScreeningOption(NamedTuple):
    """One way of screening, calibrated.

    Attributes:
      screening: "light" or "norm".
      mechanism: at the plan's budget.
      variance: of the noise in the sum, per coordinate, over that of one trusted adder of Gaussian noise at the same budget, both by Renyi curves.
      bytes_up: bytes of a client's rows, corrections and proof, a parameter.
      bounded: what a malicious client can do, in words.
    """

    screening: Literal["light", "norm"]
    mechanism: Mechanism
    variance: float
    bytes_up: float
    bounded: str


class ScreeningPlan(NamedTuple):
    """Both ways, and the one that is taken.

    Attributes:
      light: of the plan's clients with noise of their own.
      norm: with noise from a committee.
      chosen: "light" or "norm".
      reasons: why, one sentence each, fit to be printed.
    """

    light: ScreeningOption
    norm: ScreeningOption
    chosen: Literal["light", "norm"]
    reasons: tuple[str, ...]


def plan_screening(
    *,
    clients: int,
    dimension: int,
    epsilon: float,
    delta: float,
    rounds: int,
    corrupt: int = 1,
    clip_norm: float = 1.0,
    coordinate_bound: float | None = None,
    members: int = 5,
    malicious: int | None = None,
    must_bound: bool | None = None,
) -> ScreeningPlan:
    """Light or norm rounds, by what they cost.

    Args:
      clients: n, clients of a round, all of which send.
      dimension: D.
      epsilon: budget of all rounds together.
      delta: its delta.
      rounds: T.
      corrupt: c, clients that may be corrupt, invented ones among them: their noise does not count.
      clip_norm: C.
      coordinate_bound: bound on each coordinate of an update; None for C / 20, or C where D is below 400.
      members: m of the committee.
      malicious: f; None for (m - 1) // 3.
      must_bound: True where clients may lie about the size of their update and a shift of the model matters more than noise, False where they may not; None
        takes what has less noise.

    Raises:
      ValueError: an argument out of range, or a budget or ring that cannot be had.
    """
    if not 0 <= corrupt < clients:
        raise ValueError(f"corrupt={corrupt} of clients={clients}: somebody must be honest.")
    if not 1 <= members <= 20:
        raise ValueError(f"members={members}; a committee has 1 to 20.")
    f = default_malicious(members) if malicious is None else malicious
    t = least_threshold(members, f)
    if not 0 <= f < members or t > members:
        raise ValueError(f"malicious={f} of members={members}: 2 t > m + f with t <= m is needed.")
    bound = coordinate_bound or (clip_norm / 20 if dimension >= 400 else clip_norm)
    shape = Shape(clip_norm, bound, bound, dimension)
    sending, counted = members, members - t + 1
    trusted = _calibrated("gaussian", shape, epsilon, delta, rounds, (clients, clients), None).variance(clients)
    own = _calibrated("poisson_embedding", shape, epsilon, delta, rounds, (clients, clients - corrupt), None)
    committee = _calibrated("committee_noise", shape, epsilon, delta, rounds, (clients, clients), (sending, counted))
    by = committee.noise_senders
    assert by is not None
    squared = by.squared_norm(dimension)
    common: dict[str, Any] = {"corrupt": min(corrupt, 1), "malicious": f}
    light_ring = choose(dimension, own.count_bound(clients, dimension), clients, members, t, **common)
    norm_ring = choose(
        dimension,
        committee.count_bound(clients, dimension),
        clients,
        members,
        t,
        count_rms=by.count_rms(clients, dimension) + 3 * min(corrupt, 1) * math.sqrt(squared / dimension),
        norm=NormScreening(squared, sending, counted),
        **common,
    )
    assert norm_ring.proof is not None
    ratio = norm_ring.proof.squared_bound / squared
    light = ScreeningOption(
        "light",
        own,
        own.variance(clients) / trusted,
        light_ring.ring.bytes_per_value,
        "nobody is bounded: one malicious client can shift a sum by as much as the honest total may weigh, or stop the round",
    )
    norm = ScreeningOption(
        "norm",
        committee,
        committee.variance(clients) / trusted,
        norm_ring.ring.bytes_per_value,
        f"a malicious client shifts a sum by at most {largest_mean_shift(ratio)[1]:.2g} clips in the mean (3 clips pass with "
        f"{dense_passes(3.0, ratio):.2g}, 5 with {dense_passes(5.0, ratio):.1g}); an update within the clip always passes, a poisoned one too",
    )
    return _decided(light, norm, clients, corrupt, (sending, counted), must_bound)


def _decided(
    light: ScreeningOption,
    norm: ScreeningOption,
    clients: int,
    corrupt: int,
    noise: tuple[int, int],
    must_bound: bool | None,
) -> ScreeningPlan:
    if must_bound is None:
        chosen = norm if norm.variance <= light.variance else light
        why = f"less noise: {chosen.variance:.3g} against {(light if chosen is norm else norm).variance:.3g} times a trusted adder's variance"
    else:
        chosen = norm if must_bound else light
        why = "clients may lie about the size of an update" if must_bound else "clients are taken not to lie about size"
    reasons = (
        f"{chosen.screening} rounds: {why}",
        f"light: {light.variance:.3g} times the variance of one trusted adder ({clients - corrupt} of {clients} clients' noise counts), "
        f"{light.bytes_up:.2f} bytes a parameter; {light.bounded}",
        f"norm: {norm.variance:.3g} times ({noise[0]} noise senders, {noise[1]} counted on, whoever the clients are), {norm.bytes_up:.2f} bytes a parameter; "
        f"{norm.bounded}",
    )
    return ScreeningPlan(light, norm, chosen.screening, reasons)


def _calibrated(
    name: str,
    shape: Shape,
    epsilon: float,
    delta: float,
    rounds: int,
    who: tuple[int, int],
    noise_senders: tuple[int, int] | None,
) -> Mechanism:
    """The mechanism of a name with the least noise for this budget by Renyi curves, delta less what is set aside for samplers and screening."""
    senders, honest = who
    participation = accounting.Participation(senders=senders, minimum_senders=senders, honest_senders=honest)
    beside = 0.0 if noise_senders is None else accounting.SCREENING
    drawing = senders if noise_senders is None else noise_senders[0]
    distance = accounting.release_distance(senders=drawing, dimension=shape.dimension, overflow=beside)
    reserve = accounting.plan_reserve(epsilon, delta, rounds * distance)
    terms = Terms(
        epsilon=epsilon,
        delta=delta - reserve,
        participation=participation,
        largest_site=1,
        sites_per_unit=1,
        modulation=None,
        orders=accounting.integer_orders(256),
        noise_senders=noise_senders,
    )
    return MECHANISMS[name].calibrate(terms, shape, rounds=rounds).mechanism
