"""Logs of the descents of Keras models on tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.datasets import load_breast_cancer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import steepest
from logged import without_a_diagnosis
from steepest.loggers import JsonLines, TensorBoard

BUILDER = """
import keras

def network(columns):
    return keras.Sequential([keras.Input((columns.width,)), keras.layers.Dense(1, "sigmoid")])
"""


class Stops(steepest.Callback):
    def on_epoch_end(self, figures):
        if figures["epoch"] == 2:
            raise KeyboardInterrupt


def test_a_keras_model_that_goes_on_logs_each_epoch_and_step_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    without_a_diagnosis(monkeypatch)
    Path("logged_builder.py").write_text(BUILDER)
    rows = load_breast_cancer(as_frame=True).frame

    def fit(*callbacks):
        logs = [JsonLines("descent.jsonl"), TensorBoard("events"), *callbacks]
        asked = {"model": "logged_builder:network", "learning_rate": 0.01, "batch_size": 64, "epochs": 4}
        return steepest.fit(rows, "target", **asked, out="run", callbacks=logs)

    with pytest.raises(KeyboardInterrupt):
        fit(Stops())
    run = fit(JsonLines("late.jsonl"))
    lines = [json.loads(line) for line in Path("descent.jsonl").read_text().splitlines()]
    events, epochs = [each["event"] for each in lines], [each for each in lines if each["event"] == "epoch"]
    assert [each for each in events if each != "epoch"] == ["begin", "interrupted", "resume", "end", "run"]
    assert [each["epoch"] for each in epochs] == run.epochs["epoch"].tolist() == [1, 2, 3, 4]
    assert [each["step"] for each in epochs] == run.epochs["step"].tolist() == [8, 16, 24, 32]
    assert [each["validation_loss"] for each in epochs] == run.epochs["validation_loss"].tolist()
    late = [json.loads(line) for line in Path("late.jsonl").read_text().splitlines()]
    assert [each["epoch"] for each in late if each["event"] == "epoch"] == [1, 2, 3, 4]
    assert lines[0]["settings"]["learning_rate"] == pytest.approx(0.01)
    shown = EventAccumulator("events", {"scalars": 0}).Reload()
    assert [each.step for each in shown.Scalars("step/loss")] == run.steps["step"].tolist()
    assert [each.value for each in shown.Scalars("step/loss")] == run.steps["loss"].tolist()
    assert [each.step for each in shown.Scalars("epoch/validation_loss")] == [8, 16, 24, 32]
