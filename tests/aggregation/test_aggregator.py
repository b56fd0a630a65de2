"""One contract for every backend: exact sums, and a refusal for everything that is not a sound sum."""

from __future__ import annotations

import functools
import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.aggregation.aggregator import Aggregator, aggregator
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from fedjax_poisson.randomness.chacha import fold_in
from fedjax_poisson.randomness.chacha import stream as new_stream
from tests.helpers.reach import reachable

MODES = {
    "plain": {"backend": "plain"},
    "tenseal": {"backend": "tenseal"},
    "round": {"backend": "round", "authenticate": True},
    "bare": {"backend": "round", "authenticate": False},
}
BACKENDS = list(MODES)
WITH_BYTES = ["plain", "tenseal"]
"""Backends whose roles exchange envelopes; the messages of rounds have tests of their own."""
BOUND = 50_000
COUNTER = itertools.count()
FOLD = jax.jit(fold_in)


def STREAM(label: int):
    return FOLD(new_stream(), jnp.uint32(label))


def make(backend: str, **changes) -> Aggregator:
    return aggregator(**{"count_bound": BOUND, "senders": 4, "minimum_senders": 3, **MODES[backend], **changes})


@pytest.fixture(params=BACKENDS, scope="module")
def agg(request) -> Aggregator:
    return make(request.param)


@pytest.fixture(params=WITH_BYTES, scope="module")
def wired(request) -> Aggregator:
    return make(request.param)


def draw(senders: int, size: int, bound: int = BOUND, seed: int = 0) -> np.ndarray:
    return (
        np.random.default_rng(seed)
        .integers(-(bound // senders), bound // senders + 1, (senders, size))
        .astype(np.int32)
    )


def seal_all(agg: Aggregator, counts: np.ndarray, **kwargs):
    return [seal(agg, row, **kwargs) for row in counts]


def seal(agg: Aggregator, counts: np.ndarray, **kwargs):
    return agg.encrypt(np.asarray(counts, np.int32), STREAM(next(COUNTER)), **kwargs)


def flip(blob: bytes, bit: int) -> bytes:
    changed = bytearray(blob)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("size", [1, 5000])
def test_sum_is_exact(agg, size):
    counts = draw(4, size)
    opened = agg.open(functools.reduce(agg.add, seal_all(agg, counts)), size)
    assert opened.counts.dtype == np.int32
    np.testing.assert_array_equal(opened.counts, counts.sum(axis=0))
    assert opened.senders == 4
    assert opened.exact is True and "distance" not in opened._fields, "how near is the key holder's secret"


def test_order_does_not_matter(agg):
    counts = draw(3, 40)
    for order in itertools.permutations(range(3)):
        sealed = seal_all(agg, counts)
        total = functools.reduce(agg.add, [sealed[i] for i in order])
        np.testing.assert_array_equal(agg.open(total, 40).counts, counts.sum(axis=0))
    a, b, c, d = seal_all(agg, draw(4, 40))
    left = agg.open(agg.add(agg.add(a, b), agg.add(c, d)), 40)
    np.testing.assert_array_equal(left.counts, draw(4, 40).sum(axis=0))


@pytest.mark.parametrize(
    ("backend", "bound"),
    [*itertools.product(["plain", "tenseal"], [1, 127, 2**31 - 1]), ("round", 2**31 - 1), ("bare", 2**31 - 1)],
)
def test_extremes_of_the_count_bound(backend, bound):
    agg = make(backend, count_bound=bound, senders=2, minimum_senders=1)
    top = np.array([bound, -bound, bound, 0, -1, 1], np.int32)
    rest = np.array([0, 0, -bound, 0, 1, -1], np.int32)
    opened = agg.open(agg.add(*seal_all(agg, np.stack([top, rest]))), 6)
    np.testing.assert_array_equal(opened.counts, top.astype(np.int64) + rest)
    over = np.array([bound, -bound], np.int32), np.array([1, 0], np.int32)
    with pytest.raises(RoundRefused, match=r"exceeds count_bound|not within the margin|beyond count_bound"):
        agg.open(agg.add(*seal_all(agg, over)), 2)


def test_a_count_above_the_bound_is_not_encrypted(agg):
    with pytest.raises(ValueError, match="above count_bound"):
        agg.encrypt(np.array([BOUND + 1], np.int32), None)
    with pytest.raises(ValueError, match="above count_bound"):
        agg.encrypt(np.array([-(2**31)], np.int32), None)


@pytest.mark.parametrize("counts", [np.ones(3), np.ones((2, 2), np.int32), np.array([], np.int32)])
def test_counts_must_be_a_vector_of_integers(agg, counts):
    with pytest.raises(ValueError, match="counts"):
        agg.encrypt(counts, None)


def test_announced_size_is_kept():
    agg = make("plain", size=5)
    with pytest.raises(ValueError, match="takes 5"):
        seal(agg, np.zeros(6, np.int32))
    other = agg.sender.to_bytes(seal(agg, np.zeros(5, np.int32))._replace(size=6, payload=np.zeros(6, np.int64)))
    with pytest.raises(WireError, match="states 6 values; 5 are taken"):
        agg.server.receive(other)


def test_too_few_senders_are_not_opened(agg):
    sealed = seal_all(agg, draw(4, 8))
    with pytest.raises(RoundRefused, match="at least 3"):
        agg.open(agg.add(sealed[0], sealed[1]), 8)
    with pytest.raises(RoundRefused, match="at least 3"):
        agg.open(sealed[0], 8)
    total = functools.reduce(agg.add, sealed[:3])  # the refusals spent nothing
    np.testing.assert_array_equal(agg.open(total, 8).counts, draw(4, 8)[:3].sum(axis=0))


def test_what_was_announced_is_checked_without_opening(agg):
    """So that a round which must be refused is refused before it is paid for."""
    counts = draw(4, 8)
    sealed = seal_all(agg, counts)
    two, three = agg.add(sealed[0], sealed[1]), functools.reduce(agg.add, sealed[:3])
    with pytest.raises(RoundRefused, match="at least 3"):
        agg.check(two, 8)
    with pytest.raises(RoundRefused, match="at most 4"):
        agg.check(three._replace(senders=5), 8)
    with pytest.raises(RoundRefused, match="8 values and 9"):
        agg.check(three, 9)
    assert agg.check(three, 8) is None and agg.check(three, 8) is None  # asking changes nothing
    np.testing.assert_array_equal(agg.open(three, 8).counts, counts[:3].sum(axis=0))
    with pytest.raises(RoundRefused, match="opened before"):
        agg.check(agg.add(three, sealed[3]), 8)


def test_too_many_senders_are_not_added(agg):
    sealed = seal_all(agg, draw(5, 8))
    with pytest.raises(RoundRefused, match="at most 4"):
        functools.reduce(agg.add, sealed)


def test_sizes_and_rounds_do_not_mix(agg):
    with pytest.raises(RoundRefused, match="do not belong together"):
        agg.add(seal(agg, np.zeros(3, np.int32)), seal(agg, np.zeros(4, np.int32)))
    with pytest.raises(RoundRefused, match="of rounds 1 and 2"):
        agg.add(seal(agg, np.zeros(3, np.int32), round=1), seal(agg, np.zeros(3, np.int32), round=2))
    total = functools.reduce(agg.add, seal_all(agg, draw(3, 8)))
    with pytest.raises(RoundRefused, match="8 values and 9"):
        agg.open(total, 9)


def test_a_message_that_miscounts_its_senders_is_not_opened(agg):
    """One ciphertext that claims to be a sum of three."""
    claimed = seal(agg, np.zeros(8))._replace(senders=3)
    if agg.info.backend == "round":
        with pytest.raises(RoundRefused, match="counts 1 clients' contributions beside all noise, and its message 3"):
            agg.open(claimed, 8)
    with pytest.raises(ValueError, match="round = -1"):
        seal(agg, np.zeros(8), round=-1)


def test_a_contribution_counts_once(agg):
    a, b, c = seal_all(agg, draw(3, 8))
    with pytest.raises(RoundRefused, match="added twice"):
        agg.add(agg.add(a, b), a)
    total = functools.reduce(agg.add, (a, b, c))
    agg.open(total, 8)
    with pytest.raises(RoundRefused, match="opened before"):
        agg.open(total, 8)
    d = seal(agg, np.ones(8, np.int32))
    with pytest.raises(RoundRefused, match="opened before"):  # else the difference shows one sender
        agg.open(agg.add(total, d), 8)


def test_bytes_reported_are_bytes_sent(wired):
    agg = wired
    for size in (1, 5000):
        sealed = seal(agg, draw(1, size)[0])
        sent = agg.sender.to_bytes(sealed)
        assert agg.bytes_up(sealed) == len(sent)
        assert len(sent) <= agg.message_bytes(size) < 1.4 * len(sent)
        if agg.info.backend != "tenseal":
            assert len(sent) == agg.message_bytes(size)


def test_messages_survive_the_wire(wired):
    agg = wired
    counts = draw(4, 5000)
    blobs = [agg.sender.to_bytes(one) for one in seal_all(agg, counts, round=7)]
    total, refused = agg.server.collect(blobs)
    assert not refused and total.round == 7 and total.senders == 4
    received = agg.holder.receive(agg.server.to_bytes(total))
    np.testing.assert_array_equal(agg.holder.open(received, 5000).counts, counts.sum(axis=0))


def test_unsound_messages_are_left_out_and_the_round_goes_on(wired):
    agg = wired
    counts = draw(4, 10)
    blobs = [agg.sender.to_bytes(one) for one in seal_all(agg, counts)]
    other = aggregator("plain", count_bound=BOUND, senders=4)
    bad = [
        flip(blobs[0], 8 * (len(blobs[0]) // 2)),
        blobs[0][:-1],
        blobs[0] + b"\0",
        b"",
        b"GARBAGE" * 100,
        blobs[1],
        other.sender.to_bytes(seal(other, counts[0])),
    ]
    total, refused = agg.server.collect([*blobs[:3], *bad, blobs[3]])
    assert [one.position for one in refused] == list(range(3, 3 + len(bad)))
    reasons = " | ".join(one.reason for one in refused)
    for words in ("altered or truncated", "even an empty one", "not begin with FJPS", "added twice"):
        assert words in reasons
    np.testing.assert_array_equal(agg.open(total, 10).counts, counts.sum(axis=0))


def test_every_flipped_bit_of_the_head_and_many_of_the_body_are_seen(wired):
    agg = wired
    blob = agg.sender.to_bytes(seal(agg, np.arange(5, dtype=np.int32)))
    rng = np.random.default_rng(3)
    for bit in [*range(8 * 72), *rng.integers(0, 8 * len(blob), 100).tolist()]:
        with pytest.raises(WireError):
            agg.server.receive(flip(blob, bit))
    for length in [*range(0, 120), *rng.integers(0, len(blob), 50).tolist()]:
        with pytest.raises(WireError):
            agg.server.receive(blob[:length])


@pytest.mark.parametrize("backend", ["plain", "tenseal"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count_bound": 0}, "count_bound = 0"),
        ({"count_bound": 2**31}, "count_bound"),
        ({"minimum_senders": 5}, "minimum_senders = 5"),
        ({"minimum_senders": 0}, "minimum_senders = 0"),
    ],
)
def test_wrong_settings_are_refused(backend, changes, words):
    with pytest.raises(ValueError, match=words):
        make(backend, **changes)


def test_no_secret_key_is_reachable_from_the_server(wired):
    """Nor from a sender; the walk must find it where it is."""
    import tenseal

    def secret(obj) -> bool:
        return isinstance(obj, tenseal.Context) and obj.is_private()

    assert any(secret(obj) for obj in reachable(wired.holder)) or wired.info.mode == "none"
    for root in (wired.server, wired.add, wired.bytes_up, wired.info, wired.sender, wired.encrypt):
        assert not any(secret(obj) for obj in reachable(root))


@pytest.mark.parametrize("backend", ["round", "bare"])
def test_a_sum_made_inside_a_scan_is_opened(backend):
    agg = make(backend, size=500)
    counts = draw(4, 500)

    @jax.jit
    def total(key, counts, stream):
        def body(carry, inputs):
            row, index = inputs
            return agg.device.add(carry, agg.device.encrypt(key, row, fold_in(stream, index))), None

        first = agg.device.encrypt(key, counts[0], fold_in(stream, "first"))
        return jax.lax.scan(body, first, (counts[1:], jnp.arange(3, dtype=jnp.uint32)))[0]

    sealed = agg.wrap(total(agg.device.key, jnp.asarray(counts), STREAM(0)), 500)
    assert sealed.senders == 4
    np.testing.assert_array_equal(agg.open(sealed, 500).counts, counts.sum(axis=0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"members": 0}, "members = 0"),
        ({"members": 21}, "members = 21"),
        ({"threshold": 3}, "threshold = 3 of members = 5 with malicious = 1"),  # 2 t = m + f: two sets could be opened
        ({"threshold": 6}, "threshold = 6"),
        ({"malicious": 5}, "malicious = 5"),
        ({"corrupt": 3}, "corrupt = 3"),
    ],
)
def test_committees_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        make("bare", **changes)


def test_rounds_need_a_stream_and_say_who_could_open_what():
    agg = make("bare")
    with pytest.raises(ValueError, match="give one, fresh for every message"):
        agg.encrypt(np.arange(5, dtype=np.int32), None)
    info = make("round").info
    assert (info.members, info.threshold, info.malicious, info.corrupt) == (5, 4, 1, 1)
    assert "5 members; 4 of them open" in info.key_holder and "NOT signed" not in info.protects
    assert "NOT signed" in agg.info.protects and agg.info.mode == "bare"


def test_unknown_backend_is_named():
    with pytest.raises(ValueError, match="no encryption backend 'nothing'; give one of round, tenseal, plain"):
        aggregator("nothing", count_bound=1, senders=1)


def test_minimum_defaults_to_all_senders():
    assert aggregator("plain", count_bound=5, senders=3).info.minimum_senders == 3


def test_sizes_that_lie_are_refused_and_the_round_goes_on(wired):
    """Whole messages under the right key whose head states another length, up to the largest that it can state."""
    agg = wired
    counts = draw(3, 8)
    sealed = seal_all(agg, counts)
    blobs = [agg.sender.to_bytes(one) for one in sealed]
    lies = [
        agg.sender.to_bytes(seal(agg, counts[0])._replace(size=size)) for size in (0, 20_000, 1 << 40, (1 << 64) - 1)
    ]
    total, refused = agg.server.collect([lies[0], *blobs, *lies[1:]])
    assert [one.position for one in refused] == [0, 4, 5, 6]
    np.testing.assert_array_equal(agg.open(total, 8).counts, counts.sum(axis=0))


def test_logs_show_no_secret(wired, caplog):
    """Everything that any library logs, at its most talkative, while a round is sealed, added, opened and refused."""
    import tenseal

    agg = wired
    caplog.set_level(logging.DEBUG)
    counts = draw(3, 8)
    sealed = seal_all(agg, counts)
    with pytest.raises(RoundRefused):
        agg.open(sealed[0], 8)
    agg.open(functools.reduce(agg.add, sealed), 8)
    logging.getLogger(__name__).debug("%s %s %s", agg, sealed, agg.holder)
    text = caplog.text
    assert "Holder(" in text  # what is logged is seen
    for context in (obj for obj in reachable(agg.holder) if isinstance(obj, tenseal.Context)):
        assert repr(context) not in text or len(repr(context)) < 200


def test_reprs_show_no_payload_and_no_key(agg):
    sealed = seal(agg, np.arange(5, dtype=np.int32))
    assert len(repr(sealed)) < 100 and len(repr(agg)) < 2000 and len(repr(agg.holder)) < 100


def test_plain_says_loudly_that_nothing_is_encrypted():
    info = make("plain").info
    assert "NOTHING IS ENCRYPTED" in info.key_holder and "NOTHING" in info.protects and info.security_bits == 0


def test_an_older_cryptography_is_left_as_it_is_and_said(monkeypatch):
    """Where cryptography before 47 is fixed, as in Colab, rounds of one process do without messages, and remote roles refuse with the remedy."""
    import sys

    from fedjax_poisson.aggregation import keys

    assert keys.available() is None
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.hpke", None)
    assert "cryptography 47 or newer" in keys.available() and "pip install" in keys.available()
    agg = aggregator("round", count_bound=BOUND, senders=3)
    assert agg.info.mode == "bare" and "NOT signed" in agg.info.protects and "cryptography 47" in agg.info.protects
    counts = draw(3, 20)
    opened = agg.open(functools.reduce(agg.add, seal_all(agg, counts)), 20)
    np.testing.assert_array_equal(opened.counts, counts.sum(axis=0))
    with pytest.raises(ValueError, match="authenticate=True, but"):
        aggregator("round", count_bound=BOUND, senders=3, authenticate=True)
    with pytest.raises(RoundRefused, match="pip install"):
        keys.new_signing_key()


def test_many_senders_in_one_process_are_a_simulation_and_said():
    info = aggregator("round", count_bound=BOUND, senders=129).info
    assert info.mode == "bare" and "more than 128 senders" in info.protects
    assert aggregator("round", count_bound=BOUND, senders=129, authenticate=True).info.mode == "round"
