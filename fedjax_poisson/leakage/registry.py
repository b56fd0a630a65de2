"""The attacks on a finished run: one record each; `attack`, leakage.json and the report know them from here.

Another attack is a function of a run (`Attacked`) and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_poisson.leakage import attack_runs, reconstruction, words
from fedjax_poisson.leakage.finished_run import Attacked, OnProgress, Sizes


class RunAttack(NamedTuple):
    """An attack on a finished run.

    Attributes:
      question: what it asks, for the report.
      run: `(run, sizes, report) -> JSON values`; raises `Unattackable` where it does not apply.
      words: its result in words, one entry a line of the report.
      any_label: whether it works for several labels and for numbers; else it scores the probability of one class.
    """

    question: str
    run: Callable[[Attacked, Sizes, OnProgress], dict[str, Any]]
    words: Callable[[dict[str, Any]], list[words.Said]]
    any_label: bool = False


ATTACKS: Mapping[str, RunAttack] = MappingProxyType(
    {
        "membership": RunAttack("Was this record in the training data?", attack_runs.membership, words.membership),
        "audit": RunAttack("Does the noise match the ledger?", attack_runs.audit, words.audit, any_label=True),
        "one_run": RunAttack("Can planted records be found?", attack_runs.one_run, words.one_run),
        "inversion": RunAttack("Can a record be reconstructed?", reconstruction.inversion, words.inversion),
        "property": RunAttack(
            "Which site did an update come from?", attack_runs.site_property, words.site_property, any_label=True
        ),
    }
)
"""By name, in the order in which they are made and shown."""
