"""The package as a whole: what importing it costs and changes, its sizes, its public names."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

import fedjax_poisson as fp

PACKAGE = Path(fp.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("tenseal", "matplotlib", "flax", "rich", "tyro", "scipy.stats", "dp_accounting", "pandas", "sklearn", "torch")

_PROBE = """
import json, sys, time
import jax, jax.numpy, optax
before, loaded = dict(jax.config.values), set(sys.modules)
started = time.process_time()
import fedjax_poisson
seconds = time.process_time() - started
alone = sorted(set(sys.modules) - loaded)
for name in fedjax_poisson.__all__:
    getattr(fedjax_poisson, name)
print(json.dumps({
    "seconds": seconds,
    "alone": alone,
    "modules": sorted(set(sys.modules) - loaded),
    "changed": [name for name, value in jax.config.values.items() if before.get(name) != value],
    "backends": len(jax._src.xla_bridge._backends),
}))
"""


@pytest.fixture(scope="module")
def fresh() -> dict[str, object]:
    """What `import fedjax_poisson` does, and every public name after it, in an interpreter that has only imported jax and optax."""
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_loads_nothing_heavy(fresh: dict[str, object]) -> None:
    heavy = [name for name in HEAVY if name in fresh["modules"]]
    assert heavy == [], f"the public names load {heavy}; import them where they are used"
    assert "fedjax_poisson.federated.fedavg" in fresh["modules"]
    assert [name for name in fresh["alone"] if name.startswith("fedjax_poisson")] == ["fedjax_poisson"]


def test_import_is_quick_after_jax(fresh: dict[str, object]) -> None:
    assert fresh["seconds"] < 0.5  # of processor time: a busy machine does not slow it


def test_import_changes_no_jax_setting_and_starts_no_device(fresh: dict[str, object]) -> None:
    assert fresh["changed"] == []
    assert fresh["backends"] == 0, "a device was started by the import: some module makes an array when it is loaded"


def test_public_names_exist_and_say_what_they_are() -> None:
    assert sorted(fp.__all__) == list(fp.__all__)
    for name in fp.__all__:
        value = getattr(fp, name)
        assert inspect.getdoc(value), f"fedjax_poisson.{name} has no docstring"
        if isinstance(value, types.ModuleType):
            for inner in getattr(value, "__all__", ()):
                member = getattr(value, inner)
                if callable(member) and getattr(member, "__module__", "").startswith("fedjax_poisson"):
                    assert inspect.getdoc(member), f"fedjax_poisson.{name}.{inner} has no docstring"


def test_an_unknown_name_is_an_attribute_error_and_every_known_one_is_listed() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fedavgg'"):
        _ = fp.fedavgg
    assert {*fp.__all__, "__version__"} <= set(dir(fp))


def test_the_version_is_the_installed_one_and_a_bare_source_tree_has_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    for version, expected in (({"fedjax-poisson": "1.2.3"}.__getitem__, "1.2.3"), (missing, "0+source")):
        monkeypatch.setattr(metadata, "version", version)
        vars(fp).pop("__version__", None)  # as in a fresh interpreter
        assert fp.__version__ == expected
    del vars(fp)["__version__"]


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "fedjax_poisson", "--help"]
    assert "fedjax-poisson" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_a_module_is_one_idea(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split the module: 80 to 350 lines are one idea"
    changes = text.replace('"jax_enable_x64"', "")  # its name alone, to read it
    assert "jax.config.update" not in changes and "enable_x64" not in changes


def test_nothing_private_is_drawn_from_floating_point_samplers() -> None:
    """Initial weights are public and may use jax.random; privacy and encryption may not, and its Poisson nobody."""
    for path in MODULES:
        text, floor = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).parts[0]
        if floor == "benchmarks":  # measures our samplers beside it
            continue
        assert "random.poisson(" not in text.replace("randomness.poisson(", ""), (
            f"{path.name} draws from jax.random.poisson"
        )
        if floor in ("randomness", "mechanisms", "ckks", "accounting"):
            assert "jax.random." not in _code(text), f"{path.name} draws from jax.random"


def _code(text: str) -> str:
    """Source without its docstrings and comments, which may speak of what is forbidden."""
    import io
    import tokenize

    kept = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in (tokenize.STRING, tokenize.COMMENT)
    ]
    return "".join(kept)


def test_the_package_is_typed_and_ships_its_data() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert {path.name for path in (PACKAGE / "data" / "files").iterdir()} >= {"heart.npz"}


def test_help_prints_no_table_of_orders() -> None:
    for name in fp.accounting.__all__:
        value = getattr(fp.accounting, name)
        if inspect.isfunction(value):
            assert len(str(inspect.signature(value))) < 1200, name
