"""A site's part in the sums of a run: its own contribution, its word as a member of the committee, and the opened sum that it checks itself.

Two threads meet here. The *run* (`Network` for `runs.run`) comes with the counts of the next release and waits until they are opened. The *requests* of the
coordinator (`next`, `notice`, `invite`, `opened`) are answered by another. The order at a site, for every release:

1. the run charges the ledger, and then offers its counts (`private_sum` asks its gate before anything leaves);
2. the coordinator is told what the next round must be for (`next`), and proposes terms;
3. the site encrypts once, if the terms are those that it expects in every field (`invite`); the bytes are in its store before they leave;
4. as a member it takes the protocol's steps (`notice`);
5. a transcript is checked against what is pinned and expected, written down, and handed to the run (`opened`).

A round that died leaves counts that were sent: they are never sent again. The run ends with `RoundLost`, is resumed, and draws its noise anew under a charge of
its own (`run_ledger.charging`). What was opened while the site was away, or before it could write down what it made of it, is taken from the transcripts.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedjax_poisson.aggregation import Aggregator, Opened, Sealed, client, messages
from fedjax_poisson.aggregation.aggregator import round_info
from fedjax_poisson.aggregation.envelope import new_id
from fedjax_poisson.aggregation.refusals import BadTerms, OutOfOrder, RoundRefused, RoundUsed
from fedjax_poisson.aggregation.roles import checked_counts
from fedjax_poisson.aggregation.round_setting import RoundSetting, message_bytes, parameters_for
from fedjax_poisson.aggregation.terms import Terms, decode_terms, encode_terms, terms_hash
from fedjax_poisson.aggregation.transcript import Checked, check_transcript
from fedjax_poisson.aggregation.wire import u64
from fedjax_poisson.deployment.errors import RoundLost, TooManyLost, Uncharged
from fedjax_poisson.deployment.expected_terms import Offer, Wanted, check_expected, expected_terms
from fedjax_poisson.deployment.opened_rounds import OpenedRound, counts_hash, keep, kept_rounds, release_name
from fedjax_poisson.deployment.party import USUAL, Limits, Party
from fedjax_poisson.deployment.seat import Told, take_seat
from fedjax_poisson.randomness import Stream, is_reproducible
from fedjax_poisson.runs.network import Standing
from fedjax_poisson.runs.run import Stopped

__all__ = ["Exchange"]

_WAIT_SECONDS = 0.2
"""How often a waiting run looks whether it is to stop."""


class Exchange:
    """Where a run and the coordinator's requests meet; one for each run of a site."""

    def __init__(
        self,
        party: Party,
        folder: Path,
        tell: Told,
        stop: Callable[[], bool] = lambda: False,
        limits: Limits = USUAL,
        named: Sequence[str] | None = None,
    ) -> None:
        """Pick up what was opened before; a sum that was written down and not told, since the process ended between the two, is told now.

        Args:
          party: the site.
          folder: its transcripts of this run.
          tell: writes into the site's log, durably, before anything leaves.
          stop: asked while a round is waited for.
          limits: what the run may take.
          named: SHA-256 of the transcripts that the log names (`backups.opened_in`); those that are handed out again must be these. None where there is no log.

        Raises:
          RoundRefused: a transcript that was kept does not hold.
        """
        self.party, self._folder, self._tell, self._stop = party, folder, tell, stop
        self._limits = limits
        self._named = list(named or ())
        self._rounds: list[OpenedRound] = kept_rounds(folder, party.sender.pinned)
        self._seat = None if party.member is None else take_seat(party.member, tell)
        self._changed = threading.Condition(threading.RLock())
        self._label: str | None = None
        self._offer: Offer | None = None
        self._sent: Terms | None = None  # the terms under which the offered counts were sent
        self._lost: str | None = None
        self._paid: dict[str, Any] = {}  # what the ledger said after the last charge
        self._owed = True  # whether the release that comes next is still to be paid for
        self._asking: Terms | None = None  # the terms of a round whose outcome is asked for
        self._go_on = False
        for one in self._rounds[len(self._named) :] if named is not None else ():
            self._tell_opened(one.label, one.path.read_bytes(), one.checked)

    # What the run calls

    def charging(self, charge: Callable[..., Any], standing: Standing) -> Callable[..., Any]:
        """As in `Network`: remembers the release that comes next, and pays for no counts twice.

        A release is paid for again only if counts left under its earlier charge, and they are not those that were opened: a site that was stopped between its
        charge and its message, or between the opening and its next checkpoint, goes on with the charge that it has.
        """

        def next_charge(purpose: str, number: int, *rest: Any) -> Any:
            gate, own = charge(purpose, number, *rest)
            label = f"{purpose} {number}"
            self._label, self._owed = label, True

            def pay() -> None:
                paid = standing.times(label)
                if paid <= self._times_sent(label) and not (paid and self._mine(label)):
                    if paid and standing.lost() >= self._limits.most_lost:
                        raise TooManyLost(
                            f'{standing.lost()} rounds of this run were paid for and not opened, and "{label}" would be one more than this site allows '
                            "(limits.lost_rounds): whoever lets rounds die spends its budget. Find out who, then raise the limit, or let the run go."
                        )
                    gate()
                epsilon, pin = standing.now()
                with self._changed:
                    self._paid = {"label": label, "epsilon": epsilon, "rows": pin.rows, "ledger": pin.head}
                    self._owed = False

            return pay, own

        return next_charge

    def backend(self, setting: RoundSetting, authenticate: bool | None) -> Aggregator:
        """As `aggregation.aggregator.Backend`: sums of these rounds are opened between the sites."""
        del authenticate  # there is no other way between machines
        params = parameters_for(setting, setting.size or 1)
        return Aggregator(
            encrypt=lambda counts, stream=None, *, round=0: self._encrypt(setting, counts, stream),
            add=_no_second,
            check=lambda sealed, size: None,
            open=self._open,
            begin=lambda: None,
            bytes_up=lambda sealed: message_bytes(parameters_for(setting, sealed.size)),
            message_bytes=lambda size: message_bytes(parameters_for(setting, size)),
            info=round_info(setting, params),
            size=setting.size,
            own=self.party.place,
            recall=lambda size: self._recall(setting, size),
        )

    def _encrypt(self, setting: RoundSetting, counts: Any, stream: Any) -> Sealed:
        """Keep the counts until they are charged for; they are encrypted under the terms of their round."""
        values = checked_counts(counts, setting.count_bound, setting.size, 0)
        if not isinstance(stream, Stream):
            raise ValueError("Rounds encrypt from a randomness stream; give one, fresh for every message.")
        assert self._label is not None
        with self._changed:
            draft = self._draft(setting, values.size)
        return Sealed(Offer(self._label, draft, values, stream), values.size, 1, frozenset([new_id()]), 0)

    def _draft(self, setting: RoundSetting, size: int) -> Terms:
        label = str(self._label)
        return expected_terms(self.party, setting, label, size, release_name(self.party.terms, label, self._rounds))

    def _open(self, sealed: Sealed, size: int) -> Opened:
        """Offer the counts, once for every charge, and wait for the opened sum.

        Raises:
          Uncharged: the gate of the release was not asked (an algorithm of another package may forget to); nothing leaves.
        """
        del size
        offer = sealed.payload
        assert isinstance(offer, Offer)
        with self._changed:
            if self._owed or self._paid["label"] != offer.label:
                raise Uncharged(
                    f'"{offer.label}" was not charged, so nothing of it leaves: its algorithm must ask the gate that it was given, once before every sum.'
                )
            self._owed = True
            self._offer, self._sent, self._lost = offer, None, None
            self._changed.notify_all()
            try:
                while (found := self._found(offer.label)) is None:
                    if self._lost is not None:
                        raise RoundLost(self._lost)
                    if self._stop():
                        raise Stopped(f'stopped while the round of "{offer.label}" was waited for')
                    self._changed.wait(_WAIT_SECONDS)
            finally:
                self._offer = None
        return _opened(found)

    def _recall(self, setting: RoundSetting, size: int) -> Opened | None:
        """The opened sum of the release that comes next, if there is one.

        Where counts for it left before, and what became of their round is not known here, the coordinator is asked first. Its word that nothing was opened is
        believed: if it lies, this site pays a second time, with fresh noise.
        """
        label = str(self._label)
        with self._changed:
            if self._found(label) is None and self._times_sent(label):
                self._asking, self._go_on = self._draft(setting, size), False
                self._changed.notify_all()  # whoever waits in `wanted`
                while self._found(label) is None and not self._go_on:
                    if self._stop():
                        raise Stopped(f'stopped while what became of "{label}" was waited for')
                    self._changed.wait(_WAIT_SECONDS)
                self._asking = None
            found = self._found(label)
        if found is not None and found.checked.counts.size != size:
            raise BadTerms(
                f'The kept sum of "{found.label}" has {found.checked.counts.size} values, {size} were asked for.'
            )
        return None if found is None else _opened(found)

    def _found(self, label: str) -> OpenedRound | None:
        return next((one for one in self._rounds if one.label == label), None)

    def _times_sent(self, label: str) -> int:
        """In how many rounds counts for this release left."""
        return self.party.sender.store.last(self.party.sender.run, f"sent {label}") + 1

    def _note_sending(self, label: str, number: int) -> None:
        """Write down, before anything leaves, that counts for this release leave in a round; the same round again counts once."""
        store, run, step = self.party.sender.store, self.party.sender.run, f"sent {label}"
        last = store.last(run, step)
        if last < 0 or store.get(run, last, step) != u64(number):
            store.put(run, last + 1, step, u64(number))

    def _mine(self, label: str) -> bool:
        """Whether this site's counts are in the opened sum of a release; they left after their charge."""
        with self._changed:
            found = self._found(label)
        return found is not None and self.party.key in found.checked.clients

    # What the coordinator's requests call

    @property
    def position(self) -> int:
        """Sums opened, as far as this site knows."""
        with self._changed:
            return len(self._rounds)

    def wanted(self, seconds: float = 0.0) -> Wanted:
        """What this site waits for; the counts of the next release are waited for so long."""
        with self._changed:
            self._changed.wait_for(lambda: self._offer is not None or self._asking is not None, timeout=seconds)
            left = (
                self._offer is not None and self._sent is not None
            )  # its counts left, and whether they were opened is not known here
            draft = None if self._offer is None or left else encode_terms(self._offer.draft)
            return Wanted(len(self._rounds), self._label, draft, left or self._asking is not None)

    def go_on(self, position: int) -> None:
        """The coordinator's word that nothing was opened at a position: counts that left for it are lost, and the run is resumed with fresh ones.

        Raises:
          OutOfOrder: it was not asked for that.
        """
        with self._changed:
            if position == len(self._rounds) and self._offer is not None and self._sent is not None:
                self._lost = f'the round {self._sent.round} of "{self._offer.label}" was not opened; its counts are not sent again'
                self._changed.notify_all()
                return
            if self._asking is None or position != len(self._rounds):
                raise OutOfOrder(f"This site does not ask what became of position {position}.")
            self._go_on = True
            self._changed.notify_all()

    def notice(self, blob: bytes) -> bytes:
        """A member's reply to a notice of the server (`seat`).

        Raises:
          RoundRefused: by its name.
        """
        if self._seat is None:
            raise OutOfOrder(f"{self.party.name} is no member of the committee.")
        return self._seat.notice(blob)

    def invite(self, terms_blob: bytes, certificate: bytes) -> bytes:
        """This site's contribution to a round; the same bytes at every call for the same terms.

        Raises:
          OutOfOrder: the counts are not there yet.
          BadTerms: the round is for something else, or with other facts, than this site expects.
          RoundLost: the counts were sent in an earlier round; they are not sent again.
        """
        terms = decode_terms(terms_blob)
        with self._changed:
            offer = self._offer
            if (
                offer is None and self._asking is not None
            ):  # that comes between rounds: whoever waits in this one waits in vain
                raise OutOfOrder("This site waits to hear what became of its earlier counts, which no round brings.")
            if offer is None:
                raise OutOfOrder("This site's counts are not there yet; ask again later.")
            check_expected(terms, offer.draft)
            if self._sent is not None and self._sent != terms:
                self._lost = (
                    f'the round {self._sent.round} of "{offer.label}" was not opened; its counts are not sent again'
                )
                self._changed.notify_all()
                raise OutOfOrder(f"{self._lost}. Ask again later.")
            if terms.round > self._limits.most_rounds:
                raise BadTerms(f"Round {terms.round}; the terms of the run allow {self._limits.most_rounds}.")
            client.accept_terms(self.party.sender, terms_blob, certificate, offer.draft.model)
            self._check_unused(terms)
            if self._sent is None:
                self._tell("charge", round=terms.round, **self._paid)
            self._note_sending(offer.label, terms.round)
            blob = client.contribute(
                self.party.sender,
                terms_blob,
                certificate,
                offer.counts,
                offer.stream,
                model=offer.draft.model,
                reproducible=is_reproducible(offer.stream),
            )
            if self._sent is None:
                self._tell(
                    "contribution",
                    round=terms.round,
                    terms=terms_hash(terms).hex(),
                    digest=messages.manifest_hash(messages.parts_of(blob)).hex(),
                    bytes=len(blob),
                )
            self._sent = terms
            return blob

    def _check_unused(self, terms: Terms) -> None:
        """Refuse a round that `client.contribute` would refuse, before anything is written down for it: else whoever plays it back makes the log grow.

        Raises:
          RoundUsed: it, or a later one, was taken part in under other terms.
        """
        store, last = self.party.sender.store, self.party.sender.store.last(terms.run, "terms")
        again = store.get(terms.run, terms.round, "contribution") is not None
        if last >= terms.round and not (again and store.get(terms.run, terms.round, "terms") == terms_hash(terms)):
            raise RoundUsed(f"Round {terms.round} or a later one was taken part in already.")

    def opened(self, position: int, transcript: bytes) -> None:
        """Take in the sum at a position.

        Raises:
          OutOfOrder: it is not the next one, or the run has not come so far.
          RoundRefused: the transcript does not hold, or is of a round that this site does not expect.
        """
        with self._changed:
            if position < len(self._rounds):
                return  # known
            draft = self._asking if self._offer is None else self._offer.draft
            if position > len(self._rounds) or draft is None:
                raise OutOfOrder(f"This site is at position {len(self._rounds)} and not ready; ask again later.")
            digest = hashlib.sha256(transcript).hexdigest()
            if position < len(self._named) and self._named[position] != digest:
                raise BadTerms(f"Another transcript of position {position} than the one that this site's log names.")
            checked = check_transcript(transcript, self.party.sender.pinned)
            check_expected(checked.terms, draft)
            label = str(self._label)
            self._rounds.append(keep(self._folder, position, label, transcript, checked))
            self._tell_opened(label, transcript, checked)
            self._offer = None  # its round is over; what comes next has other terms
            self._changed.notify_all()

    def _tell_opened(self, label: str, transcript: bytes, checked: Checked) -> None:
        digest = hashlib.sha256(transcript).hexdigest()
        if digest in self._named:
            return  # handed out again
        self._tell(
            "opened",
            round=checked.terms.round,
            terms=terms_hash(checked.terms).hex(),
            label=label,
            transcript=digest,
            counts=counts_hash(checked.counts).hex(),
            clients=[key.hex() for key in checked.clients],
            epsilon=self._paid.get("epsilon", 0.0),
        )
        self._named.append(digest)

    def transcript(self, position: int) -> bytes:
        """A kept transcript, for whoever missed it; raises `OutOfOrder` where there is none."""
        with self._changed:
            if not 0 <= position < len(self._rounds):
                raise OutOfOrder(f"Position {position} of {len(self._rounds)}.")
            path = self._rounds[position].path
        return path.read_bytes()


def _no_second(a: Sealed, b: Sealed) -> Sealed:
    raise RoundRefused("A site has one message of its own and adds none; the server does.")


def _opened(found: OpenedRound) -> Opened:
    return Opened(found.checked.counts, len(found.checked.clients), True)
