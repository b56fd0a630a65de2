"""Replaceable parts by name: an entry of a registry, or `module:name` of an entry that the package has never heard of.

A name with a colon is imported, so a part of the user's own needs no change here. What such a part claims about privacy is its author's word: nothing in
this package has proved or checked it, and whoever uses it says so (`Found.foreign`). It may also replace functions of this package, which no name of a kept
program would show: from the import on the process keeps and reads no traced program (`traced_programs`) and no table (`kept_tables`).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from fedjax_poisson import kept_files

Entry = TypeVar("Entry")


class Found(NamedTuple, Generic[Entry]):
    """An entry that a name led to.

    Attributes:
      entry: the entry.
      foreign: whether it is none of the registry's, so that its claims are assumed.
    """

    entry: Entry
    foreign: bool


def is_path(name: str) -> bool:
    """Whether a name is `module:name` of a part outside the package's registries."""
    return ":" in name


def find(name: str, known: Mapping[str, Entry], what: str, kind: type | None = None) -> Found[Entry]:
    """The entry of a name.

    Args:
      name: a key of the registry, or `module:name`.
      known: the registry.
      what: what the entries are, for messages, such as "mechanism".
      kind: the class of an entry; None where entries are functions.

    Raises:
      ValueError: there is no such entry, its module cannot be imported, or it is of another kind.
    """
    if not is_path(name):
        if name not in known:
            raise ValueError(
                f"there is no {what} {name!r}; give one of {', '.join(known)}, or module:name of an entry of your own."
            )
        return Found(known[name], False)
    module, _, attribute = name.partition(":")
    kept_files.forget(os.environ)
    try:
        value: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{what} {name!r}: the module {module!r} cannot be imported ({error}); work in its folder, or put that on PYTHONPATH."
        ) from error
    except AttributeError:
        raise ValueError(f"{what} {name!r}: the module {module!r} has no {attribute!r}.") from None
    if not (callable(value) if kind is None else isinstance(value, kind)):
        wanted = "a function" if kind is None else f"a {kind.__name__}"
        raise ValueError(f"{what} {name!r} is a {type(value).__name__}; it must be {wanted}.")
    return Found(value, all(value is not own for own in known.values()))
