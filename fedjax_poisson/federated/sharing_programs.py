"""What lets algorithms share compiled programs: all that is a number is an argument, and programs are built once for each structure.

A program is compiled for what it is closed over. So an algorithm hands its numbers (noise, tables, bounds, step sizes, a round's public constants) to its
programs, and takes the programs from a builder that gives the same ones for the same structure. A sweep over noise levels compiles once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from fedjax_poisson.mechanisms.types import Functions, Mechanism

_KEPT = 32  # structures whose programs are kept: what is compiled for more is compiled again

Built = TypeVar("Built")


class Numbers(NamedTuple):
    """The numbers of a round's programs.

    Attributes:
      key: the round's public constants; None where no program encrypts.
      functions: the mechanism's, with its bounds and tables as leaves; None without one.
      factor: of the server's optimiser (`server.Paced`); None where it has none.
      norm_bound: B^2 of norm rounds in limbs, uint32 `[7]` (`norm_check`); None where nobody's norm is tested.
      insiders: corrupt clients of a simulation (`insiders.InsiderNumbers`); None where all are honest.
      release: the law of the sum (`fidelity.ReleaseNumbers`) where it is drawn at once; None elsewhere.
    """

    key: Any = None
    functions: Functions | None = None
    factor: Any = None
    norm_bound: Any = None
    insiders: Any = None
    release: Any = None


Sends = Literal["updates", "reals", "counts"]
"""What clients send: float32 updates as they are, without a mechanism; or the floats, or the counts, of one."""


def sends_of(mechanism: Mechanism | None) -> Sends:
    """What clients with this mechanism send."""
    if mechanism is None:
        return "updates"
    return "counts" if mechanism.facts.integer else "reals"


def built_once(build: Callable[..., Built]) -> Callable[..., Built]:
    """A builder that gives what it built before for equal positional arguments: functions are told apart by identity, records by what they hold.

    The results must depend on the arguments alone. For arguments that cannot be hashed they are built each time.
    """
    kept = functools.lru_cache(maxsize=_KEPT)(build)

    @functools.wraps(build)
    def get(*structure: Any) -> Built:
        try:
            hash(structure)
        except TypeError:
            return build(*structure)
        return kept(*structure)

    return get
