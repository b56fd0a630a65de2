"""A site's key: only its owner reads it, it is never replaced, and what it signs means one thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedjax_poisson.aggregation import keys, messages
from fedjax_poisson.aggregation.refusals import BadSignature
from fedjax_poisson.deployment import identity
from fedjax_poisson.deployment.identity import IdentityRefused


def test_a_key_is_made_once_and_loads_as_the_same_party(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    made = identity.create(folder)
    assert identity.load(folder).public == made.public == bytes.fromhex((folder / identity.PUBLIC_FILE).read_text())
    assert (folder / identity.KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "Hidden" in repr(made) and made.key.value.hex() not in repr(made)
    left = folder / f"{identity.KEY_FILE}.part"  # of a process that was killed while it wrote
    left.write_bytes(b"half")
    before = (folder / identity.KEY_FILE).read_bytes()
    with pytest.raises(IdentityRefused, match="holds a key already"):
        identity.create(folder)
    assert (folder / identity.KEY_FILE).read_bytes() == before
    assert sorted(os.listdir(folder)) == [identity.KEY_FILE, identity.PUBLIC_FILE]


def test_a_passphrase_is_needed_and_must_be_the_right_one(tmp_path: Path) -> None:
    made = identity.create(tmp_path / "a", b"correct horse")
    assert b"ENCRYPTED" in (tmp_path / "a" / identity.KEY_FILE).read_bytes()
    assert identity.load(tmp_path / "a", b"correct horse").public == made.public
    with pytest.raises(ValueError, match="encrypted; give its passphrase"):
        identity.load(tmp_path / "a")
    with pytest.raises(ValueError, match="does not open with this passphrase"):
        identity.load(tmp_path / "a", b"wrong")
    with pytest.raises(ValueError, match="the passphrase is empty"):
        identity.create(tmp_path / "b", b" \n")
    identity.create(tmp_path / "b")
    with pytest.raises(ValueError, match="not encrypted, a passphrase was given"):
        identity.load(tmp_path / "b", b"correct horse")


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX systems")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    identity.create(tmp_path / "s")
    path = tmp_path / "s" / identity.KEY_FILE
    path.chmod(mode)
    with pytest.raises(IdentityRefused, match=rf"mode {mode:04o}.*chmod 600"):
        identity.load(tmp_path / "s")
    path.chmod(0o400)
    identity.load(tmp_path / "s")
    (tmp_path / "s").chmod(0o755)
    with pytest.raises(IdentityRefused, match="chmod 700"):
        identity.load(tmp_path / "s")


def test_damage_replacement_and_absence_have_names(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    with pytest.raises(FileNotFoundError, match="site init"):
        identity.load(tmp_path)
    identity.create(tmp_path / "s")
    path = tmp_path / "s" / identity.KEY_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(IdentityRefused, match="no key any more"):
        identity.load(tmp_path / "s")
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(other)
    with pytest.raises(IdentityRefused, match="of another kind"):
        identity.load(tmp_path / "s")
    path.write_bytes(whole)
    identity.load(tmp_path / "s")
    (tmp_path / "s" / identity.PUBLIC_FILE).write_text("00" * 32)
    with pytest.raises(IdentityRefused, match="one of them was replaced"):
        identity.load(tmp_path / "s")


def test_a_signature_holds_for_its_key_label_and_body_alone(tmp_path: Path) -> None:
    one, other = identity.create(tmp_path / "a"), identity.create(tmp_path / "b")
    signature = identity.sign(one, "roster", b"body")
    identity.verify(one.public, "roster", b"body", signature)
    for public, label, body in (
        (other.public, "roster", b"body"),
        (one.public, "run-terms", b"body"),
        (one.public, "roster", b"bodz"),
    ):
        with pytest.raises(BadSignature):
            identity.verify(public, label, body, signature)
    with pytest.raises(ValueError, match="small letters"):
        identity.sign(one, "roster\0", b"body")


def test_a_signature_of_this_room_is_no_message_of_a_round(tmp_path: Path) -> None:
    """Every label of the protocol, signed here, is refused there; signed there it holds (the twin)."""
    one = identity.create(tmp_path / "a")
    for label in (*messages.MEMBER_LABELS, *messages.CLIENT_LABELS):
        assert "/" not in label
        here = identity.sign(one, label, b"body")
        with pytest.raises(BadSignature):
            keys.verify(one.public, label, messages.NO_TERMS, b"body", here)
        keys.verify(
            one.public, label, messages.NO_TERMS, b"body", keys.sign(one.key, label, messages.NO_TERMS, b"body")
        )


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f"{identity.KEY_FILE}.part").write_bytes(b"half")
    made = identity.create(tmp_path)
    assert identity.load(tmp_path).public == made.public
