"""The key stream on the host: the words of RFC 8439 and of the compiled programs, and streams that are derived by either."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson.randomness import Stream, bits, fold_in, host_cipher, stream
from tests.federated import helpers

KEY = np.frombuffer(bytes(range(32)), "<u4").astype(np.uint32)


def test_the_words_are_those_of_the_rfc():
    """RFC 8439, section 2.3.2: key 00 01 .. 1f, counter 1, nonce 00 00 00 09 00 00 00 4a 00 00 00 00."""
    words = host_cipher.cipher_words(KEY, 1, (0x09000000, 0x4A000000, 0), 1)[0]
    assert [f"{int(word):08x}" for word in words[:4]] == ["e4e7f110", "15593bd1", "1fdd0f50", "c47120a3"]
    assert [f"{int(word):08x}" for word in words[12:]] == ["d19c12b5", "b94e16de", "e883d0cb", "4e3c50a2"]


def test_a_run_of_blocks_is_block_after_block_and_the_counter_never_wraps():
    many = host_cipher.cipher_words(KEY, (1 << 32) - 3, (7, 8, 9), 3)
    for place, block in enumerate(many):
        np.testing.assert_array_equal(block, host_cipher.cipher_words(KEY, (1 << 32) - 3 + place, (7, 8, 9), 1)[0])
    with pytest.raises(ValueError, match="counter"):
        host_cipher.cipher_words(KEY, (1 << 32) - 2, (7, 8, 9), 3)


@pytest.mark.parametrize("labels", [(3,), ("a",), ("a", 3, 4_000_000_000), (np.int32(-1),)])
def test_streams_derive_the_same_on_the_host_and_in_a_program(labels):
    root = helpers.seeded(5)
    labels = tuple(np.asarray(label) if isinstance(label, np.int32) else label for label in labels)
    own, made = fold_in(root, *labels), jax.jit(lambda root: fold_in(root, *labels))(root)
    assert isinstance(own.key, np.ndarray) and isinstance(made.key, jax.Array)
    np.testing.assert_array_equal(own.key, np.asarray(made.key))
    assert (own.key != fold_in(root, *labels, 0).key).any()  # the twin: one label more


@pytest.mark.parametrize("count", [1, 16, 17, 1000, 65_536, 65_537])
def test_bits_are_the_same_on_the_host_and_in_a_program(count):
    root = helpers.seeded(6)
    found = np.asarray(bits(root, count))
    np.testing.assert_array_equal(found, np.asarray(jax.jit(lambda root: bits(root, count))(root)))
    assert (found != np.asarray(bits(fold_in(root, 1), count))).any()


def test_labels_that_are_traced_or_batched_take_a_program():
    root = helpers.seeded(7)
    many = jax.vmap(lambda k: fold_in(root, k))(jnp.arange(3, dtype=jnp.uint32))
    for k in range(3):
        np.testing.assert_array_equal(np.asarray(many.key)[k], fold_in(root, k).key)
        np.testing.assert_array_equal(np.asarray(many.key)[k], fold_in(root, jnp.uint32(k)).key)


def test_where_the_package_has_no_chacha20_programs_give_the_same(monkeypatch):
    root = helpers.seeded(8)
    wanted, words = fold_in(root, "a", 3).key, np.asarray(bits(root, 40))
    monkeypatch.setattr(host_cipher, "available", lambda: False)
    found = fold_in(root, "a", 3)
    assert isinstance(found.key, jax.Array)
    np.testing.assert_array_equal(np.asarray(found.key), wanted)
    np.testing.assert_array_equal(np.asarray(bits(root, 40)), words)
    with pytest.warns(Warning, match="NOT private"):
        np.testing.assert_array_equal(np.asarray(stream(8).key), root.key)


def _refused(*arguments):
    raise RuntimeError("the machine's policy")


@pytest.mark.parametrize("words", [_refused, lambda *arguments: np.zeros((1, 16), np.uint32)])
def test_a_package_without_it_or_with_other_words_is_noticed_once(words, monkeypatch):
    monkeypatch.setattr(host_cipher, "cipher_words", words)
    host_cipher.available.cache_clear()
    try:
        assert not host_cipher.available()
    finally:
        monkeypatch.undo()
        host_cipher.available.cache_clear()
    assert host_cipher.available()


def test_a_stream_hides_its_key_wherever_it_was_made():
    for made in (stream(), fold_in(stream(), 1), Stream(*jax.device_put(stream()))):
        assert str(made) == "Stream(<256-bit key hidden>, batch=(), origin=operating system)"


def test_a_key_is_eight_words_and_cannot_be_written_to():
    for key in (KEY.reshape(2, 4), KEY.astype(np.int64), KEY[:7]):
        with pytest.raises(ValueError, match="key is uint32"):
            host_cipher.cipher_words(key, 0, (0, 0, 0), 1)
    many = Stream(np.stack([KEY] * 3), np.zeros(3, np.uint32))
    for consume in (lambda: fold_in(many, 1), lambda: bits(many, 4)):
        with pytest.raises(ValueError, match="vmap"):
            consume()
    for made in (stream(), fold_in(stream(), 1), helpers.seeded(1)):
        with pytest.raises(ValueError, match="read-only"):
            made.key[0] = 1


def test_shapes_of_streams_are_derived_by_the_program():
    like = jax.eval_shape(lambda s: fold_in(s, 3), jax.eval_shape(lambda: Stream(jnp.asarray(KEY), jnp.uint32(0))))
    assert like.key.shape == (8,) and like.key.dtype == np.uint32


def test_the_origin_is_shown_for_numbers_of_numpy_too():
    made = jax.tree.map(lambda leaf: leaf * 1, helpers.seeded(1))
    assert isinstance(made.reproducible, np.uint32) and "NOT private" in str(made)
