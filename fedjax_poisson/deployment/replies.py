"""How the coordinator asks, and how it reads what comes back: a reply is what was said, or in a line of words why there is none.

Nothing in a reply is believed; its words are cut and cleaned (`requests.words`) before a person sees them.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.deployment.requests import REFUSED, Spoken, decode, encode, words
from fedjax_poisson.deployment.transport.link import Link, Unreached

__all__ = ["ask_all", "reply_of"]


def reply_of(blob: bytes | Unreached) -> Spoken | str:
    """What a party said, or why it did not do what it was asked."""
    if isinstance(blob, Unreached):
        return words(blob.reason)
    try:
        said = decode(blob)
    except RoundRefused as error:
        return words(f"{type(error).__name__}: {error}")
    if said.word == REFUSED:
        return words(said.parts[0]) if said.parts else "no reason"
    return said


def ask_all(link: Link, names: Iterable[str], spoken: Spoken, seconds: float) -> dict[str, Spoken | str]:
    """One request to several parties at once; the reply of each."""
    asked = dict.fromkeys(names, encode(spoken))
    return {name: reply_of(blob) for name, blob in link.ask(asked, seconds)}
