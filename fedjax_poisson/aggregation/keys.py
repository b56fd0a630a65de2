"""Signatures (Ed25519) and boxes (HPKE, ML-KEM-768 with X25519) by the `cryptography` package; nothing of them is made by hand.

A box hides 32 bytes for one member, also from whoever records it today and has a quantum computer later. Boxes need cryptography 47; where an older one is
installed `available` says so, and nothing is upgraded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from fedjax_poisson.aggregation.refusals import BadBox, BadSignature, RoundRefused

__all__ = [
    "BOX_BYTES",
    "BOX_KEY_BYTES",
    "BOX_SEED_BYTES",
    "SIGNATURE_BYTES",
    "Hidden",
    "available",
    "box_opener",
    "box_public",
    "name_and_sign",
    "new_box_seed",
    "new_signing_key",
    "public_of",
    "seal_box",
    "sign",
    "verify",
]

PREFIX = "fedjax-poisson/1/"
SIGNATURE_BYTES = 64
BOX_KEY_BYTES = 1184 + 32
BOX_SEED_BYTES = 64 + 32
BOX_BYTES = 1168
"""What 32 bytes are when boxed."""


class Hidden:
    """A secret value: `value` reads it, repr hides it, pickle and copies to bytes are refused.

    `loaded` is the same value in the form of the package that signs with it, once it was asked for: it is forgotten with the value.
    """

    __slots__ = ("loaded", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.loaded: Any = None

    def __repr__(self) -> str:
        """Nothing of the value."""
        return "Hidden(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError(
            "a secret of the aggregation protocol is not pickled; the store writes what must survive a restart"
        )


def available() -> str | None:
    """None where signatures and boxes can be made; else why not, and what to do."""
    try:
        import cryptography
    except ImportError:
        found = "none"
    else:
        found = cryptography.__version__
        with contextlib.suppress(ImportError):
            importlib.import_module("cryptography.hazmat.primitives.hpke")
            return None
    return f"signatures and boxes need cryptography 47 or newer, {found} is installed: pip install 'cryptography>=47'"


def _require() -> None:
    missing = available()
    if missing is not None:
        raise RoundRefused(missing)


def signed_bytes(label: str, terms_hash: bytes, body: bytes) -> bytes:
    """What a signature is made over: the label, a zero byte, the hash of the terms, the hash of the body."""
    return (PREFIX + label).encode() + b"\0" + terms_hash + hashlib.sha256(body).digest()


def new_signing_key() -> Hidden:
    """A fresh Ed25519 key, 32 raw bytes."""
    _require()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Hidden(Ed25519PrivateKey.generate().private_bytes_raw())


def _signing(key: Hidden) -> tuple[Any, bytes]:
    """The private key as the package wants it, and the public one; made once a key, which costs as much as a signature."""
    if key.loaded is None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.from_private_bytes(key.value)
        key.loaded = private, private.public_key().public_bytes_raw()
    private, public = key.loaded
    return private, public


def public_of(key: Hidden) -> bytes:
    """The 32 bytes that name the holder of a signing key."""
    return _signing(key)[1]


def sign(key: Hidden, label: str, terms_hash: bytes, body: bytes) -> bytes:
    """64 bytes."""
    return name_and_sign(key, label, terms_hash, body)[1]


def name_and_sign(key: Hidden, label: str, terms_hash: bytes, body: bytes) -> tuple[bytes, bytes]:
    """`public_of` and `sign`."""
    private, public = _signing(key)
    signed = signed_bytes(label, terms_hash, body)
    signature: bytes = private.sign(signed)
    _remember((public, signed, signature))
    return public, signature


def verify(public: bytes, label: str, terms_hash: bytes, body: bytes, signature: bytes) -> None:
    """Refuse a signature that is not the key's for these bytes.

    Where all roles run in one process, each checks the same messages: the same bytes are checked once, and not at all if this process signed them itself, for
    that signature holds. What is remembered is public, in whole (never a hash of it), and only what holds is.

    Raises:
      BadSignature: it is not.
    """
    found = public, signed_bytes(label, terms_hash, body), signature
    if found in _hold:
        return
    _require()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, found[1])
    except (InvalidSignature, ValueError):
        raise BadSignature(f'The signature under "{label}" of key {public.hex()[:16]} does not hold.') from None
    _remember(found)


_MOST_REMEMBERED = 4096
_hold: dict[tuple[bytes, bytes, bytes], None] = {}  # (key, what is signed, signature), the oldest first
_holding = threading.Lock()


def _remember(found: tuple[bytes, bytes, bytes]) -> None:
    with _holding:
        _hold[found] = None
        if len(_hold) > _MOST_REMEMBERED:
            del _hold[next(iter(_hold))]


def new_box_seed() -> Hidden:
    """A fresh box key as its seeds: 64 bytes of ML-KEM-768, 32 of X25519."""
    _require()
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    first, second = mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    return Hidden(first.private_bytes_raw() + second.private_bytes_raw())


def _private(seed: Hidden) -> Any:
    from cryptography.hazmat.primitives import hpke
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    return hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(seed.value[:64]),
        x25519.X25519PrivateKey.from_private_bytes(seed.value[64:]),
    )


def box_public(seed: Hidden) -> bytes:
    """The public box key, 1216 bytes."""
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    first = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed.value[:64]).public_key()
    second = x25519.X25519PrivateKey.from_private_bytes(seed.value[64:]).public_key()
    return first.public_bytes_raw() + second.public_bytes_raw()


def _suite() -> Any:
    from cryptography.hazmat.primitives import hpke

    return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


def seal_box(public: bytes, secret: bytes, info: bytes) -> bytes:
    """32 bytes for the holder of a box key; `info` binds the box to its round, client and member.

    Raises:
      BadBox: the public key is not one.
    """
    from cryptography.hazmat.primitives import hpke
    from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

    try:
        key = hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(public[:1184]),
            x25519.X25519PublicKey.from_public_bytes(public[1184:]),
        )
        return bytes(_suite().encrypt(secret, key, info=info))
    except Exception as error:  # the package raises several kinds for keys of the wrong form or order
        raise BadBox(f"A member's box key cannot be used ({type(error).__name__}).") from None


def box_opener(seed: Hidden) -> Callable[[bytes, bytes], Hidden]:
    """`(box, info) -> 32 bytes`, with the private key made once.

    The function raises `BadBox` for a box that does not open, or holds another number of bytes.
    """
    suite, private = _suite(), _private(seed)

    def open_box(box: bytes, info: bytes) -> Hidden:
        try:
            found = bytes(suite.decrypt(box, private, info=info))
        except Exception as error:  # wrong tag, wrong length, wrong form: one refusal for all of them
            raise BadBox(f"A box does not open ({type(error).__name__}).") from None
        if len(found) != 32:
            raise BadBox(f"A box holds {len(found)} bytes, 32 were expected.")
        return Hidden(found)

    return open_box
