"""A party's arithmetic on the host: sealing, opening and screening give the numbers of the compiled programs, and the size decides which is used."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from fedjax_poisson.aggregation import contribution, host_rows, host_shares, opening, rows, screening
from fedjax_poisson.aggregation.parameters import choose
from fedjax_poisson.ckks import host_ring, ntt
from fedjax_poisson.randomness import fold_in
from tests.federated import helpers

DIGEST = bytes(range(32))
RINGS = {
    "one short row": (14, 10_387, 4),
    "the largest counts": (3_000, 1 << 30, 5),
    "rows": (3_000, 3_000, 5),
    "fields": (7_000, 100, 3),
}


@pytest.fixture(scope="module", params=RINGS)
def sealed(request):
    """(parameters, a, counts, rows, secret) of one client."""
    size, bound, senders = RINGS[request.param]
    params = choose(size, bound, senders, 5, 4, corrupt=1)
    counts = np.random.default_rng(size).integers(-bound, bound + 1, size).astype(np.int32)
    counts[:2] = -bound, bound
    a = np.asarray(rows.common_of(params, DIGEST))
    return params, a, counts, *host_rows.seal(params, a, counts, _own(request.param))


def _own(name: str):
    return fold_in(helpers.seeded(9), name)


def test_rings_of_every_kind_are_among_the_cases():
    kinds = [choose(*RINGS[name], 5, 4, corrupt=1) for name in RINGS]
    assert {params.ring.limbs for params in kinds} >= {1, 2} and {params.rows for params in kinds} >= {1, 2, 4}
    assert {params.ring.values_per_coefficient for params in kinds} >= {1, 2}
    assert all(host_rows.is_small(params) for params in kinds)
    assert not host_rows.is_small(choose(20_000, 3_000, 5, 5, 4))


def test_the_common_polynomials_are_those_of_a_program(sealed):
    params, a, *_ = sealed
    np.testing.assert_array_equal(a, np.asarray(rows.common(params, rows.hash_words("a", DIGEST))))


def test_sealed_rows_are_those_of_a_program(sealed, request):
    params, a, counts, made, secret = sealed
    own = _own(request.node.callspec.params["sealed"])
    for found, wanted in zip((made, secret), contribution._seal(params, a, counts, own), strict=True):
        assert found.dtype == np.uint32
        np.testing.assert_array_equal(found, np.asarray(wanted))
    beyond = counts.copy()
    beyond[0] = np.iinfo(np.int32).max  # a count that wraps does so in its own field, from both
    wrapped, _ = host_rows.seal(params, a, beyond, own)
    np.testing.assert_array_equal(wrapped, np.asarray(contribution._seal(params, a, beyond, own)[0]))
    assert (wrapped != made).any()


def test_opened_rows_are_the_counts_and_distances_of_a_program(sealed):
    params, a, counts, made, secret = sealed
    found, largest, rms = host_rows.decode(params, a, made, secret)
    wanted = opening._decode(params, a, made, secret)
    np.testing.assert_array_equal(found, np.asarray(wanted[0]))
    np.testing.assert_array_equal(found[: counts.size], counts)
    assert (largest, rms) == pytest.approx([float(each) for each in wanted[1:]], abs=1e-7)
    assert 0 < rms < largest < 0.1
    garbage = host_rows.decode(params, a, made, np.roll(secret, 1, axis=-1))
    other = opening._decode(params, a, made, np.roll(secret, 1, axis=-1))
    np.testing.assert_array_equal(garbage[0], np.asarray(other[0]))  # nothing that opens, decoded alike
    assert garbage[2] == pytest.approx(float(other[2]), abs=1e-6) and garbage[2] == pytest.approx(12**-0.5, rel=0.05)


def test_a_sum_of_secrets_is_centred_as_by_a_program(sealed):
    params, a, _, _, secret = sealed
    for form in (secret, a[0]):  # a secret, and what is none
        values, same = host_rows.centred(params, form, opening._largest(params))
        wanted, alike = opening._centred(params, form)
        np.testing.assert_array_equal(values, np.asarray(wanted))
        assert same == bool(alike) == (form is secret)


def test_a_polynomial_that_differs_from_prime_to_prime_is_no_secret():
    params = choose(3_000, 1 << 30, 5, 5, 4, corrupt=1)
    moduli = params.ring.moduli
    small = host_ring.residues(np.arange(params.ring.degree) % 41 - 20, moduli)
    other = small.copy()
    other[1, 5] = (other[1, 5] + 1) % moduli[1]
    for residues, good in ((small, True), (other, False)):
        form = host_ring.forward(residues, moduli)
        assert host_rows.centred(params, form, opening._largest(params))[1] is good
        assert bool(opening._centred(params, form)[1]) is good


def test_a_sum_whose_residue_is_no_honest_error_is_not_opened(monkeypatch):
    """Check 2 of an opening: a third of a step on one coefficient, under an honest secret."""
    params = choose(*RINGS["one short row"], 5, 4, corrupt=1)
    a, own, counts = np.asarray(rows.common_of(params, DIGEST)), _own("a third"), np.arange(14, dtype=np.int32)
    made, secret = host_rows.seal(params, a, counts, own)
    expected = opening.Expected(1, 0, RINGS["one short row"][1])
    shift = np.zeros((1, params.ring.degree), np.int64)
    shift[0, 20] = int(params.ring.step) // 3
    (q,) = params.ring.moduli
    moved = ((made.astype(np.int64) + host_ring.forward(host_ring.residues(shift[0], (q,)), (q,))) % q).astype(
        np.uint32
    )
    for total, why in ((made, ""), (moved, "beside whole counts")):
        found, reason = opening.checked(params, secret, *opening._decoded(params, a, total, secret), expected)
        assert (found is None) == bool(why) and why in reason
    decode = host_rows.decode
    monkeypatch.setattr(host_rows, "decode", lambda *given: (decode(*given)[0], 0.0, 0.0))  # the twin: no look at it
    found, _ = opening.checked(params, secret, *opening._decoded(params, a, moved, secret), expected)
    np.testing.assert_array_equal(found, counts)


@pytest.mark.parametrize("below", [1 << 31, 1 << 30])
def test_nothing_overflows_at_the_largest_residues(below):
    degree, parties = 8192, 20
    moduli = ntt.primes_below(below, degree, 3)
    most = np.asarray(moduli, np.uint32) - np.uint32(1)
    weights, polynomials = np.tile(most, (parties, 1)), np.tile(most[:, None], (parties, 1, degree))
    summed = host_shares.weighted_sum(weights, polynomials, moduli)
    ring = types.SimpleNamespace(moduli=moduli, degree=degree, limbs=3)
    share = np.tile(most[:, None], (1, degree))
    signs, uniform = np.ones((2, degree), np.int32), np.tile(most[:, None], (2, 1, degree))
    scalars = host_rows.project(types.SimpleNamespace(ring=ring), signs, uniform, [share, share])
    values = host_ring.inverse(share, moduli)
    for limb, q in enumerate(moduli):
        assert (summed[limb] == parties * (q - 1) ** 2 % q).all()
        assert (scalars[:, :2, limb] == sum(int(x) for x in values[limb]) % q).all()
        assert (scalars[:, 2:, limb] == sum(int(x) * (q - 1) for x in values[limb]) % q).all()


def test_scalars_are_those_of_a_program_client_by_client(sealed):
    params, a, _, _, secret = sealed
    drawn, shares = screening.functionals(params, DIGEST), [secret, a[0], a[-1]]
    found = host_rows.project(params, drawn.signs, drawn.uniform, shares)
    wanted = [screening.project(params, drawn.signs, drawn.uniform, share) for share in shares]
    np.testing.assert_array_equal(found, np.stack(jax.device_get(wanted)))
    assert (found[0] != found[1]).any()


def test_so_many_shares_that_a_program_is_worth_it_give_the_same_scalars(monkeypatch):
    params = choose(*RINGS["one short row"], 5, 4, corrupt=1)
    drawn, rng = screening.functionals(params, DIGEST), np.random.default_rng(0)
    (q,) = params.ring.moduli
    shares = list(rng.integers(0, q, (3, 1, params.ring.degree)).astype(np.uint32))
    one_by_one = [screening.projected(params, drawn.signs, drawn.uniform, [share])[0] for share in shares]
    used: list[int] = []
    project = screening.project
    monkeypatch.setattr(screening, "project", lambda *given: used.append(1) or project(*given))
    for most in (host_rows.MOST_SHARED, 2 * params.ring.degree):
        monkeypatch.setattr(host_rows, "MOST_SHARED", most)
        np.testing.assert_array_equal(screening.projected(params, drawn.signs, drawn.uniform, shares), one_by_one)
    assert len(used) == 3


def test_the_size_decides_who_computes(monkeypatch):
    params = choose(*RINGS["one short row"], 5, 4, corrupt=1)
    a, counts, own = np.asarray(rows.common_of(params, DIGEST)), np.arange(14, dtype=np.int32), _own("either")
    used: list[str] = []
    monkeypatch.setattr(host_rows, "seal", lambda *arguments: used.append("host") or arguments[:2])
    monkeypatch.setattr(contribution, "_seal", lambda *arguments: used.append("program") or arguments[:2])
    contribution.sealed_rows(params, a, counts, own)
    monkeypatch.setattr(host_rows, "MOST_VALUES", 100)
    contribution.sealed_rows(params, a, counts, own)
    assert used == ["host", "program"]
