"""What ends an attempt at a release at a site, or its run."""

from __future__ import annotations

__all__ = ["RoundLost", "TooManyLost", "Uncharged"]


class TooManyLost(RuntimeError):
    """More rounds of this run were paid for and not opened than this site allows."""


class RoundLost(RuntimeError):
    """The round that this site's counts were sent in was not opened; resume the run, which draws its noise anew."""


class Uncharged(RuntimeError):
    """Counts were to leave for which the ledger was not asked."""
