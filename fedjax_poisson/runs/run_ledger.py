"""The books of a run: its ledger, what the rows say about the run, and the conditions under which a run may continue.

A run is identified by the SHA-256 of its `config.toml`, which is written once and contains a random number. Every row of the ledger and the checkpoint carry
it, so settings changed by hand are detected, and runs that share a ledger can be told apart.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fedjax_poisson import accounting
from fedjax_poisson.extensions import is_path
from fedjax_poisson.federated import checkpoints
from fedjax_poisson.federated.fidelity import Fidelity
from fedjax_poisson.mechanisms.noise_source import noise_source
from fedjax_poisson.randomness import Stream, fold_in
from fedjax_poisson.runs.build import Prepared
from fedjax_poisson.runs.config import Config, config_text
from fedjax_poisson.runs.network import Standing
from fedjax_poisson.runs.planned import Planned
from fedjax_poisson.runs.shared_ledger import check_budget, law_facts, open_shared

CONFIG, LEDGER, LINES, SUMMARY = "config.toml", "ledger.sqlite", "rounds.jsonl", "summary.json"
MODEL = "model.npz"
CHECKPOINT = Path("checkpoints") / "latest.npz"
COLUMNS = Path("checkpoints") / "columns.json"
DAMAGED_LINES = "rounds.jsonl.damaged"


class CannotResume(RuntimeError):
    """The folder lacks what is needed to continue without spending more than is reported; the message says what to do."""


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What to do where a ledger that the block opens is damaged, beside what is wrong with it."""
    try:
        yield
    except accounting.LedgerCorrupt as error:
        raise accounting.LedgerCorrupt(
            f"{error}. It is unknown what was spent on {path}: restore its newest copy; without it nothing more may be charged there."
        ) from error


class Books(NamedTuple):
    """A run's ledger and its place in it.

    Attributes:
      ledger: open for writing.
      run: the run's name, hexadecimal.
      prepared: the run.
    """

    ledger: accounting.Ledger
    run: str
    prepared: Prepared

    @property
    def shared(self) -> bool:
        """Whether other runs may use the ledger."""
        return self.prepared.config.ledger is not None

    def pinned(self) -> dict[str, Any]:
        """What a file must hold so that the ledger can be held against it later (`resume`), as JSON values."""
        rows, head = self.ledger.pin()
        return {"run": self.run, "ledger_rows": rows, "ledger_head": head}

    def rows(self) -> list[accounting.Release]:
        """The releases of this run."""
        return [row for row in self.ledger.rows() if row.origin.get("run") == self.run]

    def epsilon(self) -> float:
        """Epsilon of what this run has released, at the delta that its plan accounts for, as if its curves had been fixed before the first.

        Where a controller chose them from releases this is what was taken of the budget; what is guaranteed is `guaranteed`.
        """
        rows = self.rows()
        read = self.epsilon_of(rows)
        if not self.shared:
            read = min(read, self.ledger.budget_epsilon)
        as_planned = all(
            row.origin["attempt"] == 0 for row in rows
        )  # what was not lost and made again is part of the plan
        return min(read, self.prepared.config.epsilon) if as_planned else read

    def guaranteed(self, adapts: bool) -> float:
        """The epsilon that this run may state: of what it released, or of all that was planned where a controller `adapts` (`federated.control`)."""
        if not adapts:
            return self.epsilon()
        plan, config = self.prepared.plan, self.prepared.config
        lost = [row.charge for row in self.rows() if row.origin["attempt"]]  # made again, so one more than planned
        if not lost:
            return min(plan.epsilon, config.epsilon)
        if not self.shared:
            return self.ledger.budget_epsilon
        charges = [(charge, 1) for charge in (*plan.charges, *lost)]
        return accounting.scheduled_epsilon(self.ledger.law, charges, plan.accounted_delta)

    def epsilon_of(self, rows: list[accounting.Release]) -> float:
        """Epsilon of some releases by themselves, at the delta that the plan accounts for."""
        charges = [(row.charge, 1) for row in rows]
        return accounting.scheduled_epsilon(self.ledger.law, charges, self.prepared.plan.accounted_delta)


def ledger_path(config: Config, out: Path) -> Path:
    """The ledger that a run charges."""
    return out / LEDGER if config.ledger is None else Path(config.ledger)


def start(prepared: Prepared, out: Path) -> Books:
    """Make the ledger and then write config.toml, so that a folder with settings always had a ledger.

    Raises:
      CannotResume: the folder holds a ledger with releases but no settings.
      ValueError: a shared ledger has not enough left, or was made for something else.
    """
    config = prepared.config
    own = out / LEDGER
    with _whole(own):
        if own.exists() and accounting.never_made(own):
            own.unlink()
    if own.exists():  # left by a start that was killed before its settings were written
        with contextlib.closing(accounting.read_ledger(own)) as left:
            if left.pin().rows:
                raise CannotResume(
                    f"{own} holds {left.pin().rows} releases, but {CONFIG} is gone: choose another --out."
                )
        own.unlink()
    with _whole(ledger_path(config, out)):
        ledger = _make_own(prepared, own) if config.ledger is None else open_shared(prepared)
    text = config_text(
        config, f"run {secrets.token_hex(16)}, started {datetime.now(UTC).isoformat(timespec='seconds')}"
    )
    try:
        checkpoints.write_atomic(out / CONFIG, text.encode())
    except BaseException:
        ledger.close()
        raise
    return Books(ledger, _name(text.encode()), prepared)


def resume(prepared: Prepared, out: Path) -> Books:
    """Open the ledger of a run that was stopped, and check that it is whole.

    Raises:
      CannotResume: the ledger is gone, shorter or older than the checkpoint, does not hold every release that was made, or the settings were changed.
      LedgerCorrupt: its chain is broken.
    """
    config = prepared.config
    path, name = ledger_path(config, out), _name((out / CONFIG).read_bytes())
    if not path.is_file():
        raise CannotResume(
            f"{path} is missing, so it is unknown what this run has spent. Restore it from a backup that is not older than the checkpoint; "
            "without it this run cannot continue."
        )
    with _whole(path):
        ledger = accounting.read_ledger(path, writable=True)
    try:
        with _whole(path):
            ledger.verify()
        check_budget(ledger, prepared)
        books = Books(ledger, name, prepared)
        if not books.shared and len(books.rows()) != ledger.pin().rows:
            raise CannotResume(_changed(out, "its ledger holds releases of other settings"))
        for source, found in _pins(books, out):
            run, pin = found
            if run != name:
                raise CannotResume(
                    _changed(out, f"{source} belongs to the run {run[:12]}, the settings are {name[:12]}")
                )
            try:
                ledger.check_pin(pin)
            except accounting.LedgerCorrupt as error:
                raise CannotResume(
                    f"{error}. The charges for {source} are not on it, so it is unknown what this run has spent. Restore the newest copy of the "
                    "ledger; without it this run cannot continue."
                ) from error
        return books
    except BaseException:
        ledger.close()
        raise


def _changed(out: Path, seen: str) -> str:
    return f"{out / CONFIG} was changed after the run started: {seen}. Undo the change, or start a new run for other settings."


def _pins(books: Books, out: Path) -> list[tuple[str, tuple[str, accounting.Pin]]]:
    """How far the ledger reached when the checkpoint and the summary were written, and whose they are."""
    found = []
    if (out / CHECKPOINT).exists():
        try:
            found.append((CHECKPOINT.as_posix(), checkpoints.read_facts(out / CHECKPOINT)))
        except checkpoints.CheckpointDamaged as error:
            count = len(books.rows())
            raise CannotResume(
                f"{error}, so the model is lost; the {count} release{'' if count == 1 else 's'} of this run remain charged (epsilon {books.epsilon():.4f} of "
                f"{books.prepared.config.epsilon:g}). Restore the checkpoint from a backup, or delete it to retrain with what is left."
            ) from error
    if (out / COLUMNS).exists():
        try:
            found.append((COLUMNS.as_posix(), json.loads((out / COLUMNS).read_text(encoding="utf-8"))))
        except ValueError as error:
            raise CannotResume(
                f"{out / COLUMNS} is damaged, so the released ranges and levels are lost; they stay charged. Put the file back from a backup, or start anew."
            ) from error
    if (out / SUMMARY).exists():
        with contextlib.suppress(ValueError):  # a damaged summary is written again
            found.append((SUMMARY, json.loads((out / SUMMARY).read_text(encoding="utf-8"))))
    pins = []
    for source, facts in found:
        try:
            pins.append(
                (source, (str(facts["run"]), accounting.Pin(int(facts["ledger_rows"]), str(facts["ledger_head"]))))
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CannotResume(
                f"{out / source} does not say what its ledger held ({error!r}): it is not of this version of a run."
            ) from error
    return pins


def check_charged(books: Books, labels: Iterable[str], source: str) -> None:
    """Refuse to continue from results whose releases are not all on the ledger."""
    charged = {row.label for row in books.rows()}
    if missing := [label for label in dict.fromkeys(labels) if label not in charged]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CannotResume(
            f"{source} holds the result of {missing[0]!r}{more}, which the ledger {books.ledger.path} has not charged: it is not the ledger of this run, or "
            f"an older copy: restore the newest one. If {source} itself was changed, restore that, or delete it."
        )


def charging(books: Books) -> Callable[..., tuple[Callable[[], None], Stream]]:
    """`charge(purpose, number, planned, fidelity="messages") -> (gate, stream)` for the releases of this process; the row says what was made for the sum.

    A release that was charged before and lost is charged again, and its stream is another one: the number of attempts is folded in, so that noise of a
    release that somebody may have seen is never used for a second one.
    """
    prepared = books.prepared
    earlier = collections.Counter(row.label for row in books.rows())
    origin: dict[str, Any] = {
        "run": books.run,
        "aggregator": prepared.config.aggregator,
        "seed": prepared.config.seed,
    }
    foreign = foreign_parts(prepared.config)

    def charge(
        purpose: str, number: int, release: Planned, fidelity: Fidelity = "messages"
    ) -> tuple[Callable[[], None], Stream]:
        label = f"{purpose} {number}"
        attempt = earlier[label]  # in this process every label is tried once
        clean = release.mechanism.noise_senders
        assumed = [f"{what} {name}" for what, name in foreign if purpose == "train" or what == "aggregator"]

        def gate() -> None:
            books.ledger.spend(
                purpose,
                label,
                release.mechanism.facts.name,
                dict(release.mechanism.facts.parameters),
                release.charge,
                noise_source(release.mechanism, prepared.plan.terms.participation).honest,
                prepared.plan.senders,
                data=prepared.identity,
                origin={
                    **origin,
                    "fidelity": fidelity,
                    "attempt": attempt,
                    **({"assumed": assumed} if assumed else {}),
                },
                distance=release.distance,
                noise_senders=None if clean is None else clean.senders,
            )

        return gate, fold_in(prepared.root, purpose, number, attempt)

    if prepared.network is None:
        return charge

    def times(label: str) -> int:
        return sum(row.label == label for row in books.rows())

    def lost() -> int:
        return sum(row.origin["attempt"] > 0 for row in books.rows())

    return prepared.network.charging(charge, Standing(times, lost, lambda: (books.epsilon(), books.ledger.pin())))


def foreign_parts(config: Config) -> list[tuple[str, str]]:
    """(setting, name) of what comes from outside the package and has a part in privacy: its claims are its author's."""
    return [(what, name) for what in ("algorithm", "mechanism", "aggregator") if is_path(name := getattr(config, what))]


def _name(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _make_own(prepared: Prepared, path: Path) -> accounting.Ledger:
    config, plan = prepared.config, prepared.plan
    return accounting.open_ledger(
        path,
        epsilon=config.epsilon,
        delta=config.delta,
        reserve=plan.sampler_delta,
        unit=prepared.unit,
        adjacency=config.adjacency,
        **law_facts(plan),
        planned_rdp=None if plan.law == "tight" else plan.planned_rdp,
    )
