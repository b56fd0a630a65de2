"""The attacks on a finished run: one record each; `attack`, leakage.json and the report know them from here.

Another attack is a function of a run (`Attacked`) with its words, in a file, and a line here; one of the user's own is named `module:name`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from fedjax_poisson.leakage import attack_runs, reconstruction, words
from fedjax_poisson.leakage.finished_run import Attacked, OnProgress, Sizes, Unattackable


class RunAttack(NamedTuple):
    """An attack on a finished run.

    Attributes:
      question: what it asks, for the report.
      run: `(run, sizes, report) -> JSON values`; raises `Unattackable` where it does not apply.
      words: its result in words, one entry a line of the report.
      algorithms: names of the algorithms whose runs it attacks; empty for all.
      any_label: whether it works for several labels and for numbers; else it scores the probability of one class.
    """

    question: str
    run: Callable[[Attacked, Sizes, OnProgress], dict[str, Any]]
    words: Callable[[dict[str, Any]], list[words.Said]]
    algorithms: tuple[str, ...] = ()
    any_label: bool = False


_OF_RECORDS = ("fedsgd",)  # they repeat or read sums of single records' gradients

ATTACKS: Mapping[str, RunAttack] = MappingProxyType(
    {
        "membership": RunAttack(
            "Was this record in the training data?", attack_runs.membership, words.membership, _OF_RECORDS
        ),
        "audit": RunAttack("Does the noise match the ledger?", attack_runs.audit, words.audit, any_label=True),
        "one_run": RunAttack("Can planted records be found?", attack_runs.one_run, words.one_run, _OF_RECORDS),
        "inversion": RunAttack(
            "Can a record be reconstructed?", reconstruction.inversion, words.inversion, _OF_RECORDS
        ),
        "property": RunAttack(
            "Which site did an update come from?",
            attack_runs.site_property,
            words.site_property,
            _OF_RECORDS,
            any_label=True,
        ),
    }
)
"""By name, in the order in which they are made and shown."""


def check_fits(name: str, attack: RunAttack, run: Attacked) -> None:
    """Refuse an attack that is not for the run's algorithm, or that scores the probability of one class where there is none.

    Raises:
      Unattackable: with the reason.
    """
    algorithm = run.setting.config.algorithm
    if attack.algorithms and algorithm not in attack.algorithms:
        raise Unattackable(
            f"{name} is for {', '.join(attack.algorithms)}, whose sums are of single records' gradients; this run's algorithm is {algorithm}, and nothing "
            "follows for it. An attack of your own can be named: --attack module:name."
        )
    target = run.setting.target
    if target.task in ("multilabel", "regression") and not attack.any_label:
        fitting = ", ".join(each for each, known in ATTACKS.items() if known.any_label)
        raise Unattackable(
            f"{name} scores the probability of a record's class, and the run learns {target.words}; these do not depend on the label: {fitting}."
        )
