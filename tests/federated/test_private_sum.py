"""The one way out of a sender: embedded, encrypted, added, asked for, and only then opened."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation import Aggregator, RoundRefused
from fedjax_poisson.federated import private_sum
from fedjax_poisson.mechanisms import gaussian
from fedjax_poisson.randomness import Stream, fold_in
from tests.federated import helpers

SENDERS, SIZE = 4, 6
MECHANISM = helpers.mechanism()


class Diary:
    """An aggregator in the clear that writes down what is done to it, in order."""

    def __init__(self, minimum: int = SENDERS) -> None:
        self.events: list[str] = []
        self.keys: list[bytes] = []
        self.counts: list[np.ndarray] = []
        self.under = helpers.plain_aggregator(MECHANISM, SENDERS, SIZE, minimum)

    def aggregator(self) -> Aggregator:
        def encrypt(counts: np.ndarray, stream: Stream) -> object:
            self.events.append("encrypt")
            self.keys.append(np.asarray(stream.key).tobytes())
            self.counts.append(np.array(counts))
            return self.under.encrypt(counts, stream)

        def add(a: object, b: object) -> object:
            self.events.append("add")
            return self.under.add(a, b)

        def open_sum(sealed: object, size: int) -> object:
            self.events.append("open")
            return self.under.open(sealed, size)

        return self.under._replace(encrypt=encrypt, add=add, open=open_sum)


@pytest.fixture(scope="module")
def grids() -> jax.Array:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(-(2**19), 2**19, (SENDERS, SIZE)), jnp.int32)


def test_gate_is_asked_after_adding_and_before_opening(grids: jax.Array) -> None:
    diary = Diary()
    private_sum(MECHANISM, diary.aggregator(), grids, helpers.seeded(0), gate=lambda: diary.events.append("gate"))
    assert diary.events == ["encrypt"] * 4 + ["add"] * 3 + ["gate", "open"]


def test_nothing_is_opened_when_the_gate_refuses(grids: jax.Array) -> None:
    class Spent(RuntimeError):
        pass

    diary = Diary()

    def gate() -> None:
        raise Spent("the budget is used up")

    with pytest.raises(Spent, match="used up"):
        private_sum(MECHANISM, diary.aggregator(), grids, helpers.seeded(0), gate=gate)
    assert "open" not in diary.events and diary.events.count("encrypt") == SENDERS


def test_estimate_is_the_sum_of_what_the_senders_embedded(grids: jax.Array) -> None:
    diary = Diary()
    estimate, info = private_sum(MECHANISM, diary.aggregator(), grids, helpers.seeded(0))
    wanted = MECHANISM.estimate(jnp.asarray(np.sum(diary.counts, axis=0), jnp.int32), SENDERS)
    np.testing.assert_array_equal(estimate, wanted)
    assert estimate.shape == (SIZE,) and estimate.dtype == jnp.float32
    assert info.senders == SENDERS and info.exact and info.bytes_up_per_sender > 4 * SIZE
    # Six standard errors around the true sum: embed and estimate fit together.
    truth = np.asarray(grids, np.float64).sum(axis=0) * helpers.step_of(MECHANISM)
    assert np.abs(np.asarray(estimate) - truth).max() < 6 * np.sqrt(MECHANISM.variance(SENDERS))


def test_without_noise_the_sum_is_exact_and_each_sender_is_clamped_by_itself(grids: jax.Array) -> None:
    exact = helpers.noise_free(MECHANISM)
    agg = helpers.plain_aggregator(exact, SENDERS, SIZE)
    big = grids.at[1].mul(jnp.int32(4))
    estimate, _ = private_sum(exact, agg, big, helpers.seeded(0))
    wanted = np.clip(np.asarray(big, np.int64), -(2**20), 2**20).sum(axis=0) * helpers.step_of(exact)
    np.testing.assert_allclose(estimate, wanted, rtol=1e-6)
    assert np.abs(np.asarray(big)).max() > 2**20


def test_every_sender_and_purpose_has_a_stream_of_its_own() -> None:
    nothing = jnp.zeros((SENDERS, SIZE), jnp.int32)
    seen: list[bytes] = []
    drawn: list[bytes] = []
    for release in (0, 1):
        own = fold_in(helpers.seeded(4), "release", release)
        diary = Diary()
        private_sum(MECHANISM, diary.aggregator(), nothing, own)
        seen += diary.keys + [np.asarray(fold_in(own, i, "embed").key).tobytes() for i in range(SENDERS)]
        drawn += [counts.tobytes() for counts in diary.counts]
    assert len(set(seen)) == 4 * SENDERS
    # Everybody embeds the same zeros, so equal counts would mean shared noise.
    assert len(set(drawn)) == 2 * SENDERS


def test_the_same_stream_gives_the_same_counts_and_another_one_others(grids: jax.Array) -> None:
    first, again, other = Diary(), Diary(), Diary()
    for diary, seed in ((first, 1), (again, 1), (other, 2)):
        private_sum(MECHANISM, diary.aggregator(), grids, helpers.seeded(seed))
    np.testing.assert_array_equal(first.counts, again.counts)
    assert np.any(np.asarray(first.counts) != np.asarray(other.counts))


def test_a_mechanism_that_sends_no_integers_is_refused(grids: jax.Array) -> None:
    diary = Diary()
    with pytest.raises(ValueError, match="does not send integers"):
        own = diary.aggregator()
        encrypted = own._replace(
            info=dataclasses.replace(own.info, backend="round")
        )  # plain, which encrypts nothing, adds real numbers
        private_sum(gaussian(clip_norm=1.0, noise_std=1.0), encrypted, grids, helpers.seeded(0))
    assert diary.events == []


def test_too_few_senders_are_refused_and_enough_are_not(grids: jax.Array) -> None:
    few, charged = functools.partial(private_sum, MECHANISM, grids=grids, stream=helpers.seeded(0)), list[str]()
    with pytest.raises(RoundRefused, match=r"2 contributions; at least 3"):
        few(Diary(minimum=3).aggregator(), senders=[0, 2], gate=lambda: charged.append("spent"))
    assert charged == []  # the ledger is not asked for a sum that nobody may open
    diary = Diary(minimum=3)
    estimate, info = few(diary.aggregator(), senders=[0, 2, 3], gate=lambda: charged.append("spent"))
    assert charged == ["spent"]
    assert info.senders == 3 and diary.events.count("encrypt") == 3
    np.testing.assert_array_equal(estimate, MECHANISM.estimate(np.sum(diary.counts, axis=0), 3))


@pytest.mark.parametrize(
    "senders, words", [([], "No sender"), ([0, 1, 1, 2], "twice"), ([0, 4], "0..3"), ([-1, 0], "0..3")]
)
def test_senders_that_do_not_exist_or_would_count_twice_are_refused(
    grids: jax.Array, senders: list[int], words: str
) -> None:
    diary = Diary(minimum=1)
    with pytest.raises(ValueError, match=words):
        private_sum(MECHANISM, diary.aggregator(), grids, helpers.seeded(0), senders=senders)
    assert diary.events == []
