"""`account` and `bench` as a user calls them."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.test_cli import call, refused


def test_account_answers_the_third_question(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("account", "--senders", 4, "--dimension", 14, "--rounds", 20, "--epsilon", 1) == 0
    shown = capsys.readouterr().out
    assert "dark" in shown and "epsilon" in shown and "a site that is a member sends " in shown
    refused(capsys, "account", "--senders", 4, "--dimension", 14)
    assert "honest_senders" in refused(
        capsys, "account", "--senders", 4, "--dimension", 14, "--rounds", 2, "--epsilon", 1, "--honest-senders", 5
    )


@pytest.mark.parametrize("what", ["sampling", "encryption", "aggregation"])
def test_bench_calls_the_benchmark_with_its_options(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every benchmark's own `main` takes the list that the command hands it (checked on its real signature)."""
    module = importlib.import_module(f"fedjax_poisson.benchmarks.{what}")
    inspect.signature(module.main).bind(["--quick"])
    seen: list[list[str]] = []
    monkeypatch.setattr(module, "main", seen.append)
    assert call("bench", what, "--quick") == 0
    assert seen == [["--quick"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sampling", "--size", 8), "only `bench aggregation`"),
        (("aggregation", "--chunk", 8, "--rounds-per-call", 2), "--chunk, --rounds-per-call: only `bench simulation`"),
        (("simulation", "--rounds-per-call", 0), "--rounds-per-call 0: give a whole number"),
        (("aggregation", "--members", 10**9), "--members 1000000000: give a whole number"),
    ],
)
def test_bench_refuses_what_its_benchmark_does_not_take(
    arguments: tuple[object, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(capsys, "bench", *arguments)


def test_bench_hands_on_every_option_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedjax_poisson.benchmarks import simulation

    seen: list[list[str]] = []
    monkeypatch.setattr(simulation, "main", seen.append)
    assert call("bench", "simulation", "--workload", "W1", "--rounds-per-call", 3, "--privacy", "off", "--quick") == 0
    assert seen == [["--workload", "W1", "--privacy", "off", "--rounds-per-call", "3", "--quick"]]
