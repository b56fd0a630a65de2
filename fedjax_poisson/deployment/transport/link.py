"""The seam between the coordinator and whatever carries its requests to the sites."""

from __future__ import annotations

import logging
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

__all__ = ["Asked", "Handler", "Link", "Unreached", "check_asked", "check_site_names", "failure_words", "gather"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_log = logging.getLogger(__name__)
T = TypeVar("T")

Asked = Mapping[str, bytes]
"""A request for each site that is asked, by the site's name."""

Handler = Callable[[bytes], bytes]
"""At the site: one request to one reply. May take its time, is called from several threads at once, and may meet the same request more than once."""


class Unreached(NamedTuple):
    """A site gave no reply.

    Attributes:
      reason: why, in words for whoever runs the consortium.
    """

    reason: str


class Link(NamedTuple):
    """A way to ask sites.

    Attributes:
      sites: the names of all sites that can be asked.
      ask: `(requests, seconds)`: asks all sites named in `requests` at once, from the call on, and yields `(site, reply)` as replies arrive, each site exactly
        once: its bytes, or `Unreached`. No site's fault raises, and it ends within `seconds`, counted from the call, the reader's own time included.
        May be called while another call is still being read, and from several threads. Raises ValueError for a site that the link does not have.
      close: frees what the link holds; asking afterwards raises ValueError.
    """

    sites: tuple[str, ...]
    ask: Callable[[Asked, float], Iterator[tuple[str, bytes | Unreached]]]
    close: Callable[[], None]


def check_site_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, if each is one.

    Raises:
      ValueError: a name that is not `[a-z0-9][a-z0-9_-]{0,31}`, or one that is there twice.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a site: 1 to 32 of a-z, 0-9, _ and -, with a letter or digit first."
            )
    if len(set(names)) != len(names):
        raise ValueError(f"a site is named twice in {', '.join(names)}; name each once.")
    return names


def check_asked(sites: tuple[str, ...], asked: Asked, closed: threading.Event) -> None:
    """What every link checks before it asks.

    Raises:
      ValueError: a site that the link does not have, or the link is closed.
    """
    if closed.is_set():
        raise ValueError("this link is closed; open another one to ask.")
    if unknown := sorted(set(asked) - set(sites)):
        raise ValueError(f"there is no way to {', '.join(unknown)}; this link reaches {', '.join(sites)}.")


def failure_words(error: BaseException) -> str:
    """Log an error at the site, with its trace, and say what may leave the site: the error's class and a mark to find it in the log.

    The message of an error can hold a path, or a value of somebody's data; it never leaves.
    """
    mark = secrets.token_hex(4)
    _log.error("a request failed, mark %s", mark, exc_info=error)
    return f"the site failed: {type(error).__name__}; its own log has the reason under {mark}"


def gather(askers: Mapping[str, Callable[[float], T]], seconds: float) -> Iterator[tuple[str, T | Unreached]]:
    """Call all askers at once, a thread each, and yield what they return as it comes.

    Args:
      askers: by site, a function of the seconds that it has. What it raises becomes `Unreached`; what it returns too late is dropped.
      seconds: after which whoever has not answered is `Unreached`.
    """
    until = time.monotonic() + seconds
    arrived: queue.SimpleQueue[tuple[str, T | Unreached]] = queue.SimpleQueue()

    def call(site: str, asker: Callable[[float], T]) -> None:
        try:
            arrived.put((site, asker(seconds)))
        except Exception as error:
            arrived.put((site, Unreached(failure_words(error))))

    for site, asker in askers.items():
        threading.Thread(target=call, args=(site, asker), name=f"ask {site}", daemon=True).start()
    return _arrivals(arrived, list(askers), until, seconds)


def _arrivals(
    arrived: queue.SimpleQueue[tuple[str, T | Unreached]], waited: list[str], until: float, seconds: float
) -> Iterator[tuple[str, T | Unreached]]:
    while waited:
        try:
            site, reply = arrived.get(timeout=max(until - time.monotonic(), 0.0))
        except queue.Empty:
            break
        waited.remove(site)
        yield site, reply
        del reply  # a large reply is its reader's alone while the next one is awaited
    for site in waited:
        yield site, Unreached(f"no reply in {seconds:g} s")
