"""Every registered attack is described, can be made, runs in a round, and changes what its insider sends; names of one's own work."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.attacks.insiders import ATTACKS, InsiderAttack, Setting, attack
from tests.attacks.insiders.helpers import SIZE, X, sent

SETTING = Setting(
    senders=10,
    corrupt=2,
    clip_norm=0.3,
    goal=1,
    column=2,
    old_update=jnp.ones(SIZE),
    count_bound=5000,
    half_modulus=9000,
)
OF_IMAGES = ("backdoor_patch", "model_replacement_patch")
OWN = InsiderAttack("words", "source", "needs", "bounded", lambda setting: attack("sign_flip", setting))


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in OF_IMAGES])
def test_it_runs_and_changes_what_insiders_send(name):
    found = sent(attack(name, SETTING), (0, 1))
    honest = sent(None)
    np.testing.assert_array_equal(found[2:], honest[2:])
    assert not np.array_equal(found[0], honest[0])


def test_each_says_what_it_is():
    for name, entry in ATTACKS.items():
        assert all((entry.words, entry.source, entry.needs, entry.bounded)), name
        assert entry.targeted == (entry.trigger is not None), name
        made = entry.make(SETTING)
        assert made.name == name.removesuffix("_patch") or made.name == name


def test_triggers_are_what_the_backdoors_were_trained_on():
    triggered = np.asarray(ATTACKS["backdoor_rare_value"].trigger(SETTING, jnp.asarray(X[0])))
    assert (triggered[:, 2] == SETTING.value).all()
    images = np.asarray(ATTACKS["backdoor_patch"].trigger(SETTING, jnp.zeros((2, 8, 8, 1))))
    assert images.sum() == 2 * 9 * 3


def test_one_of_ones_own_is_found_and_mistakes_are_explained():
    assert attack("tests.attacks.insiders.test_registry:OWN", SETTING).name == "sign_flip"
    with pytest.raises(ValueError, match="no attack of insiders 'sign flip'"):
        attack("sign flip", SETTING)
    with pytest.raises(ValueError, match="needs old_update"):
        attack("free_rider_stale", Setting(senders=10, corrupt=2))
