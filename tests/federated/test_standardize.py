"""Means and standard deviations from one sum: exact without noise, sane under any noise."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedjax_poisson.federated import Records, reference, standardize
from fedjax_poisson.mechanisms import Mechanism, poisson_embedding
from tests.federated import helpers

SIZES = (17, 40, 9)
BINARY = np.array([False, True, False, True])
BOUNDS = np.array([[20.0, 90.0], [0.0, 1.0], [-3.0, 7.0], [2.0, 4.0]], np.float32)
MOMENTS = standardize.moment_dimension(BINARY)


@pytest.fixture(scope="module")
def cohort() -> Records:
    rng = np.random.default_rng(3)
    base = helpers.cohort(SIZES, 4)
    x = np.zeros(base.features.shape, np.float32)
    x[..., 0] = rng.normal(55, 12, x.shape[:2])
    x[..., 1] = rng.random(x.shape[:2]) < 0.3
    x[..., 2] = rng.normal(1, 2, x.shape[:2])
    x[..., 3] = np.where(rng.random(x.shape[:2]) < 0.8, 4.0, 2.0)
    return base._replace(features=jnp.asarray(np.where(np.asarray(base.mask)[..., None], x, 0), jnp.float32))


@pytest.fixture(scope="module")
def patients(cohort: Records) -> Records:
    """The same records, up to six of them one patient's; the patients with many records are the old ones."""
    unit = np.full(cohort.unit.shape, -1, np.int32)
    for s, n in enumerate(SIZES):
        age = np.argsort(np.asarray(cohort.features)[s, :n, 0])
        unit[s, age] = np.minimum(np.arange(n), n - 6)
    return cohort._replace(unit=jnp.asarray(unit))


def _mechanism(dark_count: float) -> Mechanism:
    return poisson_embedding(
        clip_norm=math.sqrt(MOMENTS), coordinate_bound=1.0, dark_count=dark_count, modulation=0.1, total_bound=64.0
    )


def _scaler(cohort: Records, mechanism: Mechanism, largest_unit: int = 1) -> standardize.Scaler:
    return standardize.private_scaler(
        cohort,
        BOUNDS,
        BINARY,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(mechanism, len(SIZES), MOMENTS),
        stream=helpers.seeded(0),
        largest_unit=largest_unit,
    )[0]


def _numpy_scaler(cohort: Records) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted moments in float64: each unit weighs one."""
    rows, weights = [], []
    for s, n in enumerate(SIZES):
        unit = np.asarray(cohort.unit)[s, :n]
        rows.append(np.clip(np.asarray(cohort.features, np.float64)[s, :n], BOUNDS[:, 0], BOUNDS[:, 1]))
        weights.append(1 / np.bincount(unit)[unit])
    x, w = np.concatenate(rows), np.concatenate(weights)
    mean = np.average(x, axis=0, weights=w)
    return mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=w)), w.sum()


def test_moments_lie_in_the_unit_box_and_hold_no_square_of_a_binary_feature() -> None:
    x = jnp.asarray([1000.0, 1.0, 2.0, 4.0], jnp.float32)
    vector = np.asarray(standardize.moments(x, jnp.asarray(BOUNDS), BINARY))
    np.testing.assert_allclose(vector, [1.0, 1.0, 1.0, 0.0, 1.0, 0.85, -0.15], atol=1e-6)
    assert vector.shape == (MOMENTS,) == (7,)


def test_exact_scaler_is_the_mean_and_the_deviation_of_the_clipped_records(cohort: Records, patients: Records) -> None:
    for records in (cohort, patients):
        mean, deviation, count = _numpy_scaler(records)
        scaler = reference.exact_scaler(records, BOUNDS, BINARY)
        np.testing.assert_allclose(scaler.centre, mean, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scaler.scale, deviation, rtol=1e-3)
        assert float(scaler.records) == pytest.approx(count, rel=1e-5)


def test_private_scaler_with_a_huge_dark_count_equals_the_exact_one(cohort: Records) -> None:
    exact = reference.exact_scaler(cohort, BOUNDS, BINARY)
    mechanism = _mechanism(2e7)
    noise = math.sqrt(mechanism.variance(len(SIZES))) / sum(SIZES)  # of a mean in [-1, 1]
    assert 6 * noise < 0.02
    private = _scaler(cohort, mechanism)
    half_range = (BOUNDS[:, 1] - BOUNDS[:, 0]) / 2
    np.testing.assert_allclose(private.centre, exact.centre, atol=12 * noise * half_range.max())
    np.testing.assert_allclose(private.scale, exact.scale, rtol=0.08)
    assert float(private.records) == pytest.approx(sum(SIZES), abs=6 * noise * sum(SIZES))
    assert np.any(np.asarray(private.centre) != np.asarray(exact.centre))  # it is a noisy one


@pytest.mark.parametrize("largest_unit", [1, 6])
def test_without_noise_the_release_gives_the_exact_scaler(
    cohort: Records, patients: Records, largest_unit: int
) -> None:
    records = cohort if largest_unit == 1 else patients
    exact = reference.exact_scaler(records, BOUNDS, BINARY)
    private = _scaler(records, helpers.noise_free(_mechanism(400.0)), largest_unit)
    for one, other in zip(jax.tree.leaves(private), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


def test_one_compilation_for_all_trials_of_a_mechanism(cohort: Records) -> None:
    traced, mechanism = [], helpers.noise_free(_mechanism(400.0))

    def clip(update: jax.Array) -> jax.Array:
        traced.append(1)
        return mechanism.clip(update)

    counting = mechanism._replace(clip=clip)
    _scaler(cohort, counting)
    first = len(traced)
    _scaler(cohort, counting)
    assert first >= 1 and len(traced) == first


def test_a_patient_weighs_one_however_many_records(cohort: Records, patients: Records) -> None:
    per_record = reference.exact_scaler(cohort, BOUNDS, BINARY)
    per_patient = reference.exact_scaler(patients, BOUNDS, BINARY)
    assert float(per_patient.records) == pytest.approx(sum(SIZES) - 5 * len(SIZES))
    # The old patients' many records weigh less, so the mean age falls: the two laws cannot be confused.
    assert float(per_patient.centre[0]) < float(per_record.centre[0]) - 1


def test_binary_features_get_their_share_and_its_deviation(cohort: Records) -> None:
    scaler = reference.exact_scaler(cohort, BOUNDS, BINARY)
    mask = np.asarray(cohort.mask)
    share = np.asarray(cohort.features)[mask][:, [1, 3]].astype(np.float64)
    fraction = (share - [0.0, 2.0]) / [1.0, 2.0]
    p = fraction.mean(axis=0)
    np.testing.assert_allclose(np.asarray(scaler.centre)[[1, 3]], [p[0], 2 + 2 * p[1]], rtol=1e-5)
    np.testing.assert_allclose(np.asarray(scaler.scale)[[1, 3]], np.sqrt(p * (1 - p)) * [1.0, 2.0], rtol=1e-4)


@given(total=hnp.arrays(np.float32, MOMENTS, elements=st.floats(-1e6, 1e6, width=32)))
def test_no_noise_makes_a_scale_zero_negative_or_infinite(total: np.ndarray) -> None:
    scaler = standardize.scaler_from_moments(jnp.asarray(total), jnp.asarray(BOUNDS), BINARY)
    span = np.where(BINARY, BOUNDS[:, 1] - BOUNDS[:, 0], (BOUNDS[:, 1] - BOUNDS[:, 0]) / 2)
    scale, centre = np.asarray(scaler.scale), np.asarray(scaler.centre)
    assert np.all(scale >= 0.0499 * span) and np.all(scale <= 1.001 * span)
    assert np.all(centre >= BOUNDS[:, 0] - 1e-3) and np.all(centre <= BOUNDS[:, 1] + 1e-3)
    assert float(scaler.records) >= 1


def test_a_constant_feature_is_not_blown_up(cohort: Records) -> None:
    flat = cohort._replace(features=cohort.features.at[..., 0].set(jnp.float32(50.0)))
    scaler = reference.exact_scaler(flat, BOUNDS, BINARY)
    assert float(scaler.scale[0]) == pytest.approx(0.05 * 35.0, rel=1e-5)


def test_standardised_records_have_mean_zero_deviation_one_and_no_leverage(cohort: Records) -> None:
    scaler = reference.exact_scaler(cohort, BOUNDS, BINARY)
    z = np.asarray(standardize.standardize(scaler, cohort.features))[np.asarray(cohort.mask)]
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.05)
    wild = jnp.asarray([1e9, -1e9, 1e9, -1e9], jnp.float32)
    far = np.asarray(standardize.standardize(scaler, wild))
    assert np.abs(far).max() <= 3.0 and np.all(np.isfinite(far))
    # A value outside its public range counts as the nearest value inside it.
    np.testing.assert_array_equal(far, standardize.standardize(scaler, jnp.clip(wild, *jnp.asarray(BOUNDS).T)))


def test_the_blank_scaler_has_the_shapes_of_a_real_one(cohort: Records) -> None:
    real, blank = reference.exact_scaler(cohort, BOUNDS, BINARY), standardize.blank_scaler(4)
    leaves = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(each)] for each in (real, blank)]
    assert leaves[0] == leaves[1] and len(leaves[0]) == 5


@pytest.mark.parametrize("by_site", [False, True])
def test_a_label_that_is_a_number_is_one_more_column_of_the_same_sum(cohort: Records, by_site: bool) -> None:
    mask = np.asarray(cohort.mask)
    labels = np.where(mask, np.asarray(cohort.features)[..., 0] / 2 + 7, 0).astype(np.float32)
    numbers, bounds = cohort._replace(labels=jnp.asarray(labels)), (0.0, 80.0)
    size = standardize.moment_dimension(BINARY, bounds)
    assert size == MOMENTS + 2
    mechanism = helpers.noise_free(
        _mechanism(400.0)
    )  # its clip is that of `MOMENTS` entries; here two more are below 1
    length = size * (len(SIZES) if by_site else 1)
    found, _ = standardize.private_scaler(
        numbers,
        BOUNDS,
        BINARY,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(mechanism, len(SIZES), length),
        stream=helpers.seeded(0),
        by_site=by_site,
        label_bounds=bounds,
    )
    exact = reference.exact_scaler(numbers, BOUNDS, BINARY, by_site=by_site, label_bounds=bounds)
    assert found.target is not None and exact.target is not None
    np.testing.assert_allclose(exact.target, [labels[mask].mean(), labels[mask].std()], rtol=1e-3)
    np.testing.assert_allclose(found.target, exact.target, rtol=2e-3)
    assert found.centre.shape == exact.centre.shape == ((3, 1, 4) if by_site else (4,)) and found.lower.shape == (4,)
    plain = reference.exact_scaler(cohort, BOUNDS, BINARY, by_site=by_site)
    np.testing.assert_allclose(exact.centre, plain.centre, rtol=1e-6)
    own = np.asarray(standardize.standardize_labels(exact, numbers.labels))[mask]
    assert abs(own.mean()) < 1e-3 and own.std() == pytest.approx(1, abs=1e-2)
    np.testing.assert_allclose(standardize.in_units(exact, own, bounds), labels[mask], rtol=1e-4)
    assert standardize.in_units(exact, np.array([1e3, -1e3]), bounds).tolist() == [80.0, 0.0]
    real, blank = found, standardize.blank_scaler(4, len(SIZES) if by_site else None, regression=True)
    assert jax.tree.structure(real) == jax.tree.structure(blank)
    assert [a.shape for a in jax.tree.leaves(real)] == [b.shape for b in jax.tree.leaves(blank)]
