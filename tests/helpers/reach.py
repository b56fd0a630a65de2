"""What a holder of an object could get at: attributes, items, closures and defaults, but not modules' globals."""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Iterator
from typing import Any


def reachable(root: Any) -> Iterator[Any]:
    """Every object reachable from `root`; a function's module globals and all types and modules are left out."""
    seen: set[int] = set()
    stack = [root]
    keep = []
    while stack:
        obj = stack.pop()
        if id(obj) in seen or isinstance(obj, (type, types.ModuleType)):
            continue
        seen.add(id(obj))
        keep.append(obj)  # so that no id is used again
        yield obj
        if isinstance(obj, types.FunctionType):
            stack.extend(cell.cell_contents for cell in obj.__closure__ or ())
            stack.extend(obj.__defaults__ or ())
            stack.extend((obj.__kwdefaults__ or {}).values())
        elif isinstance(obj, types.MethodType):
            stack.extend([obj.__func__, obj.__self__])
        elif isinstance(obj, functools.partial):
            stack.extend([obj.func, *obj.args, *obj.keywords.values()])
        else:
            stack.extend(gc.get_referents(obj))
            if isinstance(obj, (list, tuple, set, frozenset)):
                stack.extend(obj)
            elif isinstance(obj, dict):
                stack.extend([*obj.keys(), *obj.values()])
            elif hasattr(obj, "__dict__"):
                stack.extend(vars(obj).values())
