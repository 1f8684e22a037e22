"""Logs of descents: JSON lines, and what all kinds of logs have in common."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import steepest
from expecting import fails
from interruptions import StopsAfter
from logged import EPOCHS, STEPS, TIMES, WINDOWS, KeepsCheckpoint, descend, put_back, short_windows
from steepest.loggers import JsonLines
from steepest.loggers.logger import kept
from steepest.loggers.named import loggers_of
from steepest.mirroring import Progress
from steepest.spark.telling import Listener


@pytest.fixture(autouse=True)
def _several_windows(monkeypatch):
    short_windows(monkeypatch)


def lines_of(path):
    def refuse(name):
        raise ValueError(name)

    return [json.loads(line, parse_constant=refuse) for line in Path(path).read_text().splitlines()]


def events_of(path):
    return [line["event"] for line in lines_of(path)]


def epochs_of(path):
    """The epochs of a log as a table, without times."""
    told = [line for line in lines_of(path) if line["event"] == "epoch"]
    return pd.DataFrame(told).drop(columns=["event", "time", *TIMES], errors="ignore")


@pytest.fixture(scope="module")
def whole(cancer):
    """The descent that nobody interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        short_windows(patch)
        return descend(cancer, [])


# JSON lines


def test_each_epoch_is_a_line_with_all_its_figures(cancer, tmp_path, whole):
    log = tmp_path / "logs" / "descent.jsonl"
    result = descend(cancer, [JsonLines(log)])
    begin, *_, end = lines_of(log)
    assert events_of(log) == ["begin", *["epoch"] * EPOCHS, "end"]
    assert begin["settings"]["learning_rate"] == 0.1
    assert (begin["rows"], begin["epochs"], begin["step"]) == (569, EPOCHS, 0)
    pd.testing.assert_frame_equal(epochs_of(log), whole.epochs.drop(columns=[*TIMES]))
    assert epochs_of(log)["step"].tolist() == [STEPS * (epoch + 1) for epoch in range(EPOCHS)]
    assert end["why_it_stopped"] == result.why_it_stopped
    assert (end["steps"], end["failure"]) == (EPOCHS * STEPS, None)
    assert result.history.equals(whole.history)


class Sees(steepest.Callback):
    def __init__(self):
        self.steps, self.ends = [], []

    def on_steps_taken(self, first, figures):
        self.steps.append(pd.DataFrame({"step": first + np.arange(len(figures["loss"])), **figures}))

    def on_window_end(self, epoch, rows, loss):
        self.ends.append((len(self.steps), rows))


def test_callbacks_are_told_of_each_step_before_the_window_ends(cancer, whole):
    sees = Sees()
    descend(cancer, [sees])
    assert [count for count, _ in sees.ends] == [*range(1, EPOCHS * WINDOWS + 1)]
    told, names = pd.concat(sees.steps, ignore_index=True), ["step", "loss", "gradient_norm", "learning_rate"]
    pd.testing.assert_frame_equal(told[names], whole.history[names], check_dtype=False)


def test_a_descent_that_diverges_is_valid_json(cancer, tmp_path):
    log, sees = tmp_path / "descent.jsonl", Sees()
    result = descend(cancer, [JsonLines(log), sees], optimizer=steepest.SGD(1e38))
    end = lines_of(log)[-1]
    assert end["failure"]["step"] == result.failure.step == result.steps
    assert end["failure"]["loss"] in ("nan", "inf")
    assert pd.concat(sees.steps)["step"].tolist() == [*range(1, result.steps + 1)], "not beyond it"

    def bad(parameters, batch):
        return jnp.log(-(batch["x"][:, 0] ** 2))

    descend(cancer, [JsonLines(log)], metrics={"bad": bad})
    assert lines_of(log)[-2]["validation_bad"] is None
    assert events_of(log).count("begin") == 2, "a log goes on at its end"


@pytest.mark.parametrize("windows", [WINDOWS - 1, WINDOWS, 2 * WINDOWS + 1, 4 * WINDOWS])
def test_a_descent_that_goes_on_logs_no_epoch_twice_and_none_too_few(cancer, tmp_path, whole, windows):
    log, checkpoint = tmp_path / "descent.jsonl", tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        descend(cancer, [JsonLines(log), StopsAfter(windows, KeyboardInterrupt())], checkpoint=checkpoint)
    assert events_of(log)[-1] == "interrupted"
    descend(cancer, [JsonLines(log)], checkpoint=checkpoint)
    events = events_of(log)
    assert [events.count(each) for each in ("begin", "resume", "epoch", "end")] == [1, 1, EPOCHS, 1]
    assert epochs_of(log).equals(whole.epochs.drop(columns=[*TIMES]))


def test_after_a_kill_the_descent_goes_on_from_before_what_is_logged(cancer, tmp_path, whole):
    log, checkpoint, aside = tmp_path / "descent.jsonl", tmp_path / "checkpoint", tmp_path / "aside"
    keeps = KeepsCheckpoint(checkpoint, aside, WINDOWS + 2)
    asked = {"checkpoint": checkpoint, "checkpoint_every": 0}
    with pytest.raises(KeyboardInterrupt):
        descend(cancer, [JsonLines(log), keeps, StopsAfter(3 * WINDOWS + 1, KeyboardInterrupt())], **asked)
    put_back(checkpoint, aside)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]) + '{"event": "epo')
    descend(cancer, [JsonLines(log)], **asked)
    assert events_of(log) == ["begin", *["epoch"] * 3, "resume", "epoch", "end"]
    assert epochs_of(log).equals(whole.epochs.drop(columns=[*TIMES]))


def test_epochs_that_are_taken_again_after_a_setback_are_logged_again(cancer, tmp_path):
    log, checkpoint, aside = tmp_path / "descent.jsonl", tmp_path / "checkpoint", tmp_path / "aside"
    rates = steepest.schedules.custom(lambda step: np.where(step < 12, 0.1, 1e38))
    asked = {
        "optimizer": steepest.SGD(rates),
        "on_divergence": "back-off",
        "checkpoint": checkpoint,
        "checkpoint_every": 0,
    }
    keeps = KeepsCheckpoint(checkpoint, aside, WINDOWS + 1)
    result = descend(cancer, [JsonLines(log), keeps], **asked)
    told = events_of(log)
    assert told.count("setback") == len(result.setbacks) > 0
    assert epochs_of(log)["epoch"].duplicated().any()
    first = next(line for line in lines_of(log) if line["event"] == "setback")
    assert (first["step"], first["back_to"]) == (result.setbacks[0].step, result.setbacks[0].back_to)
    put_back(checkpoint, aside)
    descend(cancer, [JsonLines(log)], **asked)
    assert events_of(log) == [*told, "resume", "end"], "all of it was there"


def test_another_descent_in_the_same_file_begins_anew(cancer, tmp_path):
    log = tmp_path / "descent.jsonl"
    for name in ("one", "two"):
        descend(cancer, [JsonLines(log)], checkpoint=tmp_path / name, epochs=2)
    descend(cancer, [JsonLines(log)], checkpoint=tmp_path / "one", epochs=3)
    events = events_of(log)
    assert events == [*["begin", "epoch", "epoch", "end"] * 2, "begin", *["epoch"] * 3, "end"]
    assert lines_of(log)[8]["step"] == 2 * STEPS


# Where nothing can be written


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder", "Is a directory"),
        ("rows.csv/descent.jsonl", "File exists|Not a directory"),
        ("rows.csv", "it holds something else"),
        ("hdfs://namenode/descent.jsonl", "a log is a file of this machine"),
        ("/proc/descent.jsonl", "No such file|Permission"),
    ],
)
def test_a_log_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, monkeypatch, name, why):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(steepest.SteepestError, match=f"^The log {name} can't be written: ({why})"):
        steepest.fit("none.csv", "y", callbacks=[JsonLines(name)], out="run")
    assert {each.name for each in tmp_path.iterdir()} == {"folder", "rows.csv"}
    assert Path("rows.csv").read_text() == "a,b\n1,2\n"


def test_a_log_that_cannot_be_written_any_more_does_not_end_the_descent(cancer, tmp_path, whole, caplog):
    class Spoils(steepest.Callback):
        def on_epoch_end(self, figures):
            if figures["epoch"] == 2:
                log.unlink()
                log.mkdir()

    log = tmp_path / "descent.jsonl"
    with caplog.at_level(logging.WARNING):
        result = descend(cancer, [Spoils(), JsonLines(log)])
    assert result.history.equals(whole.history)
    assert len(caplog.messages) == 1, "said once"
    assert "descent.jsonl can't be written any more" in caplog.messages[0]


# What --log names


@pytest.mark.parametrize(
    "log", ["tensorbord:logs", "tensorboard:", "tensorboard", "mlflow:", "descent.csv", ""]
)
def test_what_is_no_log_is_refused(log):
    with fails(f"{log!r} is no log. A log is FILE.jsonl, tensorboard:FOLDER, mlflow:FOLDER or mlflow:URI."):
        steepest.fit("none.csv", "y", log=(log,))


@pytest.mark.parametrize(
    ("log", "extra"), [("tensorboard:logs", "tensorboard"), ("mlflow", "mlflow"), ("mlflow:logs", "mlflow")]
)
def test_a_package_that_is_missing_is_named(monkeypatch, log, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with fails(f"Install it: pip install 'steepest[{extra}]'."):
        loggers_of([log])


def test_half_as_many_are_kept_of_each_doubling():
    numbers = kept(1, 2**17)
    assert numbers[:1024].tolist() == [*range(1, 1025)]
    for power in range(10, 17):
        between = numbers[(numbers > 2**power) & (numbers <= 2 ** (power + 1))]
        assert len(between) == 512
        assert between[-1] == 2 ** (power + 1)
    pieces = np.concatenate([kept(first, 1000) for first in range(1, 2**17, 1000)])
    np.testing.assert_array_equal(pieces[pieces <= 2**17], numbers)


# On Spark, where the driver is told


def figures(epoch):
    return {"epoch": epoch, "step": 10 * epoch, "rows": 100, "loss": 1 / epoch}


def test_the_driver_logs_each_epoch_once_though_workers_are_lost(tmp_path):
    log, told = tmp_path / "descent.jsonl", []

    def tell(progress):
        told.append(json.loads(json.dumps(progress.told())))
        listener.hear(told[-1])

    listener = Listener([JsonLines(log)], lambda _: None)
    listener.ask("runs/flights", {"optimizer": "adam", "learning_rate": "auto"})
    listener.begin(2)
    first = Progress()
    first.on_settings({"run": "/worker/run", "learning_rate": "auto"})
    first.on_settings({"learning_rate": 0.5, "checkpoint": "/worker/run/checkpoints"})
    first.on_descent_begin(5, 100)
    tell(first)
    for epoch in (1, 2, 3):
        first.on_epoch_end(figures(epoch))
    tell(first)
    tell(first)
    listener.begin(2)
    second = Progress()
    second.on_settings({"learning_rate": 0.5})
    second.on_resume([figures(1), figures(2)], 20, 0)
    second.on_descent_begin(5, 100)
    for epoch in (3, 4):
        second.on_epoch_end(figures(epoch))
    tell(second)
    descent = {
        "why_it_stopped": "the last epoch",
        "converged": False,
        "steps": 50,
        "seconds": 1.5,
        "failure": None,
    }
    listener.end(
        SimpleNamespace(
            name="runs/flights",
            epochs=pd.DataFrame(map(figures, range(1, 6))),
            steps=pd.DataFrame({"step": range(1, 51), "epoch": 1, "loss": 0.5}),
            record={
                "descent": descent,
                "figures": {"validation": {"scores": {"auc": 0.75, "log_loss": None}}},
            },
            findings=[{"finding": "converged"}],
        )
    )
    events = events_of(log)
    assert events == ["begin", *["epoch"] * 3, "failed", "resume", *["epoch"] * 2, "end", "run"]
    assert epochs_of(log)["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert '"epoch": 1, "step": 10, "rows": 100' in log.read_text()
    begin, *_, end, run = lines_of(log)
    assert begin["settings"] == {"run": "runs/flights", "optimizer": "adam", "learning_rate": 0.5}
    assert (end["why_it_stopped"], end["steps"]) == ("the last epoch", 50)
    assert (run["scores"], run["findings"]) == ({"validation.auc": 0.75}, ["converged"])
