"""A run's ledger and its rounds on the screen, read from the folder alone; and what rounds would cost."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from fedjax_poisson import accounting
from fedjax_poisson.accounting.account import AccountedRounds
from fedjax_poisson.aggregation import aggregator
from fedjax_poisson.aggregation.round_setting import RoundSetting, draft_of
from fedjax_poisson.aggregation.terms import Terms, mechanism_facts
from fedjax_poisson.mechanisms import poisson_embedding
from fedjax_poisson.runs.run_ledger import CONFIG, LEDGER
from fedjax_poisson.runs.transcripts import in_words, verify_rounds


def print_ledger(folder: Path, *, verify: bool) -> None:
    """Print the rows of a ledger, what they add up to, and with `verify` whether the chain holds.

    Args:
      folder: run folder, or a ledger file.
      verify: recompute the hash chain and compare it with the values pinned in summary.json.

    Raises:
      FileNotFoundError: there is no ledger.
    """
    path = ledger_of(folder)
    book = accounting.read_ledger(path)
    try:
        print(
            f"{'id':>4}  {'time':<26}  {'purpose':<12} {'label':<16} {'mechanism':<18} honest/senders  {accounting.meter_in_words(book.law)}"
        )
        rows = book.rows()
        for row in rows:
            assumed = f"  ASSUMED: {', '.join(parts)}" if (parts := row.origin.get("assumed")) else ""
            print(
                f"{row.id:>4}  {row.time[:26]:<26}  {row.purpose:<12} {row.label:<16} {row.mechanism:<18} "
                f"{row.honest_senders:>6}/{row.senders:<7} {row.meter:.6g}{assumed}"
            )
        print(
            f"unit {book.unit}, adjacency {book.adjacency}: epsilon {book.epsilon():.6g} of {book.budget_epsilon:g} at delta {book.delta:g}"
        )
        if runs := {row.origin.get("run") for row in rows} - {None}:
            print(f"data set {rows[0].data!r}, {len(runs)} run{'s' if len(runs) > 1 else ''}")
        if verify:
            print(_verified(book, folder if folder.is_dir() else path.parent))
    finally:
        book.close()


def ledger_of(folder: Path) -> Path:
    """The ledger of a run: in its folder, or the one of the data set that its settings name, as at a site of a consortium.

    Raises:
      FileNotFoundError: there is none.
    """
    path = folder / LEDGER if folder.is_dir() else folder
    if folder.is_dir() and not path.exists() and (settings := folder / CONFIG).is_file():
        path = Path(tomllib.loads(settings.read_text(encoding="utf-8")).get("ledger", path))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such ledger; give the folder of a run, or a ledger file.")
    return path


def _verified(book: accounting.Ledger, folder: Path) -> str:
    count = book.verify()
    summary = folder / "summary.json"
    pinned = "(no summary.json next to it pins the head, so removed rows at the end would go undetected)"
    if summary.exists():
        try:
            facts = json.loads(summary.read_text(encoding="utf-8"))
            pin = accounting.Pin(int(facts["ledger_rows"]), str(facts["ledger_head"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{summary} does not say what the ledger held ({error!r}), so rows removed at its end would go undetected: restore it, or finish the run "
                f"again with --resume {folder}."
            ) from error
        book.check_pin(pin)
        pinned = "and match what summary.json pins"
    return f"verified: {count} rows follow from each other {pinned}"


def print_rounds(folder: Path) -> int:
    """Check a run's ledger and the transcripts of its rounds again, and print a line for each.

    Args:
      folder: run folder.

    Returns:
      0 if everything holds, 1 if a transcript does not.

    Raises:
      FileNotFoundError: the folder has no ledger or no transcripts.
    """
    book = accounting.read_ledger(ledger_of(folder))
    try:
        print(_verified(book, folder))
        charged = len(book.rows())
    finally:
        book.close()
    found = verify_rounds(folder)
    for one in found:
        print(in_words(one))
    bad = sum(one.checked is None for one in found)
    print(
        f"rounds: {len(found) - bad} of {len(found)} hold, {charged} releases are charged. Checked, under the members' keys that the files state: signatures, "
        "quorums, screening, opening. Not in the files, so not checked: that the summed rows are the sum of the clients' own."
    )
    return 1 if bad else 0


def print_round_cost(setting: AccountedRounds, dark_count: float, members: int) -> Terms:
    """Print what a round of such a sum costs its clients, how secure it is, and on what that rests.

    Args:
      setting: senders, dimension and the mechanism's shape.
      dark_count: mean events per channel, coordinate and sender.
      members: of the committee.

    Returns:
      The terms of such a round, with keys that are nobody's: from them follows what it takes on a wire.

    Raises:
      ValueError: no committee of so many, or no parameters hold the sum.
    """
    mechanism = poisson_embedding(
        clip_norm=setting.norm_ratio,
        coordinate_bound=1.0,
        total_bound=None if setting.step_ratio == 1 else 1 / setting.step_ratio,
        dark_count=dark_count,
        modulation=setting.modulation,
    )
    bound, facts = mechanism.count_bound(setting.senders, setting.dimension), mechanism.facts
    rounds = aggregator(
        "round",
        count_bound=bound,
        senders=setting.senders,
        size=setting.dimension,
        members=members,
        authenticate=False,
    )
    assert rounds.device is not None
    params, info = rounds.device.params, rounds.info
    up = rounds.message_bytes(setting.dimension)
    print(f"\nencryption: {params.ring.explanation}")
    print(f"a client's message has {up:,} bytes ({up / setting.dimension:.3f} a parameter)")
    print(
        f"{info.threshold} of {info.members} members open a sum, up to {info.malicious} may be malicious; {info.security_bits} bits classical, assumed: "
        "ring-LWE (by the lattice-estimator, experiments/results/security.json), ChaCha20, Ed25519, HPKE with ML-KEM-768 and X25519"
    )
    round_setting = RoundSetting(
        run=bytes(16),
        count_bound=bound,
        count_rms=None,
        senders=setting.senders,
        minimum=setting.senders,
        corrupt=min(1, setting.senders - 1),
        members=members,
        threshold=info.threshold,
        malicious=info.malicious,
        mechanism=json.dumps(mechanism_facts(facts.name, facts.parameters), sort_keys=True, default=str),
        size=setting.dimension,
    )
    nobody = tuple(bytes(31) + bytes([number]) for number in range(members))
    return draft_of(round_setting, 0, setting.dimension, nobody, bytes(32))
