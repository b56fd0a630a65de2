"""Shadow models: balanced memberships, confidences, and a trainer that is fedsgd without the encryption."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_poisson as fp
from fedjax_poisson.attacks import (
    AttackedTraining,
    balanced_memberships,
    confidences,
    private_trainer,
    train_shadows,
)
from fedjax_poisson.randomness import fold_in
from tests.federated.helpers import cohort, mechanism, noise_free, plain_aggregator, seeded


def test_confidences_of_extreme_losses_stay_finite():
    class Fake:
        @staticmethod
        def loss(params, x, y):
            return x[:, 0] * params

    x = jnp.asarray([[0.0], [1e-3], [0.6931472], [50.0], [500.0]], jnp.float32)
    got = confidences(Fake.loss and fp.models.Model(None, None, Fake.loss), jnp.ones(1), x, jnp.zeros(5))[0]
    assert np.isfinite(got).all() and (np.diff(got) < 0).all()
    assert got[2] == pytest.approx(0, abs=1e-6) and got[3] == pytest.approx(-50, rel=1e-6)
    assert got[1] == pytest.approx(np.log(np.exp(-1e-3) / (1 - np.exp(-1e-3))), rel=1e-4)


def test_the_private_trainer_is_fedsgd_without_the_encryption():
    """Without noise and at rate 1 both are arithmetic: the same parameters, for the members only."""
    exact, records = noise_free(mechanism()), cohort((6, 5), 3)
    member = np.array([True, False, True, True, False, True] * 2)
    model, optimizer = fp.models.logistic(), optax.sgd(0.5)
    trainer = private_trainer(
        AttackedTraining(model=model, mechanism=exact, rounds=2, records=10.0, server_optimizer=optimizer),
        records,
        stream=seeded(0),
    )
    got = train_shadows(trainer, member[None], jax.random.key(0))
    keep = jnp.asarray(member).reshape(2, 6) & records.mask
    half = records._replace(unit=jnp.where(keep, records.unit, jnp.int32(-1)), mask=keep)
    algorithm = fp.fedsgd(
        model,
        features=3,
        records=10.0,
        sampling_rate=1.0,
        mechanism=exact,
        aggregator=plain_aggregator(exact, 2, 4),
        server_optimizer=optimizer,
        senders=2,
    )
    state = algorithm.init(jax.random.key(0))
    for number in range(2):
        state, _ = algorithm.apply(state, half, fold_in(seeded(1), number))
    np.testing.assert_allclose(got["weight"][0], state.params["weight"], atol=1e-6)
    np.testing.assert_allclose(got["bias"][0], state.params["bias"], atol=1e-6)


def test_every_record_is_in_half_of_the_shadow_models():
    with pytest.raises(ValueError, match="even number"):
        balanced_memberships(5, 10, 0)
    assert (balanced_memberships(6, 10, 0).sum(axis=0) == 3).all()
