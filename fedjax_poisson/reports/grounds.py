"""What each statement about privacy rests on: *proved*, *checked* (numerically, or when the page was written) or *assumed*."""

from __future__ import annotations

from typing import NamedTuple

from fedjax_poisson.reports.formatting import MISSING, format_epsilon, plural, shown, site_word
from fedjax_poisson.reports.guarantees import assumed, committee, encrypted, reasons_against
from fedjax_poisson.runs.run_folder import LedgerCheck, RunFolder, in_consortium, number, objects

__all__ = ["Ground", "counted", "grounds"]


class Ground(NamedTuple):
    """A statement and what it rests on.

    Attributes:
      statement: in words.
      status: "proved", "checked", "assumed", or "broken" where it does not hold.
      basis: what it rests on.
    """

    statement: str
    status: str
    basis: str


def counted(run: RunFolder) -> tuple[float, float] | None:
    """(honest, all) senders of noise of which the price counts so many: the sites, but in norm rounds; None where it was not recorded."""
    by = run.summary.get("noise_senders")
    if isinstance(by, dict) and by:
        honest, senders = number(by.get("honest")), number(by.get("senders"))
    else:
        honest, senders = number(run.summary.get("honest_senders")), number(run.summary.get("senders"))
    return None if honest is None or senders is None else (honest, senders)


def grounds(run: RunFolder, ledger: LedgerCheck) -> list[Ground]:
    """The statements of a run, the weightiest first; of a run that is not private, only what still holds."""
    found: list[Ground] = []
    if not reasons_against(run):
        found += [_bound(run), *_sharing(run)]
    found.append(_ledger(ledger))
    if encrypted(run):
        found += _encryption(run)
    if not reasons_against(run):
        found.append(
            Ground(
                "The noise has the law of the proof.",
                "checked",
                "Integer samplers within 2^-60 of their law in every draw, which their tables check when they are made; delta pays for the rest.",
            )
        )
        found.append(
            Ground(
                "The operating systems’ random numbers cannot be predicted.",
                "assumed",
                "256-bit keys from the operating system, stretched by ChaCha20.",
            )
        )
    found += [
        Ground(
            f"{part}: its privacy claim holds.",
            "assumed",
            "The word of its author; it comes from outside fedjax_poisson.",
        )
        for part in assumed(run)
    ]
    return found


def _bound(run: RunFolder) -> Ground:
    mechanisms = run.summary.get("mechanism")
    statuses = {
        str(each.get("status")) for each in objects(list(mechanisms.values()) if isinstance(mechanisms, dict) else [])
    }
    status = "proved" if statuses == {"proved"} else "assumed"
    basis = {
        frozenset(
            {"proved"}
        ): "A theorem on the noise, with its proof in the program’s documentation, applied to everything that was released.",
        frozenset({"published"}): "A published bound on the noise, which is not proved anew here.",
    }.get(frozenset(statuses), f"What the noise’s author states ({', '.join(sorted(statuses)) or MISSING}).")
    return Ground(f"The noise gives epsilon {shown(run.summary.get('epsilon'), format_epsilon)}.", status, basis)


def _sharing(run: RunFolder) -> list[Ground]:
    if (of := counted(run)) is None:
        return [Ground("Enough parties keep their noise secret.", "assumed", f"How many there must be was {MISSING}.")]
    honest, senders = of
    who = "noise senders" if run.summary.get("noise_senders") else site_word(run)
    words = f"{honest:g} of the {senders:g} {who} add their noise and keep it secret."
    alone = number(run.summary.get("epsilon_one_honest"))
    worse = f" With a single honest one epsilon is {format_epsilon(alone)}." if alone is not None and honest > 1 else ""
    return [Ground(words, "assumed", f"The others may tell the server everything they know.{worse}")]


def _ledger(ledger: LedgerCheck) -> Ground:
    words = "Everything that was released had been paid for first."
    if not ledger.verified:
        return Ground(words, "broken", ledger.problem)
    return Ground(
        words,
        "checked",
        f"The ledger’s {plural(len(ledger.rows), 'entry', 'entries')} and their chain of hashes were recomputed when this page was written.",
    )


def _encryption(run: RunFolder) -> list[Ground]:
    group, one = committee(run), site_word(run, 1)
    info = run.summary.get("aggregator_info")
    bits = number(info.get("security_bits")) if isinstance(info, dict) else None
    strength = f", at {bits:.0f} bits" if bits is not None else ""
    found = [
        Ground(
            f"Nobody can read a single {one}’s message.",
            "assumed",
            f"Ring learning with errors is hard{strength}: the same assumption as of post-quantum standards.",
        )
    ]
    if group is not None:
        found.append(
            Ground(
                f"Fewer than {group.threshold} of the {group.members} members of the committee pool what they hold.",
                "assumed",
                f"{group.threshold} of them together could read each {one}’s message."
                + (
                    ""
                    if group.signed
                    else " Messages were not signed: only a server that follows the protocol is covered."
                ),
            )
        )
    else:
        found.append(
            Ground(
                "Whoever holds the key does not work with the server.",
                "assumed",
                "Together they could read every message.",
            )
        )
    if not in_consortium(run):
        found.append(
            Ground(
                "Nobody reads this machine’s memory.",
                "assumed",
                "The run is a simulation: all parties were one process.",
            )
        )
    return found
