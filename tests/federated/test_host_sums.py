"""Sums on the host are those of the program, and a unit's part of them depends on no other unit."""

from __future__ import annotations

import dataclasses
import importlib
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
    assert host_sums.is_summed_on_host(MECHANISM, units, FEATURES)
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


@pytest.mark.parametrize("largest", [1, 4])
def test_moments_are_those_of_the_program(largest: int) -> None:
    """A float's last digit may round to another step of the grid, once a record; a mean that is not taken would move them by hundreds of thousands."""
    cohort = of_patients(COHORT, largest)
    width = standardize.moment_dimension(BINARY)
    mechanism = poisson_embedding(
        clip_norm=width**0.5, coordinate_bound=1.0, dark_count=4e3, modulation=0.1, total_bound=64.0
    )
    found = standardize._summed_moments(mechanism, cohort, BOUNDS, BINARY, largest)
    wanted = standardize._summed_moments(by_program(mechanism), cohort, BOUNDS, BINARY, largest)
    assert isinstance(found, np.ndarray) and isinstance(wanted, jax.Array)
    assert np.abs(found - np.asarray(wanted)).max() <= max(SIZES)


def _algorithm(mechanism: Mechanism, model: Model, features: Any, senders: int, unit: str = "record") -> Any:
    return fedsgd(
        model,
        features=features,
        records=30.0,
        sampling_rate=1.0,
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


@pytest.mark.parametrize(
    ("model", "shape", "classes", "count"),
    [
        (models.logistic(), (13,), 2, 42),
        (models.linear(3), (65,), 3, 42),
        (models.mlp((8, 4)), (13,), 2, 42),
        (models.cnn(2, widths=(2, 2), dense=4, binary=True), (8, 8, 1), 2, 35),
    ],
    ids=["logistic", "linear", "mlp", "cnn"],
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
    grids: list[np.ndarray] = []

    class Seen(Exception):
        pass

    def look(mechanism: Any, aggregator: Any, given: np.ndarray, *others: Any, **more: Any) -> None:
        assert isinstance(given, np.ndarray)
        grids.append(given)
        raise Seen

    monkeypatch.setattr(algorithm, "private_sum", look)
    made = _algorithm(MECHANISM, model, shape, 1, "patient")
    state = made.init(jax.random.key(1))

    def of(who: np.ndarray) -> np.ndarray:
        kept = np.isin(unit, who)
        with pytest.raises(Seen):
            made.apply(state, cohort._replace(unit=jnp.asarray(np.where(kept, unit, -1))), helpers.seeded(1))
        return grids[-1]

    everybody = np.arange(unit.max() + 1)
    whole = of(everybody)
    for one in everybody[::5]:
        np.testing.assert_array_equal(whole - of(np.delete(everybody, one)), of(np.array([one])))


def test_a_size_decides_and_whether_the_mechanism_can() -> None:
    units = units_of(np.asarray(COHORT.unit))
    most = host_clip.MOST_VALUES // sum(SIZES)
    assert host_sums.is_summed_on_host(MECHANISM, units, most)
    assert not host_sums.is_summed_on_host(MECHANISM, units, most + 1)
    assert not host_sums.is_summed_on_host(by_program(MECHANISM), units, 3)
    assert not host_sums.is_summed_on_host(MECHANISM, units_of(np.full((2, 3), -1, np.int32)), 3)
