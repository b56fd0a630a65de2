"""How much of a deployment a simulation makes: every client's message, or one draw with the law of their sum.

A deployment shows nobody a single message: what becomes public is the sum. Where the noise of n senders adds up to a law that the samplers know
(`mechanisms.sum_law`), a simulation may add the clients' clipped grids and draw the counts of the sum once:

* "release": one draw for each coordinate, one secret and one set of errors with the law of the sum of all clients'. Opened counts, estimates, models, epsilon
  and delta have the law that "messages" gives them: *proved* up to the samplers' distance (`randomness.sum_tables`), which is below what a release is charged
  for, n draws a coordinate; *checked* by tests with fixed bins. The number of senders of the law is that of the clients who are there in the round; a client
  that is there and does not train (secret sampling, no records, a broken update) adds the grid of zero, and is counted.
* "messages": every client's counts, secret and errors are drawn. The bits are those of the sum of its messages.

The same seed gives other bits in the two. With "release" there is no single message to attack, to test, or to encrypt elsewhere, and no sender's largest count:
what needs one is simulated with "messages", and an explicit wish for the other is refused. A deployment has neither word: its parties make their messages.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from jax import Array

from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import rows
from fedjax_poisson.mechanisms.sum_law import SumLaw
from fedjax_poisson.mechanisms.types import Mechanism
from fedjax_poisson.randomness import SamplingTables, Stream
from fedjax_poisson.randomness.sum_tables import SumTables

Fidelity = Literal["release", "messages"]
FIDELITIES: tuple[Fidelity, ...] = ("release", "messages")
EVERY_MESSAGE = "MESSAGES: every sender's message was made, and the sum is theirs"


class ReleaseNumbers(NamedTuple):
    """The law of the sum of a round's messages, an argument of its programs.

    Attributes:
      counts: of the counts.
      secrets: of the secret and the errors; None where nothing is encrypted.
    """

    counts: SumTables
    secrets: SamplingTables | None


def choose_fidelity(
    asked: Fidelity | None, mechanism: Mechanism | None, *, on_host: bool, each: bool, insiders: bool, turns: bool
) -> Fidelity:
    """What a simulation is made with: what was asked for, or by default "release" wherever it is possible.

    Args:
      asked: None for the default.
      mechanism: client-level mechanism.
      on_host: counts leave the device to be encrypted.
      each: every client's rows are made separately.
      insiders: corrupt clients are simulated.
      turns: fixed cohorts take turns.

    Raises:
      ValueError: an unknown word, or "release" where it is impossible, with the reason.
    """
    if asked not in (None, *FIDELITIES):
        raise ValueError(
            f"fidelity={asked!r}; there are {', '.join(FIDELITIES)}, or None for the first that is possible."
        )
    if asked == "messages":
        return asked
    against = _against(mechanism, on_host, each, insiders, turns)
    if asked is not None and against is not None:
        raise ValueError(
            f"fidelity='release' draws the counts of the sum at once, and {against}. Use fidelity='messages', or leave it out."
        )
    return "messages" if against is not None else "release"


def _against(mechanism: Mechanism | None, on_host: bool, each: bool, insiders: bool, turns: bool) -> str | None:
    """Why the counts of a sum cannot be drawn at once; None where they can."""
    if mechanism is None:
        return "there is no mechanism: nothing is drawn"
    name = mechanism.facts.name
    if mechanism.noise_senders is not None:
        return f"{name} sends clean counts, each of which a norm round tests"
    if insiders:
        return "corrupt clients send messages of their own"
    if turns:
        return "clients of fixed cohorts send their updates more than once, each time in a message of its own"
    if each:
        return "transforms='each' makes every client's rows"
    if on_host:
        return "this aggregator encrypts every client's counts outside the program"
    if not isinstance(mechanism.sum_law, SumLaw):
        return f"{name} cannot: {mechanism.sum_law}"
    if mechanism.sum_law.embed is not mechanism.embed:
        return f"this {name} was given another embed than the one whose sums it knows the law of"
    if mechanism.sum_law.clip is not mechanism.clip:
        return f"this {name} was given another clip than the one whose grids are known to keep their bounds, which embed would enforce"
    return None


def release_numbers(mechanism: Mechanism, participation: Participation, present: int, encrypts: bool) -> ReleaseNumbers:
    """The law of the sum of a round with so many clients present; tables are cached, and have the same structure for all attendances near the announced one.

    A round below the announced minimum, or above the announced number, gets the law of the nearest one: it is refused before anything is opened.

    Raises:
      ValueError: the tables are farther from the law than what the round is charged for.
    """
    assert isinstance(mechanism.sum_law, SumLaw)
    senders = min(max(present, participation.minimum_senders), participation.senders)
    counts = mechanism.sum_law.tables(senders, participation.senders)
    if counts.distance > (charged := senders * mechanism.facts.sampler_distance):
        raise ValueError(
            f"one draw of the sum of {senders} {mechanism.facts.name} would be {counts.distance:.3g} from its law, and {charged:.3g} a coordinate is charged. "
            "Use fidelity='messages'."
        )
    return ReleaseNumbers(
        counts,
        rows.sum_secret_tables(senders) if encrypts else None,
    )


def no_single_counts(stream: Stream, grid: Array) -> Array:
    """In place of `Mechanism.embed` where one draw is made for a sum.

    Raises:
      RuntimeError: always.
    """
    raise RuntimeError("a single client's counts were asked for in a round that draws those of the sum at once.")


def in_words(fidelity: Fidelity, senders: int, encrypted: bool) -> str:
    """What was made for a sum over so many senders, for every output."""
    if fidelity == "messages":
        return EVERY_MESSAGE
    kind = "private, encrypted" if encrypted else "private"
    return f"ONE DRAW: the sum has the law of {senders} {kind} messages; no message was made"
