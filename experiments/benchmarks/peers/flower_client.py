"""The client of the Flower peer: a module of its own, because Ray's workers import it."""

from __future__ import annotations

import functools
import os
from typing import Any

import harness
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch_models import Network, cross_entropy, images_first

WORKLOAD = "FLOWER_PEER_WORKLOAD"  # set by peer_flower.py before Ray starts its workers
client_app = ClientApp()


@functools.cache
def _kept() -> tuple[Any, ...]:
    """(config, cohorts, network, records, labels), made once in each worker."""
    torch.set_num_threads(1)
    config, x, y, _, _ = harness.workloads().make(os.environ[WORKLOAD])
    network = Network(config.model == "cnn")
    return config, harness.workloads().cohorts(config), network, *images_first(x, y)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """One pass over the records of the client that this node plays in the round that the server names."""
    config, cohorts, network, x, y = _kept()
    client = cohorts[message.content["config"]["server-round"], int(context.node_config["partition-id"])]
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=config.local_lr)
    for begin in range(0, config.per_client, config.batch):
        chosen = slice(begin, begin + config.batch)
        optimizer.zero_grad()
        cross_entropy(network(x[client, chosen]), y[client, chosen]).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(network.state_dict()),
        "metrics": MetricRecord({"num-examples": config.per_client}),
    }
    return Message(content=RecordDict(content), reply_to=message)
