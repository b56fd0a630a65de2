"""What anyone may check of a run's rounds: one file an opened round, kept as it is opened, and the checks again from these files alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_poisson.aggregation import Aggregator, Opened, RoundRefused, Sealed
from fedjax_poisson.aggregation.transcript import Checked, check_transcript, terms_of
from fedjax_poisson.federated.checkpoints import write_atomic

__all__ = ["FOLDER", "Verified", "in_words", "keeping", "verify_rounds"]

FOLDER = "transcripts"


class Verified(NamedTuple):
    """One transcript that was checked.

    Attributes:
      name: of the file.
      checked: what it showed; None if it was refused.
      refusal: the name of the refusal and its words; empty if it holds.
    """

    name: str
    checked: Checked | None
    refusal: str


def keeping(aggregator: Aggregator, out: Path, purpose: str) -> Aggregator:
    """The aggregator, whose every opened round leaves its transcript in the run folder; those that make none stay as they are."""

    def open_and_keep(sealed: Sealed, size: int) -> Opened:
        opened = aggregator.open(sealed, size)
        if opened.transcript is not None:
            terms = terms_of(opened.transcript)
            name = f"{purpose}-{terms.run[:4].hex()}-{terms.round:05d}.round"
            (out / FOLDER).mkdir(parents=True, exist_ok=True)
            write_atomic(out / FOLDER / name, opened.transcript)
        return opened

    return aggregator._replace(open=open_and_keep)


def verify_rounds(folder: Path) -> list[Verified]:
    """Check every transcript of a run folder again.

    Raises:
      FileNotFoundError: the folder has none, with the reason that is most likely.
    """
    files = sorted((folder / FOLDER).glob("*.round"))
    if not files:
        raise FileNotFoundError(
            f'{folder / FOLDER}: no transcripts. They are kept by runs whose aggregator is "round" and signs its messages; others have nothing that could be '
            "checked from outside."
        )
    found = []
    for path in files:
        try:
            found.append(Verified(path.name, check_transcript(path.read_bytes()), ""))
        except RoundRefused as error:
            found.append(Verified(path.name, None, f"{type(error).__name__}: {error}"))
    return found


def in_words(verified: Verified) -> str:
    """One line about a transcript."""
    checked = verified.checked
    if checked is None:
        return f"{verified.name}: DOES NOT HOLD. {verified.refusal}"
    terms, counts = checked.terms, checked.counts
    size = float(np.sqrt(np.mean(counts.astype(np.float64) ** 2)))
    left = "".join(f"; {key.hex()[:8]} left out: {why}" for key, why in checked.left_out)
    wrong = f"; wrong answers of members {checked.wrong}" if checked.wrong else ""
    wrong += f"; answers of members {checked.disputed} differ from the others'" if checked.disputed else ""
    return (
        f"{verified.name}: {len(checked.clients)} of at most {terms.senders} clients, {len(checked.answered)} of {len(terms.members)} members answered "
        f"(t = {terms.threshold}, f = {terms.malicious}), {counts.size} counts of rms {size:.4g}{left}{wrong}"
    )
