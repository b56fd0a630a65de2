"""Which members decide, and which clients stay: the server's choice, weighed so that the most clients stay.

In light rounds t + f members decide where there are as many, else all that there are. In norm rounds it is t + f or nobody: with t members any scalars agree,
and a liar among them would let an accomplice's vector pass, whatever its length.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import numpy as np

from fedjax_poisson.aggregation import bodies, judging, row_sums, screening, sketch
from fedjax_poisson.aggregation.refusals import MissingNoise, NoQuorum, TinySet
from fedjax_poisson.aggregation.server_state import State

__all__ = ["holders", "judges"]


def _least(state: State, available: int) -> int:
    """Members that must decide."""
    least = state.draft.threshold + state.draft.malicious
    if state.draft.norm is None:
        return min(available, least)
    if available < least:
        raise NoQuorum(f"{available} members are left, t + f = {least} are needed to judge proofs. Nothing was opened.")
    return least


def _check_left(state: State, left: int, how: str) -> None:
    """Refuse to go on with too few clients, or (-1) without all of the noise."""
    if left < 0:
        raise MissingNoise(f"A noise sender is not among the clients that {how}. Nothing was opened.")
    if left < state.draft.minimum:
        raise TinySet(f"{left} clients {how}, at least {state.draft.minimum} were announced. Nothing was opened.")


def holders(state: State, refused: Mapping[int, set[bytes]]) -> tuple[tuple[int, ...], set[bytes]]:
    """The members that go on, and the clients whose shares all of them hold.

    Args:
      state: of the round.
      refused: member number to the clients whose boxes it refuses.

    Raises:
      RoundRefused: too few members or clients are left, or a noise sender is not among these.
    """

    def stay(members: tuple[int, ...]) -> set[bytes]:
        return set(state.clients) - set().union(*(refused[k] for k in members))

    def left(members: tuple[int, ...]) -> int:
        kept = stay(members)
        return len(kept) - len(state.draft.noise) if kept.issuperset(state.draft.noise) else -1

    numbers = sorted(refused)
    members = screening.best_members(numbers, _least(state, len(numbers)), left)
    if state.draft.norm is None and left(members) < state.draft.minimum:  # as if the members that refuse were away
        members = screening.best_members(numbers, state.draft.threshold, left)
    _check_left(state, left(members), "have boxes that members accept")
    return members, stay(members)


def judges(state: State, projections: Iterable[bytes]) -> tuple[tuple[int, ...], tuple[int, ...], np.ndarray]:
    """The members M whose scalars decide, those whose scalars go out, and the number of the reason for each client of D, 0 if it passes.

    Args:
      state: of the round.
      projections: members' messages.

    Raises:
      RoundRefused: too few members or clients are left, or a noise sender does not pass.
    """
    params = state.params
    assert params is not None
    shown = bodies.read_scalars(projections, state.draft, state.digest, params, state.seed, state.committed)
    noise = [key in state.draft.noise for key, _ in state.committed]
    rows = _rows(state)

    @functools.cache
    def verdicts(members: tuple[int, ...]) -> np.ndarray:
        return judging.reasons(params, state.digest, state.seed, {k: shown[k] for k in members}, noise, rows)

    def left(members: tuple[int, ...]) -> int:
        good = verdicts(members) == 0
        return int(good.sum()) - sum(noise) if good[np.asarray(noise, bool)].all() else -1

    numbers = tuple(sorted(shown))
    members, out, least = numbers, numbers, state.draft.threshold + state.draft.malicious
    _least(state, len(numbers))
    if (verdicts(numbers) == 1).any() and len(numbers) > least:
        members = screening.best_members(numbers, least, left)
    if state.draft.norm is None and left(members) < state.draft.minimum:  # as if those that disagree were away
        members = out = screening.best_members(numbers, state.draft.threshold, left)
    _check_left(state, left(members), "passed screening")
    return members, out, verdicts(members)


def _rows(state: State) -> judging.Rows | None:
    """What the server knows of clients' rows; nothing that light rounds ask."""
    params = state.params
    if params is None or params.proof is None:
        return None
    drawn = sketch.sketch_of(params, state.seed)
    weights = functools.cache(lambda: row_sums.row_weights(params, drawn))
    known: dict[int, np.ndarray] = {}

    def sums(places: tuple[int, ...]) -> np.ndarray:
        missing = [place for place in places if place not in known]
        step = row_sums.clients_at_once(params)
        for first in range(0, len(missing), step):
            batch = missing[first : first + step]
            held = [state.clients[state.committed[place][0]].rows for place in batch]
            known.update(zip(batch, row_sums.row_sums(params, weights(), held), strict=True))
        return np.stack([known[place] for place in places])

    return judging.Rows(sketch.gram(drawn), sums)
