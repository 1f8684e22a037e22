"""The worked example of a time series, on a smaller slice."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import real_data
from steepest import training

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "examples" / "electricity.md"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("electricity", ROOT / "examples" / "electricity.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_forecast_of_four_weeks_is_better_than_yesterdays_demand(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "_write_report", lambda *_: None)
    monkeypatch.setattr(training, "_diagnose", lambda *_: {"findings": [], "curvature": []})
    monkeypatch.setattr(example, "CANDIDATES", {"network": {"model": "mlp", "hidden": [16]}})
    found = real_data.demand()[: 28 * example.DAY]
    held = example.main(found, tmp_path / "runs", tmp_path / "pictures", epochs=20, learning_rate=0.003)
    assert len(held) == round(0.2 * 21 * example.DAY)
    values = found["value"].astype(float)
    last_week = np.sqrt(np.mean((values - values.shift(336))[-len(held) :] ** 2))
    yesterday = np.sqrt(np.mean((values - values.shift(48))[-len(held) :] ** 2))
    said = capsys.readouterr().out
    assert re.search(rf"last_week +{last_week:.0f} ", said)
    assert re.search(rf"yesterday +{yesterday:.0f} ", said)
    assert example.rmse(held["forecast"] - held["demand"]) < 0.5 * yesterday
    for name in ("electricity-week.png", "electricity-hours.png"):
        assert (tmp_path / "pictures" / name).stat().st_size > 10_000
        assert (PAGE.parent / name).stat().st_size < 120_000


def test_the_page_shows_the_scripts_own_code():
    script = (ROOT / "examples" / "electricity.py").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        assert block.strip() in script
