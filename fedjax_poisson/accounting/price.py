"""The privacy cost of one release of an algorithm, in a form that can be charged to any ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from fedjax_poisson.accounting.checks import FloatArray
from fedjax_poisson.accounting.law import Charge, Law, TightLaw, checked
from fedjax_poisson.accounting.variance_cost import Cost


class Price(NamedTuple):
    """The cost of one release.

    Attributes:
      mechanism: name of the mechanism.
      parameters: its parameters, JSON values.
      rdp: `(orders) -> float64[orders]`, the Renyi curve of one release, sampling included.
      honest_senders: senders whose noise the curve counts.
      senders: senders in the sum.
      distance: total variation between the release's law and the curve's.
      cost: what one release takes of a remaining variance; None where that is not proved (secret sampling, other mechanisms).
      noise_senders: parties that send the noise, where those of the sum send none (norm rounds); None where senders bring their own.
    """

    mechanism: str
    parameters: Mapping[str, Any]
    rdp: Callable[[FloatArray], FloatArray]
    honest_senders: int
    senders: int
    distance: float
    cost: Cost | None = None
    noise_senders: int | None = None

    @property
    def screened(self) -> bool:
        """Senders are left out by what they send (norm rounds): the distance is then no trifle, and is charged in any case."""
        return self.noise_senders is not None

    def charge(self, law: Law) -> Charge:
        """What a ledger of this law is charged with.

        Raises:
          ValueError: the law has no charge for this release.
        """
        return checked(law, self.cost if isinstance(law, TightLaw) else self.rdp(law.orders), self.mechanism)


class HasPrice(Protocol):
    """An algorithm from the point of view of a ledger: the privacy cost of one round; None if nothing it releases is private."""

    @property
    def price(self) -> Price | None: ...  # noqa: D102
