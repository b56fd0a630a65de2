"""The same draws every time: by name, whatever ran before, and never marked as reproducible."""

import os

import numpy as np
import pytest

from fedjax_poisson import randomness
from fedjax_poisson.aggregation import bodies, envelope, signs
from fedjax_poisson.randomness import chacha
from tests.conftest import FRESH_ENTROPY
from tests.helpers import entropy

seeds = pytest.mark.skipif(FRESH_ENTROPY, reason="FRESH_ENTROPY=1: the operating system is asked")


def key() -> bytes:
    return np.asarray(randomness.stream().key).tobytes()


@pytest.fixture(scope="module", params=[0, 1])
def shared(request):
    return key(), key(), request.param


@entropy.drawn_once
def kept(name: str) -> bytes:
    return key()


@seeds
def test_draws_follow_the_name_and_nothing_else():
    with entropy.seeded("a"):
        first, second = key(), key()
        with entropy.seeded("b"):
            other = key()
        third = key()
    with entropy.seeded("a"):
        again = key(), key(), key()
    assert again == (first, second, third) and len({first, second, third, other}) == 4


@seeds
def test_this_test_draws_this():
    assert key().hex()[:16] == "5cedba4dfcf4d83e"


@seeds
def test_what_tests_share_does_not_depend_on_who_asks_first(shared):
    with entropy.seeded(f"{__name__}.kept('x',)"):
        own = key()
    assert kept("x") == own
    _, _, number = shared
    with entropy.seeded(f"tests/helpers/test_entropy.py::shared[{number}]"):
        assert shared == (key(), key(), number)


@seeds
@pytest.mark.parametrize("draw", [key, signs.new_part, bodies.new_beacon, envelope.new_channel_key])
def test_every_reader_of_the_operating_system_is_seeded(draw):
    drawn = []
    for _ in range(2):
        with entropy.seeded("a"):
            made = draw()
            drawn.append(getattr(made, "value", made))
    assert drawn[0] == drawn[1]


def test_streams_stand_for_those_of_the_operating_system():
    assert not randomness.is_reproducible(randomness.stream())


def test_the_operating_system_is_there_for_who_asks_for_it(system_entropy):
    assert chacha.os is os
    with entropy.seeded("a"):
        first = key()
    with entropy.seeded("a"):
        assert key() != first
