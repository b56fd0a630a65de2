"""Secret samples of units and the sums of their clipped contributions, against float64 arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_poisson import federated, models
from fedjax_poisson.federated.records import (
    OVERFLOW,
    check_sums_fit,
    chunk_for,
    gradient_contribution,
    largest_unit,
    record_slots,
    sample_units,
    sampled_sums,
    slots_for,
    summed_contributions,
    units_of,
)
from fedjax_poisson.randomness import fold_in
from tests.federated import helpers
from tests.helpers.stat import chi_square_pvalue

MECHANISM = helpers.mechanism()
STEP = helpers.step_of(MECHANISM)


def contribution(x: jax.Array, y: jax.Array) -> jax.Array:
    return x * (jnp.float32(2) * y - jnp.float32(1))


@pytest.fixture(scope="module")
def summed():
    """`summed_contributions`, compiled once for each set of static options."""
    return jax.jit(
        lambda x, y, unit, sampled, largest, chunk: summed_contributions(
            contribution, MECHANISM.clip, x, y, unit, sampled, largest_unit=largest, chunk=chunk
        ),
        static_argnums=(4, 5),
    )


@pytest.fixture(scope="module")
def site():
    """One site of 23 records, 7 places of padding, some gradients far above the clip."""
    rng = np.random.default_rng(5)
    x = np.zeros((30, 6), np.float32)
    x[:23] = rng.normal(size=(23, 6)) * rng.choice([0.1, 1.0, 30.0], size=(23, 1))
    y = np.zeros(30, np.float32)
    y[:23] = rng.integers(0, 2, 23)
    unit = np.where(np.arange(30) < 23, np.arange(30), -1).astype(np.int32)
    return x, y, unit


def reference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) * (2.0 * y[:, None] - 1.0)


def _assert_on_grid(grid: np.ndarray, wanted: np.ndarray, terms: int) -> None:
    """Each of `terms` summands is truncated to the grid at most twice, toward zero."""
    np.testing.assert_allclose(np.asarray(grid) * STEP, wanted, rtol=1e-6, atol=3 * terms * STEP)


# The secret sample ---------------------------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("rate", [0.03, 0.5])
def test_each_unit_is_sampled_at_the_rate_and_independently_of_its_neighbour(rate: float) -> None:
    drawn = np.asarray(sample_units(helpers.seeded(1), 400_000, rate))

    def pairs(law: float) -> float:
        cells = np.bincount(drawn[0::2] * 2 + drawn[1::2], minlength=4)
        return chi_square_pvalue(cells, np.array([(1 - law) ** 2, law * (1 - law), law * (1 - law), law**2]))

    assert pairs(rate) > 1e-6
    assert pairs(rate * 1.1) < 1e-6  # the twin: a rate 10 % too large does not pass
    assert pairs(rate * 0.9) < 1e-6


@pytest.mark.statistical
def test_samples_of_two_streams_are_independent_and_of_one_stream_equal() -> None:
    root = helpers.seeded(2)
    one, two = (np.asarray(sample_units(fold_in(root, i), 400_000, 0.5)) for i in (0, 1))
    law = np.full(4, 0.25)
    assert chi_square_pvalue(np.bincount(one * 2 + two, minlength=4), law) > 1e-6
    assert chi_square_pvalue(np.bincount(one * 2 + one, minlength=4), law) < 1e-6  # the twin: a stream read twice
    np.testing.assert_array_equal(one, np.asarray(sample_units(fold_in(root, 0), 400_000, 0.5)))


def test_the_rate_is_never_rounded_up() -> None:
    assert not np.asarray(sample_units(helpers.seeded(3), 4096, 2.0**-33)).any()
    assert np.asarray(sample_units(helpers.seeded(3), 4096, 1.0)).all()
    words = 2.0**32
    assert all(int(rate * words) / words <= rate for rate in (0.1, 1 / 3, 0.7, 1 - 2.0**-40))


# Sums of clipped contributions ----------------------------------------------------------------------------------------


def test_sum_over_the_sampled_records_equals_float64_arithmetic(summed, site) -> None:
    x, y, unit = site
    sampled = np.random.default_rng(0).random(30) < 0.6
    grid = summed(x, y, unit, sampled, 1, 256)
    assert grid.dtype == jnp.int32
    kept = sampled & (unit >= 0)
    wanted = helpers.clipped(reference(x, y)[kept], 1.0, 0.5).sum(axis=0)
    _assert_on_grid(grid, wanted, int(kept.sum()))
    without_clip = reference(x, y)[kept].sum(axis=0)
    assert np.abs(np.asarray(grid) * STEP - without_clip).max() > 1  # the comparison above can fail


@pytest.mark.parametrize("chunk", [1, 7, 23, 30])
def test_the_chunk_changes_no_bit(summed, site, chunk: int) -> None:
    x, y, unit = site
    everyone = np.ones(30, bool)
    np.testing.assert_array_equal(summed(x, y, unit, everyone, 1, chunk), summed(x, y, unit, everyone, 1, 256))


@pytest.mark.parametrize("largest", [1, 3])
@pytest.mark.parametrize("filler", [1e30, np.nan, np.inf])
def test_padding_never_contributes(summed, site, largest: int, filler: float) -> None:
    x, y, unit = site
    spoiled = np.where((unit >= 0)[:, None], x, np.float32(filler))
    everyone = np.ones(30, bool)
    clean = np.asarray(summed(x, y, unit, everyone, largest, 256))
    np.testing.assert_array_equal(summed(spoiled, y, unit, everyone, largest, 256), clean)
    assert clean.any()


def test_units_of_one_record_give_the_same_by_both_ways_of_summing(summed, site) -> None:
    x, y, unit = site
    sampled = np.random.default_rng(1).random(30) < 0.5
    np.testing.assert_array_equal(summed(x, y, unit, sampled, 1, 256), summed(x, y, unit, sampled, 2, 256))


def test_a_patients_records_are_added_and_then_clipped_once(summed, site) -> None:
    x, y, _ = site
    patient = np.where(np.arange(30) < 23, np.arange(30) % 8, -1).astype(np.int32)
    sampled = np.zeros(30, bool)
    sampled[[0, 3, 4, 7]] = True
    grid = summed(x, y, patient, sampled, 3, 256)
    vectors = reference(x, y)
    each = np.stack([vectors[patient == p].sum(axis=0) for p in (0, 3, 4, 7)])
    _assert_on_grid(grid, helpers.clipped(each, 1.0, 0.5).sum(axis=0), 4)
    clipped_per_record = helpers.clipped(vectors[np.isin(patient, (0, 3, 4, 7))], 1.0, 0.5).sum(axis=0)
    assert np.abs(np.asarray(grid) * STEP - clipped_per_record).max() > 100 * STEP  # the law that would be wrong


@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_one_patient_moves_the_sum_by_no_more_than_the_bounds(summed, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(30, 6)) * scale).astype(np.float32)
    y = rng.integers(0, 2, 30).astype(np.float32)
    patient = rng.integers(0, 6, 30).astype(np.int32)
    everyone = np.ones(30, bool)
    without = everyone.copy()
    without[2] = False
    moved = np.asarray(summed(x, y, patient, everyone, 3, 256)) - np.asarray(summed(x, y, patient, without, 3, 256))
    assert np.abs(moved).max() <= 0.5 / STEP
    assert sum(int(m) ** 2 for m in moved) <= (1.0 / STEP) ** 2


# Slots for the sampled ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sites_summed():
    """`sampled_sums` of two sites, compiled once for each set of static options."""
    return jax.jit(
        lambda x, y, units, sampled, slots, chunk: sampled_sums(
            contribution, MECHANISM.clip, x, y, units, sampled, slots=slots, chunk=chunk
        ),
        static_argnums=(4, 5),
    )


@pytest.mark.parametrize("by", ["record", "patient"])
def test_the_sums_of_the_sampled_are_those_of_every_site_by_itself(summed, sites_summed, site, by: str) -> None:
    x, y, unit = site
    if by == "patient":
        unit = np.where(unit >= 0, unit % 9, -1).astype(np.int32)
    other = np.where(unit < 5, unit, -1).astype(np.int32)  # a smaller site, with holes between its records
    both, labels = np.stack([x, x[::-1]]), np.stack([y, y[::-1]])
    units = np.stack([unit, other])
    sampled = np.random.default_rng(3).random(units.shape) < 0.5
    if by == "record":  # numbers of `unit` do not matter then: the coin of record i is coin i
        units = np.where(units >= 0, np.arange(30), -1).astype(np.int32)
    found = sites_summed(both, labels, units_of(units, by), sampled, 22 if by == "record" else 60, 5)
    assert found.shape == (2, 6) and np.asarray(found).any()
    largest = 1 if by == "record" else 6
    for s in range(2):
        wanted = np.asarray(summed(both[s], labels[s], units[s], sampled[s], largest, 256))
        # The two ways add a patient's records in another order: one float rounding and one grid step for each unit.
        np.testing.assert_allclose(found[s], wanted, rtol=1e-6, atol=0 if by == "record" else 30)


def test_units_beyond_the_slots_are_left_out_and_empty_slots_add_nothing(sites_summed, site) -> None:
    x, y, unit = site
    both, labels, numbers = np.stack([x, x]), np.stack([y, y]), np.stack([unit, unit])
    spoiled = np.where((numbers >= 0)[..., None], both, np.float32(np.nan))
    sampled, first = np.zeros((2, 30), bool), np.zeros((2, 30), bool)
    sampled[0, :12] = sampled[1, :12] = True
    first[0, :12] = first[1, :10] = True
    units = units_of(numbers)
    np.testing.assert_array_equal(
        sites_summed(spoiled, labels, units, sampled, 22, 5), sites_summed(both, labels, units, first, 22, 5)
    )
    assert np.any(
        np.asarray(sites_summed(both, labels, units, sampled, 24, 5))
        != np.asarray(sites_summed(both, labels, units, first, 22, 5))
    )


@pytest.mark.parametrize("units, rate", [(40, 0.25), (486, 0.5), (200, 1 / 64)])
def test_slots_are_the_fewest_that_the_exact_binomial_tail_allows(units: int, rate: float) -> None:
    q = Fraction(rate)

    def tail(slots: int) -> Fraction:
        return sum(
            (math.comb(units, k) * q**k * (1 - q) ** (units - k) for k in range(slots + 1, units + 1)), Fraction()
        )

    found = slots_for(units, rate)
    assert rate * units < found <= units
    assert tail(found) <= Fraction(OVERFLOW) < tail(found - 1)  # the twin: one slot fewer is not enough


@pytest.mark.parametrize("chunk", [5, 32])
def test_units_that_go_over_chunks_are_clipped_whole_and_do_not_touch_each_other(site, chunk: int) -> None:
    """Units of 1 to 9 records, two that nobody could sum (NaN), exactly representable numbers: the sums must be equal, not close."""
    x, y, _ = site
    numbers = np.repeat(np.arange(8), [1, 9, 2, 1, 5, 3, 8, 1]).astype(np.int32)[
        np.random.default_rng(0).permutation(30)
    ]
    unit = np.stack([numbers, np.where(np.arange(30) < 11, numbers, -1)]).astype(np.int32)
    both = np.round(np.stack([x, x[::-1]]) * 4) / 4
    labels = np.stack([y, y[::-1]])
    sampled = np.zeros((2, 30), bool)
    sampled[:, :8] = [[1, 1, 0, 1, 1, 0, 1, 1], [0, 1, 1, 1, 1, 1, 0, 1]]
    both[(unit == 2) & ~sampled[:, 2:3]] = np.nan  # not sampled: never read
    one = lambda a, b: jnp.concatenate([a, jnp.stack([b.astype(jnp.float32)])])  # noqa: E731
    units, clip = units_of(unit), jax.jit(MECHANISM.clip)
    add = jax.jit(lambda x, y, who: sampled_sums(one, MECHANISM.clip, x, y, units, who, slots=60, chunk=chunk))
    found = np.asarray(add(both, labels, sampled))
    for s in range(2):
        wanted = np.zeros(found.shape[1], np.int64)
        for number in range(8):
            own = unit[s] == number
            if sampled[s, number] and own.any():
                whole = np.column_stack([both[s][own], labels[s][own]]).sum(axis=0, dtype=np.float32)
                wanted += np.asarray(clip(whole))
        np.testing.assert_array_equal(found[s], wanted)


MODELS = {
    "logistic": (models.logistic(), (13,), 2),
    "wide": (models.logistic(), (3969,), 2),
    "linear": (models.linear(3), (515,), 3),
    "mlp": (models.mlp((32, 16)), (13,), 2),
    "cnn": (models.cnn(2, widths=(4, 8), dense=8, binary=True), (8, 8, 1), 2),
}


@pytest.mark.parametrize(
    ("model", "shape", "classes", "largest"),
    [
        pytest.param(*given, largest, id=f"{name}-{largest}", marks=[pytest.mark.long] * (largest > 1 and name in few))
        for few in [
            ("wide", "linear", "mlp")
        ]  # one record of them by default, and several of a vector and of a picture
        for name, given in MODELS.items()
        for largest in (1, 3)
    ],
)
def test_the_bits_of_a_unit_do_not_depend_on_who_else_was_sampled(model, shape, classes, largest: int) -> None:
    """Rounding that moved with a record's place would add to the sensitivity: leaving a unit out must change its own part and no other.

    It fails with `records._ROWS = 1`.
    """
    rng, count = np.random.default_rng(4), 42
    x = jnp.asarray(rng.normal(size=(1, count, *shape)), jnp.float32)
    y = jnp.asarray(rng.integers(0, classes, (1, count)), jnp.int32)
    units = units_of((np.arange(count) // largest)[None].astype(np.int32))
    number = len(units.coin)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.normal(size=leaf.shape) * 0.1, jnp.float32),
        model.init(jax.random.key(1), x[0, :1]),
    )
    add = jax.jit(
        lambda sampled: sampled_sums(
            gradient_contribution(model.loss, params), MECHANISM.clip, x, y, units, sampled, slots=count, chunk=16
        )
    )

    def of(who: np.ndarray) -> np.ndarray:
        sampled = np.zeros((1, count), bool)
        sampled[0, who] = True
        return np.asarray(add(jnp.asarray(sampled)))

    everybody = np.arange(number)
    whole = of(everybody)
    for one in range(number):
        np.testing.assert_array_equal(whole - of(np.delete(everybody, one)), of(np.array([one])))


@pytest.mark.parametrize(("counts", "rate"), [({1: 40, 2: 12, 9: 3}, 0.2), ({1: 30, 22: 2}, 0.25), ({3: 60}, 0.1)])
def test_slots_for_records_of_patients_are_enough_and_not_many_more(counts: dict[int, int], rate: float) -> None:
    sizes = np.repeat(list(counts), list(counts.values()))
    unit = np.repeat(np.arange(len(sizes)), sizes)[None].astype(np.int32)
    q, law = Fraction(rate), [Fraction(1)]
    for size in sizes.tolist():
        grown = [Fraction(0)] * (len(law) + size)
        for total, chance in enumerate(law):
            grown[total] += chance * (1 - q)
            grown[total + size] += chance * q
        law = grown

    def tail(slots: int) -> Fraction:
        return sum(law[slots + 1 :], Fraction())

    found = record_slots(units_of(unit), rate)
    least = next(slots for slots in range(len(law)) if tail(slots) <= Fraction(OVERFLOW))
    assert least <= found <= 1.15 * least + 2 and found <= sizes.sum()
    assert tail(least - 1) > Fraction(OVERFLOW)  # the twin: one fewer than the exact least is not enough


def test_records_of_their_own_have_the_exact_slots_and_rate_one_has_all() -> None:
    unit = np.arange(200)[None].astype(np.int32)
    assert record_slots(units_of(unit), 0.25) == slots_for(200, 0.25) < 200
    assert record_slots(units_of(unit // 3), 1.0) == 200
    assert record_slots(units_of(np.full((1, 3), -1, np.int32)), 0.5) == 0


def test_everybody_has_a_slot_at_rate_one_and_in_a_small_cohort() -> None:
    assert slots_for(50, 1.0) == 50 and slots_for(0, 0.5) == 0
    assert slots_for(20, 0.5) == 20  # 2**-20 is not rare enough


def test_units_of_a_cohort_without_padding() -> None:
    unit = np.array([[0, 1, 0, -1], [-1, -1, 2, 2]], np.int32)
    members, site, coin, sizes = units_of(unit)
    np.testing.assert_array_equal(sizes, [2, 1, 2])
    np.testing.assert_array_equal(members, [[0, 2], [1, 8], [6, 7]])
    np.testing.assert_array_equal(site, [0, 0, 1])
    np.testing.assert_array_equal(coin, [0, 1, 6])
    members, site, coin, _ = units_of(unit, "record")
    np.testing.assert_array_equal(members[:, 0], [0, 1, 2, 6, 7])
    np.testing.assert_array_equal(coin, [0, 1, 2, 6, 7])


def test_large_models_are_vmapped_in_small_chunks() -> None:
    assert chunk_for(14, 13) == 256 and chunk_for(25_000_000, 64 * 64) == 16
    assert 16 < chunk_for(20_000, 28 * 28) < 64


# Overflow -------------------------------------------------------------------------------------------------------------


def test_sums_that_could_leave_int32_are_refused_and_the_largest_that_cannot_are_exact() -> None:
    count = 3000
    x = np.full((count, 2), 5.0, np.float32)
    y, unit, everyone = np.ones(count, np.float32), np.arange(count, dtype=np.int32), np.ones(count, bool)
    tight = helpers.mechanism(total_bound=None)
    with pytest.raises(ValueError, match=r"3000 records.*raise total_bound"):
        check_sums_fit(tight, count)
    check_sums_fit(MECHANISM, count)
    add = jax.jit(lambda *given: summed_contributions(contribution, MECHANISM.clip, *given, largest_unit=1))
    grid = np.asarray(add(x, y, unit, everyone))
    each = np.asarray(jax.jit(MECHANISM.clip)(jnp.full(2, 5.0, jnp.float32)), np.int64)
    np.testing.assert_array_equal(grid, each * count)
    assert each[0] * STEP == pytest.approx(0.5, rel=1e-5)


def test_largest_unit_counts_records_and_not_padding() -> None:
    assert largest_unit(np.array([[0, 1, 2, -1], [0, 0, -1, -1]])) == 2
    assert largest_unit(np.array([[0, 1, 2], [-1, -1, -1]])) == 1
    assert largest_unit(np.full((2, 3), -1)) == 0


@pytest.mark.parametrize(("loss", "shape"), [("sigmoid", (2,)), ("squared", (2,)), ("squared", ())])
def test_several_labels_and_targets_are_clipped_record_by_record(loss: str, shape: tuple[int, ...]) -> None:
    mechanism = helpers.noise_free(helpers.mechanism(clip_norm=0.8, coordinate_bound=0.4, total_bound=64.0))
    rng = np.random.default_rng(3)
    cohort = helpers.cohort((20, 12), 3)
    y = rng.integers(0, 2, (2, 20, *shape)).astype(np.float32)
    cohort = cohort._replace(labels=jnp.asarray(y))
    outputs = shape[0] if shape else 1

    def apply(params, x):
        found = x @ params["w"]
        return found if shape else found[:, 0]

    model = models.with_loss(lambda key, x: {"w": 0.1 * jnp.ones((x.shape[1], outputs))}, apply, loss=loss)
    size = 3 * outputs
    algorithm = federated.fedsgd(
        model,
        features=3,
        records=32,
        sampling_rate=1.0,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(mechanism, 2, size),
        server_optimizer=optax.sgd(1.0),
        senders=2,
    )
    state = algorithm.init(jax.random.key(0))
    after, _ = algorithm.apply(state, cohort, helpers.seeded(1))
    moved = np.asarray(state.params["w"] - after.params["w"]).reshape(-1)
    mask = np.asarray(cohort.mask)
    x, targets = np.asarray(cohort.features, np.float64)[mask], y.reshape(2, 20, outputs)[mask]
    z = x @ np.full((3, outputs), 0.1)
    residual = (1 / (1 + np.exp(-z)) if loss == "sigmoid" else z) - targets
    gradients = (x[:, :, None] * residual[:, None, :]).reshape(len(x), size)
    want = helpers.clipped(gradients, 0.8, 0.4).sum(axis=0) / 32
    np.testing.assert_allclose(moved, want, atol=32 * 64 / 2**20 / 32 + 1e-5)
