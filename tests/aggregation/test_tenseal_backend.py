"""TenSEAL as a backend: keys on one side only, the stated error bound, foreign bytes."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import tenseal as ts

from fedjax_poisson.aggregation import tenseal_backend as backend
from fedjax_poisson.aggregation.aggregator import aggregator
from fedjax_poisson.ckks.errors import RoundRefused, WireError
from tests.helpers.reach import reachable


def secrets_in(root) -> list:
    """Private contexts, and bytes that TenSEAL reads as one, reachable from `root`."""
    found = []
    for obj in reachable(root):
        if isinstance(obj, ts.Context) and obj.is_private():
            found.append(obj)
        if isinstance(obj, bytes) and len(obj) > 1000:
            try:
                private = ts.context_from(obj).is_private()
            except Exception:
                continue
            if private:
                found.append(obj)
    return found


def test_only_the_holder_reaches_a_secret_key():
    agg = aggregator("tenseal", count_bound=100, senders=2)
    sealed = agg.encrypt(np.ones(3, np.int32), None)
    agg.open(agg.add(sealed, agg.encrypt(np.ones(3, np.int32), None)), 3)
    assert secrets_in(agg.holder), "the walk must be able to find the key where it is"
    for role in (agg.server, agg.sender, agg.add, agg.encrypt, agg.bytes_up, agg.message_bytes, agg.info, sealed):
        assert not secrets_in(role)
    assert any(isinstance(obj, ts.Context) for obj in reachable(agg.server)), "the walk must reach the server's context"


def test_a_private_context_is_refused_for_server_and_sender():
    params = backend.choose(count_bound=100, senders=2)
    context = ts.context(
        ts.SCHEME_TYPE.CKKS, params.degree, coeff_mod_bit_sizes=[params.data_bits, params.special_bits]
    )
    context.global_scale = 2.0**params.scale_bits
    blob = context.serialize(save_secret_key=True)
    for part in (backend.server_part, backend.sender_part):
        with pytest.raises(ValueError, match="public context only"):
            part(blob)


@pytest.mark.parametrize(
    ("count_bound", "senders"),
    [*itertools.product([1, 1000, 2**20, 2**31 - 1], [1, 4, 1000]), (2**26, 10_000)],
)
def test_chosen_parameters_keep_to_the_limits(count_bound, senders):
    params = backend.choose(count_bound=count_bound, senders=senders)
    assert params.data_bits <= 60 and params.data_bits + params.special_bits <= 106
    assert params.error_bound <= 1 / 8
    assert 2.0**params.data_bits > 4 * count_bound * 2.0**params.scale_bits


def test_what_cannot_be_met_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="use the device backend"):
        backend.choose(count_bound=2**31 - 1, senders=10**6)


def test_error_bound_holds_and_is_not_idle():
    """40 senders at the extremes: below the bound, and within the factor of 100 that its 2^-128 tail costs."""
    senders, bound, size = 40, 2**26, 3 * 2048
    params = backend.choose(count_bound=bound, senders=senders)
    public, holder = backend.make_keys(params)
    sender, server = backend.sender_part(public), backend.server_part(public)
    rng = np.random.default_rng(1)
    signs = rng.choice([-1, 1], size)
    counts = np.tile(signs * (bound // senders), (senders, 1)).astype(np.int32)
    total = functools.reduce(server.add, [sender.seal(row, None) for row in counts])
    values, exact = holder.read(total, size, senders, frozenset())
    np.testing.assert_array_equal(values, counts.sum(axis=0))
    context = holder.read.__closure__[0].cell_contents
    raw = np.concatenate([np.asarray(v.decrypt()) for v in backend._vectors(context, backend.dump_body(total))])
    distance = np.abs(raw[:size] - values).max()
    assert exact and params.error_bound / 100 < distance < params.error_bound
    assert aggregator("tenseal", count_bound=bound, senders=senders).info.error_bound == params.error_bound


def test_noise_model_is_not_below_the_measured_noise():
    """The bound's standard deviation, rms over slots, against TenSEAL's; a twin half as large fails."""
    params = backend.choose(count_bound=1000, senders=1)
    public, holder = backend.make_keys(params)
    body = backend.sender_part(public).seal(np.zeros(64 * 2048, np.int32), None)
    context = holder.read.__closure__[0].cell_contents
    raw = np.concatenate([np.asarray(v.decrypt()) for v in backend._vectors(context, body)])
    n = params.degree
    model = np.sqrt(n / 24 * (2 * n / 3 + 2)) / 2.0**params.scale_bits
    measured = np.sqrt(np.mean(raw**2))
    assert 0.85 < measured / model < 1.15
    assert not 0.85 < measured / (model / 2) < 1.15


def test_wrong_key_is_noticed_and_withheld():
    one, other = (aggregator("tenseal", count_bound=100, senders=1) for _ in range(2))
    sealed = one.encrypt(np.arange(9, dtype=np.int32), None)
    with pytest.raises(RoundRefused, match="another key") as refused:
        other.open(sealed, 9)
    assert not any(letter.isdigit() for letter in str(refused.value)), "how far it was is noise under the key"
    assert one.open(sealed, 9).counts.tolist() == list(range(9))


def test_a_changed_residue_is_noticed_at_opening():
    agg = aggregator("tenseal", count_bound=100, senders=1)
    sealed = agg.encrypt(np.arange(9, dtype=np.int32), None)
    context = next(obj for obj in reachable(agg.server) if isinstance(obj, ts.Context))
    noise = ts.ckks_vector(context, (np.arange(2048) % 7 + 0.5).tolist()).serialize()
    bad = agg.server.add(
        sealed._replace(senders=0), sealed._replace(payload=backend._join([noise]), ids=frozenset([b"x" * 16]))
    )
    with pytest.raises(RoundRefused, match="withheld"):
        agg.open(bad, 9)


def test_padding_must_stay_empty():
    agg = aggregator("tenseal", count_bound=100, senders=1)
    sealed = agg.encrypt(np.arange(9, dtype=np.int32), None)
    with pytest.raises(RoundRefused, match="altered"):
        agg.open(sealed._replace(size=5), 5)


def vector_bytes(values: list[float], scale: float | None = None) -> bytes:
    context = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[50, 30])
    context.global_scale = scale or 2.0**20
    return ts.ckks_vector(context, values).serialize()


def test_foreign_bodies_are_refused():
    params = backend.choose(count_bound=100, senders=2)
    public, _ = backend.make_keys(params)
    server, seal = backend.server_part(public), backend.sender_part(public).seal
    good = seal(np.zeros(10, np.int32), None)
    inner = backend._split(good)[0]
    lying = b"\x0a\x03\xa0\x8d\x06" + inner[4:]  # sizes = [100000]
    context = ts.context_from(public)
    rescaled = ts.ckks_vector(context, [0.0] * 2048, 2.0 ** (params.scale_bits - 1)).serialize()
    short = ts.ckks_vector(context, [1.0, 2.0]).serialize()
    bodies = {
        "other parameters": backend._join([vector_bytes([0.0] * 2048)]),
        "lying sizes": backend._join([lying]),
        "too few values": backend._join([short]),
        "another scale": backend._join([rescaled]),
        "two ciphertexts": backend._join([inner, inner]),
        "none": backend._join([]),
        "truncated": good[:-7],
        "trailing": good + b"1",
        "empty": b"",
        "announces too much": good[:4] + (2**63).to_bytes(8, "little") + good[12:],
        "count too large": (2**32 - 1).to_bytes(4, "little") + good[4:],
        "not a message": backend._join([b"\xff" * 50]),
    }
    for name, body in bodies.items():
        with pytest.raises(WireError):
            server.load(body, 10)
            pytest.fail(name)
    server.load(good, 10)


def test_two_encryptions_differ():
    agg = aggregator("tenseal", count_bound=100, senders=2)
    same = np.arange(9, dtype=np.int32)
    assert agg.encrypt(same, None).payload != agg.encrypt(same, None).payload
