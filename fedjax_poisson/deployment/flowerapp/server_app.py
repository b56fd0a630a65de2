"""Beside the coordinator: the relay between its Unix socket and Flower's nodes (`transport.flower_relay`)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedjax_poisson.deployment.transport.flower_relay import Carrier, Parcel, relay

_log = logging.getLogger(__name__)


def carrier_of(grid: Grid) -> Carrier:
    """Flower's Grid as a carrier; what Flower raises costs the parcels it was about."""

    def nodes() -> Iterable[int]:
        try:
            return list(grid.get_node_ids())
        except Exception:
            _log.exception("the SuperLink does not list its nodes")
            return []

    def push(parcels: list[Parcel]) -> list[str | None]:
        marks: list[str | None] = []
        for parcel in parcels:  # one by one: a parcel that Flower refuses takes no other with it
            record = ConfigRecord({"request": parcel.request, "seconds": parcel.seconds})
            message = Message(
                RecordDict({"relay": record}),
                dst_node_id=parcel.node,
                message_type=f"query.{parcel.kind}",
                ttl=max(parcel.seconds, 1.0),
            )
            try:
                marks.append(next(iter(grid.push_messages([message])), None) or None)
            except Exception:
                _log.exception("a message for node %d was not taken", parcel.node)
                marks.append(None)
        return marks

    def pull(marks: list[str]) -> Iterator[tuple[str, bytes | str]]:
        try:
            replies = list(grid.pull_messages(marks))
        except Exception:
            _log.exception("the SuperLink gives no replies")
            return
        for reply in replies:
            yield reply.metadata.reply_to_message_id, _content(reply)

    return Carrier(nodes, push, pull)


def _content(reply: Message) -> bytes | str:
    if not reply.has_content():
        return f"its SuperNode has no reply: {reply.error.reason or reply.error.code}"
    try:
        record = reply.content["relay"]
        return bytes(record["reply"]) if "reply" in record else str(record["why"])
    except (KeyError, TypeError, ValueError):
        return "its SuperNode replied with something else"


app = ServerApp()


def main(grid: Grid, context: Context) -> None:
    """Relay until the coordinator ends; its socket is `socket` of the run's configuration."""
    relay(Path(str(context.run_config["socket"])), carrier_of(grid))


app.main()(main)
