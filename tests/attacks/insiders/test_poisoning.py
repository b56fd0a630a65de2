"""Poisoned records: what is changed, that honest software clips what follows, and that with the clip switched off one client does much more."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.attacks.insiders import poisoning
from fedjax_poisson.federated.client import Examples
from tests.attacks.insiders.helpers import NOISE, ROOT, SIZE, X, Y, sent, updates

ROWS = Examples(jnp.asarray(X[0]), jnp.asarray(Y[0]), jnp.ones(8, bool))


def test_labels_are_flipped_for_two_and_for_many_classes():
    found = poisoning.label_flip(2).poison(ROWS, ROOT)
    np.testing.assert_array_equal(found.y, 1 - Y[0])
    many = poisoning.label_flip(10).poison(ROWS._replace(y=jnp.arange(8, dtype=jnp.int32)), ROOT)
    assert many.y.tolist() == [9, 8, 7, 6, 5, 4, 3, 2] and many.y.dtype == jnp.int32


@pytest.mark.parametrize(("share", "rows"), [(0.5, 4), (0.25, 2), (1.0, 8)])
def test_a_rare_value_and_its_label_stand_in_the_stated_share_of_rows(share, rows):
    found = poisoning.backdoor_rare_value(2, 4.5, 1, share).poison(ROWS, ROOT)
    changed = np.flatnonzero(np.asarray(found.x)[:, 2] == 4.5)
    assert len(changed) == rows and (np.asarray(found.y)[changed] == 1).all()
    kept = np.setdiff1d(np.arange(8), changed)
    np.testing.assert_array_equal(np.asarray(found.x)[kept], X[0][kept])
    np.testing.assert_array_equal(np.asarray(found.x)[:, [0, 1, 3]], X[0][:, [0, 1, 3]])


def test_a_patch_is_stamped_into_the_corner():
    images = Examples(jnp.zeros((4, 6, 5, 1), jnp.float32), jnp.zeros(4, jnp.int32))
    found = poisoning.backdoor_patch(2, 7, 0.5).poison(images, ROOT)
    stamped = np.asarray(found.x).reshape(4, -1).any(axis=1)
    assert (
        stamped.sum() == 2 and (np.asarray(found.y)[stamped] == 7).all() and (np.asarray(found.y)[~stamped] == 0).all()
    )
    one = np.asarray(found.x)[stamped][0, :, :, 0]
    assert (one[-2:, -2:] == 3).all() and one.sum() == 12


def test_a_wrong_unit_multiplies_one_column():
    found = np.asarray(poisoning.wrong_units(1, 18.0).poison(ROWS, ROOT).x)
    np.testing.assert_allclose(found[:, 1], 18 * X[0][:, 1])
    np.testing.assert_array_equal(found[:, [0, 2, 3]], X[0][:, [0, 2, 3]])


@pytest.mark.parametrize("attack", [poisoning.label_flip(2), poisoning.wrong_units(1, 18.0)])
def test_the_clip_bounds_what_poisoned_records_move_and_without_it_they_move_more(attack):
    found, honest = sent(attack), sent(None)
    noise = 8 * NOISE * SIZE**0.5
    assert np.linalg.norm(found[0]) <= 0.3 + noise and np.linalg.norm(found[0] - honest[0]) > 2 * noise
    poisoned = attack.poison(ROWS._replace(mask=None), ROOT)
    unclipped = np.asarray(_update(poisoned))  # the twin: nobody clips
    assert np.linalg.norm(unclipped) > 0.3 + noise and np.linalg.norm(updates()[0]) > 0.3


def _update(examples):
    from fedjax_poisson import models
    from fedjax_poisson.federated.client import run_client
    from tests.attacks.insiders.helpers import CLIENT, start

    return run_client(CLIENT(models.logistic()), start(), (), (), examples, ROOT)[0]


def test_a_record_that_is_no_number_ends_at_its_client_and_without_isolation_ends_the_training():
    found = sent(poisoning.not_a_number())
    assert np.isfinite(found).all() and np.linalg.norm(found[0]) < 8 * NOISE * SIZE**0.5  # the embedding of zero
    alone = np.asarray(_update(poisoning.not_a_number().poison(ROWS._replace(mask=None), ROOT)))
    assert np.isnan(np.mean([alone, updates()[1]], axis=0)).all()  # the twin: a plain mean
