"""The costly functions of a round with their results kept by their inputs: the same results, for schedules that repeat the same inputs by the thousand."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from unittest import mock

import numpy as np

from fedjax_poisson.aggregation import bodies, contribution, host_shares, keys, member_shares, opening, rows, screening
from fedjax_poisson.aggregation.refusals import RoundRefused
from fedjax_poisson.randomness import stream
from tests.aggregation.rounds import World
from tests.helpers.entropy import drawn_once


def kept(fn, key=lambda *a: a):
    """A function whose results, and refusals, are kept by a key of its arguments."""
    found: dict = {}

    @functools.wraps(fn)
    def call(*args):
        name = key(*args)
        if name not in found:
            try:
                found[name] = args, fn(*args), None  # the arguments stay alive, so that no id is used again
            except RoundRefused as refusal:
                found[name] = args, None, refusal
        _, value, refusal = found[name]
        if refusal is not None:
            raise refusal
        return value

    return call


def by_bytes(*args):
    return tuple(hashlib.sha256(np.asarray(a).tobytes()).digest() if hasattr(a, "dtype") else a for a in args)


def hidden(key, *rest):
    return (key.value, *rest)


ROOT = drawn_once(stream)
PATCHES = functools.cache(
    lambda: [
        (keys, "verify", kept(keys.verify)),
        (keys, "sign", kept(keys.sign, hidden)),
        (keys, "public_of", kept(keys.public_of, hidden)),
        (keys, "seal_box", kept(keys.seal_box)),
        (keys, "box_opener", kept(keys.box_opener, lambda seed: seed.value)),
        (
            member_shares,
            "one_share",
            kept(member_shares.one_share, lambda who, s, p, message, handed, opener: (who.number, s.digest, handed)),
        ),
        (contribution, "fold_in", lambda root, *words: root),
        (
            contribution,
            "sealed_rows",
            kept(contribution.sealed_rows, lambda params, a, counts, root: by_bytes(params, a, counts)),
        ),
        (host_shares, "dealt", kept(host_shares.dealt, by_bytes)),
        (rows, "common_of", kept(rows.common_of)),
        (screening, "functionals", kept(screening.functionals)),
        (
            screening,
            "projected",
            kept(screening.projected, lambda params, signs, u, shares: (*by_bytes(signs), *map(id, shares))),
        ),
        (
            opening,
            "open_sum",
            kept(
                opening.open_sum,
                lambda params, digest, total, answers, expected: (
                    digest,
                    by_bytes(total),
                    tuple((k, *by_bytes(v)) for k, v in sorted(answers.items())),
                    expected,
                ),
            ),
        ),
    ]
)
TEMPLATES = drawn_once(lambda m: World(m))
SECRETS = kept(lambda k, last, m: (keys.new_box_seed().value, bodies.new_beacon().value))


def patched() -> contextlib.ExitStack:
    """All of them in place, until the stack is closed."""
    patches = contextlib.ExitStack()
    for module, name, fn in PATCHES():
        patches.enter_context(mock.patch.object(module, name, fn))
    return patches
