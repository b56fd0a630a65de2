import contextlib
import copy
import itertools
import os
import pickle
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from fedjax_poisson import randomness
from fedjax_poisson.platforms import for_only
from fedjax_poisson.randomness import chacha, chacha_block
from tests.randomness.reference import chacha20_words

RFC_KEY = np.frombuffer(bytes(range(32)), "<u4").astype(np.uint32)


def words_of(text: str) -> list[int]:
    return [int(w) for w in np.frombuffer(bytes.fromhex(text.replace(":", "")), "<u4")]


def block(key, counter, nonce):
    return [
        int(w)
        for w in randomness.chacha20_block(jnp.asarray(key), jnp.uint32(counter), tuple(jnp.uint32(n) for n in nonce))
    ]


@pytest.fixture
def seeded():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", randomness.ReproducibleStreamWarning)
        return randomness.stream(seed=20261123)


def test_block_function_of_rfc_8439_section_2_3_2():
    expected = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4ed2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    assert block(RFC_KEY, 1, words_of("000000090000004a00000000")) == words_of(expected)


def test_encryption_of_rfc_8439_section_2_4_2():
    text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    nonce = tuple(jnp.uint32(n) for n in words_of("000000000000004a00000000"))
    stream = np.stack(
        randomness.chacha20_block(jnp.asarray(RFC_KEY), jnp.arange(1, 3, dtype=jnp.uint32), nonce), axis=1
    )
    cipher = bytes(a ^ b for a, b in zip(text, stream.astype("<u4").tobytes(), strict=False))
    assert cipher.hex() == (
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8"
        "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab77937365af90bbf74a35be6b40b8eedf2785e42874d"
    )


def test_zero_key_keystream_of_rfc_8439_appendix_a_1():
    zeros = np.zeros(8, np.uint32)
    assert block(zeros, 0, (0, 0, 0))[:4] == words_of("76b8e0ada0f13d90405d6ae55386bd28")
    assert block(zeros, 1, (0, 0, 0))[:4] == words_of("9f07e7be5551387a98ba977c732d080d")


@pytest.mark.parametrize("form", ["passes", "loop2", "single", "double", "tiled"])
def test_every_form_gives_the_words_of_the_python_reference(form):
    counters, nonce = [0, 1, 77, 2**31, 2**32 - 1], [0x4A000000, 0, 9]
    key, words = jnp.asarray(RFC_KEY), tuple(jnp.uint32(n) for n in nonce)
    expected = np.array([chacha20_words([int(k) for k in RFC_KEY], c, nonce) for c in counters], np.uint64).T
    got = np.stack(randomness.chacha20_block(key, jnp.asarray(counters, jnp.uint32), words, form=form))
    np.testing.assert_array_equal(got, expected)
    other = np.stack(
        randomness.chacha20_block(key ^ jnp.uint32(1), jnp.asarray(counters, jnp.uint32), words, form=form)
    )
    assert (other == expected).sum() <= 1


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1000, 70_001])
def test_bits_are_planes_of_the_output_blocks(seeded, count):
    blocks = -(-count // 16)
    key = [int(k) for k in seeded.key]
    got = np.asarray(randomness.bits(seeded, count))
    assert got.shape == (count,) and got.dtype == np.uint32
    for element in {0, count // 3, count // 2, count - 1}:
        word, counter = divmod(element, blocks)
        assert got[element] == chacha20_words(key, counter, [0, 0, 0])[word]


def test_bits_take_a_shape_and_nothing_at_all(seeded):
    flat = randomness.bits(seeded, 60)
    np.testing.assert_array_equal(randomness.bits(seeded, (3, 4, 5)).ravel(), flat)
    assert randomness.bits(seeded, ()).shape == () and randomness.bits(seeded, (0, 3)).shape == (0, 3)


def test_more_than_the_counter_can_count_is_refused(seeded):
    with pytest.raises(ValueError, match="fold in a label per part"):
        jax.eval_shape(lambda s: randomness.bits(s, (1 << 36) + 1), seeded)


def test_bits_look_uniform_and_the_check_sees_a_stuck_bit(seeded):
    words = np.asarray(randomness.bits(seeded, 1 << 20))

    def worst_z(x):
        ones = np.unpackbits(x.view(np.uint8)).reshape(-1, 32).sum(axis=0)
        return np.abs((ones - x.size / 2) / np.sqrt(x.size / 4)).max()

    assert worst_z(words) < 5
    assert worst_z(np.where(np.arange(words.size) % 100 == 0, words | np.uint32(8), words)) > 5
    assert len(np.unique(words)) > words.size * 0.9998


def test_distinct_labels_give_distinct_keys_and_disjoint_blocks(seeded):
    labels = [*range(300), 2**32 - 1, *(str(i) for i in range(100)), "noise", "sampling", "noise "]
    children = [randomness.fold_in(seeded, label) for label in labels]
    children += [
        randomness.fold_in(seeded, a, b) for a, b in itertools.product([0, 1, 2, "noise"], [0, 1, 2, "noise", "1"])
    ]
    seen: dict[tuple[int, ...], str] = {}
    for stream in [seeded, *children]:
        planes = np.asarray(randomness.bits(stream, 64)).reshape(16, 4)
        for words in [tuple(planes[:8, b]) for b in range(4)] + [tuple(np.asarray(stream.key))]:
            assert words not in seen, "two labels share a block, or a block is also a key"
            seen[words] = ""


def test_a_label_stands_for_the_same_stream_however_it_is_written(seeded):
    key = np.asarray(randomness.fold_in(seeded, 7).key)
    for same in (np.uint32(7), jnp.uint32(7), jnp.int32(7), np.int64(7)):
        np.testing.assert_array_equal(randomness.fold_in(seeded, same).key, key)
    np.testing.assert_array_equal(jax.jit(randomness.fold_in)(seeded, jnp.int32(7)).key, key)
    assert (np.asarray(randomness.fold_in(seeded, "7").key) != key).all()
    twice = randomness.fold_in(randomness.fold_in(seeded, 7), "noise")
    np.testing.assert_array_equal(randomness.fold_in(seeded, 7, "noise").key, twice.key)
    assert (np.asarray(randomness.fold_in(seeded, "noise", 7).key) != np.asarray(twice.key)).any()


def test_derivation_is_a_chacha_block_of_another_domain(seeded):
    key = [int(k) for k in seeded.key]
    np.testing.assert_array_equal(randomness.fold_in(seeded, 9).key, chacha20_words(key, 9, [1, 0, 0])[:8])


@pytest.mark.parametrize("bad", [-1, 2**32, True, 1.5, None, np.zeros(2, np.int32), np.float32(1)])
def test_labels_that_could_collide_are_refused(seeded, bad):
    with pytest.raises((TypeError, ValueError), match="label"):
        randomness.fold_in(seeded, bad)


def test_labels_folded_at_once_give_the_streams_of_labels_folded_alone(seeded):
    labels = ["noise", 7, jnp.uint32(2**31 + 5), jnp.int32(-1), "7", 0]
    alone = [np.asarray(randomness.fold_in(seeded, label).key) for label in labels]
    for fold in (randomness.fold_each, jax.jit(randomness.fold_each, static_argnums=(1, 5))):
        for one, expected in zip(fold(seeded, *labels), alone, strict=True):
            np.testing.assert_array_equal(one.key, expected)
            assert int(one.reproducible) == 1
    clients = jnp.arange(3, dtype=jnp.uint32)
    both = jax.vmap(lambda i: randomness.fold_each(seeded, i, "noise"))(clients)
    np.testing.assert_array_equal(both[0].key, [randomness.fold_in(seeded, int(i)).key for i in clients])
    np.testing.assert_array_equal(both[1].key, [alone[0]] * 3)
    assert len({bytes(key) for key in alone}) == len(labels)


def test_no_label_is_refused(seeded):
    for fold in (randomness.fold_in, randomness.fold_each):
        with pytest.raises(ValueError, match="at least one label"):
            fold(seeded)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_an_accelerator_gets_a_loop_that_compiles_quickly(platform, seeded, monkeypatch):
    """The twin: straight-line code, which took minutes to compile in a round, is several times as much of it."""

    def exclusive_ors() -> int:
        program = jax.jit(lambda stream: randomness.bits(stream, 1 << 20))
        text = program.trace(seeded).lower(lowering_platforms=(platform,)).as_text()
        # What is called stands there once, and is put in place of each call before anything is compiled.
        parts = re.split(r"func\.func \w+ @(\w+)", text)
        own = zip(parts[1::2], parts[2::2], strict=True)
        return sum(body.count("stablehlo.xor") * max(text.count(f"call @{name}("), 1) for name, body in own)

    # Four for a quarter round, eight of those in a double round, two of those go round together; a TPU's rounds take four quarter rounds at once.
    assert exclusive_ors() == {"cuda": 2 * 32, "tpu": 2 * 4}[platform]
    monkeypatch.setitem(chacha_block.FORMS, "written out", chacha_block._in_xla(10, chacha_block._whole))
    monkeypatch.setattr(chacha_block, "_ACCELERATOR_FORM", "written out")
    monkeypatch.setattr(chacha_block, "_TPU_FORM", "written out")
    jax.clear_caches()
    assert exclusive_ors() >= 10 * 32
    jax.clear_caches()


def test_vmap_scan_jit_and_shard_map_give_the_same_words(seeded):
    ids = jnp.arange(8, dtype=jnp.uint32)

    def one(i):
        return randomness.bits(randomness.fold_in(seeded, "client", i), 33)

    expected = np.stack([one(i) for i in ids])
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(ids), expected)
    np.testing.assert_array_equal(lax.scan(lambda _, i: (None, one(i)), None, ids)[1], expected)
    mesh = Mesh(np.array(jax.devices()), ("clients",))
    spread = jax.jit(jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=P("clients"), out_specs=P("clients")))
    np.testing.assert_array_equal(spread(ids), expected)


def _straight(s, number):
    first, _, third = randomness.fold_each(randomness.fold_in(s, "round", number), "a", "b", "c")
    fourth, fifth = randomness.fold_each(first, "d", number)
    return fourth.key, fifth.key, third.key, randomness.bits(randomness.fold_in(third, number), 40)


def _in_loops(s, number):
    def inner(_, key):
        return randomness.fold_each(randomness.Stream(key, s.reproducible), "a", number)[1].key

    def outer(i, key):
        child = randomness.fold_in(randomness.Stream(key, s.reproducible), jnp.asarray(i, jnp.uint32))
        return lax.fori_loop(0, 2, inner, randomness.bits(child, 8))

    last = randomness.Stream(lax.fori_loop(0, 3, outer, jnp.asarray(s.key)), s.reproducible)
    return last.key, *(one.key for one in randomness.fold_each(last, "a", number))


def _in_a_branch(s, number):
    key = lax.cond(number > 2, lambda: randomness.fold_in(s, number).key, lambda: randomness.bits(s, 8))
    return key, randomness.bits(randomness.fold_in(randomness.Stream(key, s.reproducible), number), 8)


@pytest.mark.parametrize("program", [_straight, _in_loops, _in_a_branch])
@pytest.mark.parametrize("only", [True, False])
def test_streams_of_streams_compile(program, only, seeded):
    """A compiler that meets functions called by one another may end the process; and what it makes is what loops of Python on the host give."""
    with for_only("cpu") if only else contextlib.nullcontext():
        got = jax.jit(program)(seeded, jnp.uint32(5))
    with jax.disable_jit():
        expected = program(seeded, np.uint32(5))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_many_streams_at_once_and_long_ones_give_the_same_words(seeded):
    """Sizes at which XLA would share out the steps of a loop over threads if they were not kept small."""
    streams = jax.vmap(lambda i: randomness.fold_in(seeded, i))(jnp.arange(60, dtype=jnp.uint32))
    last = jax.tree.map(lambda leaf: leaf[-1], streams)
    tiles = jax.jit(jax.vmap(lambda s: chacha.word_tiles(s, 3, 256)))(streams)
    expected = np.asarray(randomness.bits(last, 16 * 768)).reshape(16, 3, 256).swapaxes(0, 1)
    np.testing.assert_array_equal(tiles[-1], expected)
    long = np.asarray(jax.jit(lambda s: chacha.word_tiles(s, 299, 256))(last))  # 299 = 13 * 23: parts of unequal use
    np.testing.assert_array_equal(long[:3], expected)
    late = chacha.block_words(last, 256, jnp.uint32(298 * 256))
    np.testing.assert_array_equal(long[298], np.stack(late))


def test_a_key_is_the_operating_systems_bytes(system_entropy, monkeypatch):
    asked, urandom = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(urandom(size)) or asked[-1])
    keys = [np.asarray(randomness.stream().key).astype("<u4").tobytes() for _ in range(2)]
    assert keys == asked and len({*keys}) == 2 and all(len(each) == 32 for each in asked)


def test_a_stream_from_the_operating_system_is_fresh_and_silent(system_entropy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b = randomness.stream(), randomness.stream()
    assert (np.asarray(a.key) != np.asarray(b.key)).any()
    assert not randomness.is_reproducible(a) and not randomness.is_reproducible(randomness.fold_in(a, 1))
    assert {leaf.dtype for leaf in jax.tree.leaves(a)} == {jnp.dtype("uint32")}


def test_a_seed_is_loud_reproducible_and_inherited():
    with pytest.warns(randomness.ReproducibleStreamWarning, match="NOT private"):
        a = randomness.stream(seed=5)
    with pytest.warns(randomness.ReproducibleStreamWarning):
        b, c = randomness.stream(seed=5), randomness.stream(seed=6)
    np.testing.assert_array_equal(a.key, b.key)
    assert (np.asarray(a.key) != np.asarray(c.key)).any()
    assert randomness.is_reproducible(randomness.fold_in(a, "round", 3))


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (1 << 256, ValueError), (1.0, TypeError), (True, TypeError), ("x", TypeError)]
)
def test_bad_seeds_are_refused(seed, error):
    with pytest.raises(error, match="seed"):
        randomness.stream(seed=seed)


def test_the_key_is_never_shown_or_pickled(seeded):
    texts = [
        repr(seeded),
        str(seeded),
        f"{seeded}",
        repr({"state": (seeded,)}),
        repr(jax.vmap(lambda i: randomness.fold_in(seeded, i))(jnp.arange(3))),
    ]
    jax.jit(lambda s: texts.append(repr(s)) or s.reproducible)(seeded)
    secrets = {str(int(k)) for k in seeded.key} | {hex(int(k))[2:] for k in seeded.key}
    assert not any(secret in text for text in texts for secret in secrets)
    assert any(secret in repr(tuple(seeded)) for secret in secrets), "the check would see a key that is shown"
    assert "NOT private" in repr(seeded) and "operating system" in repr(randomness.stream())
    with pytest.raises(TypeError, match="secret key"):
        pickle.dumps(seeded)
    assert copy.deepcopy(seeded) is seeded and copy.copy(seeded) is seeded


def test_fold_each_refuses_a_label_that_stands_twice(seeded):
    for labels in (("a", "b", "a"), (7, np.uint32(7)), ("a", 3, "a")):
        with pytest.raises(ValueError, match="stands twice"):
            randomness.fold_each(seeded, *labels)
    assert len(randomness.fold_each(seeded, 7, "7")) == 2  # a number and a text are two labels


def test_tiles_beyond_the_counter_of_a_stream_are_refused_whatever_the_platform(seeded):
    for platform in ("cpu", "cuda"):
        with for_only(platform), pytest.raises(ValueError, match="2\\^38 bytes"):
            jax.eval_shape(lambda s: chacha.word_tiles(s, (1 << 24) + 1, 256), seeded)
