"""The evidence scripts at toy size: they run, keep their results, and skip with a reason where their data is not there."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    return importlib.import_module


@pytest.mark.long
def test_encryption_changes_no_bit_and_the_price_of_each_layer_is_kept(script, tmp_path: Path) -> None:
    script("layers").main(["--toy", "--out", str(tmp_path), "--machine", "here"])
    result = json.loads((tmp_path / "results" / "layers.json").read_text())
    assert result["machine"] == "here" and result["toy"] and result["commit"] and result["date"]
    rows = {row["layer"]: row for row in result["rows"]}
    assert rows["+ encryption"]["bits_equal_to_clear"] and rows["+ both"]["bits_equal_to_clear"]
    assert rows["+ both"]["bytes_per_sender_and_round"] > rows["+ embedding"]["bytes_per_sender_and_round"]
    assert rows["+ both"]["accuracy"] == rows["+ embedding"]["accuracy"] and rows["+ both"]["epsilon"] == 1.0
    assert (tmp_path / "figures" / "layers.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["pneumonia", "chest_xrays"])
def test_a_script_whose_data_is_not_there_says_so(script, name: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        script(name).main(["--data", str(tmp_path / "nowhere.npz"), "--out", str(tmp_path)])
    assert stop.value.code == 0 and "skipped" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
