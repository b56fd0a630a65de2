"""At a site: one message of Flower to the site's worker, one reply back.

Flower starts a process for each message, so this one loads neither jax nor numpy of its own; the worker stays.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedjax_poisson.deployment.transport.link import Unreached
from fedjax_poisson.deployment.transport.sockets import ask_socket


def _ask(message: Message, context: Context) -> Message:
    """The request to the worker's socket, `socket` of the node's configuration."""
    asked = message.content["relay"]
    reply = ask_socket(Path(str(context.node_config["socket"])), asked["request"], float(asked["seconds"]))
    said = {"why": reply.reason} if isinstance(reply, Unreached) else {"reply": reply}
    return Message(RecordDict({"relay": ConfigRecord(said)}), reply_to=message)


def _name(message: Message, context: Context) -> Message:
    """The site's name, `site` of the node's configuration."""
    said = {"reply": str(context.node_config["site"]).encode()}
    return Message(RecordDict({"relay": ConfigRecord(said)}), reply_to=message)


app = ClientApp()
app.query("ask")(_ask)
app.query("name")(_name)
