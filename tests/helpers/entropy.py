"""The operating system's randomness in tests: the same bytes for the same test, in every order, worker and machine.

Streams without a seed are what people run, so tests use them too; but a test of a law that fails by its own chance then fails for one run in many, somewhere,
and the next run cannot repeat it. Here every test reads a generator of its own, seeded by the test's name, wherever the package would ask the operating system.
The streams stay what they stand for: nothing marks them as reproducible. With FRESH_ENTROPY=1 the package asks the operating system, to find tests that fail
by chance.

Not covered: keys that `cryptography` makes, subprocesses, kernels of notebooks, and the order in which threads of one test draw.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import secrets
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

READERS = {
    "randomness.chacha": (os, "urandom"),
    "aggregation.signs": (os, "urandom"),
    "aggregation.bodies": (os, "urandom"),
    "aggregation.round_setting": (os, "urandom"),
    "aggregation.envelope": (secrets, "token_bytes"),
}
_generators: list[random.Random] = []
_owner = os.getpid()


def entropy(size: int) -> bytes:
    """Bytes of the innermost `seeded`; outside of any, and in a process that parted from the test's, of the operating system."""
    return _generators[-1].randbytes(size) if _generators and os.getpid() == _owner else os.urandom(size)


@contextmanager
def seeded(name: str) -> Iterator[None]:
    """Inside, `entropy` reads a generator that starts from this name."""
    _generators.append(random.Random(name))
    try:
        yield
    finally:
        _generators.pop()


def install() -> None:
    """From now on the package reads `entropy`."""
    for reader, (module, function) in READERS.items():
        stand_in = types.SimpleNamespace(**{**vars(module), function: entropy})
        setattr(importlib.import_module(f"fedjax_poisson.{reader}"), module.__name__, stand_in)


def drawn_once(make: Callable[..., Any]) -> Callable[..., Any]:
    """`functools.cache` for what draws: the same draws whichever test asks first."""

    @functools.cache
    def made(*arguments: Any) -> Any:
        with seeded(f"{make.__module__}.{make.__qualname__}{arguments!r}"):
            return make(*arguments)

    return made
