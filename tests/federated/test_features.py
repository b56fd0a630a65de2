"""Records whose features are a dict of arrays: the same bits as the same numbers in one array, through a model that splits it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import fedjax_poisson as fp
from fedjax_poisson.federated import Records, checks, features, standardize
from fedjax_poisson.federated.records import gradient_contribution, summed_contributions
from fedjax_poisson.models import with_loss

SITES, ROWS, SIDE = 3, 12, 4
PIXELS = SIDE * SIDE
SHAPES = {"age": (1,), "image": (SIDE, SIDE, 1)}


def _numbers(sites: int = SITES) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    flat = rng.normal(size=(sites, ROWS, 1 + PIXELS)).astype(np.float32)
    return flat, (flat[..., 0] + flat[..., 1] > 0).astype(np.float32)


def split(x: Any) -> dict[str, Any]:
    return {"age": x[..., :1], "image": x[..., 1:].reshape(*x.shape[:-1], SIDE, SIDE, 1)}


def _init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
    del x
    one, two = jax.random.split(key)
    return {"age": jax.random.normal(one, (1, 3)), "image": jax.random.normal(two, (PIXELS, 3)), "out": jnp.ones(3)}


def _on_dict(params: Any, x: dict[str, jax.Array]) -> jax.Array:
    pixels = x["image"].reshape(x["image"].shape[0], PIXELS)
    return jnp.tanh(x["age"] @ params["age"] + pixels @ params["image"]) @ params["out"]


ON_DICT = with_loss(_init, _on_dict, loss="binary")
ON_FLAT = with_loss(_init, lambda params, x: _on_dict(params, split(x)), loss="binary")


def _records(x: Any, y: np.ndarray, unit: np.ndarray | None = None) -> Records:
    mask = np.ones(y.shape, bool)
    mask[-1, ROWS - 4 :] = False
    numbers = np.tile(np.arange(ROWS, dtype=np.int32), (SITES, 1)) if unit is None else unit
    return Records(
        jax.tree.map(jnp.asarray, x), jnp.asarray(y), jnp.asarray(mask), jnp.asarray(np.where(mask, numbers, -1))
    )


MECHANISM = fp.gaussian(clip_norm=1.0, noise_std=0.3, coordinate_bound=0.5, total_bound=6.0)  # compiles in no time


def _same(one: Any, other: Any) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def stream() -> fp.randomness.Stream:
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        return fp.randomness.stream(3)


@pytest.mark.as_shipped
@pytest.mark.parametrize(("unit", "rate"), [("record", 1.0), ("patient", 1.0)])
def test_fedsgd_and_fit_give_the_bits_of_one_array(stream, unit: str, rate: float) -> None:
    flat, y = _numbers()
    whose = np.tile(np.arange(ROWS, dtype=np.int32) // (2 if unit == "patient" else 1), (SITES, 1))
    mechanism, found = MECHANISM, []
    for model, x, shape in ((ON_FLAT, flat, 1 + PIXELS), (ON_DICT, split(flat), SHAPES)):
        algorithm = fp.fedsgd(
            model,
            features=shape,
            records=30.0,
            sampling_rate=rate,
            mechanism=mechanism,
            aggregator=fp.aggregator("plain", count_bound=1, senders=SITES),
            server_optimizer=optax.sgd(0.5),
            senders=SITES,
            unit=unit,
            largest_unit=2 if unit == "patient" else 1,
            chunk=16,
        )
        cohort = _records(x, y, whose)
        score = fp.evaluator(model, cohort)
        result = fp.fit(algorithm, cohort, rounds=2, stream=stream, evaluate=score, progress=False)
        found.append((result.params, [row["brier"] if "brier" in row else row["accuracy"] for row in result.history]))
    _same(*(params for params, _ in found))
    assert found[0][1] == found[1][1]


@pytest.mark.as_shipped
def test_fedavg_gives_the_bits_of_one_array_in_streamed_blocks(stream) -> None:
    flat, y = _numbers(6)
    mechanism, found = fp.gaussian(clip_norm=1.0, noise_std=0.3), []
    for model, x in ((ON_FLAT, flat), (ON_DICT, split(flat))):
        clients = fp.federated.make_population(x, y, on_device=False)
        algorithm = fp.fedavg(
            model,
            client=fp.local_sgd(0.1, batch_size=5),
            population=clients,
            senders=6,
            mechanism=mechanism,
            server_optimizer=optax.sgd(1.0),
            layout=fp.federated.Chunking(chunk=2),
        )
        cohort = fp.federated.cohort_blocks(clients, np.arange(6), 4)
        state, info = algorithm.apply(algorithm.init(jax.random.key(0)), cohort, stream)
        assert info.sum.senders == 6 and info.sum.embed_seconds is None
        found.append(state.server.params)
    _same(*found)


def test_clients_of_different_lengths_are_padded_leaf_by_leaf() -> None:
    flat, y = _numbers(2)
    sizes = (ROWS, 5)
    one = fp.federated.make_population(
        [flat[i, :n] for i, n in enumerate(sizes)], [y[i, :n] for i, n in enumerate(sizes)]
    )
    many = fp.federated.make_population(
        [split(flat[i, :n]) | {"code": np.arange(n, dtype=np.int64)} for i, n in enumerate(sizes)],
        [y[i, :n] for i, n in enumerate(sizes)],
    )
    assert many.counts.tolist() == [ROWS, 5]
    codes = many.host.x.pop("code")
    assert codes.dtype == np.int32 and codes[1].tolist() == [0, 1, 2, 3, 4] + [0] * (ROWS - 5)
    _same(many.host.x, split(one.host.x))
    with pytest.raises(ValueError, match="same axis of records"):
        fp.federated.make_population([{"age": flat[0, :3, :1], "image": flat[0, :4]}], [y[0, :3]])


@pytest.mark.as_shipped
def test_a_site_by_itself_takes_dicts_in_chunks() -> None:
    flat, y = _numbers()
    params, sums = _init(jax.random.key(1), None), []
    keep, unit = jnp.ones(ROWS, bool), jnp.arange(ROWS, dtype=jnp.int32)
    for model, x in ((ON_FLAT, jnp.asarray(flat)), (ON_DICT, split(jnp.asarray(flat)))):
        own, rows = gradient_contribution(model.loss, params), features.take(x, 0)
        site = functools.partial(summed_contributions, own, MECHANISM.clip, largest_unit=1, chunk=6)
        sums.append(jax.jit(site)(rows, jnp.asarray(y[0]), unit, keep))
    _same(*sums)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        pixels = nn.Dense(3)(x["image"].reshape(x["image"].shape[0], -1))
        return nn.Dense(1)(nn.tanh(pixels + nn.Embed(4, 3)(x["code"])))


def test_flax_modules_and_integers_beside_floats(stream) -> None:
    flat, y = _numbers()
    model = fp.models.from_flax(Net(), "binary")
    x = {"image": split(flat)["image"], "code": (np.abs(flat[..., 0]) > 1).astype(np.int32)}
    shape = {"image": SHAPES["image"], "code": jax.ShapeDtypeStruct((), jnp.int32)}
    size = fp.federated.dimension_of(model, shape)
    assert size == PIXELS * 3 + 3 + 4 * 3 + 3 + 1
    mechanism = MECHANISM
    algorithm = fp.fedsgd(
        model,
        features=shape,
        records=30.0,
        sampling_rate=1.0,
        mechanism=mechanism,
        aggregator=fp.aggregator("plain", count_bound=1, senders=SITES),
        server_optimizer=optax.sgd(1.0),
        senders=SITES,
    )
    result = fp.fit(algorithm, _records(x, y), rounds=1, stream=stream, progress=False)
    before = algorithm.init(jax.random.key(0)).params
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), result.params, before)
    assert min(jax.tree.leaves(moved)) > 0
    scores = fp.evaluator(model, (features.flatten_leading(x), y.reshape(-1)))(result.params)
    assert 0 <= scores["accuracy"] <= 1


def test_what_does_not_fit_is_named() -> None:
    flat, y = _numbers()
    mechanism = MECHANISM
    algorithm = fp.fedsgd(
        ON_DICT,
        features=SHAPES,
        records=30.0,
        sampling_rate=1.0,
        mechanism=mechanism,
        server_optimizer=optax.sgd(1.0),
        senders=SITES,
        aggregator=fp.aggregator("plain", count_bound=1, senders=SITES),
    )
    state = algorithm.init(jax.random.key(0))
    with pytest.warns(fp.randomness.ReproducibleStreamWarning):
        seeded = fp.randomness.stream(1)
    with pytest.raises(ValueError, match=r"has shape \(17,\); the algorithm was made for \['age'\] \(1,\)"):
        algorithm.apply(state, _records(flat, y), seeded)
    with pytest.raises(ValueError, match="same 2 axes"):
        algorithm.apply(state, _records(split(flat), y)._replace(features={"age": flat[:2], "image": flat}), seeded)
    with pytest.raises(TypeError, match="one float array"):
        standardize.standardize(standardize.blank_scaler(3), split(flat))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give F, a shape"):
        features.record_spec({"age": "one"})
    with pytest.raises(ValueError, match=r"\[clients, records\]"):
        fp.federated.make_population({"age": flat[:2, :, :1], "image": flat}, y)
    checks.check_loss(ON_DICT, features.record_spec(SHAPES))
