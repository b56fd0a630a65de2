"""Traced programs on disk: read instead of traced, the same bits, never one of other code or other shapes, and nothing of what cannot be named."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_poisson import extensions, kept_files, mechanisms, models, start, traced_programs
from fedjax_poisson.aggregation import contribution, opening, parameters, rows, screening, sharing
from fedjax_poisson.federated import algorithm, records, standardize
from fedjax_poisson.mechanisms.types import partial_of
from fedjax_poisson.randomness import fold_in
from fedjax_poisson.small_programs import OPTIONS
from fedjax_poisson.traced_programs import FOLDER, TracedOnce
from tests.federated import helpers

pytest.importorskip("flatbuffers", reason="jax.export writes programs with flatbuffers")

PARAMS = parameters.choose(14, 1 << 16, 4, 5, 4)
DERIVE = importlib.import_module("fedjax_poisson.randomness.chacha").__dict__["_derive_all"]
RNG = np.random.default_rng(11)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def untraceable(monkeypatch: pytest.MonkeyPatch):
    """A switch: from its call on, whoever traces fails."""

    def refuse(*arguments, **keywords):
        raise AssertionError("traced again")

    return lambda: monkeypatch.setattr(jax.export, "export", refuse)


def _again(program) -> TracedOnce:
    """The same program as another process has it: nothing of it in memory."""
    return TracedOnce(program._function, program._static, program._settings)


def _files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


DEALT = traced_programs.traced_once(0)(sharing.corrections)


def _deal() -> tuple:
    limbs = PARAMS.ring.limbs
    weights = RNG.integers(0, 9, (PARAMS.members - PARAMS.threshold + 1, PARAMS.threshold, limbs)).astype(np.uint32)
    form = RNG.integers(0, min(PARAMS.ring.moduli), (limbs, PARAMS.ring.degree)).astype(np.uint32)
    return PARAMS, weights, form, np.stack([form] * PARAMS.members)


def _cases() -> dict:
    mechanism = mechanisms.poisson_embedding(clip_norm=1.0, coordinate_bound=0.5, dark_count=1000.0, modulation=0.05)
    grids = RNG.integers(-(1 << 20), 1 << 20, (4, 14)).astype(np.int32)
    stream = helpers.seeded(1)
    flags = np.array([True, False, False])
    bounds = np.array([[0, 1], [-3, 3], [-3, 3]], np.float32)
    table = records.Records(
        jnp.asarray(RNG.normal(size=(2, 40, 3)), jnp.float32),
        jnp.zeros((2, 40), jnp.int32),
        jnp.ones((2, 40), bool),
        jnp.tile(jnp.arange(40, dtype=jnp.int32), (2, 1)),
    )
    units = records.units_of(np.asarray(table.unit), "record")
    programs = algorithm.__dict__["_programs"](models.logistic().loss, 0.5, 16, optax.sgd(1.0), None)
    params = {"weight": jnp.asarray(RNG.normal(size=3), jnp.float32), "bias": jnp.float32(0.1)}
    gradients = (partial_of(mechanism.clip, 4), params, table, units, stream, records.record_slots(units, 0.5))
    clip = partial_of(mechanism.clip, standardize.moment_dimension(flags))
    embed = importlib.import_module("fedjax_poisson.federated.private_sum").__dict__["_embed_rows"]
    a, drawn = np.asarray(rows.common_of(PARAMS, bytes(32))), screening.functionals(PARAMS, bytes(32))
    return {
        "deal": (DEALT, _deal()),
        "common": (rows.__dict__["_common"], (PARAMS, _deal()[3][0, 0, :8])),
        "seal": (contribution.__dict__["_seal"], (PARAMS, a, grids[0], stream)),
        "centre": (opening.__dict__["_centred"], (PARAMS, _deal()[2])),
        "decode": (opening.__dict__["_decode"], (PARAMS, a, _deal()[2][None], _deal()[2])),
        "project": (screening.project, (PARAMS, drawn.signs, drawn.uniform, _deal()[2])),
        "embed": (embed.quick, (partial_of(mechanism.embed, 14), grids, stream)),
        "gradients": (programs.contributions, gradients),
        "moments": (standardize.__dict__["_moment_grids"], (tuple(flags.tolist()), 1, clip, table, bounds)),
    }


@pytest.mark.parametrize(
    "name", ["deal", "common", "seal", "centre", "decode", "project", "embed", "gradients", "moments"]
)
def test_a_kept_program_is_read_and_gives_the_same_integers(name, folder, untraceable):
    program, arguments = _cases()[name]
    wanted = jax.tree.map(np.asarray, program.jitted(*arguments))
    before = _files(folder)
    first = _again(program)(*arguments)
    assert len(_files(folder) - before) == 1
    untraceable()
    second = _again(program)(*arguments)
    for found in (first, second):
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(np.asarray(one), other)


def test_the_twin_of_the_switch_other_source_is_traced_again(folder, untraceable, monkeypatch):
    program, arguments = DEALT, _deal()
    _again(program)(*arguments)
    monkeypatch.setattr(kept_files, "SOURCE", "one line more")
    untraceable()
    with pytest.raises(AssertionError, match="traced again"):
        _again(program)(*arguments)


@pytest.mark.parametrize("changed", ["source", "version", "settings", "options", "static", "platform"])
def test_whatever_operations_follow_from_is_in_the_name(changed, folder, monkeypatch):
    program, (params, weights, form, expanded) = DEALT, _deal()
    other = _again(program)
    other(params, weights, form, expanded)
    before = _files(folder)
    other = _again(program)
    if changed == "source":
        monkeypatch.setattr(kept_files, "SOURCE", "one line more")
    elif changed == "version":
        monkeypatch.setattr(traced_programs, "_VERSIONS", ("0.0",) * 6)
    elif changed == "settings":
        with jax.default_matmul_precision("highest"):
            other(params, weights, form, expanded)
    elif changed == "options":
        other = TracedOnce(program._function, program._static, {"compiler_options": OPTIONS})
    elif changed == "static":
        params = params._replace(size=13)
    else:
        monkeypatch.setattr(traced_programs.platform, "machine", lambda: "another")
    other(params, weights, form, expanded)
    assert len(_files(folder) - before) == 1


def test_other_shapes_structures_and_dtypes_are_other_programs(folder):
    program, key, label = _again(DERIVE), helpers.seeded(2).key, (np.uint32(1), (np.uint32(1),) * 3)
    program(key, (label,) * 2)
    (first,) = _files(folder)
    program(key, (label,) * 3)
    assert len(_files(folder)) == 2
    program(key, [label, label])
    assert len(_files(folder)) == 3
    _again(DERIVE)(key, (label,) * 2)
    assert len(_files(folder)) == 3 and first in _files(folder)


def test_the_source_of_the_package_is_what_the_name_holds(tmp_path, monkeypatch):
    assert kept_files.source() == kept_files.SOURCE
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(kept_files, "_PACKAGE", tmp_path)
    assert kept_files.source() is None  # this module itself is not there: the files are not those of the package
    (tmp_path / "kept_files.py").write_text("")
    before, stamps = kept_files.source(), kept_files._stamps()
    assert before and kept_files.source() == before and stamps and kept_files._stamps() == stamps
    (tmp_path / "a.py").write_text("x = 2\n")
    assert kept_files.source() != before and kept_files._stamps() != stamps
    stamps, facts = kept_files._stamps(), (tmp_path / "a.py").stat()
    (tmp_path / "b.txt").write_text("x = 3\n")  # as long, and of the same time: as tools that keep times leave it
    os.utime(tmp_path / "b.txt", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    os.replace(tmp_path / "b.txt", tmp_path / "a.py")
    assert kept_files._stamps() != stamps


def test_a_package_that_was_replaced_under_the_process_is_not_kept(folder, monkeypatch):
    program, arguments = DEALT, _deal()
    wanted = np.asarray(program.jitted(*arguments))
    monkeypatch.setattr(kept_files, "_stamps", lambda: [("a.py", 1, 1)])
    np.testing.assert_array_equal(np.asarray(_again(program)(*arguments)), wanted)
    assert not _files(folder)
    monkeypatch.undo()
    monkeypatch.setenv(FOLDER, str(folder))
    _again(program)(*arguments)  # the twin
    assert len(_files(folder)) == 1


def test_a_package_without_source_files_keeps_nothing(folder, monkeypatch):
    monkeypatch.setattr(kept_files, "_PACKAGE", folder / "package.zip")
    monkeypatch.setattr(kept_files, "SOURCE", kept_files.source())
    _again(DEALT)(*_deal())
    assert kept_files.SOURCE is None and not _files(folder)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-1], lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:], lambda raw: b""]
)
def test_a_file_that_is_not_what_was_written_is_traced_again_and_replaced(damage, folder):
    program, arguments = DEALT, _deal()
    _again(program)(*arguments)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    found = _again(program)(*arguments)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(program.jitted(*arguments)))
    assert file.read_bytes() != damage(good) and kept_files.read(file) is not None


def test_what_is_not_this_packages_is_not_kept(folder):
    table = np.arange(4, dtype=np.float32)

    def enclosing(x):
        return x @ table

    program = TracedOnce(enclosing, (), {})
    assert float(program(np.ones(4, np.float32))) == 6.0 and not _files(folder)
    # Nor is a function of the package that encloses an array: it would be a constant of the file.
    fixed = models.on_fixed_features(enclosing, models.logistic())
    with pytest.raises(traced_programs._Unnamed):
        traced_programs._named(fixed.apply)
    with pytest.raises(traced_programs._Unnamed):
        traced_programs._named(functools.partial(models.logistic().loss, table))


def test_what_a_function_encloses_is_in_its_name():
    named = traced_programs._named
    assert named(models.logistic().loss) == named(models.logistic().loss)
    assert named(models.mlp((4,)).apply) != named(models.mlp((4,), loss="squared").apply)
    assert named(models.linear(3).loss) != named(models.multilabel_logistic(3).loss)
    assert named((1, 2.0)) != named((1, 2)) and named((1, (2,))) != named(((1, 2),)) and named(True) != named(1)


class Steep(functools.partial):
    """Whatever its __call__ does is in no name."""


def _of_this_package(text: str, name: str):
    """A function as if a file of the package had this text."""
    names = {"__name__": "fedjax_poisson.made_up", "jnp": jnp}
    exec(compile(text, str(traced_programs._PACKAGE / "made_up.py"), "exec"), names)
    return names[name]


def test_only_partials_themselves_are_named_and_lambdas_of_one_line_apart():
    named, loss = traced_programs._named, models.logistic().loss
    assert named(functools.partial(loss, 1)) != named(functools.partial(loss, 2))
    assert named(jax.tree_util.Partial(loss))
    with pytest.raises(traced_programs._Unnamed):
        named(Steep(loss, 1))
    one, two = _of_this_package("pair = (lambda x: x + 1), (lambda x: x * 9)\n", "pair")
    assert named(one) == named(one) != named(two)
    one.__code__ = one.__code__.replace(co_linetable=b"")  # as of -X no_debug_ranges
    with pytest.raises(traced_programs._Unnamed):
        named(one)


def test_static_arguments_that_are_equal_and_settings_of_a_block_make_programs_of_their_own(folder):
    program = TracedOnce(_of_this_package("def full(x, n):\n    return jnp.full(x.shape, n[0])\n", "full"), (1,), {})
    x = jnp.ones(3, jnp.int32)
    for number, kind in ((1, jnp.int32), (1.0, jnp.float32), (True, jnp.bool_)):
        assert program(x, (number,)).dtype == kind, number
    thirds = TracedOnce(_of_this_package("def thirds(x):\n    return x.astype(float) / 3\n", "thirds"), (), {})
    y = np.ones(3, np.float32)
    assert thirds(y).dtype == np.float32
    with jax.enable_x64(True):
        assert thirds(y).dtype == thirds.jitted(y).dtype == np.float64
    assert thirds(y).dtype == np.float32


@pytest.mark.parametrize("name", ["fedjax_poisson.platforms:for_only", "no_such_module:part"])
def test_from_a_part_of_somebody_elses_on_nothing_is_kept_or_read(name, folder):
    program, arguments = DEALT, _deal()
    extensions.find("known", {"known": len}, "part")
    _again(program)(*arguments)
    assert len(_files(folder)) == 1  # the twin
    for file in folder.iterdir():
        file.unlink()
    with contextlib.suppress(ValueError):
        extensions.find(name, {}, "part")
    assert FOLDER not in os.environ
    _again(program)(*arguments)
    assert not _files(folder)


def test_inside_other_programs_and_without_a_folder_it_is_jits_function(folder, monkeypatch):
    stream = helpers.seeded(3)
    wanted = np.asarray(fold_in(stream, 1, 2).key)
    before = _files(folder)
    inside = jax.jit(lambda s, i: fold_in(s, i, 2).key)(stream, np.uint32(1))
    constant = jax.jit(lambda x: fold_in(stream, 1, 2).key ^ x)(np.uint32(0))  # nothing that it is given is traced
    np.testing.assert_array_equal(np.asarray(constant), wanted)
    several = jax.vmap(lambda i: fold_in(stream, i, 2).key)(np.arange(3, dtype=np.uint32))
    np.testing.assert_array_equal(np.asarray(inside), wanted)
    np.testing.assert_array_equal(np.asarray(several[1]), wanted)
    assert _files(folder) == before
    monkeypatch.delenv(FOLDER)
    _again(DERIVE)(stream.key, ((np.uint32(1), (np.uint32(1),) * 3),) * 5)
    assert _files(folder) == before


def test_arguments_on_several_devices_are_another_program(folder):
    if jax.device_count() == 1:
        pytest.skip("one device")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    program, key, labels = _again(DERIVE), helpers.seeded(2).key, ((np.uint32(1), (np.uint32(1),) * 3),) * 2
    alone = program(key, labels)
    assert len(_files(folder)) == 1
    spread = jax.device_put(key, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    np.testing.assert_array_equal(np.asarray(program(spread, labels)), np.asarray(alone))
    assert len(_files(folder)) == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "missing"))
    with pytest.warns(UserWarning, match="a traced program is not kept"):
        _again(DEALT)(*_deal())


def test_the_command_names_the_folder():
    assert start.TRACES == FOLDER


def test_two_threads_that_need_a_program_make_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real, together = [], TracedOnce._program, threading.Barrier(2)

    def slow(self, *arguments):
        made.append(threading.current_thread().name)
        time.sleep(0.2)  # long enough for the other to arrive
        return real(self, *arguments)

    monkeypatch.setattr(TracedOnce, "_program", slow)
    program, deal, found = _again(DEALT), _deal(), {}

    def call(name: str) -> None:
        together.wait()
        found[name] = np.asarray(program(*deal))

    threads = [threading.Thread(target=call, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    np.testing.assert_array_equal(found["a"], found["b"])
    np.testing.assert_array_equal(found["a"], np.asarray(program.jitted(*deal)))
