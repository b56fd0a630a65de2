"""The name of a model's file: the same for the same contents, and for nothing else."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from fedjax_poisson.aggregation.refusals import Oversize
from fedjax_poisson.deployment import model_digest
from fedjax_poisson.deployment.model_digest import digest_of

FACTS = {"format": "x", "classes": ["no", "yes"]}
LEAF = np.arange(6, dtype=np.float32)


def file_of(facts: object = FACTS, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, facts=np.array(json.dumps(facts)), **(arrays or {"leaf_0": LEAF}))
    return buffer.getvalue()


def test_the_same_contents_have_the_same_name() -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, leaf_0=LEAF, facts=np.array(json.dumps(dict(reversed(FACTS.items())), indent=1)))
    assert digest_of(file_of()) == digest_of(packed.getvalue())


@pytest.mark.parametrize(
    "other",
    [
        file_of(leaf_0=LEAF + 1),
        file_of(leaf_1=LEAF),
        file_of(leaf_0=LEAF.reshape(2, 3)),
        file_of(leaf_0=LEAF.view(np.int32)),
        file_of(leaf_0=LEAF, leaf_1=LEAF),
        file_of(FACTS | {"classes": ["yes", "no"]}),
    ],
)
def test_other_contents_have_another_name(other: bytes) -> None:
    assert digest_of(other) != digest_of(file_of())


def test_nothing_is_executed_and_no_bomb_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="pickle"):
        digest_of(file_of(leaf_0=np.array([{"a": 1}], dtype=object)))
    with pytest.raises(zipfile.BadZipFile):
        digest_of(b"no model")
    monkeypatch.setattr(model_digest, "_MOST_BYTES", 1000)
    assert len(digest_of(file_of(leaf_0=LEAF[:1]))) == 64
    with pytest.raises(Oversize):
        digest_of(file_of(leaf_0=np.zeros(1000)))
