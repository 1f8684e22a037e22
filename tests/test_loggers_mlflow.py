"""Logs in MLflow, and the logs of a fit on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_breast_cancer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import steepest
from expecting import fails
from interruptions import StopsAfter
from logged import (
    EPOCHS,
    STEPS,
    WINDOWS,
    KeepsCheckpoint,
    descend,
    put_back,
    short_windows,
    without_a_diagnosis,
)
from steepest import SteepestError, terminal, training
from steepest.cli import main
from steepest.combining import read_settings
from steepest.loggers import MLflow
from steepest.run import open_run


@pytest.fixture(autouse=True)
def _several_windows(monkeypatch):
    short_windows(monkeypatch)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A folder for all, because MLflow takes seconds to make its tables; each test has its experiment."""
    return tmp_path_factory.mktemp("mlflow") / "store"


@pytest.fixture(scope="module")
def whole(cancer):
    """The descent that nobody interrupts."""
    with pytest.MonkeyPatch.context() as patch:
        short_windows(patch)
        return descend(cancer, [])


def runs_of(store, experiment):
    """The runs of an experiment, the last one first."""
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def curve(client, run, name):
    points = client.get_metric_history(run.info.run_id, name)
    return [(each.step, each.value) for each in sorted(points, key=lambda each: each.timestamp)]


def assert_has(client, run, result):
    """MLflow has each epoch once, and as it was."""
    for name in ("epoch", "loss", "validation_loss", "learning_rate"):
        expected = zip(result.epochs["step"].tolist(), result.epochs[name].tolist(), strict=True)
        assert curve(client, run, name) == [*expected], name


def test_a_descent_is_a_run_with_its_settings_and_epochs(cancer, store, capfd):
    result = descend(cancer, [MLflow(store, "one")])
    client, (run,) = runs_of(store, "one")
    assert_has(client, run, result)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer"] == "sgd"
    assert run.data.params["learning_rate"] == "0.1"
    assert run.data.tags["steepest.why_it_stopped"] == result.why_it_stopped
    assert "steepest.key" not in run.data.tags, "nothing could go on with it"
    assert capfd.readouterr() == ("", ""), "MLflow says nothing of its tables"
    assert {each.name for each in store.iterdir()} <= {"mlflow.db", "artifacts"}


@pytest.mark.parametrize("windows", [WINDOWS - 1, WINDOWS, 2 * WINDOWS + 1])
def test_a_descent_that_goes_on_goes_on_in_its_run(cancer, store, tmp_path, whole, windows):
    experiment = f"going on after {windows}"
    logs, asked = MLflow(store, experiment), {"checkpoint": tmp_path / "checkpoint"}
    with pytest.raises(KeyboardInterrupt):
        descend(cancer, [logs, StopsAfter(windows, KeyboardInterrupt())], **asked, epochs=9)
    _, (run,) = runs_of(store, experiment)
    assert run.info.status == "KILLED"
    descend(cancer, [MLflow(store, experiment)], **asked)
    client, (run,) = runs_of(store, experiment)
    assert run.info.status == "FINISHED"
    assert_has(client, run, whole)
    descend(cancer, [MLflow(store, experiment)], **asked, epochs=EPOCHS + 1)
    client, runs = runs_of(store, experiment)
    assert len(runs) == 2, "a run that was complete stays"
    assert [step for step, _ in curve(client, runs[0], "loss")] == [
        *range(STEPS, STEPS * (EPOCHS + 2), STEPS)
    ]


def test_after_a_kill_nothing_is_there_twice(cancer, store, tmp_path):
    checkpoint, aside = tmp_path / "checkpoint", tmp_path / "aside"
    rates = steepest.schedules.custom(lambda step: np.where(step < 12, 0.1, 1e38))
    asked = {"optimizer": steepest.SGD(rates), "on_divergence": "back-off"}
    asked |= {"checkpoint": checkpoint, "checkpoint_every": 0}
    keeps = KeepsCheckpoint(checkpoint, aside, WINDOWS + 1)
    error = ValueError("the disk is on fire")
    with pytest.raises(ValueError, match="fire"):
        descend(cancer, [MLflow(store, "kill"), keeps, StopsAfter(4 * WINDOWS, error)], **asked)
    client, (run,) = runs_of(store, "kill")
    assert (run.info.status, run.data.tags["steepest.why_it_stopped"]) == ("FAILED", "the disk is on fire")
    before = curve(client, run, "loss")
    assert len(before) > len({step for step, _ in before}), "an epoch was taken again"
    put_back(checkpoint, aside)
    result = descend(cancer, [MLflow(store, "kill")], **asked)
    client, (run,) = runs_of(store, "kill")
    after = curve(client, run, "loss")
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) > len(before)
    assert dict(after) == dict(zip(result.epochs["step"], result.epochs["loss"], strict=True))


def test_a_descent_that_diverges_has_failed(cancer, store):
    descend(cancer, [MLflow(store, "diverged")], optimizer=steepest.SGD(1e38))
    _, (run,) = runs_of(store, "diverged")
    assert run.info.status == "FAILED"
    assert "not finite" in run.data.tags["steepest.why_it_stopped"]


def test_mlflows_own_settings_decide_where_nothing_is_named(cancer, store, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    monkeypatch.chdir(tmp_path)
    descend(cancer, [MLflow()], epochs=1)
    _, (run,) = runs_of(store, "theirs")
    assert run.info.status == "FINISHED"


def test_a_store_of_files_is_mlflows_business(cancer, monkeypatch, tmp_path):
    uri = (tmp_path / "files").as_uri()
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with fails(f"The log {uri} can't be written: The filesystem tracking backend"):
        descend(cancer, [MLflow(uri)])
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    descend(cancer, [MLflow(uri, "files")])
    assert len([*tmp_path.glob("files/*/*/metrics/validation_loss")]) == 1


def test_what_mlflow_cannot_write_to_is_refused(cancer, tmp_path):
    (tmp_path / "file").write_text("")
    with fails(f"The log {tmp_path}/file can't be written: File exists."):
        descend(cancer, [MLflow(tmp_path / "file")])


# The command line

LOGS = ("--log", "descent.jsonl", "--log", "tensorboard:events", "--log")
FIT = ("fit", "rows.csv", "--target", "benign", "--batch-size", "64", "--learning-rate", "0.1",
       "--epochs", "4", "--optimizer", "sgd", "--out", "run")  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the tumours."""
    monkeypatch.chdir(tmp_path)
    without_a_diagnosis(monkeypatch)
    table = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "benign"})
    table.to_csv("rows.csv", index=False)
    return tmp_path


def test_a_fit_that_is_interrupted_goes_on_in_all_its_logs(here, store, monkeypatch, capsys):
    class Pressed(terminal.Progress):
        def on_epoch_end(self, figures):
            if figures["epoch"] == 2:
                raise KeyboardInterrupt

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "command line")
    with monkeypatch.context() as patch:
        patch.setattr(terminal, "Progress", Pressed)
        with pytest.raises(SystemExit):
            main([*FIT, *LOGS, f"mlflow:{store}"])
    _, (mlflow,) = runs_of(store, "command line")
    assert mlflow.info.status == "KILLED"
    main([*FIT, *LOGS, f"mlflow:{store}", "--log", "late.jsonl"])
    run = open_run("run")
    lines = [json.loads(line) for line in Path("descent.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["event"] == "epoch"]
    begin, *_, end, complete = lines
    assert [line["event"] for line in lines if line["event"] != "epoch"] == [
        "begin", "interrupted", "resume", "end", "run",
    ]  # fmt: skip
    assert (
        pd.DataFrame(epochs)[[*run.epochs]]
        .drop(columns=["seconds", "rows_per_second"])
        .equals(run.epochs.drop(columns=["seconds", "rows_per_second"]))
    )
    late = [json.loads(line) for line in Path("late.jsonl").read_text().splitlines()]
    assert late[0]["step"] > 0
    assert [line["epoch"] for line in late if line["event"] == "epoch"] == [1, 2, 3, 4], "all that there were"
    assert begin["settings"]["run"] == complete["run"] == "run"
    assert begin["settings"]["data"] == ["rows.csv"]
    assert end["why_it_stopped"] == run.record["descent"]["why_it_stopped"]
    auc = run.record["figures"]["validation"]["scores"]["auc"]
    assert complete["scores"]["validation.auc"] == auc

    events = EventAccumulator("events", {"scalars": 0}).Reload()
    assert [each.step for each in events.Scalars("step/loss")] == run.steps["step"].tolist()
    assert [each.step for each in events.Scalars("epoch/validation_loss")] == run.epochs["step"].tolist()

    client, (mlflow,) = runs_of(store, "command line")
    assert mlflow.info.status == "FINISHED"
    assert mlflow.data.metrics["validation.auc"] == auc
    assert mlflow.data.params["target"] == "benign"
    assert curve(client, mlflow, "loss") == [*zip(run.epochs["step"], run.epochs["loss"], strict=True)]
    artifacts = {each.path for each in client.list_artifacts(mlflow.info.run_id)}
    assert artifacts == {"report.html", "settings.toml", "findings.json"}
    assert read_settings("run/settings.toml")["log"][:2] == ("descent.jsonl", "tensorboard:events")

    main([*FIT[:-1], "unlogged"])
    for name in ("model.safetensors", "history.parquet", "columns.json", "model.json"):
        assert Path("run", name).read_bytes() == Path("unlogged", name).read_bytes(), name


def test_a_run_that_is_resumed_goes_on_logging(here, monkeypatch):
    class Pressed(terminal.Progress):
        def on_epoch_end(self, figures):
            if figures["epoch"] == 2:
                raise KeyboardInterrupt

    def fails_to_judge(*_):
        raise SteepestError("There is no judge.", hint="Find one.")

    with monkeypatch.context() as patch:
        patch.setattr(terminal, "Progress", Pressed)
        with pytest.raises(SystemExit):
            main([*FIT, "--log", "descent.jsonl"])
    with monkeypatch.context() as patch:
        patch.setattr(training, "_judge", fails_to_judge)
        with pytest.raises(SystemExit):
            main(["resume", "run"])
    main(["resume", "run"])
    events = [json.loads(line)["event"] for line in Path("descent.jsonl").read_text().splitlines()]
    assert events.count("epoch") == 4
    assert [each for each in events if each != "epoch"] == [
        "begin", "interrupted", "resume", "end", "failed", "resume", "end", "run",
    ]  # fmt: skip


def test_a_fit_that_diverges_shows_it_in_mlflow(here, store, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "diverged fit")
    with pytest.raises(SystemExit):
        main([*FIT, "--learning-rate", "1e38", "--log", f"mlflow:{store}"])
    client, (run,) = runs_of(store, "diverged fit")
    assert run.info.status == "FAILED"
    assert "report.html" in {each.path for each in client.list_artifacts(run.info.run_id)}
