"""The form of a part: every byte of it is under its hash, and an answer answers one question."""

from __future__ import annotations

import pytest

from fedjax_poisson.deployment.transport.part_messages import (
    OVERHEAD,
    Answer,
    Question,
    Said,
    Unreadable,
    Wanted,
    read_answer,
    read_question,
    write,
)

QUESTION = Question(Wanted.SEND, b"a" * 16, b"d" * 32, size=10, offset=4, most=8, data=b"456")


def test_they_read_as_written() -> None:
    blob = write(QUESTION)
    assert read_question(blob) == QUESTION
    answer = Answer(Said.REPLY, blob[-32:], b"e" * 32, 5, b"hello")
    assert read_answer(write(answer), blob) == answer
    assert max(len(write(answer)) - 5, len(blob) - 3) == OVERHEAD


def test_every_changed_byte_and_every_cut_is_noticed() -> None:
    blob = write(QUESTION)
    for place in range(len(blob)):
        with pytest.raises(Unreadable):
            read_question(blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :])
        with pytest.raises(Unreadable):
            read_question(blob[:place])


def test_an_answer_to_another_question_and_a_question_for_an_answer_are_refused() -> None:
    first, second = write(QUESTION), write(QUESTION._replace(offset=5))
    with pytest.raises(Unreadable, match="another question"):
        read_answer(write(Answer(Said.WORKING, first[-32:])), second)
    with pytest.raises(Unreadable, match="another kind"):
        read_question(write(Answer(Said.WORKING, first[-32:], data=bytes(50))))


def test_a_part_beyond_its_whole_is_refused() -> None:
    assert read_question(write(QUESTION._replace(offset=7))).offset == 7
    with pytest.raises(Unreadable, match="ranges"):
        read_question(write(QUESTION._replace(offset=8)))
    with pytest.raises(Unreadable, match="ranges"):
        read_question(write(QUESTION._replace(wanted=3)))  # type: ignore[arg-type]
