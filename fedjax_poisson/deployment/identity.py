"""Who a site is: one Ed25519 key in a file that only its owner may read, and signatures with it that mean one thing each.

A signature of this room is made over `deployment/LABEL`, and no label of the round protocol contains a slash: so nothing that is signed here can be shown
as a message of a round, nor the other way round. [assumed: Ed25519, SHA-256]
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from fedjax_poisson.aggregation import keys, messages
from fedjax_poisson.federated.checkpoints import sync_folder, write_atomic

__all__ = [
    "KEY_FILE",
    "PUBLIC_FILE",
    "Identity",
    "IdentityRefused",
    "check_private",
    "create",
    "load",
    "sign",
    "verify",
    "write_secret",
]

KEY_FILE = "identity.key"
PUBLIC_FILE = "identity.pub"
_ROOM = "deployment/"
_LABEL = re.compile(r"[a-z][a-z0-9-]{0,63}")
_POSIX = os.name == "posix"


class IdentityRefused(RuntimeError):
    """The key's file cannot be used as it is; the message says what to do."""


class Identity(NamedTuple):
    """A party's key pair.

    Attributes:
      key: Ed25519, 32 raw bytes, hidden from repr and pickle.
      public: 32 bytes, the party's name in every message.
    """

    key: keys.Hidden
    public: bytes


def create(folder: str | Path, passphrase: bytes | None = None) -> Identity:
    """Make a key and write it to `identity.key` (PEM, PKCS#8, mode 0600) and `identity.pub` (hexadecimal), in a folder of mode 0700.

    Args:
      folder: made if it is missing; its mode becomes 0700.
      passphrase: encrypts the key's file; None leaves it to the disk's encryption.

    Raises:
      IdentityRefused: there is a key already: a second one would be another party.
      ValueError: the passphrase is empty.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if passphrase is not None and not passphrase.strip():
        raise ValueError("the passphrase is empty; give one, or none at all.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if _POSIX:
        folder.chmod(0o700)
    key = keys.new_signing_key()
    hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        hidden = serialization.BestAvailableEncryption(passphrase)
    pem = Ed25519PrivateKey.from_private_bytes(key.value).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden
    )
    path = folder / KEY_FILE
    try:
        write_secret(path, pem)
    except FileExistsError:
        raise IdentityRefused(
            f"{path} holds a key already, and the consortium knows this site by it. Use it; to become a new party give another folder, and enrol anew."
        ) from None
    public = keys.public_of(key)
    write_atomic(folder / PUBLIC_FILE, public.hex().encode() + b"\n")
    return Identity(key, public)


def load(folder: str | Path, passphrase: bytes | None = None) -> Identity:
    """The identity of a folder.

    Raises:
      FileNotFoundError: there is none.
      IdentityRefused: others may read the file or its folder, it is damaged, or it is of another kind than `create` writes.
      ValueError: the passphrase is missing, wrong, or not needed.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    folder = Path(folder)
    path = folder / KEY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no key; make one with: fedjax-poisson site init --state {folder}")
    check_private(folder)
    check_private(path)
    pem = path.read_bytes()
    encrypted = b"ENCRYPTED" in pem
    if encrypted and passphrase is None:
        raise ValueError(f"{path} is encrypted; give its passphrase (--passphrase-file FILE).")
    if not encrypted and passphrase is not None:
        raise ValueError(f"{path} is not encrypted, a passphrase was given: is it the file that you mean?")
    try:
        found = serialization.load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise ValueError(f"{path} does not open with this passphrase.") from None
        raise IdentityRefused(
            f"{path} is no key any more ({type(error).__name__}). Restore its backup; without one this site must enrol anew."
        ) from None
    if not isinstance(found, Ed25519PrivateKey):
        raise IdentityRefused(f"{path} is a key of another kind ({type(found).__name__}); an Ed25519 key is needed.")
    key = keys.Hidden(found.private_bytes_raw())
    public = keys.public_of(key)
    beside = folder / PUBLIC_FILE
    if beside.is_file() and beside.read_text(encoding="ascii", errors="replace").strip() != public.hex():
        raise IdentityRefused(
            f"{beside} is not the public key of {path}: one of them was replaced. Restore both from one backup."
        )
    return Identity(key, public)


def sign(identity: Identity, label: str, body: bytes) -> bytes:
    """64 bytes over a label (small letters, digits, hyphens) and a body.

    Raises:
      ValueError: no such label can be.
    """
    return keys.sign(identity.key, _named(label), messages.NO_TERMS, body)


def verify(public: bytes, label: str, body: bytes, signature: bytes) -> None:
    """Refuse a signature that is not the key's under this label.

    Raises:
      BadSignature: it is not (`aggregation.refusals`).
      ValueError: no such label can be.
    """
    keys.verify(public, _named(label), messages.NO_TERMS, body, signature)


def _named(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise ValueError(f"label {label!r} must be small letters, digits and hyphens.")
    return _ROOM + label


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600, whole or not at all; it never exists with another mode.

    Raises:
      FileExistsError: there is a file of this name.
    """
    beside = path.with_suffix(path.suffix + ".part")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if _POSIX:
            os.link(beside, path)  # unlike a rename it refuses a name that is taken
        else:
            os.rename(beside, path)  # refuses it too, there
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def check_private(path: Path) -> None:
    """Refuse a file or folder that others than its owner may read or write; where a system has no modes, nothing is checked.

    Raises:
      IdentityRefused: with the command that mends it.
    """
    if not _POSIX:
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    wanted = 0o700 if path.is_dir() else 0o600
    if mode & 0o077:
        raise IdentityRefused(
            f'{path} has mode {mode:04o}: others than its owner may use it. Run "chmod {wanted:o} {path}"; '
            "if others may have read a key, or the passphrase of one, enrol anew under a new key."
        )
