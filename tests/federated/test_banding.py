"""Turns and coefficients: exact bounds in integers, an inverse that undoes, and the sensitivity by brute force, with twins that break each of them."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import federated
from fedjax_poisson.federated.banding import banding, decode, decoded_weights, first_history, scale_grid
from fedjax_poisson.federated.turns import FixedCohorts, fixed_cohorts
from fedjax_poisson.mechanisms import clipping
from fedjax_poisson.mechanisms.clipping import clip_limits

TOP = 2**20


def _matrix(factors, rounds):
    found = np.zeros((rounds, rounds))
    for ago, factor in enumerate(factors[:rounds]):
        found += np.diag(np.full(rounds - ago, factor), -ago)
    return found


# --- coefficients -----------------------------------------------------------------------------------------------------


def test_coefficients_are_those_of_the_series_cut_to_whole_numbers():
    root = banding(6, power=0.5).factors
    by_hand = [1.0]
    for j in range(1, 6):
        by_hand.append(by_hand[-1] * (2 * j - 1) / (2 * j))
    assert root[0] == 1.0 and all(0 <= want - got < 2.0**-30 for got, want in zip(root, by_hand, strict=True))
    # The square of the whole series is the prefix sum: that is what makes it a square root.
    np.testing.assert_allclose(np.convolve(root, root)[:6], np.ones(6), atol=1e-8)
    cube = banding(6, power=1 / 3).factors
    np.testing.assert_allclose(np.convolve(np.convolve(cube, cube), cube)[:6], np.ones(6), atol=1e-8)
    assert banding(4, power=1.0).factors == (1.0, 1.0, 1.0, 1.0)
    assert (np.diff(banding(50).factors) < 0).all() and banding(50).factors[0] == 1.0
    assert banding(3, 0.5).energy == pytest.approx(1 + 1 / 4 + 9 / 64, abs=1e-8)


@pytest.mark.parametrize(
    ("band", "power", "match"), [(0, 0.5, "at least 1"), (2.5, 0.5, "whole"), (2, 0.0, "power"), (2, 1.5, "above 1")]
)
def test_coefficients_that_would_break_a_bound_are_refused(band, power, match):
    with pytest.raises(ValueError, match=match):
        banding(band, power)


# --- bounds of a message ----------------------------------------------------------------------------------------------


def _grids():
    rng = np.random.default_rng(0)
    grids = rng.integers(-TOP, TOP + 1, (40, 64)).astype(np.int32)
    grids[0], grids[1], grids[2, ::2] = TOP, -TOP, 0
    grids[3] = rng.integers(-2, 3, 64)
    return grids


def test_scaling_is_exact_and_never_longer_than_its_share():
    grids, numerators = _grids(), (*banding(12).numerators, 1, 2**30 - 1, 12345)
    for numerator in numerators:
        got = np.asarray(scale_grid(jnp.asarray(grids), jnp.full(len(grids), numerator, jnp.uint32)))
        want = [[(abs(int(m)) * numerator >> 30) * (1 if m > 0 else -1) for m in row] for row in grids]
        np.testing.assert_array_equal(got, want)
        for before, after in zip(grids.tolist(), got.tolist(), strict=True):
            assert all(abs(s) << 30 <= abs(m) * numerator for m, s in zip(before, after, strict=True))
            assert sum(s * s for s in after) << 60 <= sum(m * m for m in before) * numerator**2
    np.testing.assert_array_equal(scale_grid(jnp.asarray(grids), jnp.full(40, 2**30, jnp.uint32)), grids)


def test_rounding_to_nearest_would_pass_the_bounds():
    """The twin of the test above: why scaling rounds toward zero."""
    numerator = banding(2, 0.75).numerators[1]
    grid = np.array([1] * 64)
    nearest = np.rint(grid * (numerator / 2**30)).astype(int)
    assert int((nearest**2).sum()) << 60 > int((grid**2).sum()) * numerator**2


def test_a_clipped_update_stays_within_every_scaled_bound():
    limits = clip_limits(clip_norm=1.0, coordinate_bound=0.25, total_bound=0.25)
    rng = np.random.default_rng(1)
    encoding = banding(8)
    clip, scale = jax.jit(lambda update: clipping.clip_to_grid(update, limits)), jax.jit(scale_grid)
    for length in (0.1, 1.0, 30.0):
        grid = clip(jnp.asarray(length * rng.normal(size=300), jnp.float32))
        for numerator in encoding.numerators:
            s = np.asarray(scale(grid[None], np.asarray([numerator], np.uint32)))[0].astype(object)
            assert max(abs(s)) << 30 <= limits.coordinate_limit * numerator
            assert int((s * s).sum()) << 60 <= limits.squared_norm_limit * numerator**2


# --- decoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 0.75, 1.0])
def test_decoding_undoes_encoding(power):
    rng = np.random.default_rng(2)
    encoding, rounds = banding(7, power), 60
    sums = rng.normal(size=(rounds, 3))
    encoded = _matrix(encoding.factors, rounds) @ sums
    _, decoded = jax.lax.scan(
        lambda history, row: decode(encoding, history, row),
        first_history(encoding, 3),
        jnp.asarray(encoded, jnp.float32),
    )
    np.testing.assert_allclose(decoded, sums, atol=2e-5)
    # With other coefficients than the senders' it does not.
    _, other = jax.lax.scan(
        lambda history, row: decode(banding(7, 0.4), history, row),
        first_history(encoding, 3),
        jnp.asarray(encoded, jnp.float32),
    )
    assert np.abs(np.asarray(other) - sums).max() > 0.1


def test_decoding_of_one_coefficient_is_nothing():
    encoding = banding(1)
    history, decoded = decode(encoding, first_history(encoding, 2), jnp.asarray([1.5, -2.0]))
    assert history.shape == (0, 2) and decoded.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("band", [1, 2, 9, 40])
def test_weights_of_released_noise_are_those_of_the_inverse_matrix(band):
    weights = np.random.default_rng(3).normal(size=30)
    want = weights @ np.linalg.inv(_matrix(banding(band).factors, 30))
    np.testing.assert_allclose(decoded_weights(banding(band), weights), want, rtol=1e-9)


# --- sensitivity ------------------------------------------------------------------------------------------------------


def _squared_sensitivity(factors, rounds, turns):
    """The largest sum over rounds of |message|**2 that updates of length 1 in these rounds can cause: over all signs, which is the worst of all directions."""
    encode = _matrix(factors, rounds)[:, list(turns)]
    return max(np.sum((encode @ signs) ** 2) for signs in itertools.product((-1.0, 1.0), repeat=len(turns)))


@pytest.mark.parametrize(("rounds", "cohorts", "band"), [(9, 3, 1), (9, 3, 2), (9, 3, 3), (10, 4, 3), (8, 2, 2)])
def test_in_turn_nothing_passes_the_sensitivity_and_out_of_turn_something_does(rounds, cohorts, band):
    encoding = banding(band)
    fixed = fixed_cohorts(cohorts, cohorts)  # a client a cohort
    for client in range(cohorts):
        turns = [t for t in range(rounds) if client in fixed.turn(t, 1).trains]
        # No message of a client mixes two of its own updates.
        assert (_matrix(encoding.factors, rounds)[:, turns] != 0).sum(axis=1).max() == 1
        found = _squared_sensitivity(encoding.factors, rounds, turns)
        assert len(turns) <= fixed.participations(rounds) and found <= len(turns) * encoding.energy + 1e-9
        if turns[-1] + band <= rounds:  # else the last messages are never sent
            assert found == pytest.approx(len(turns) * encoding.energy)
    if band > 1:
        out_of_turn = [0, 1, *range(2 * cohorts, rounds - band + 1, cohorts)]  # once it comes one round after its turn
        assert _squared_sensitivity(encoding.factors, rounds, out_of_turn) > len(out_of_turn) * encoding.energy + 0.5


# --- turns ------------------------------------------------------------------------------------------------------------


def test_every_client_has_every_offset_once_in_each_epoch():
    fixed = fixed_cohorts(23, 5, seed=4)
    for band in range(1, 6):
        for epoch in range(3):
            seen = []
            for number in range(5 * epoch, 5 * epoch + 5):
                turn = fixed.turn(number, band)
                seen += zip(turn.sends.tolist(), turn.ago.tolist(), strict=True)
                assert len(set(turn.sends.tolist())) == turn.sends.size
                assert turn.sends[: turn.trains.size].tolist() == turn.trains.tolist()
                members = [
                    fixed.members[(number - ago) % 5][place] for ago, place in zip(turn.ago, turn.place, strict=True)
                ]
                assert members == turn.sends.tolist()
            assert sorted(seen) == [(client, ago) for client in range(23) for ago in range(band)]
        counts = [fixed.turn(number, band).sends.size for number in range(15)]
        assert (min(counts), max(counts)) == fixed.senders(band)
    assert fixed.participations(15) == 3 and fixed.participations(16) == 4 and fixed.largest == 5


def test_cohorts_are_random_public_and_of_equal_size():
    fixed, again, other = fixed_cohorts(100, 8, seed=1), fixed_cohorts(100, 8, seed=1), fixed_cohorts(100, 8, seed=2)
    assert [each.tolist() for each in fixed.members] == [each.tolist() for each in again.members]
    assert fixed.members[0].tolist() != other.members[0].tolist()
    assert sorted({each.size for each in fixed.members}) == [12, 13]
    assert repr(fixed) == "FixedCohorts(clients=100, cohorts=8)"


@pytest.mark.parametrize(
    ("members", "match"),
    [
        (([0, 1], [1, 2]), "exactly once"),
        (([0, 1], [3]), "exactly once"),
        (([0, 1], []), "at least one"),
        ((), "at least one"),
        (([0.0, 1.0],), "exactly once"),
    ],
)
def test_what_is_no_partition_is_refused(members, match):
    with pytest.raises(ValueError, match=match):
        FixedCohorts(members=tuple(np.asarray(each) for each in members))


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="1 to 3 cohorts"):
        federated.fixed_cohorts(3, 4)
    with pytest.raises(ValueError, match="two participations of a client into one message"):
        federated.fixed_cohorts(8, 4).senders(5)
