"""What a compiled program starts on its device, read from XLA's text of it: each fusion, product or copy is one kernel, a loop's body as often as it runs.

On a GPU every start costs some microseconds whatever it computes, so a round of small arrays is bound by this number.
"""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["started_in"]

_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = .*? ([a-z][a-z0-9-]*)\(")
_CALLED = re.compile(r"(?:body|to_apply|true_computation|false_computation|calls)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_NOT_STARTED = frozenset("parameter constant tuple get-tuple-element bitcast after-all opt-barrier iota".split())


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    entry = ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            lines = found.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("  "):
            lines.append(line)
    return found, entry


def started_in(text: str) -> Counter[str]:
    """Operations that a call starts, by kind; a loop whose length XLA does not know counts once, of several branches the longest counts.

    Args:
      text: `Compiled.as_text()`.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations, entry = _computations(text)
    if not entry:
        raise ValueError("This is not the text of a compiled program: it has no ENTRY computation.")

    def count(name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for line in computations.get(name, []):
            operation = _OPERATION.match(line)
            if operation is None or operation[1] in _NOT_STARTED:
                continue
            kind, called = operation[1], _CALLED.findall(line)
            if kind == "while":
                trips = _TRIPS.search(line)
                for inner, times in count(called[0]).items():
                    total[inner] += times * (int(trips[1]) if trips else 1)
            elif kind == "conditional":
                branches = _BRANCHES.search(line)
                names = [part.strip().lstrip("%") for part in branches[1].split(",")] if branches else called
                total += sorted((count(one) for one in names), key=Counter.total)[-1]
            elif kind == "call":
                total += count(called[0])
            else:
                total[kind] += 1
        return total

    return count(entry)
