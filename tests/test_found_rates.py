"""The learning rate that a fit finds: what is written of it, and when it is not sought again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import steepest
from steepest import networks
from steepest.callbacks import Callback
from steepest.unfinished import RATE, unfinished_of


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    draws = np.random.default_rng(0)
    x = draws.normal(size=(400, 3))
    path = tmp_path_factory.mktemp("data") / "t.csv"
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, -2.0, 0.5]}).to_csv(path, index=False)
    return path


@pytest.fixture
def searched(monkeypatch):
    """The times that a rate was sought."""
    times, search = [], networks.search_rate
    monkeypatch.setattr(networks, "search_rate", lambda *given: times.append(1) or search(*given))
    return times


class Stops(Callback):
    def on_epoch_end(self, figures):
        if figures["epoch"] == 2:
            raise KeyboardInterrupt


def fit(table, out, *, callbacks=(), say=lambda _: None, **settings):
    settings = {"epochs": 4, "optimizer": "sgd", **settings}
    return steepest.fit(table, "y", out=str(out), callbacks=callbacks, say=say, **settings)


def test_a_fit_finds_its_rate_says_so_and_writes_it_down(table, tmp_path, searched):
    said = []
    run = fit(table, tmp_path / "run", say=said.append)
    search = run.record["learning_rate"]
    assert run.record["descent"]["learning_rate"] == search["choice"] != 0.01
    assert (run.steps["learning_rate"].round(9) == round(search["choice"], 9)).all()
    assert any(f"The learning rate is {search['choice']:.3g}: {search['why']}." == line for line in said)
    assert run.record["settings_toml"].count('learning_rate = "auto"') == 1
    assert not (run.path / RATE).exists()
    assert searched == [1]


def test_a_number_is_taken_as_it_is(table, tmp_path, searched):
    run = fit(table, tmp_path / "run", learning_rate=0.02)
    assert run.record["descent"]["learning_rate"] == 0.02
    assert run.record["learning_rate"] is None
    assert searched == []


def test_an_interrupted_run_keeps_its_rate(table, tmp_path, searched):
    whole = fit(table, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(table, tmp_path / "run", callbacks=[Stops()])
    kept = json.loads((unfinished_of(tmp_path / "run") / RATE).read_text())
    assert kept["choice"] == whole.record["learning_rate"]["choice"]
    assert len(searched) == 2
    resumed = fit(table, tmp_path / "run")
    assert len(searched) == 2
    assert resumed.record["learning_rate"] == whole.record["learning_rate"]
    for one, other in zip(
        *(sorted(each.path.glob("*.safetensors")) for each in (whole, resumed)), strict=True
    ):
        assert one.read_bytes() == other.read_bytes()


def test_other_settings_seek_another_rate_in_the_place_of_an_interrupted_run(table, tmp_path, searched):
    with pytest.raises(KeyboardInterrupt):
        fit(table, tmp_path / "run", callbacks=[Stops()])
    run = fit(table, tmp_path / "run", optimizer="adam", overwrite=True)
    assert len(searched) == 2
    assert run.record["learning_rate"]["planned_steps"] == run.record["descent"]["steps"]


def test_going_on_from_a_run_keeps_its_rate_unless_one_is_given(table, tmp_path, searched):
    first = fit(table, tmp_path / "first")
    longer, given = (
        steepest.fit(table, "y", from_=str(first.path), epochs=2, out=str(tmp_path / name), **more)
        for name, more in (("longer", {}), ("given", {"learning_rate": 0.003}))
    )
    assert searched == [1]
    assert longer.record["descent"]["learning_rate"] == first.record["descent"]["learning_rate"]
    assert longer.record["learning_rate"] == first.record["learning_rate"]
    assert given.record["descent"]["learning_rate"] == 0.003


def test_where_none_is_found_the_rules_own_is_used_and_the_reason_said(table, tmp_path):
    said = []
    run = fit(table, tmp_path / "run", epochs=1, batch_size="all", say=said.append)
    assert run.record["descent"]["learning_rate"] == 0.01
    assert run.record["learning_rate"]["decided"] is False
    assert said[-1] == (
        "No learning rate was found: a descent of 1 step is too short to tell rates apart; it takes 10. "
        "sgd's own is used, 0.01."
    )
