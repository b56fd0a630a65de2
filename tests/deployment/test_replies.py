"""Replies as the coordinator reads them: what was said, or a clean line of why not."""

from __future__ import annotations

from fedjax_poisson.deployment.replies import ask_all, reply_of
from fedjax_poisson.deployment.requests import Spoken, encode, refused
from fedjax_poisson.deployment.transport.in_process import in_process
from fedjax_poisson.deployment.transport.link import Unreached


def test_what_was_said_or_why_not() -> None:
    assert reply_of(encode(Spoken("kept", (b"x",)))) == Spoken("kept", (b"x",))
    assert reply_of(refused("StoreDamaged: it\x1b[31m is\nlost")) == "StoreDamaged: it [31m is lost"
    assert reply_of(encode(Spoken("refused"))) == "no reason"
    assert reply_of(Unreached("no reply in 3 s\x07")) == "no reply in 3 s "
    said = reply_of(b"GET / HTTP/1.1")
    assert isinstance(said, str) and said.startswith("Malformed: ")


def test_the_words_of_a_refusal_are_cleaned_too(monkeypatch) -> None:
    from fedjax_poisson.aggregation.refusals import Malformed
    from fedjax_poisson.deployment import replies

    def decode(blob: bytes) -> Spoken:
        raise Malformed(blob.decode())

    monkeypatch.setattr(replies, "decode", decode)
    assert reply_of(b"\x1b[31m red") == "Malformed:  [31m red"


def test_several_are_asked_the_same() -> None:
    link = in_process({"north": lambda blob: blob, "south": lambda blob: refused("no")})
    assert ask_all(link, ["north", "south"], Spoken("next"), 5.0) == {"north": Spoken("next"), "south": "no"}
