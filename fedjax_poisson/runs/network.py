"""What a run needs where its sites are in different processes: how sums are opened between them, and how many of them there may be in one.

The run itself is the same at every site (`deployment`): each computes its own contribution to a sum, all open the sum together, and each takes the server's
step with what was opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fedjax_poisson.accounting import Pin
from fedjax_poisson.aggregation.aggregator import Backend
from fedjax_poisson.runs.config import Config


class Standing(NamedTuple):
    """A run's ledger, as its exchange with the other sites sees it.

    Attributes:
      times: `(label) -> int`: how often a release is on it.
      lost: `() -> int`: releases of this run that were charged and made again.
      now: `() -> (epsilon so far, pin)`: of this run, and how far the whole ledger reaches.
    """

    times: Callable[[str], int]
    lost: Callable[[], int]
    now: Callable[[], tuple[float, Pin]]


class Network(NamedTuple):
    """The other sites, as a run sees them.

    Attributes:
      backend: makes the encryption of one kind of release, whose sums are opened between the sites.
      members: of the committee.
      threshold: t.
      malicious: f.
      minimum: fewest sites in a sum.
      corrupt: sites assumed corrupt; minimum - corrupt honest ones are left.
      charging: takes a run's `charge` (`run_ledger.charging`) and its ledger's standing; gives a `charge` that also says which release comes next, and pays for
        no counts twice.
    """

    backend: Backend
    members: int
    threshold: int
    malicious: int
    minimum: int
    corrupt: int
    charging: Callable[[Callable[..., Any], Standing], Callable[..., Any]]


def check_network(network: Network, config: Config, honest_senders: int, sampling_rate: float) -> None:
    """Refuse a run whose price counts on more honest sites than a sum need hold.

    Raises:
      ValueError: with the numbers and the remedy.
    """
    if sampling_rate < 1 and config.sites is not None and network.minimum < len(config.sites):
        raise ValueError(
            f"sampling_rate={sampling_rate:g} needs every one of the {len(config.sites)} sites in every sum, and the consortium opens sums of "
            f"{network.minimum}: set sampling_rate = 1, or minimum = {len(config.sites)} in the roster."
        )
    if network.minimum - network.corrupt < honest_senders:
        raise ValueError(
            f"the price counts on {honest_senders} honest sites, and a sum of at least {network.minimum} with {network.corrupt} corrupt ones may hold only "
            f"{network.minimum - network.corrupt}: set honest_senders = {network.minimum - network.corrupt}, or raise the roster's minimum."
        )
