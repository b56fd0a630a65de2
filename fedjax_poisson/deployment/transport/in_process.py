"""Sites in this process, a thread for each request: for tests, and to try a consortium on one machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from fedjax_poisson.deployment.transport.link import (
    Asked,
    Handler,
    Link,
    Unreached,
    check_asked,
    check_site_names,
    gather,
)

__all__ = ["in_process"]


def in_process(handlers: Mapping[str, Handler]) -> Link:
    """A link to handlers in this process.

    A handler that does not return in time keeps its thread until it does; its reply is dropped.

    Args:
      handlers: by the site's name.

    Raises:
      ValueError: a name that is none.
    """
    sites = check_site_names(tuple(handlers))
    closed = threading.Event()

    def ask(asked: Asked, seconds: float) -> Iterator[tuple[str, bytes | Unreached]]:
        check_asked(sites, asked, closed)
        return gather({site: _asker(handlers[site], request) for site, request in asked.items()}, seconds)

    return Link(sites, ask, closed.set)


def _asker(handler: Handler, request: bytes) -> Callable[[float], bytes]:
    return lambda _seconds: handler(request)
