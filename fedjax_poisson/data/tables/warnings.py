"""Warnings about a table that is accepted: facts that were read from it, and what its sites and split cannot show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedjax_poisson.data.placement import Placement
from fedjax_poisson.data.tables.labels import TableLabel
from fedjax_poisson.data.tables.remedies import declare_bounds, declare_levels, option
from fedjax_poisson.data.tables.suspicion import spelling_groups


def learned_facts(learned: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each kind of fact that was taken from the records (`Block.learned`), with the declaration that would replace it (`Sites.uncovered`)."""
    how = {
        "bounds": ("ranges of numbers", declare_bounds("age", 0, 110)),
        "categorical": ("levels of text columns", declare_levels("sex", ["F", "M"])),
        "fill": ("values for missing numbers", "[fill] age = 60 in a TOML file (fill={'age': 60} in Python)"),
    }
    found = []
    for argument, (words, example) in how.items():
        facts = [fact for kind, fact in learned if kind == argument]
        if facts:
            more = f" and of {len(facts) - 40} more columns" if len(facts) > 40 else ""
            found.append(
                (
                    f"{words} were taken from the records: {', '.join(facts[:40])}{more}",
                    f"public values that do not depend on the records, such as {example}",
                )
            )
    return found


def split_warnings(path: str, label: TableLabel, placement: Placement) -> list[str]:
    """Refuse a training set in which nothing can be learned about a label, and warn about what no test record can show.

    Args:
        path: The file, for messages.
        label: Of every record.
        placement: Sites and split.

    Raises:
        ValueError: All training records have the same label.
    """
    columns = label.values.reshape(len(label.values), -1)
    which = [f" {name!r}" for name in label.names] if label.values.ndim == 2 else [""]
    fit, held_out = columns[placement.train], columns[~placement.train]
    alike = [name for j, name in enumerate(which) if len(fit) == 0 or fit[:, j].min() == fit[:, j].max()]
    if alike:
        raise ValueError(
            f"{path}: all training records have the same label{alike[0]}, so nothing can be learned; bring more records, or hold out fewer: "
            + option("test_fraction", 0.2)
        )
    if len(held_out) == 0:
        return ["no record is held out for testing, so the quality of the model is unknown"]
    score = "an R2" if label.bounds is not None else "an AUC"
    found = [
        f"all test records have the same label{name}, so {score} is not defined"
        for j, name in enumerate(which)
        if held_out[:, j].min() == held_out[:, j].max()
    ]
    for side, what in (
        (placement.train, "training record, so it sends only noise"),
        (~placement.train, "test record, so the quality of the model there is unknown"),
    ):
        counts = np.bincount(placement.site[side], minlength=len(placement.site_names))
        found += [f"the site {placement.site_names[s]} has no {what}" for s in np.flatnonzero(counts == 0)]
    return found


def people_warnings(people: Sequence[str] | None, sites: int) -> list[str]:
    """What weakens a claim about people: one site only, or patients whose names differ in spelling only."""
    found = ["all records are from one site: nothing is federated, and a sum over one site hides nothing"] * (
        sites == 1
    )
    if people is not None and spelling_groups(people):
        found.append(
            "some names of patients differ by case, spaces or leading zeros only: if they are the same people, each is protected "
            "less than stated; write one of them everywhere"
        )
    return found
