"""A wrong part is named when an algorithm is made or given its input: what was wrong, what was seen, what to do."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import aggregation, federated, models
from fedjax_poisson.mechanisms import gaussian, poisson_embedding
from tests.federated import helpers

FEATURES, SENDERS = 4, 3
SIZE = FEATURES + 1
RECORDS = helpers.mechanism()
CLIENTS = poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=50.0, modulation=0.05)
X = np.random.default_rng(0).normal(size=(SENDERS, 5, FEATURES)).astype(np.float32)
Y = (X[..., 0] > 0).astype(np.float32)
LOGISTIC = models.logistic()


def _plain(mechanism: Any = RECORDS, **more: Any) -> Any:
    settings = dict(count_bound=mechanism.count_bound(SENDERS, SIZE), senders=SENDERS, size=SIZE)
    return aggregation.aggregator("plain", **{**settings, **more})


def _tenseal() -> Any:
    return aggregation.aggregator("tenseal", count_bound=1000, senders=SENDERS)


def _fedsgd(model: Any = LOGISTIC, **more: Any) -> Any:
    settings: dict[str, Any] = dict(
        features=FEATURES, records=15.0, sampling_rate=1.0, mechanism=RECORDS, senders=SENDERS,
        server_optimizer=optax.sgd(0.1), aggregator=None,
    )  # fmt: skip
    settings.update(more)
    settings["aggregator"] = settings["aggregator"] or _plain()
    return federated.fedsgd(model, **settings)


def _fedavg(model: Any = LOGISTIC, y: Any = Y, **more: Any) -> Any:
    settings: dict[str, Any] = dict(
        client=federated.local_sgd(0.5), population=federated.make_population(X, y), senders=SENDERS,
        server_optimizer=optax.sgd(1.0), mechanism=CLIENTS,
    )  # fmt: skip
    return federated.fedavg(model, **{**settings, **more})


def _mean(params: Any, x: Any, y: Any) -> Any:
    return jnp.mean(LOGISTIC.loss(params, x, y))


def _apply(algorithm: Any, cohort: Any, stream: Any) -> Any:
    return algorithm.apply(algorithm.init(jax.random.key(0)), cohort, stream)


class _Net(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(1)(x)


THREE = np.tile(np.asarray([0, 1, 2, 1, 0]), (SENDERS, 1))
COHORT = helpers.cohort((5, 2, 4), FEATURES)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: _fedavg(y=THREE), ValueError, r"one 0/1 label and a label is 2.*several classes"),
        (lambda: _fedavg(y=-Y), ValueError, "a label is -1.0.*make the labels 0 and 1"),
        (lambda: _apply(_fedsgd(), COHORT._replace(labels=2 * COHORT.labels), helpers.seeded(0)), ValueError, "one 0/1 label and a label is 2.0"),
        (lambda: _fedsgd(_Net()), TypeError, r"_Net, which has no loss.*models\.from_flax\(module"),
        (lambda: _fedavg(_Net()), TypeError, r"_Net, which has no loss.*models\.from_flax\(module"),
        (lambda: _fedavg("logistic"), TypeError, r"model is a str.*models\.logistic\(\)"),
        (lambda: _fedavg(models.logistic), TypeError, r"function, which has no loss.*models\.logistic\(\)"),
        (lambda: _apply(_fedsgd(), COHORT, jax.random.key(0)), TypeError, r"a jax\.random key.*randomness\.stream\(\)"),
        (lambda: _apply(_fedavg(), [0, 1, 2], jax.random.PRNGKey(0)), TypeError, r"a jax\.random key.*randomness\.stream\(\)"),
        (lambda: _apply(_fedavg(), [0, 1, 2], 7), TypeError, r"stream is int.*randomness\.stream\(seed\)"),
        (lambda: _fedavg().apply_rounds(None, [[0, 1, 2]], jax.random.key(0)), TypeError, r"a jax\.random key"),
        (lambda: _fedavg(client=federated.local_sgd(0.5)(LOGISTIC)), TypeError, "already made.*client=lambda model"),
        (lambda: _fedavg(client=0.5), TypeError, r"client is 0\.5; give local_sgd"),
        (lambda: _fedavg(client=lambda model: model), TypeError, r"returned a Model; it must return a federated\.Client"),
        (lambda: _fedsgd(LOGISTIC._replace(loss=_mean)), ValueError, "one number for the whole batch.*leave the mean out"),
        (lambda: _fedavg(LOGISTIC._replace(loss=_mean)), ValueError, "one number for the whole batch.*leave the mean out"),
        (lambda: _fedsgd(aggregator=_plain(size=9)), ValueError, "5 parameters, the aggregator takes messages of 9.*size=5"),
        (lambda: _fedavg(aggregator=_plain(CLIENTS, size=9)), ValueError, "5 parameters, the aggregator takes messages of 9"),
        (lambda: _fedsgd(aggregator=_plain(count_bound=100)), ValueError, r"count_bound=100 is too small.*mechanism\.count_bound\(3, 5\) = \d+"),
        (lambda: _fedavg(aggregator=_plain(CLIENTS, count_bound=100)), ValueError, "count_bound=100 is too small"),
        (lambda: _fedsgd(aggregator=_plain(senders=2)), ValueError, "for 2 to 2 senders, the algorithm for 3 to 3"),
        (lambda: _fedsgd(mechanism=gaussian(clip_norm=1.0, noise_std=1.0), aggregator=_tenseal()), ValueError, "gaussian does not send integers"),
        (lambda: _fedavg(mechanism=gaussian(clip_norm=1.0, noise_std=1.0), aggregator=_plain(CLIENTS)), ValueError, "gaussian does not send integers"),
        *(
            (lambda make=make, rate=rate: make(rate), ValueError, f"learning_rate={rate} must be a positive finite")
            for make in (federated.local_sgd, federated.scaffold)
            for rate in (float("nan"), float("inf"), 0.0, -0.1)
        ),
        (lambda: federated.local_sgd("fast"), TypeError, "learning_rate='fast' must be a number"),
        (lambda: federated.local_sgd(0.1, momentum=1.0), ValueError, r"momentum=1\.0 must be in \[0, 1\)"),
        (lambda: federated.local_sgd(0.1, momentum=float("nan")), ValueError, "momentum=nan"),
        (lambda: federated.local_sgd(0.1, proximal=float("inf")), ValueError, "proximal=inf"),
    ],
)  # fmt: skip
def test_what_was_wrong_what_was_seen_and_what_to_do(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_what_the_messages_advise_works() -> None:
    module = _Net()
    wrapped = models.from_flax(module, "binary")
    algorithm = _fedavg(wrapped)
    state, _ = _apply(algorithm, [0, 1, 2], helpers.seeded(1))
    assert int(state.server.round) == 1
    several = models.linear(3)
    size = 3 * SIZE
    bound = RECORDS.count_bound(SENDERS, size)
    cohort = COHORT._replace(labels=jnp.asarray(THREE, jnp.int32))
    _apply(_fedsgd(several, aggregator=_plain(size=size, count_bound=bound)), cohort, helpers.seeded(1))
    work = federated.local_sgd(0.5)(LOGISTIC)
    _fedavg(client=lambda model: work)


def test_padding_may_hold_any_label() -> None:
    padded = COHORT._replace(labels=jnp.where(COHORT.mask, COHORT.labels, jnp.float32(-1)))
    assert float(padded.labels.min()) == -1
    _apply(_fedsgd(), padded, helpers.seeded(1))
