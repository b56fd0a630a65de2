"""Signatures and boxes: good for what they were made for, and for nothing that is one bit away."""

from __future__ import annotations

import copy
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedjax_poisson.aggregation import keys
from fedjax_poisson.aggregation.refusals import BadBox, BadSignature

TERMS, BODY, SECRET = bytes(32), b"body", bytes(range(32))


def test_a_signature_holds_for_its_label_terms_body_and_key_only():
    key, other = keys.new_signing_key(), keys.new_signing_key()
    public, signature = keys.public_of(key), keys.sign(key, "commit", TERMS, BODY)
    assert len(public) == 32 and len(signature) == keys.SIGNATURE_BYTES
    keys.verify(public, "commit", TERMS, BODY, signature)
    wrong = [
        (keys.public_of(other), "commit", TERMS, BODY, signature),
        (public, "include", TERMS, BODY, signature),
        (public, "commit", bytes(31) + b"\1", BODY, signature),
        (public, "commit", TERMS, BODY + b"\0", signature),
        (public, "commit", TERMS, BODY, bytes([signature[0] ^ 1]) + signature[1:]),
        (public, "commit", TERMS, BODY, signature[:-1]),
        (public[:-1], "commit", TERMS, BODY, signature),
    ]
    for arguments in wrong:
        with pytest.raises(BadSignature):
            keys.verify(*arguments)


def test_a_refusal_is_not_remembered_and_a_signature_that_holds_is_checked_once(monkeypatch):
    elsewhere = Ed25519PrivateKey.generate()  # signs in another process: here nothing is remembered of it
    public = elsewhere.public_key().public_bytes_raw()
    signature = elsewhere.sign(keys.signed_bytes("commit", TERMS, b"once"))
    for _ in range(2):
        with pytest.raises(BadSignature, match="commit"):
            keys.verify(public, "commit", TERMS, b"never signed", signature)
    asked = []
    monkeypatch.setattr(keys, "_require", lambda: asked.append(1))
    for _ in range(3):
        keys.verify(public, "commit", TERMS, b"once", signature)
    assert len(asked) == 1
    with pytest.raises(BadSignature):
        keys.verify(public, "include", TERMS, b"once", signature)
    assert len(asked) == 2


def test_what_the_process_signed_itself_is_known_to_hold_and_nothing_one_bit_away_is(monkeypatch):
    key, other = keys.new_signing_key(), keys.new_signing_key()
    public, signature = keys.name_and_sign(key, "commit", TERMS, BODY)
    asked = []
    monkeypatch.setattr(keys, "_require", lambda: asked.append(1))
    keys.verify(public, "commit", TERMS, BODY, signature)
    assert not asked
    Ed25519PublicKey.from_public_bytes(public).verify(signature, keys.signed_bytes("commit", TERMS, BODY))  # it does
    wrong = [
        (keys.public_of(other), "commit", TERMS, BODY, signature),
        (public, "commit", TERMS, BODY, bytes([signature[0] ^ 1]) + signature[1:]),
        (public, "commit", TERMS, BODY + b"\0", signature),
        (public, "commit", b"\1" + TERMS[1:], BODY, signature),
        (public, "commi", TERMS, b"t" + BODY, signature),
    ]
    for number, arguments in enumerate(wrong, 1):
        with pytest.raises(BadSignature):
            keys.verify(*arguments)
        assert len(asked) == number  # each was checked


def test_no_more_signatures_are_remembered_than_stated_and_a_forgotten_one_is_checked_again(monkeypatch):
    monkeypatch.setattr(keys, "_hold", {})
    monkeypatch.setattr(keys, "_MOST_REMEMBERED", 2)
    key, asked = keys.new_signing_key(), []
    signed = [(body, *keys.name_and_sign(key, "commit", TERMS, body)) for body in (b"1", b"2", b"3")]
    assert len(keys._hold) == 2
    monkeypatch.setattr(keys, "_require", lambda: asked.append(1))
    for body, public, signature in reversed(signed):
        keys.verify(public, "commit", TERMS, body, signature)
    assert len(asked) == 1 and len(keys._hold) == 2


def test_a_box_opens_for_its_holder_and_purpose_only():
    seed, other = keys.new_box_seed(), keys.new_box_seed()
    public = keys.box_public(seed)
    box = keys.seal_box(public, SECRET, b"round 1, client 2, member 3")
    assert (len(seed.value), len(public), len(box)) == (keys.BOX_SEED_BYTES, keys.BOX_KEY_BYTES, keys.BOX_BYTES)
    again = keys.box_opener(keys.Hidden(bytes(seed.value)))  # as a member reads its seeds after a restart
    assert again(box, b"round 1, client 2, member 3").value == SECRET
    assert keys.seal_box(public, SECRET, b"round 1, client 2, member 3") != box
    changed = bytes([box[0] ^ 1]) + box[1:]
    for opener, blob, info in (
        (keys.box_opener(other), box, b"round 1, client 2, member 3"),
        (again, box, b"round 1, client 2, member 4"),
        (again, changed, b"round 1, client 2, member 3"),
        (again, box[:-1], b"round 1, client 2, member 3"),
        (again, b"", b""),
    ):
        with pytest.raises(BadBox, match="does not open"):
            opener(blob, info)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_box_holds_thirty_two_bytes(length):
    seed = keys.new_box_seed()
    with pytest.raises(BadBox, match=f"holds {length} bytes"):
        keys.box_opener(seed)(keys.seal_box(keys.box_public(seed), bytes(length), b""), b"")


def test_a_key_that_is_none_is_refused():
    good = keys.box_public(keys.new_box_seed())
    for bad in (b"", good[:-1], good + b"\0", bytes(len(good))):
        with pytest.raises(BadBox, match="cannot be used"):
            keys.seal_box(bad, SECRET, b"")


def test_hidden_values_are_not_shown_pickled_or_copied():
    secret = keys.Hidden(b"secret")
    assert repr(secret) == f"{secret}" == "Hidden(...)" and secret.value == b"secret"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            leak(secret)
