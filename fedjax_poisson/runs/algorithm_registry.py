"""The algorithms of a run: `run --algorithm NAME` knows them from here.

Another algorithm is a file with its entry and a line here; one of the user's own is an entry in a module of theirs, named `module:name`. Whether such an
algorithm clips what it says it clips is then its author's word.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedjax_poisson.extensions import Found, find
from fedjax_poisson.runs import client_level, record_level
from fedjax_poisson.runs.algorithm_entry import AlgorithmEntry

ALGORITHMS: Mapping[str, AlgorithmEntry] = MappingProxyType(
    {"fedsgd": record_level.ENTRY, "fedavg": client_level.ENTRY}
)
"""By name."""


def algorithm_entry(name: str) -> Found[AlgorithmEntry]:
    """The entry of a name, or of `module:name`.

    Raises:
      ValueError: there is none; with the names that there are.
    """
    return find(name, ALGORITHMS, "algorithm", AlgorithmEntry)
