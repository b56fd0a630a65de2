"""The mechanisms that a run can train with: one record each. `run --mechanism NAME` knows them from here.

Another mechanism is a file with its functions and a line here; one of the user's own is an entry in a module of theirs, named `module:name`, and what it
claims about privacy is then its author's word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from fedjax_poisson.extensions import Found, find
from fedjax_poisson.mechanisms.committee_noise import at_noise as committee_noise_at
from fedjax_poisson.mechanisms.committee_noise import committee_noise
from fedjax_poisson.mechanisms.dark_counts import repeated
from fedjax_poisson.mechanisms.gaussian import at_noise as gaussian_at
from fedjax_poisson.mechanisms.gaussian import gaussian
from fedjax_poisson.mechanisms.noise_levels import Calibrate, by_noise
from fedjax_poisson.mechanisms.poisson import poisson_embedding
from fedjax_poisson.mechanisms.single_channel import at_noise as single_channel_at
from fedjax_poisson.mechanisms.single_channel import single_channel
from fedjax_poisson.mechanisms.summed_skellam import at_noise as skellam_at
from fedjax_poisson.mechanisms.summed_skellam import summed_skellam
from fedjax_poisson.mechanisms.types import Mechanism

Law = Literal["tight", "renyi"]


class MechanismEntry(NamedTuple):
    """A mechanism by name.

    Attributes:
      calibrate: `(terms, shape, *, rounds, portions, sampling_rate, other_rdp, between) -> Priced`: the least noise with which a release that is repeated in
        every round fits the budget, within the bounds of the shape. `by_noise(at_noise)` makes one of a function that builds the mechanism at a noise level.
      announced: `(**parameters) -> Mechanism`, from the parameters that a ledger row states (`Facts.parameters`).
      laws: what a ledger can account it by: "renyi" if it has a finite curve (`Mechanism.rdp`), "tight" if it states what it takes of a remaining variance
        (`Mechanism.cost`).
      integer: whether it sends integers. What does not can only be added in the clear.
      sums: whether a sender may add up the contributions of many units before it embeds them, as it does at record and patient level.
      portions: whether its noise comes in portions, for a schedule (`Mechanism.portions`).
      noise_by: "senders", or "committee" where clients send clean counts and noise senders the noise (`Facts.noise_by`).
    """

    calibrate: Calibrate
    announced: Callable[..., Mechanism]
    laws: tuple[Law, ...] = ("renyi",)
    integer: bool = True
    sums: bool = True
    portions: bool = False
    noise_by: Literal["senders", "committee"] = "senders"


MECHANISMS: Mapping[str, MechanismEntry] = MappingProxyType(
    {
        "poisson_embedding": MechanismEntry(repeated, poisson_embedding, laws=("tight", "renyi"), portions=True),
        "skellam": MechanismEntry(by_noise(skellam_at), summed_skellam),
        "committee_noise": MechanismEntry(
            by_noise(committee_noise_at), committee_noise, sums=False, noise_by="committee"
        ),
        "single_channel": MechanismEntry(by_noise(single_channel_at), single_channel, sums=False),
        "gaussian": MechanismEntry(by_noise(gaussian_at), gaussian, laws=("tight", "renyi"), integer=False),
    }
)
"""The mechanisms that `run --mechanism NAME` knows."""


def mechanism_entry(name: str) -> Found[MechanismEntry]:
    """The entry of a name, or of `module:name`.

    Raises:
      ValueError: there is none; with the names that there are.
    """
    return find(name, MECHANISMS, "mechanism", MechanismEntry)


def from_ledger(entry: MechanismEntry, parameters: Mapping[str, Any]) -> Mechanism:
    """The mechanism that a ledger row announces; parameters that were not set (None) are left out, and what a simulation made is none."""
    return entry.announced(
        **{name: value for name, value in parameters.items() if value is not None and name != "fidelity"}
    )
