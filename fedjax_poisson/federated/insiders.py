"""Malicious insiders of a simulation: corrupt clients that train on other records than they should, or send other counts than they should.

An insider is a client that takes part in every way, so neither encryption nor the noise keeps it out. What it can change are its own records, before its
local training (`Attack.poison`), and its message, after it (`Attack.act`): real int32 counts, made without any clip, which go through the same encryption
and the same opening as everybody's. Colluders pool their records: where an attack has `learn`, every round begins with what each of them would honestly
send, and what they conclude from it.

Nothing here protects or weakens anything: honest clients' counts have the bits that they have without insiders (a test compares them), and so has what
is charged for them. A run with insiders says so in its outputs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from fedjax_poisson import trees
from fedjax_poisson.federated.client import Client, Examples, run_steps
from fedjax_poisson.federated.population import HostExamples
from fedjax_poisson.mechanisms.types import Functions, Mechanism, functions_of
from fedjax_poisson.randomness import Stream, bits, fold_in

LARGEST_COUNT = 2**29
"""Counts that `counts_of` makes are cut here: a few insiders cannot wrap the simulation's own int32 sums, which are no part of the protocol."""


class Sight(NamedTuple):
    """What one corrupt client sees when it is about to send.

    Attributes:
      client: uint32 `[]`, its number.
      rank: int32 `[]`, its place among the insiders, 0, 1, ...
      update: float32 `[D]`, its update before any clip; zero where it has no records or its training broke. Of a site: its sum of clipped contributions.
      counts: int32 `[D]`, what its honest software would send.
      weights: float32 `[D]`, the global parameters.
      knowledge: what `Attack.learn` returned; `()` without.
      functions: the mechanism's.
      stream: its own in this round.
      common: the insiders' in this round, the same for all of them.
    """

    client: Array
    rank: Array
    update: Array
    counts: Array
    weights: Array
    knowledge: Any
    functions: Functions
    stream: Stream
    common: Stream


class Attack(NamedTuple):
    """What corrupt clients do, as pure traced functions. Functions that are `jax.tree_util.Partial` have their numbers as arguments of programs.

    Attributes:
      name: short name.
      poison: `(examples, stream) -> examples` of the same shapes and dtypes: one client's records before its local training; None leaves them.
      act: `(Sight) -> int32 [D]`: what is sent; None sends what honest software sends for the update, which is clipped.
      learn: `(updates [c, D], weights [D]) -> knowledge`: what c insiders conclude from the updates they would send; None where they need not.
    """

    name: str
    poison: Callable[[Examples, Stream], Examples] | None = None
    act: Callable[[Sight], Array] | None = None
    learn: Callable[[Array, Array], Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Insiders:
    """Which clients (or sites) are corrupt, and what they do.

    Attributes:
      who: their numbers.
      attack: what they do, such as `attacks.insiders.attack(name, setting)`.
    """

    who: Sequence[int]
    attack: Attack

    def __post_init__(self) -> None:
        numbers = [int(each) for each in self.who]
        if not numbers or len(set(numbers)) != len(numbers) or min(numbers) < 0:
            raise ValueError(
                f"who={list(self.who)}: name at least one corrupt client, each once, by its number from 0; leave insiders out for an honest run."
            )
        if self.attack.poison is None and self.attack.act is None:
            raise ValueError(
                f"the attack {self.attack.name!r} changes neither records nor counts: give it poison, or act."
            )
        object.__setattr__(self, "who", tuple(numbers))


class InsiderNumbers(NamedTuple):
    """`Insiders` as an argument of compiled programs, a pytree.

    Attributes:
      ranks: int32 `[N]`, each client's place among the insiders; -1 for an honest client.
      poison: as in `Attack`.
      act: likewise.
      learn: likewise.
      examples: records of the insiders `[c, n, ...]`, where they pool them.
      knowledge: of this round.
      common: the insiders' stream of this round; None before `informed`.
    """

    ranks: Array
    poison: Partial | None
    act: Partial | None
    learn: Partial | None
    examples: Any
    knowledge: Any = ()
    common: Stream | None = None


def insider_numbers(
    insiders: Insiders, clients: int, examples: Examples | HostExamples | None = None
) -> InsiderNumbers:
    """The insiders of a population of N clients.

    Args:
      insiders: who they are and what they do.
      clients: N.
      examples: everybody's records `[N, n, ...]`, from which the insiders' are taken if they pool them.

    Raises:
      ValueError: a number is not of a client, or nobody is honest.
    """
    who, attack = np.asarray(insiders.who), insiders.attack
    if who.max() >= clients:
        raise ValueError(f"insiders: there is no client {int(who.max())}; clients are 0..{clients - 1}.")
    if who.size >= clients:
        raise ValueError(f"insiders: all {clients} clients are corrupt, so there is nobody to harm; leave one honest.")
    ranks = np.full(clients, -1, np.int32)
    ranks[who] = np.arange(who.size)
    pooled = None
    if attack.learn is not None and examples is not None:
        pooled = Examples(*jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf[who])), tuple(examples)))
    return InsiderNumbers(
        jnp.asarray(ranks), _partial(attack.poison), _partial(attack.act), _partial(attack.learn), pooled
    )


def check_possible(insiders: Insiders | None, mechanism: Mechanism | None, several_devices: bool, turns: bool) -> None:
    """Refuse insiders where not every client's message is made by itself.

    Raises:
      ValueError: with the reason and the remedy.
    """
    if insiders is None:
        return
    if mechanism is None or not mechanism.facts.integer:
        raise ValueError(
            "insiders replace the counts that a client sends, and here clients send none: use an integer mechanism (poisson_embedding, skellam)."
        )
    if several_devices:
        raise ValueError("insiders are simulated on one device: leave mesh out.")
    if turns:
        raise ValueError(
            "insiders with fixed cohorts: clients keep clipped updates there and send them for several rounds, so the message of a corrupt client is not "
            "made from its training; leave cohorts out and pass client numbers."
        )


def informed(
    insiders: InsiderNumbers | None, client: Client | None, weights: Any, shared: Any, stream: Stream
) -> InsiderNumbers | None:
    """The insiders at the beginning of a round: their common stream, and what they learn from the updates that they would honestly send.

    Args:
      insiders: before the round; None where all are honest.
      client: one client's work. What it keeps between rounds is not pooled: the insiders' updates are those of clients in their first round.
      weights: global parameters.
      shared: what the server broadcasts.
      stream: the round's.
    """
    if insiders is None:
        return None
    common = fold_in(stream, "insiders")
    if insiders.learn is None or client is None or insiders.examples is None:
        return insiders._replace(common=common)
    work = client
    kept = () if work.init_client_state is None else work.init_client_state(weights)

    def update_of(rank: Array, examples: Examples) -> Array:
        tree, _ = run_steps(work, weights, shared, kept, examples, fold_in(common, rank, "pooled"))
        return trees.flatten(tree)

    count = insiders.examples.y.shape[0]
    updates = jax.vmap(update_of)(jnp.arange(count, dtype=jnp.uint32), insiders.examples)
    return insiders._replace(common=common, knowledge=insiders.learn(updates, trees.flatten(weights)))


def poisoned(insiders: InsiderNumbers, client: Array, examples: Examples, stream: Stream) -> Examples:
    """One client's records as it trains on them: its own if it is honest. `stream` is the client's."""
    if insiders.poison is None:
        return examples
    corrupt = insiders.ranks[client] >= 0
    changed = insiders.poison(examples, fold_in(stream, "insider", "records"))
    return jax.tree.map(lambda new, old: jnp.where(corrupt, new, old), changed, examples)


def sent_by(
    insiders: InsiderNumbers,
    client: Array,
    update: Array,
    counts: Array,
    weights: Any,
    functions: Functions,
    stream: Stream,
) -> Array:
    """What one client sends, int32 `[D]`: the honest counts unless it is corrupt. `stream` is the client's."""
    if insiders.act is None:
        return counts
    assert insiders.common is not None
    rank = insiders.ranks[client]
    sight = Sight(
        client=client,
        rank=rank,
        update=update,
        counts=counts,
        weights=trees.flatten(weights),
        knowledge=insiders.knowledge,
        functions=functions,
        stream=fold_in(stream, "insider", "message"),
        common=insiders.common,
    )
    return jnp.where(rank >= 0, insiders.act(sight).astype(jnp.int32), counts)


def counts_of(sight: Sight, vector: Array, *, noise: bool = True) -> Array:
    """Counts whose estimate is a vector of any length, int32 `[D]`: no clip is applied.

    The estimate is affine in the counts, so a vector adds round(vector / value of one count) to the embedding of zero, which carries the noise that
    an honest client sends.

    Args:
      sight: what the insider sees.
      vector: float32 `[D]` in the update's unit; entries that are not finite count as 0, counts are cut at `LARGEST_COUNT`.
      noise: whether it sends noise as well. One that does not is no easier to see, as nobody sees single counts.
    """
    nothing = jnp.zeros(vector.shape, jnp.int32)
    functions = sight.functions
    value = functions.estimate(nothing + 1, 1) - functions.estimate(nothing, 1)
    steps = jnp.clip(jnp.nan_to_num(vector / value), -float(LARGEST_COUNT), float(LARGEST_COUNT))
    whole = jnp.round(steps).astype(jnp.int32)
    if not noise:
        return whole
    return whole + functions.embed(fold_in(sight.stream, "noise"), functions.clip(jnp.zeros(vector.shape, jnp.float32)))


def signs(stream: Stream, size: int) -> Array:
    """float32 `[size]` of independent fair signs."""
    return jnp.where((bits(stream, size) & jnp.uint32(1)) > 0, jnp.float32(1), jnp.float32(-1))


def lying_sites(
    insiders: InsiderNumbers, mechanism: Mechanism, params: Any, stream: Stream
) -> Callable[[Array, Array], Array]:
    """`(counts [S, D], grids [S, D]) -> counts` for a round of sites (`private_sum`): the messages of corrupt sites replaced.

    A site's update is its sum of clipped contributions before the clamp. The insiders learn from those of the corrupt sites.

    Args:
      insiders: who they are and what they do.
      mechanism: of the round.
      params: global parameters.
      stream: the round's.
    """
    step = mechanism.bounds.grid_step
    if step is None:
        raise ValueError(
            f"{mechanism.facts.name} has no one grid step, so a site's sum cannot be read in the update's unit."
        )

    who = tuple(np.flatnonzero(np.asarray(insiders.ranks) >= 0).tolist())

    def change(counts: Array, grids: Array) -> Array:
        functions = functions_of(mechanism, grids.shape[-1])
        return _lies(who, insiders, functions, trees.flatten(params), stream, jnp.float32(step), counts, grids)

    return change


@functools.partial(jax.jit, static_argnums=0)
def _lies(
    who: tuple[int, ...],
    insiders: InsiderNumbers,
    functions: Functions,
    weights: Array,
    stream: Stream,
    step: Array,
    counts: Array,
    grids: Array,
) -> Array:
    updates = grids.astype(jnp.float32) * step
    own = insiders._replace(common=fold_in(stream, "insiders"))
    if own.learn is not None:
        own = own._replace(knowledge=own.learn(updates[jnp.asarray(who)], weights))

    def one(site: Array, update: Array, honest: Array) -> Array:
        return sent_by(own, site, update, honest, weights, functions, fold_in(stream, site))

    return jax.vmap(one)(jnp.arange(counts.shape[0], dtype=jnp.uint32), updates, counts)


def poisoned_sites(insiders: InsiderNumbers, x: Any, y: Array, mask: Array, stream: Stream) -> tuple[Any, Array]:
    """Features and labels `[S, n, ...]` of all sites as they train on them."""

    def one(site: Array, examples: Examples) -> Examples:
        return poisoned(insiders, site, examples, fold_in(stream, site))

    found = jax.vmap(one)(jnp.arange(y.shape[0], dtype=jnp.uint32), Examples(x, y, mask))
    return found.x, found.y


def insiders_in_words(insiders: Insiders | None) -> str:
    """One sentence for outputs; empty for an honest run."""
    if insiders is None:
        return ""
    return f"INSIDERS SIMULATED: {len(insiders.who)} corrupt, attack {insiders.attack.name!r}."


def _partial(function: Any) -> Partial | None:
    return function if function is None or isinstance(function, Partial) else Partial(function)
