"""The components of one `fedavg`, checked for consistency, and the pure functions between a sum and the next state."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from fedjax_poisson import trees
from fedjax_poisson.accounting import Participation
from fedjax_poisson.aggregation import Aggregator
from fedjax_poisson.aggregation.bare import DeviceFunctions, structure_functions
from fedjax_poisson.aggregation.parameters import RoundParameters
from fedjax_poisson.federated import checks
from fedjax_poisson.federated import spread as spread_lib
from fedjax_poisson.federated.client import Client, ClientOf
from fedjax_poisson.federated.default_rounds import default_aggregator
from fedjax_poisson.federated.features import Features, blank_batch, spec_of
from fedjax_poisson.federated.fidelity import Fidelity, release_numbers
from fedjax_poisson.federated.norm_check import NormCheck, bound_of, norm_check
from fedjax_poisson.federated.population import Population
from fedjax_poisson.federated.release import check_clean_counts, check_parts
from fedjax_poisson.federated.sent import Encryption
from fedjax_poisson.federated.server import (
    ServerOptimizer,
    State,
    factor_apart,
    init_state,
    server_step,
    with_factor,
)
from fedjax_poisson.federated.sharing_programs import Numbers, Sends, built_once, sends_of
from fedjax_poisson.mechanisms.clipping import limit_limbs
from fedjax_poisson.mechanisms.types import Mechanism, check_honest, functions_of
from fedjax_poisson.models import Model


class FedState(NamedTuple):
    """The state that the next round needs.

    Attributes:
      server: parameters, optimiser state, running average and round number.
      shared: state that the server broadcasts in addition to the parameters (`()` for most clients).
      client_state: what every client keeps, with a leading axis N (`()` for most clients); it never leaves a client.
    """

    server: State
    shared: Any
    client_state: Any

    @property
    def round(self) -> Array:
        """int32 `[]`, rounds done."""
        return self.server.round


class ServerRule(NamedTuple):
    """How the server moves: its optimiser, fed with minus the estimated mean update, and the round after which it averages (None for never)."""

    optimizer: ServerOptimizer
    average_from: int | None


class Federation(NamedTuple):
    """The parts of one federation of clients.

    Attributes:
      model: `init`, `apply` and per-record `loss`.
      population: the clients.
      participation: who takes part in a round.
      mechanism: client-level mechanism; None trains without privacy.
      aggregator: encryption backend; None where nothing is encrypted.
      level: of the encryption.
      mesh: devices; None for one.
      client: one client's work for this model.
      rule: how the server moves.
      shapes: of the parameters, a tree of `jax.ShapeDtypeStruct`.
      size: D, parameters in all.
      fidelity: whether clients' messages are made.
    """

    model: Model
    population: Population
    participation: Participation
    mechanism: Mechanism | None
    aggregator: Aggregator | None
    level: Encryption
    mesh: Mesh | None
    client: Client
    rule: ServerRule
    shapes: Any
    size: int
    fidelity: Fidelity = "messages"

    @property
    def encrypts_on_device(self) -> bool:
        """Whether rows are made inside the program."""
        return self.level != "off" and self.aggregator is not None and self.aggregator.device is not None

    @property
    def encrypts_on_host(self) -> bool:
        """Whether counts leave the device to be encrypted."""
        return self.level != "off" and not self.encrypts_on_device


def make_federation(
    model: Model,
    client: ClientOf,
    population: Population,
    participation: Participation,
    rule: ServerRule,
    mechanism: Mechanism | None,
    aggregator: Aggregator | None,
    level: Encryption,
    mesh: Mesh | None,
) -> Federation:
    """The parts, if they fit; arguments as in `fedavg`, those of the server in one `rule`.

    Raises:
      ValueError: a privacy claim would be unsound, or the parts do not fit, with the reason and the remedy.
      TypeError: the model, or the client, is something else.
    """
    checks.check_model(model)
    checks.check_client(client)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), _blank_record(population)))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    if aggregator is None and level != "off" and mechanism is not None:
        aggregator = default_aggregator(mechanism, size, participation)
    check_parts(population, participation, mechanism, aggregator, level, mesh)
    if mechanism is not None and mechanism.noise_senders is not None:
        check_clean_counts(mechanism, participation, aggregator, level)
    if mechanism is not None:
        check_honest(participation.honest_senders, participation.minimum_senders)
    work = _work_of(client, model)
    checks.check_made_client(work)
    _check_data(model, population)
    if aggregator is not None and mechanism is not None and level != "off":
        checks.check_aggregator(aggregator, mechanism, size, participation.senders, participation.minimum_senders)
    return Federation(
        model=model,
        population=population,
        participation=participation,
        mechanism=mechanism,
        aggregator=aggregator,
        level=level,
        mesh=mesh,
        client=work,
        rule=rule,
        shapes=shapes,
        size=size,
    )


@built_once
def _work_of(client: ClientOf, model: Model) -> Client:
    return client(model)


def first_state(federation: Federation, key: Array) -> FedState:
    """Fresh parameters, and the initial state of the server and every client."""
    population, work = federation.population, federation.client
    params = federation.model.init(key, _blank_record(population))
    shared = () if work.shared is None else work.shared.init(params, work.schedule.steps(population.records))
    client_state: Any = ()
    if work.init_client_state is not None:
        first = work.init_client_state(params)
        client_state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (population.size, *leaf.shape)), first)
    state = FedState(init_state(params, federation.rule.optimizer), shared, client_state)
    return state if federation.mesh is None else spread_lib.replicated(federation.mesh, state)


class Structure(NamedTuple):
    """What the programs of a round are compiled for: all of a federation that is no number. Hashable where client and optimiser are.

    Attributes:
      client: one client's work; None where clients only send.
      shapes: of the parameters, as a treedef and leaves.
      sends: what clients send.
      participation: who takes part in a round.
      clients: N of the population.
      params: of encrypted rounds whose rows are made inside programs; None without.
      corrupt: clients assumed corrupt there.
      level: of the encryption.
      mesh: devices; None for one.
      optimizer: the server's, without its factor.
      average_from: as in `ServerRule`.
      norm: the test of clean counts; None where senders bring their own noise.
      fidelity: whether clients' messages are made.
    """

    client: Client | None
    shapes: tuple[Any, tuple[Any, ...]]
    sends: Sends
    participation: Participation
    clients: int
    params: RoundParameters | None
    corrupt: int
    level: Encryption
    mesh: Mesh | None
    optimizer: ServerOptimizer
    average_from: int | None
    norm: NormCheck | None = None
    fidelity: Fidelity = "messages"

    @property
    def tree(self) -> Any:
        """The parameters' shapes."""
        return jax.tree.unflatten(*self.shapes)

    @property
    def device(self) -> DeviceFunctions | None:
        """The encryption's functions."""
        return None if self.params is None else structure_functions(self.params, self.corrupt)


def structure_of(federation: Federation, *, trains: bool = True) -> Structure:
    """The structure of a federation's programs; without `trains`, of clients that only send."""
    device = None
    if federation.encrypts_on_device:
        assert federation.aggregator is not None
        device = federation.aggregator.device
    leaves, tree = jax.tree.flatten(federation.shapes)
    return Structure(
        client=federation.client if trains else None,
        shapes=(tree, tuple(leaves)),
        sends=sends_of(federation.mechanism),
        participation=federation.participation,
        clients=federation.population.size,
        params=None if device is None else device.params,
        corrupt=0 if device is None else device.corrupt,
        level="off" if federation.encrypts_on_host else federation.level,
        mesh=federation.mesh,
        optimizer=factor_apart(federation.rule.optimizer)[0],
        average_from=federation.rule.average_from,
        norm=_norm_of(federation),
        fidelity=federation.fidelity,
    )


def _norm_of(federation: Federation) -> NormCheck | None:
    """The test of a mechanism's clean counts; None where it sends none."""
    mechanism = federation.mechanism
    if mechanism is None or mechanism.noise_senders is None:
        return None
    return norm_check(mechanism, federation.size, _params_of(federation))


def _params_of(federation: Federation) -> RoundParameters | None:
    if not federation.encrypts_on_device:
        return None
    assert federation.aggregator is not None and federation.aggregator.device is not None
    return federation.aggregator.device.params


def numbers_of(federation: Federation) -> Numbers:
    """The numbers of a federation's programs; the mechanism's tables are made here."""
    aggregator, mechanism = federation.aggregator, federation.mechanism
    encrypts = federation.encrypts_on_device and aggregator is not None and aggregator.device is not None
    bound = None
    if mechanism is not None and mechanism.noise_senders is not None:
        bound = limit_limbs(bound_of(mechanism, federation.size, _params_of(federation)))
    return Numbers(
        key=aggregator.device.key if encrypts else None,  # type: ignore[union-attr]
        functions=None if mechanism is None else functions_of(mechanism, federation.size),
        factor=factor_apart(federation.rule.optimizer)[1],
        norm_bound=bound,
    )


def with_release(federation: Federation, numbers: Numbers, present: int) -> Numbers:
    """The numbers of a round with so many clients present: with the law of their sum, where it is drawn at once."""
    if federation.fidelity == "messages":
        return numbers
    assert federation.mechanism is not None
    law = release_numbers(
        federation.mechanism, federation.participation, present, encrypts=federation.encrypts_on_device
    )
    return numbers._replace(release=law)


def mean_update(structure: Structure, total: Array, present: Array, numbers: Numbers) -> Array:
    """float32 `[D]`: the released mean over the clients that are expected to have trained among those present."""
    summed = total if numbers.functions is None else numbers.functions.estimate(total, present)
    rate = jnp.float32(structure.participation.sampling_rate)
    return summed / (rate * jnp.maximum(present.astype(jnp.float32), jnp.float32(1)))


def step(
    structure: Structure, state: FedState, client_state: Any, update: Array, present: Array, numbers: Numbers
) -> tuple[FedState, Array]:
    """The server's step with a released mean update: the next state, and the update's L2 norm."""
    assert structure.client is not None
    server = server_step(
        state.server, -update, with_factor(structure.optimizer, numbers.factor), structure.average_from
    )
    shared, advance = state.shared, structure.client.shared
    if advance is not None:
        tree = trees.layout(state.server.params).unflatten(update)
        rate = structure.participation.sampling_rate / structure.clients
        shared = advance.advance(shared, tree, present.astype(jnp.float32) * jnp.float32(rate))
    return FedState(server, shared, client_state), jnp.linalg.norm(update)


def _check_data(model: Model, population: Population) -> None:
    labels = population.host.y
    dtype = jax.dtypes.canonicalize_dtype(labels.dtype)
    checks.check_loss(model, spec_of(population.host.x), (dtype,), tuple(labels.shape[2:]))
    if not isinstance(labels, np.memmap):  # labels in a file are not read before their client's turn
        checks.check_labels(model, labels, population.host.mask)


def _blank_record(population: Population) -> Features:
    return blank_batch(spec_of(population.host.x), 1)
