"""Counts at the edge stop an encrypted round unopened and uncharged; without the bound they end up in the model."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from fedjax_poisson import aggregation, federated, models
from fedjax_poisson.attacks.insiders import overflowing
from fedjax_poisson.federated.insiders import Insiders
from tests.attacks.insiders.helpers import CLIENT, CLIENTS, MECHANISM, ROOT, SIZE, X, Y


def test_counts_beyond_the_bound_stop_the_round_and_without_a_bound_are_added():
    bound = MECHANISM.count_bound(CLIENTS, SIZE)
    insiders = Insiders(who=[0], attack=overflowing.constant_count(bound + 1, "count_wrap"))

    def algorithm(level):
        return federated.fedavg(
            models.logistic(), client=CLIENT, population=federated.make_population(X, Y), senders=CLIENTS,
            server_optimizer=optax.sgd(1.0), mechanism=MECHANISM, insiders=insiders, encryption=level,
        )  # fmt: skip

    checked, bare = algorithm("on"), algorithm("off")
    with pytest.raises(aggregation.RoundRefused):
        checked.apply(checked.init(jax.random.key(0)), np.arange(CLIENTS), ROOT)
    assert checked.ledger.epsilon() == 0
    _, info = bare.apply(bare.init(jax.random.key(0)), np.arange(CLIENTS), ROOT)  # the twin: nobody looks
    assert info.update_norm > 0.5


def test_what_is_no_count_is_refused_and_the_largest_is_not():
    for count in (0, 2**31, -(2**31)):
        with pytest.raises(ValueError, match="31 bits"):
            overflowing.constant_count(count, "edge")
    overflowing.constant_count(2**31 - 1, "edge")
