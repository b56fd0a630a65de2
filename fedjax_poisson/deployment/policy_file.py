"""A site's policy from its TOML file: unknown keys are named with the nearest known one, and what only the site can say has no default."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from fedjax_poisson.deployment.policy import (
    ALL,
    ApprovalPolicy,
    ConsortiumPolicy,
    DataPolicy,
    LimitPolicy,
    Policy,
    PrivacyPolicy,
    span,
)
from fedjax_poisson.deployment.roster import NAME

__all__ = ["read_policy"]

_TABLES: Mapping[str, type] = types.MappingProxyType(
    {
        "consortium": ConsortiumPolicy,
        "data": DataPolicy,
        "privacy": PrivacyPolicy,
        "limits": LimitPolicy,
        "approval": ApprovalPolicy,
    }
)


def read_policy(path: str | Path) -> Policy:
    """A site's policy from its file; paths in it are relative to the file's folder.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not TOML, a key is unknown (with the nearest known one), missing, or has a value that cannot be.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}.") from None
    if strange := [name for name in values if name not in _TABLES]:
        raise ValueError(f"{path} has [{strange[0]}], which is no table of a policy{_nearest(strange[0], _TABLES)}")
    read = {name: _table(kind, name, values.get(name, {}), path) for name, kind in _TABLES.items()}
    policy = Policy(**read)
    try:
        _check(policy)
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from None
    folder = path.absolute().parent

    def beside(value: str) -> str:
        return str(folder / Path(value).expanduser()) if value else ""

    data = dataclasses.replace(policy.data, csv=beside(policy.data.csv), images=beside(policy.data.images))
    consortium = dataclasses.replace(policy.consortium, roster=beside(policy.consortium.roster))
    return dataclasses.replace(policy, data=data, consortium=consortium)


def _nearest(name: str, known: Iterable[str]) -> str:
    listed = list(known)
    near = difflib.get_close_matches(name, listed, 1)
    return f"; do you mean {near[0]}?" if near else f"; known are {', '.join(listed)}."


def _table(kind: type, name: str, values: Any, path: Path) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{path}: {name} must be a table, [{name}].")
    hints, given = typing.get_type_hints(kind), {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"{path} sets {name}.{key}, which is no key of a policy{_nearest(key, hints)}")
        try:
            given[key] = _fitted(value, hints[key])
        except ValueError as error:
            raise ValueError(f"{path}: {name}.{key} = {value!r:.80}: {error}.") from None
    needed = [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if missing := [each for each in needed if each not in given]:
        raise ValueError(f"{path} must set {name}.{missing[0]}: this is for the site to say, there is no default.")
    return kind(**given)


def _fitted(value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"it must be one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    texts = isinstance(value, list) and all(isinstance(each, str) and each for each in value)
    if hint is float and number and math.isfinite(value):
        return float(value)
    if hint is int and number and isinstance(value, int) and value >= 0:
        return value
    if hint is str and isinstance(value, str):
        return value
    if hint == list[str] and texts:
        return value
    if hint == (str | list[str]) and (texts or value == ALL):
        return value
    words: dict[Any, str] = {
        float: "a number",
        int: "a whole number, 0 or more",
        str: "text",
        list[str]: "a list of text",
    }
    raise ValueError(f"it must be {words.get(hint, 'a list of text, or ' + repr(ALL))}")


def _check(policy: Policy) -> None:
    """Values that no site can mean."""
    privacy, limits = policy.privacy, policy.limits
    if not NAME.fullmatch(policy.consortium.name):
        raise ValueError(f"consortium.name = {policy.consortium.name!r:.60} is no name of a party (a-z, 0-9, '-', '_')")
    if not policy.consortium.roster:
        raise ValueError("consortium.roster is empty; it is the path of the signed roster")
    if not (policy.data.csv or policy.data.images):
        raise ValueError("neither data.csv nor data.images is set: there is nothing to take part with")
    if not privacy.epsilon > 0:
        raise ValueError(f"privacy.epsilon = {privacy.epsilon:g} must be above 0")
    if not 0 < privacy.delta <= 0.01:
        raise ValueError(f"privacy.delta = {privacy.delta:g} must lie in (0, 0.01]; stay below 1 / records")
    if privacy.minimum_senders < 2:
        raise ValueError(f"privacy.minimum_senders = {privacy.minimum_senders}: a sum over one site hides nothing")
    if strange := [each for each in limits.evaluation if each not in ("private", "none")]:
        raise ValueError(
            f'limits.evaluation lists {strange[0]!r}; held-out records stay at their sites: "private", "none"'
        )
    if limits.hours:
        try:
            span(limits.hours)
        except ValueError as error:
            raise ValueError(f"limits.hours = {limits.hours!r:.60}: {error}") from None
