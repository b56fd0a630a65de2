"""One name for the model that all sites of a run end with: what they compare, and what the coordinator computes again from the bytes that it was sent."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np

from fedjax_poisson.aggregation.refusals import Oversize

__all__ = ["digest_of"]

_MOST_BYTES = 1 << 31
_FACTS = "facts"


def digest_of(blob: bytes) -> str:
    """Hexadecimal SHA-256 of all that a model's file holds: parameters, standardisation, and how rows are read and classes named.

    Args:
      blob: what `federated.saved_model.save_model` wrote, maybe changed by somebody; nothing in it is executed, and no more is unpacked than a model may have.

    Raises:
      Oversize: it would unpack to more than 2 GiB.
      Exception: of whatever kind NumPy and zipfile have for bytes that are no model.
    """
    with zipfile.ZipFile(io.BytesIO(blob)) as packed:
        if (size := sum(entry.file_size for entry in packed.infolist())) > _MOST_BYTES:
            raise Oversize(f"A model of {size} bytes; at most {_MOST_BYTES} are unpacked.")
    digest = hashlib.sha256()
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        for name in sorted(stored.files):
            array = stored[name]
            if name == _FACTS:
                body = json.dumps(json.loads(str(array)), sort_keys=True).encode()
            else:
                body = str((array.dtype.str, array.shape)).encode() + array.tobytes()
            digest.update(len(name).to_bytes(4, "little") + name.encode() + hashlib.sha256(body).digest())
    return digest.hexdigest()
