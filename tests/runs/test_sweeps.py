"""Runs that differ in their budget share their programs: what follows from epsilon is a number."""

from __future__ import annotations

from pathlib import Path

import jax

from fedjax_poisson.runs.config import Config
from fedjax_poisson.runs.run import run

COMPILED: list[str] = []


def _note(event: str, _: float, **__: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(event)


def test_three_epsilons_compile_nothing_new_after_the_first(tmp_path: Path) -> None:
    jax.monitoring.register_event_duration_secs_listener(_note)
    cache = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compiled = []
    try:
        for epsilon in (
            0.9,
            1.0,
            1.1,
        ):  # their dark counts lie in one range each of the training and of the moments (`table_plan`)
            COMPILED.clear()
            run(Config(rounds=2, seed=3, epsilon=epsilon, aggregator="plain"), tmp_path / str(epsilon))
            compiled.append(len(COMPILED))
    finally:
        jax.config.update("jax_enable_compilation_cache", cache)
    assert compiled[1:] == [0, 0], f"compiled {compiled}"
