"""Small parties that write one kind of file each, killed at every event and started again, thousands of times a minute.

A party is a function of a folder that does all of its work, and, called again, goes on where the folder says. Nothing here starts a backend of jax.
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fault_campaign import children, verdicts
from fault_campaign.events import EXITED, KINDS, Event, Watch, strike, watched
from fault_campaign.harm import HARM, harm
from fault_campaign.plan import chosen
from fault_campaign.verdicts import Row
from fedjax_poisson import accounting
from fedjax_poisson.aggregation.store import Store, sqlite_store
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.federated.folder_lock import folder_lock

__all__ = ["PARTIES", "TWINS", "Party", "clean_events", "faults", "harmed_stores", "races", "struck"]

ROUNDS = 4
RUN = bytes(16)
STEPS = ("secrets", "round-key", "terms", "commit", "answer")
Say = Callable[[str, bytes], None]


class Party(NamedTuple):
    """One party.

    Attributes:
      act: `(folder, say)`; `say(step, bytes)` is what leaves the process, such as an opened sum or an answer.
      wrong: `(folder, what was said before the fault)`, read before anything goes on.
      ended: `(folder, all that was said)`, after it went on.
    """

    act: Callable[[Path, Say], None]
    wrong: Callable[[Path, list[tuple[str, bytes]]], list[str]]
    ended: Callable[[Path, list[tuple[str, bytes]]], list[str]]


# A ledger


def _open(path: Path) -> accounting.Ledger:
    facts = {"epsilon": 3.0, "delta": 1e-4, "unit": "record", "adjacency": "zero_out"}
    return accounting.open_ledger(path, **facts, orders=[2, 4, 8], filter_order=8)


def spend(book: accounting.Ledger, number: int) -> None:
    """Charge one release."""
    book.spend("train", f"train {number}", "gaussian", {}, [1e-3, 2e-3, 4e-3], 3, 4)


def labels(path: Path) -> list[str]:
    """What is on a ledger that somebody else may have left in the middle of a transaction."""
    if not path.exists():
        return []
    try:
        book = accounting.read_ledger(path)
    except accounting.LedgerCorrupt as error:
        if "without a privacy ledger" in str(error):  # killed while it was made
            return []
        raise
    try:
        book.verify()
        return [row.label for row in book.rows()]
    finally:
        book.close()


def ledger(folder: Path, say: Say) -> None:
    """Releases that are charged and then opened."""
    book = _open(folder / "ledger.sqlite")
    try:
        done = {row.label for row in book.rows()}
        for number in range(1, ROUNDS + 1):
            if f"train {number}" not in done:
                spend(book, number)
                say(f"train {number}", b"opened")
    finally:
        book.close()


def late_ledger(folder: Path, say: Say) -> None:
    """The twin: it opens first and charges then."""
    book = _open(folder / "ledger.sqlite")
    try:
        done = {row.label for row in book.rows()}
        for number in range(1, ROUNDS + 1):
            if f"train {number}" not in done:
                say(f"train {number}", b"opened")
                spend(book, number)
    finally:
        book.close()


def _ledger_wrong(folder: Path, said: list[tuple[str, bytes]]) -> list[str]:
    return verdicts.uncharged([step for step, _ in said], labels(folder / "ledger.sqlite"))


def _ledger_ended(folder: Path, said: list[tuple[str, bytes]]) -> list[str]:
    found = labels(folder / "ledger.sqlite")
    wanted = [f"train {number}" for number in range(1, ROUNDS + 1)]
    return _ledger_wrong(folder, said) + ([] if found == wanted else [f"the ledger holds {found}, not {wanted}"])


# Books: a lock, a ledger, a checkpoint that pins it, and lines


def _state(number: int) -> np.ndarray:
    """The state after a round: what a wrong resume would not reach."""
    value = np.ones(300)
    for each in range(1, number + 1):
        value = value * 1.5 + each
    return value


def books(folder: Path, say: Say, *, save: Callable[..., None] = checkpoints.save_tree) -> None:
    """A training in miniature: charge, open, save, write the line."""
    with folder_lock(folder):
        book = _open(folder / "ledger.sqlite")
        try:
            saved, lines = folder / "state.npz", folder / "rounds.jsonl"
            number, value = 0, _state(0)
            if saved.exists():
                facts = checkpoints.read_facts(saved)
                book.check_pin(accounting.Pin(*facts["pin"]))
                number = facts["number"]
                with np.load(saved) as file:
                    value = file["leaf_0"]
            kept, _ = checkpoints.read_lines(lines)
            whole = [row for row in kept if row["round"] <= number]
            if number and not any(row["round"] == number for row in whole):
                whole.append({"round": number})
            if whole != kept or number:
                checkpoints.write_lines(lines, whole)
            while number < ROUNDS:
                number += 1
                spend(book, number)
                say(f"train {number}", b"opened")
                value = value * 1.5 + number
                save(saved, [value], number=number, pin=list(book.pin()))
                checkpoints.append_line(lines, {"round": number})
            checkpoints.write_json(folder / "summary.json", {"rounds": number})
        finally:
            book.close()


def _books_ended(folder: Path, said: list[tuple[str, bytes]]) -> list[str]:
    with np.load(folder / "state.npz") as file:
        wrong = verdicts.wrong_model(file["leaf_0"].tobytes(), _state(ROUNDS).tobytes())
    found = [row["round"] for row in checkpoints.read_lines(folder / "rounds.jsonl")[0]]
    if found != list(range(1, ROUNDS + 1)):
        wrong.append(f"rounds.jsonl holds {found}")
    return wrong + _ledger_wrong(folder, said)


def careless_save(path: Path, tree: Any, **facts: Any) -> None:
    """The twin of `save_tree`: written in place."""
    with open(path, "wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), leaf_0=tree[0])


# The store of a member or of a client


def store(folder: Path, say: Say, *, make: Callable[[Path], Store] = sqlite_store) -> None:
    """Steps with fresh randomness, each said once it is durable; the secrets of a round are erased at its end."""
    held = make(folder / "member.sqlite")
    try:
        for number in range(1, ROUNDS + 1):
            for step in STEPS:
                found = held.get(RUN, number, step)
                if found is None:
                    found = held.put(RUN, number, step, os.urandom(300))
                if found:  # empty: erased
                    say(f"member: {number} {step}", found)
            held.erase(RUN, number, "secrets")
            say(f"erased {number}", b"")
    finally:
        held.close()


def hasty_store(path: Path) -> Store:
    """The twin: it says a step before it is durable."""
    inner = sqlite_store(path)
    waiting: list[tuple[Any, ...]] = []

    def put(*record: Any) -> bytes:
        while waiting:
            inner.put(*waiting.pop())
        waiting.append(record)
        return record[-1]

    return inner._replace(put=put)


def _store_wrong(folder: Path, said: list[tuple[str, bytes]]) -> list[str]:
    erased = {step.split()[1] for step, _ in said if step.startswith("erased")}
    raw = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    left = [step for step, blob in said if step.endswith("secrets") and step.split()[1] in erased and blob[:32] in raw]
    return [f"{step}: erased, and still in a file" for step in left] + verdicts.second_answers(said)


def _store_ended(folder: Path, said: list[tuple[str, bytes]]) -> list[str]:
    wrong = _store_wrong(folder, said)
    wanted = {f"member: {number} {step}" for number in range(1, ROUNDS + 1) for step in STEPS[1:]}
    missing = wanted - {step for step, _ in said}
    return wrong + [f"{step} was never said" for step in sorted(missing)]


PARTIES = {
    "ledger": Party(ledger, _ledger_wrong, _ledger_ended),
    "books": Party(books, _ledger_wrong, _books_ended),
    "store": Party(store, _store_wrong, _store_ended),
}
TWINS = {
    "ledger charged after opening": Party(late_ledger, _ledger_wrong, _ledger_ended),
    "checkpoint written in place": Party(functools.partial(books, save=careless_save), _ledger_wrong, _books_ended),
    "store behind its words": Party(functools.partial(store, make=hasty_store), _store_wrong, _store_ended),
}
"""Parties with one mistake each, which the verdicts must notice."""


# Faults


def _sayer(witness: Path) -> Say:
    """What is said goes to a file outside the folder, so that it is known whatever becomes of the process."""
    descriptor = os.open(witness, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(step: str, blob: bytes) -> None:
        os.write(descriptor, (json.dumps([step, blob.hex()]) + "\n").encode())

    return say


def _said(witness: Path) -> list[tuple[str, bytes]]:
    if not witness.exists():
        return []
    found = (json.loads(line) for line in witness.read_text().splitlines())
    return [(step, bytes.fromhex(blob)) for step, blob in found]


def _act(party: Party, folder: Path, witness: Path, decide: Callable[[Watch, Event], str | None]) -> None:
    say = _sayer(witness)
    with watched(folder, decide):
        party.act(folder, say)


def clean_events(party: Party) -> list[str]:
    """The transitions of an undisturbed run, in order."""
    with _place() as (folder, witness):
        seen: list[Event] = []

        def note(watch: Watch, event: Event) -> None:
            seen.append(event._replace(path=event.path.relative_to(folder), target=None))

        def act() -> list[str]:
            _act(party, folder, witness, note)
            return [event.transition(Path()) for event in seen]

        ended = children.in_child(act)
        if ended.error is not None:
            raise ended.error
        return ended.value


class _Place(NamedTuple):
    folder: Path
    witness: Path


class _place:
    """A folder for a party and its witness, gone afterwards."""

    def __enter__(self) -> _Place:
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.base = Path(tempfile.mkdtemp(dir=shared)).resolve()
        (self.base / "folder").mkdir()
        return _Place(self.base / "folder", self.base / "witness")

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.base)


def struck(name: str, party: Party, number: int, transition: str, kind: str, lives: int = 1) -> Row:
    """One party under one fault, and what became of it; `lives`: the fault strikes so many lives, each at the same event of that life."""
    with _place() as (folder, witness):

        def decide(watch: Watch, event: Event) -> str | None:
            if event.number == number or (kind == "full disk" and event.number > number):
                return strike(watch, event, kind)
            return None

        wrong: list[str] = []
        outcome = "not reached"
        for _ in range(lives):
            ended = children.in_child(lambda: _act(party, folder, witness, decide))
            if ended.error is not None:
                outcome = f"refused by {type(ended.error).__name__}"
                if not (party.act is books and isinstance(ended.error, OSError)):  # no part of the package writes these
                    wrong += getattr(ended.error, "__notes__", [])
            elif ended.killed or ended.code == EXITED:
                outcome = "ended"
            wrong += party.wrong(folder, _said(witness))
        after = children.in_child(lambda: _act(party, folder, witness, lambda watch, event: None))
        if after.error is not None:
            wrong += [f"does not go on: {type(after.error).__name__}: {after.error}", *after.error.__notes__]
        elif after.killed or after.code:
            wrong.append(f"does not go on: status {after.code}")
        else:
            wrong += party.ended(folder, _said(witness))
            outcome += ", went on"
        return Row(name, transition, kind, outcome, wrong)


def faults(name: str, party: Party, rng: random.Random, count: int) -> Iterator[Row]:
    """So many faults at events of a clean run (`chosen`)."""
    events = clean_events(party)
    for at, kind in chosen(events, KINDS, rng, count):
        number = at + 1
        yield struck(name, party, number, events[number - 1], kind, rng.choice((1, 1, 2)))


# Accidents to a store


def harmed_stores(rng: random.Random, times: int) -> Iterator[Row]:
    """A store that had an accident between two lives of its party: refused by name, or the same answers."""
    with _place() as (older, _), _place() as (foreign, _):
        children.in_child(lambda: store(foreign, lambda step, blob: None))
        for name in ("member.sqlite", "member.sqlite.mark"):
            for kind in HARM * times:
                with _place() as (folder, witness):

                    def half(folder: Path = folder, witness: Path = witness) -> None:
                        say = _sayer(witness)

                        def until(step: str, blob: bytes) -> None:
                            say(step, blob)
                            if step.startswith("member: 1 round-key"):
                                shutil.copytree(folder, older, dirs_exist_ok=True)
                            if step.startswith("member: 3 terms"):
                                os._exit(EXITED)

                        store(folder, until)

                    children.in_child(half)
                    other = {"foreign": foreign, "older": older}.get(kind)
                    harm(folder / name, kind, rng, None if other is None else other / name)
                    ended = children.in_child(lambda f=folder, w=witness: store(f, _sayer(w)))
                    wrong = verdicts.second_answers(_said(witness))
                    outcome = "the same answers"
                    if ended.error is not None:
                        outcome = f"refused by {type(ended.error).__name__}"
                        wrong += ended.error.__notes__
                    yield Row("store", name, kind, outcome, wrong)


# Two at once


def races(rng: random.Random, count: int) -> Iterator[Row]:
    """Two processes at the same files at the same time: both finish, or one is refused by name; nothing is charged or said twice."""
    for _ in range(count):
        name = rng.choice(sorted(PARTIES))
        party = PARTIES[name]
        with _place() as (folder, witness):
            both = [
                children.start(lambda p=party, f=folder, w=witness: _act(p, f, w, lambda watch, event: None))
                for _ in range(2)
            ]
            ends = [children.wait(child) for child in both]
            wrong = [note for end in ends if end.error is not None for note in end.error.__notes__]
            refused = [type(end.error).__name__ for end in ends if end.error is not None]
            if len(refused) == 2:
                wrong.append(f"both were refused: {refused}")
            said = _said(witness)
            if name == "ledger":  # both may spend: each opening has a row of its own
                wrong += verdicts.uncharged([step for step, _ in said], labels(folder / "ledger.sqlite"))
            else:
                wrong += party.ended(folder, said)
            yield Row(name, "two processes", "race", f"refused by {refused[0]}" if refused else "both finished", wrong)


def main() -> None:
    """`SEED COUNT TIMES RACES`: faults of every party, accidents to stores and races, as JSON rows."""
    seed, count, times, pairs = (int(each) for each in sys.argv[1:])
    rng = random.Random(f"parties {seed}")
    rows = [row for name, party in PARTIES.items() for row in faults(name, party, rng, count)]
    rows += [*harmed_stores(rng, times), *races(rng, pairs)]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
