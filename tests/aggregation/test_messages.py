"""Messages and quorums: what their bytes carry, and what is refused before a signature is looked at."""

from __future__ import annotations

import pytest

from fedjax_poisson.aggregation import bodies, keys, messages
from fedjax_poisson.aggregation import refusals as r
from tests.aggregation.test_attacks import at, quorum


def test_one_signature_more_than_once_is_one():
    world = at("commit")
    body = bodies.commit_body(world.server.committed)
    three = messages.decode_quorum(quorum(world, "commit", body, (1, 2, 3)))
    with pytest.raises(r.NoQuorum):
        messages.check_quorum(
            three._replace(signatures=three.signatures * 2), "commit", world.digest, world.pinned.members, 4
        )
    with pytest.raises(r.DuplicateClient):
        messages.decode_quorum(messages.encode_quorum(three._replace(signatures=tuple(sorted(three.signatures * 2)))))
    stranger = keys.new_signing_key()
    extra = (keys.public_of(stranger), keys.sign(stranger, "commit", world.digest, body))
    with pytest.raises(r.NoQuorum):
        messages.check_quorum(
            three._replace(signatures=(*three.signatures, extra)), "commit", world.digest, world.pinned.members, 4
        )
