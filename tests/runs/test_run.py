"""The main job end to end: every backend gives the same bits, a killed run goes on, the ledger counts each release once."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_poisson import accounting, models
from fedjax_poisson.aggregation import RoundRefused
from fedjax_poisson.runs.config import Config, read_config, recipe, write_config
from fedjax_poisson.runs.run import RunExists, run

REQUIRED = {
    *("dataset", "unit", "adjacency", "epsilon", "delta", "rounds", "mean_client_accuracy", "pooled_accuracy", "auc"),
    *("accuracy_by_site", "nonprivate_mean_client_accuracy", "bytes_up_per_client_per_round", "encrypt_seconds"),
    *("total_seconds", "aggregator", "mechanism", "reproducible", "versions"),
}


def _leaves(folder: Path) -> list[np.ndarray]:
    with np.load(folder / "checkpoints" / "latest.npz") as file:
        return [file[name] for name in file.files if name != "facts"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    run(Config(rounds=4, seed=11, aggregator="plain"), folder)
    return folder


@pytest.mark.parametrize("backend", ["tenseal", "round"])
def test_encrypted_run_gives_bit_identical_parameters(plain: Path, tmp_path: Path, backend: str) -> None:
    summary = run(Config(rounds=4, seed=11, aggregator=backend, yardstick=False), tmp_path / "run")
    for a, b in zip(_leaves(plain), _leaves(tmp_path / "run"), strict=True):
        np.testing.assert_array_equal(a, b)
    assert summary["aggregator"] == backend and not summary["private"] and "seed" in summary["privacy_note"]


def test_another_seed_gives_other_parameters(plain: Path, tmp_path: Path) -> None:
    run(Config(rounds=4, seed=12, aggregator="plain", yardstick=False), tmp_path / "run")
    assert any(np.any(a != b) for a, b in zip(_leaves(plain), _leaves(tmp_path / "run"), strict=True))


def test_summary_holds_what_is_promised_and_stays_in_the_budget(plain: Path) -> None:
    summary = json.loads((plain / "summary.json").read_text())
    assert set(summary) >= REQUIRED
    assert summary["epsilon"] <= 1.0 and summary["epsilon"] > 0.99
    assert summary["unit"] == "record" and summary["adjacency"] == "zero_out" and summary["delta"] == 1e-4
    assert summary["honest_senders"] == 3 and summary["senders"] == 4 and summary["lost_releases"] == 0
    assert set(summary["accuracy_by_site"]) == {"Cleveland", "Hungary", "Switzerland", "Long Beach"}
    book = accounting.read_ledger(plain / "ledger.sqlite")
    assert book.verify(summary["ledger_head"]) == 5
    assert [row.purpose for row in book.rows()] == ["standardise"] + ["train"] * 4
    assert all(row.honest_senders == 3 for row in book.rows())
    book.close()
    rounds = [json.loads(line) for line in (plain / "rounds.jsonl").read_text().splitlines()]
    assert all(row["exact"] is True and "distance" not in row for row in rounds)
    assert [row["round"] for row in rounds] == [0, 1, 2, 3, 4]
    assert np.all(np.diff([row["epsilon_so_far"] for row in rounds]) > 0)


def test_accountant_gets_honest_senders_not_senders() -> None:
    from fedjax_poisson.runs.build import build

    with_three = build(Config(rounds=4)).plan.train.mechanism.variance(4)
    with_four = build(Config(rounds=4, honest_senders=4)).plan.train.mechanism.variance(4)
    assert with_three / with_four == pytest.approx(4 / 3, rel=0.02)


KILLED = """
    import os, sys
    from pathlib import Path
    from fedjax_poisson import accounting
    from fedjax_poisson.runs.config import Config
    from fedjax_poisson.runs.run import run
    from fedjax_poisson.federated import private_sum

    spend = accounting.Ledger.spend
    def spend_then_die(self, purpose, label, *rest, **named):
        release = spend(self, purpose, label, *rest, **named)
        if label == "train 3":
            os._exit(17)  # after the ledger's transaction, before the sum is opened
        return release
    accounting.Ledger.spend = spend_then_die
    run(Config(rounds=5, seed={seed}, aggregator="plain", yardstick=False, controller="constant"), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("seed", [None, 3])
def test_killed_between_ledger_and_release_then_resumed(tmp_path: Path, seed: int | None) -> None:
    folder = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED.format(seed=seed)), str(folder)], capture_output=True
    )
    assert done.returncode == 17, done.stderr.decode()
    book = accounting.read_ledger(folder / "ledger.sqlite")
    assert [row.label for row in book.rows()] == ["standardise 0", "train 1", "train 2", "train 3"]
    book.close()
    summary = run(
        Config(rounds=5, seed=seed, aggregator="plain", yardstick=False, controller="constant"), folder, resume=True
    )
    book = accounting.read_ledger(folder / "ledger.sqlite")
    labels = [row.label for row in book.rows()]
    book.close()
    # The lost release stays spent, is never reused, and the budget ends the run one round early.
    assert labels == ["standardise 0", "train 1", "train 2", "train 3", "train 3", "train 4"]
    assert summary["lost_releases"] == 1 and summary["rounds"] == 4 and summary["budget_exhausted"]
    assert summary["epsilon"] <= 1.0 and summary["ledger_verified"]
    rounds = [json.loads(line)["round"] for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert rounds == [0, 1, 2, 3, 4]


def test_stopped_between_rounds_then_resumed_equals_an_uninterrupted_run(plain: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: dict[str, object]) -> None:
        if line["round"] == 2:
            raise Stop

    folder = tmp_path / "run"
    with pytest.raises(Stop):
        run(Config(rounds=4, seed=11, aggregator="plain", yardstick=False), folder, report=stop)
    summary = run(Config(rounds=4, seed=11, aggregator="plain", yardstick=False), folder, resume=True)
    assert summary["nonprivate_auc"] is None
    assert summary["lost_releases"] == 0 and summary["rounds"] == 4
    for a, b in zip(_leaves(plain), _leaves(folder), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_folder_is_not_overwritten_and_settings_do_not_change(plain: Path) -> None:
    with pytest.raises(RunExists, match="already holds a run"):
        run(Config(rounds=4, seed=11, aggregator="plain"), plain)
    with pytest.raises(ValueError, match="rounds"):
        run(Config(rounds=9, seed=11, aggregator="plain"), plain, resume=True)
    with pytest.raises(ValueError, match="no run to resume"):
        run(Config(), plain / "nowhere", resume=True)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"adjacency": "replace_one", "sampling_rate": 0.5}, "Amplification by Poisson sampling is proved"),
        ({"adjacency": "add_remove"}, "refused"),
        ({"honest_senders": 5}, "exceeds senders"),
        ({"honest_senders": 0}, "honest_senders=0"),
        ({"modulation": 1.2}, "modulation"),
        ({"sampling_rate": 0.0}, "sampling_rate"),
        ({"epsilon": 50.0}, "epsilon=50 is too large for delta"),
    ],
)
def test_unsound_claims_are_refused_before_anything_is_released(
    tmp_path: Path, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run(Config(rounds=2, **settings), tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "ledger.sqlite").exists()


def test_a_value_far_from_an_integer_refuses_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedjax_poisson.runs import training as setting_module

    make = setting_module.make_aggregator

    def shifted(*args: object, **kwargs: object) -> object:
        agg = make(*args, **kwargs)

        def open_(sealed: object, size: int) -> object:
            raise RoundRefused("A decrypted value was not within the margin of an integer")

        return agg._replace(open=open_)

    monkeypatch.setattr(setting_module, "make_aggregator", shifted)
    with pytest.raises(RoundRefused, match="not within the margin"):
        run(Config(rounds=2, seed=1, aggregator="plain"), tmp_path / "run")
    book = accounting.read_ledger(tmp_path / "run" / "ledger.sqlite")
    assert len(book.rows()) == 1  # written before it was opened: spent
    book.close()


def test_moments_of_each_site_are_one_release_of_the_same_budget(tmp_path: Path) -> None:
    config = Config(rounds=1, seed=5, aggregator="plain", standardize="site", yardstick=False)
    summary = run(config, tmp_path / "run")
    assert summary["epsilon"] <= 1.0 and summary["standardize"] == "site"
    assert [entry["purpose"] for entry in summary["releases"]] == ["standardise", "train"]
    from fedjax_poisson.runs.build import build

    alone = build(Config(rounds=1)).plan.standardize
    own = build(config).plan.standardize
    assert alone is not None and own is not None
    # A record has one block, so its norm and with it the noise of a coordinate stay.
    assert own.mechanism.variance(4) == pytest.approx(alone.mechanism.variance(4), rel=1e-6)
    scaler = _leaves(tmp_path / "run")[:2]
    assert all(leaf.shape == (4, 1, 13) for leaf in scaler) and len(np.unique(scaler[0][:, 0, 0])) == 4


def test_a_recipe_is_a_default_that_what_is_given_wins_over(tmp_path: Path) -> None:
    assert recipe("xray").model == "cnn" and recipe("xray", model="small_resnet").model == "small_resnet"
    assert recipe("heart") == Config() and recipe("xray", rounds=3).standardize == "bounds"
    (tmp_path / "x.toml").write_text('dataset = "xray"\nrounds = 3\nyardstick = false\n')
    found = read_config(tmp_path / "x.toml")
    assert found == recipe("xray", rounds=3, yardstick=False)
    write_config(found, tmp_path / "again.toml")
    assert read_config(tmp_path / "again.toml") == found


def test_a_recipe_follows_the_kind_of_model_that_is_asked_for() -> None:
    network, linear = recipe("pneumonia"), recipe("pneumonia", model="scattering")
    assert linear.model == "scattering" and linear.learning_rate > network.learning_rate
    assert recipe("pneumonia", model="scattering", learning_rate=7.0).learning_rate == 7.0
    own, other = recipe("covid"), recipe("covid", model="cnn")
    assert (
        own.model == "scattering" and other.model == "cnn" and own.learning_rate is None and other.learning_rate == 0.5
    )
    assert recipe("heart", model="mlp") == Config(model="mlp")


def test_fixed_features_computed_once_train_the_model_that_computes_them_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedjax_poisson.runs import build as setting_module

    mixing = jnp.asarray(np.random.default_rng(0).normal(size=(13, 6)), jnp.float32)
    once = models.on_fixed_features(lambda x: jnp.tanh(x @ mixing), models.logistic())
    seen: set[int] = set()

    def loss(params: object, x: jax.Array, y: jax.Array) -> jax.Array:
        seen.add(x.shape[-1])
        return once.loss(params, x, y)

    each = once._replace(loss=loss, fixed=None, head=None)
    found = {}
    # Given, since the rule would see 6 learned features here and 13 there.
    same = {"clip_norm": 1.1, "learning_rate": 20.0, "standardize_share": 0.2}
    for name, model in (("once", once), ("each", each)):
        monkeypatch.setattr(setting_module, "model_for", lambda *_, model=model: model)
        found[name] = run(
            Config(rounds=3, seed=3, aggregator="plain", yardstick=name == "once", **same), tmp_path / name
        )
    assert seen == {13}  # there the records themselves reached the gradient
    shapes = [[leaf.shape for leaf in _leaves(tmp_path / name)] for name in found]
    assert shapes[0] == shapes[1] and (6,) in shapes[0]
    for a, b in zip(_leaves(tmp_path / "once"), _leaves(tmp_path / "each"), strict=True):
        # The same noise; a rate that differs in its last digit may move a count by one step of the embedding.
        np.testing.assert_allclose(a, b, atol=2e-3 * max(1.0, np.abs(b).max()))
    assert found["once"]["auc"] == pytest.approx(found["each"]["auc"], abs=0.01)
    assert 0.5 < found["once"]["nonprivate_auc"] <= 1


def test_overflowing_slots_are_paid_for_in_delta() -> None:
    from fedjax_poisson.federated.records import OVERFLOW
    from fedjax_poisson.runs.build import build

    sampled, everybody = (build(Config(rounds=4, sampling_rate=rate)).plan for rate in (0.5, 1.0))
    paid = sampled.sampler_delta - everybody.sampler_delta
    assert paid == pytest.approx((1 + np.e) * 4 * OVERFLOW, rel=1e-6)


def test_config_survives_toml_and_names_what_is_wrong(tmp_path: Path) -> None:
    config = Config(epsilon=3.0, rounds=40, seed=7, aggregator="plain", csv='a "b".csv', label="y", site="s")
    write_config(config, tmp_path / "c.toml")
    assert read_config(tmp_path / "c.toml") == config
    assert read_config(tmp_path / "c.toml", rounds=2).rounds == 2
    for text, words in [
        ("epsilom = 1.0", "epsilom"),
        ("rounds = 'many'", "rounds"),
        ("a = ", "not valid TOML"),
        ("epsilon = -1", "epsilon=-1 must lie"),
    ]:
        (tmp_path / "bad.toml").write_text(text)
        with pytest.raises(ValueError, match=words):
            read_config(tmp_path / "bad.toml")
    (tmp_path / "int.toml").write_text("epsilon = 2")
    assert read_config(tmp_path / "int.toml").epsilon == 2.0
