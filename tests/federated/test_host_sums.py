"""Sums on the host are those of the program, and a unit's part of them depends on no other unit."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import models
from fedjax_poisson.federated import Records, fedsgd, host_sums, standardize
from fedjax_poisson.federated.algorithm import dimension_of
from fedjax_poisson.federated.records import sampled_sums, units_of
from fedjax_poisson.mechanisms import Mechanism, host_clip, poisson_embedding
from fedjax_poisson.mechanisms.poisson import in_portions
from fedjax_poisson.mechanisms.types import WithNumbers
from fedjax_poisson.models import Model
from tests.federated import helpers

# The package exports functions of these names.
algorithm = importlib.import_module("fedjax_poisson.federated.algorithm")
private_sum = importlib.import_module("fedjax_poisson.federated.private_sum")

SIZES, FEATURES = (14, 6, 9), 5
COHORT = helpers.cohort(SIZES, FEATURES)
MECHANISM = helpers.mechanism()
BOUNDS = np.array([[-2.0, 2.0], [-1.0, 3.0], [0.0, 1.0], [-4.0, 4.0], [-2.0, 1.0]], np.float32)
BINARY = np.array([False, False, True, False, False])


def of_patients(cohort: Records, largest: int) -> Records:
    """The same records, up to so many in a row one patient's."""
    unit = np.asarray(cohort.unit)
    return cohort._replace(unit=jnp.asarray(np.where(unit < 0, unit, unit // largest)))


def by_program(mechanism: Mechanism) -> Mechanism:
    """The same mechanism, whose clip and draws are programs."""

    def program(function: Any) -> Any:
        return dataclasses.replace(function, on_host=None) if isinstance(function, WithNumbers) else function

    portions = mechanism.portions
    if portions is not None:
        of_portions = portions.mechanism
        portions = portions._replace(mechanism=lambda used: by_program(of_portions(used)))
    return mechanism._replace(clip=program(mechanism.clip), embed=program(mechanism.embed), portions=portions)


@pytest.mark.parametrize("largest", [1, 4])
def test_sums_are_those_of_the_program(largest: int) -> None:
    """Of contributions that are exact in every order of arithmetic: what differs could be the clip and the sums only."""
    cohort = of_patients(COHORT, largest)
    units = units_of(np.asarray(cohort.unit))
    sites, room = cohort.labels.shape
    assert host_sums.is_summed_on_host(MECHANISM, sites * room, FEATURES)
    x = np.round(np.asarray(cohort.features) * 64) / 64 * np.float32(3)
    order = host_sums.in_order(units, sites * room)
    found = host_sums.sums_of_sites(MECHANISM.clip, x.reshape(-1, FEATURES)[order.place], order, units, sites)
    wanted = sampled_sums(
        lambda row, label: row,
        MECHANISM.clip,
        jnp.asarray(x),
        cohort.labels,
        units,
        jnp.ones((sites, room), bool),
        slots=sum(SIZES),
        chunk=16,
    )
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(found).max() > 0


def test_sites_without_records_have_sums_of_zero() -> None:
    unit = np.full((4, 3), -1, np.int32)
    unit[1], unit[3, 0] = [0, 1, 2], 0
    units = units_of(unit)
    order = host_sums.in_order(units, 12)
    rows = np.full((4, 2), 0.25, np.float32)
    found = host_sums.sums_of_sites(MECHANISM.clip, rows, order, units, 4)
    assert (found == np.array([0, 3, 0, 1])[:, None] * found[3]).all() and (found[3] > 0).all()


def _moments(mechanism: Mechanism, cohort: Records, largest: int) -> Any:
    return standardize._summed_moments(mechanism, cohort, BOUNDS, BINARY, largest)


def _for_moments(**options: float) -> Mechanism:
    width = standardize.moment_dimension(BINARY)
    bounds = dict(clip_norm=width**0.5, coordinate_bound=1.0, total_bound=64.0) | options
    return poisson_embedding(dark_count=4e3, modulation=0.1, **bounds)


@pytest.mark.parametrize(("numbers", "largest"), [(1, 1), (4, 4), (4, 1)])
def test_moments_are_those_of_the_program(numbers: int, largest: int) -> None:
    """A float's last digit may round to another step of the grid, once a record; a mean too many or too few would move them by hundreds of thousands.

    The last: records that are units of their own, whatever their numbers.
    """
    cohort = of_patients(COHORT, numbers)
    mechanism = _for_moments()
    found, wanted = (_moments(each, cohort, largest) for each in (mechanism, by_program(mechanism)))
    assert isinstance(found, np.ndarray) and isinstance(wanted, jax.Array)
    assert np.abs(found - np.asarray(wanted)).max() <= max(SIZES)
    units = len(units_of(np.asarray(cohort.unit), "record" if largest == 1 else "patient").coin)
    assert found[:, 0].sum() * 64.0 / 2**20 == pytest.approx(units)


@pytest.mark.parametrize("number", [0, 1])
def test_one_record_moves_the_moments_by_no_more_than_its_clip(number: int) -> None:
    """As a record, whether or not its number is another's; the twin, in which the two are taken for one patient, passes the bound."""
    width, binary = 20, np.zeros(20, bool)
    bounds = np.tile(np.array([-1.0, 1.0], np.float32), (width, 1))
    mechanism = poisson_embedding(clip_norm=1.5, coordinate_bound=1.0, dark_count=4e3, modulation=0.1, total_bound=16.0)
    x = np.stack([np.ones(width), np.full(width, -0.3)]).astype(np.float32)[None]

    def moved(largest: int) -> float:
        both, one = (
            standardize._summed_moments(
                mechanism,
                Records(jnp.asarray(x), jnp.zeros((1, 2)), jnp.ones((1, 2), bool), jnp.asarray([unit], jnp.int32)),
                bounds,
                binary,
                largest,
            )
            for unit in ([0, number], [-1, number])
        )
        return float(np.linalg.norm((both - one).astype(np.float64)) * helpers.step_of(mechanism))

    assert 0.9 * 1.5 < moved(1) <= 1.5
    if number == 0:
        assert moved(2) > 1.5


@pytest.mark.parametrize("claim", [1, 2])
def test_numbers_beyond_a_sites_places_are_refused_of_patients_and_mean_nothing_of_records(claim: int) -> None:
    """A patient's number of that size would be the next site's; on the host and in the program."""
    cohort = COHORT._replace(unit=COHORT.unit.at[0, 0].set(COHORT.unit.shape[1]))
    for mechanism in (_for_moments(), by_program(_for_moments())):
        if claim == 1:
            np.testing.assert_array_equal(_moments(mechanism, cohort, 1)[:, 0], _moments(mechanism, COHORT, 1)[:, 0])
        else:
            with pytest.raises(ValueError, match="number each site's units from 0 on"):
                _moments(mechanism, cohort, claim)


def test_numbers_that_overflow_are_zeros_and_say_nothing() -> None:
    """Whether a record was out of range must not be seen: no warning, which some turn into errors."""
    cohort = of_patients(COHORT, 4)
    units = units_of(np.asarray(cohort.unit))
    order = host_sums.in_order(units, cohort.labels.size)
    rows = np.full((len(order.place), 3), 0.01, np.float32)
    rows[:2], rows[4], rows[5] = 3e38, np.inf, -np.inf
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        found = host_sums.sums_of_sites(MECHANISM.clip, rows, order, units, len(SIZES))
        whole = np.full((1, 5), 3e38, np.float32)
        standardize.moments_of_rows(whole, np.array([[-3e38, 3e38]] * 5, np.float32), BINARY)
    rows[:8] = 0
    np.testing.assert_array_equal(found, host_sums.sums_of_sites(MECHANISM.clip, rows, order, units, len(SIZES)))


def _algorithm(
    mechanism: Mechanism, model: Model, features: Any, senders: int, unit: str = "record", rate: float = 1.0
) -> Any:
    return fedsgd(
        model,
        features=features,
        records=30.0,
        sampling_rate=rate,
        mechanism=mechanism,
        aggregator=helpers.plain_aggregator(mechanism, senders, dimension_of(model, features)),
        server_optimizer=optax.sgd(0.5),
        senders=senders,
        honest_senders=1,
        unit=unit,
    )


@pytest.mark.parametrize("unit", ["record", "patient"])
@pytest.mark.parametrize("portions", [None, 4])
def test_a_run_learns_what_it_learns_by_programs(
    unit: str, portions: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = of_patients(COHORT, 3) if unit == "patient" else COHORT
    dark_count = 4e3 if portions is None else in_portions(4e3, portions)
    mechanism = poisson_embedding(
        clip_norm=1.0,
        coordinate_bound=0.5,
        dark_count=dark_count,
        modulation=0.1,
        total_bound=16.0,
        portions=portions,
    )
    drawn: list[Any] = []
    inside = private_sum._embed_all
    monkeypatch.setattr(private_sum, "_embed_all", lambda *given: drawn.append(inside(*given)) or drawn[-1])
    learned = []
    for each in (mechanism, by_program(mechanism)):
        made = _algorithm(each, models.logistic(), (FEATURES,), len(SIZES), unit)
        state = made.init(jax.random.key(0))
        for _ in range(3):
            state, _ = made.apply(state, cohort, helpers.seeded(9), lambda: None)
        learned.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)]))
    assert [isinstance(each, np.ndarray) for each in drawn] == [True] * 3 + [False] * 3
    np.testing.assert_allclose(learned[0], learned[1], atol=1e-5)
    assert np.abs(learned[0]).max() > 0.01


def test_the_same_grids_have_the_same_counts_either_way() -> None:
    rng = np.random.default_rng(0)
    grids = rng.integers(-(2**21), 2**21, (3, 20), dtype=np.int32)
    for portions in (None, 1, 6):
        mechanism = poisson_embedding(
            clip_norm=1.0,
            coordinate_bound=0.5,
            dark_count=4e3 if portions is None else in_portions(4e3, portions),
            modulation=0.1,
            total_bound=16.0,
            portions=portions,
        )
        stream = helpers.seeded(4)
        here = private_sum._embed_all(mechanism, grids, stream)
        there = private_sum._embed_all(by_program(mechanism), jnp.asarray(grids), stream)
        assert isinstance(here, np.ndarray) and isinstance(there, jax.Array)
        np.testing.assert_array_equal(here, there)


class _Seen(Exception):
    pass


def _grids_of(made: Any, cohort: Records, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a round would embed."""
    found: list[Any] = []

    def look(mechanism: Any, aggregator: Any, grids: Any, *others: Any, **more: Any) -> None:
        found.append(grids)
        raise _Seen

    with monkeypatch.context() as patch, pytest.raises(_Seen):
        patch.setattr(algorithm, "private_sum", look)
        made.apply(made.init(jax.random.key(1)), cohort, helpers.seeded(1))
    return found[0]


def test_a_sample_is_drawn_and_summed_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host everybody takes part; a secret sample that did not happen would be charged as one."""
    whole, part = (
        _grids_of(_algorithm(MECHANISM, models.logistic(), (FEATURES,), len(SIZES), rate=rate), COHORT, monkeypatch)
        for rate in (1.0, 0.5)
    )
    assert isinstance(whole, np.ndarray) and isinstance(part, jax.Array)
    assert (whole != np.asarray(part)).any()


@pytest.mark.parametrize(
    ("model", "shape", "classes", "count"),
    [
        (models.logistic(), (13,), 2, 42),
        (models.linear(3), (65,), 3, 42),
        (models.mlp((8, 4)), (13,), 2, 42),
        (models.cnn(2, widths=(2, 2), dense=4, binary=True), (8, 8, 1), 2, 17),
        (models.cnn(2, widths=(2, 2), dense=4, binary=True), (8, 8, 1), 2, 35),
    ],
    ids=["logistic", "linear", "mlp", "cnn", "cnn of more"],
)
@pytest.mark.parametrize("largest", [1, 3])
def test_the_bits_of_a_unit_do_not_depend_on_the_others(
    model: Model, shape: tuple[int, ...], classes: int, count: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving a unit out changes the sum by the unit's own part and by nothing else: no other gradient is rounded in another way for it."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, classes, (1, count))
    labels = labels.astype(np.float32 if classes == 2 else np.int32)
    unit = (np.arange(count) // largest)[None].astype(np.int32)
    cohort = Records(
        jnp.asarray(rng.normal(size=(1, count, *shape)), jnp.float32),
        jnp.asarray(labels),
        jnp.ones((1, count), bool),
        jnp.asarray(unit),
    )
    made = _algorithm(MECHANISM, model, shape, 1, "patient")
    rows: list[dict[int, bytes]] = []
    add = host_sums.sums_of_sites

    def noted(clip: Any, contributions: np.ndarray, records: Any, *others: Any) -> np.ndarray:
        rows.append({place: row.tobytes() for place, row in zip(records.place.tolist(), contributions, strict=True)})
        return add(clip, contributions, records, *others)

    monkeypatch.setattr(algorithm, "sums_of_sites", noted)

    def of(who: np.ndarray) -> np.ndarray:
        kept = np.where(np.isin(unit, who), unit, -1)
        grids = _grids_of(made, cohort._replace(unit=jnp.asarray(kept)), monkeypatch)
        assert isinstance(grids, np.ndarray)
        return grids

    everybody = np.arange(unit.max() + 1)
    whole = of(everybody)
    for one in everybody[::5]:
        np.testing.assert_array_equal(whole - of(np.delete(everybody, one)), of(np.array([one])))
    for some in rows[1:]:
        assert all(rows[0][place] == bits for place, bits in some.items())


def test_places_decide_and_whether_the_mechanism_can() -> None:
    """Not how many records there are: one unit more would change how all others are computed."""
    places = 30
    most = host_clip.MOST_VALUES // places
    assert host_sums.is_summed_on_host(MECHANISM, places, most)
    assert not host_sums.is_summed_on_host(MECHANISM, places, most + 1)
    assert not host_sums.is_summed_on_host(by_program(MECHANISM), places, 3)
    assert not host_sums.is_summed_on_host(MECHANISM, 0, 3)
