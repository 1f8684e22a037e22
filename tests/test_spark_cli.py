"""`steepest fit --on spark` and `steepest.spark.fit`: the run of one process, and words for a person."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from pyspark.ml.feature import VectorAssembler

import steepest
from real_data import flights
from spark_sessions import spark, spark_environment
from steepest.cli import main
from steepest.errors import SteepestError
from steepest.run import open_run
from steepest.spark import fit
from test_spark_fit import children, wait_for

# JAX is there when a session's JVM is started.

CODE = "from steepest.cli import main; main()"

MLP = ("--model", "mlp", "--hidden", "8", "--learning-rate", "0.01", "--batch-size", "256", "--epochs", "2")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Give a CSV file of flights with two broken lines, and a column of numbers that are whole at first."""
    path = tmp_path_factory.mktemp("flights") / "flights.csv"
    rows = flights().dropna(subset=["arr_delay"]).iloc[::40]
    rows["late"] = rows["arr_delay"] > 15
    chosen = rows[["late", "month", "sched_dep_time", "carrier", "dest", "distance"]].copy()
    chosen["wind"] = [
        str(number % 30) if number < 6_000 else f"{number % 30}.5" for number in range(len(rows))
    ]
    lines = chosen.to_csv(index=False).splitlines()
    lines[17] += ",more"
    lines[7_000] += ",more"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def command(words, cwd, **environment):
    with spark_environment() as own:
        return subprocess.run(
            [sys.executable, "-c", CODE, *map(str, words)],
            env={**os.environ, **own, **environment},
            check=False,
            capture_output=True,
            text=True,
            timeout=150,
            cwd=cwd,
        )


BUILDERS = """
import keras
from layers_beside_ours import inner

def build(columns):
    return keras.Sequential([keras.Input((columns.width,)), *inner(), keras.layers.Dense(1, "sigmoid")])
"""

LAYERS = """
import keras

def inner():
    layers = keras.layers
    return [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.2)]
"""


@pytest.fixture
def builders(tmp_path, monkeypatch):
    """Be in a folder with a module that builds a Keras model, which imports another one there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in (("builders_of_ours", BUILDERS), ("layers_beside_ours", LAYERS)):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(text)


def same_run(run, alone):
    same_weights(run, alone)
    for part in ("data", "split", "columns", "dropped", "target", "model", "selection"):
        assert run.record[part] == alone.record[part], part
    np.testing.assert_allclose(run.steps["loss"], alone.steps["loss"], atol=1e-5)
    for part in ("training", "validation"):
        found, wanted = (each.record["figures"][part]["scores"] for each in (run, alone))
        assert found == pytest.approx(wanted, rel=1e-3)


def same_weights(run, alone):
    for layer, parts in alone.parameters.items():
        for name, values in parts.items():
            np.testing.assert_allclose(run.parameters[layer][name], values, atol=1e-5)


def test_the_command_line_on_executors_writes_the_run_of_one_process(table, tmp_path):
    words = ["fit", table, "--target", "late", *MLP]
    on = ["--on", "spark", "--workers", "2", "--master", "local-cluster[2,1,1024]"]
    ran = command([*words, *on, "--out", "run"], tmp_path)
    assert ran.returncode == 0, ran.stderr
    alone = steepest.fit(
        table,
        "late",
        **{"model": "mlp", "hidden": (8,), "learning_rate": 0.01, "batch_size": 256, "epochs": 2},
        out=str(tmp_path / "alone"),
    )
    run = open_run(tmp_path / "run")
    same_weights(run, alone)
    for part in ("data", "split", "columns", "dropped", "target"):
        assert run.record[part] == alone.record[part], part
    assert (run.path / "rejected.csv").read_text() == (alone.path / "rejected.csv").read_text()
    assert run.record["command"].endswith("--on spark --workers 2 --master 'local-cluster[2,1,1024]'")
    assert [each["worker"] for each in run.record["workers"]] == [0, 1]
    said = [line for line in ran.stderr.splitlines() if not line.startswith("WARNING: Using incubator")]
    assert said == [
        "'late' holds two values: two classes, binary cross entropy.",
        "Left out 2 rows: they can't be used: rejected.csv says why.",
    ]
    assert "time spent waiting" in ran.stdout
    assert "time spent waiting" in (run.path / "report.html").read_text("utf-8")
    assert not any(Path(os.environ["STEEPEST_CACHE"], "spark").iterdir()), "what was shared stays"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_driver_that_ends_early_goes_on_from_the_last_checkpoint(ending, status, table, tmp_path):
    options = [*MLP[:-1], "40", "--batch-size", "32", "--checkpoint-every", "0.5"]
    on = ["--on", "spark", "--workers", "2", "--master", "local[2]"]
    words = ["fit", table, "--target", "late", *options, *on, "--out", "run"]
    shared = Path(os.environ["STEEPEST_CACHE"], "spark")
    with spark_environment() as own:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, *map(str, words)],
            env={**os.environ, **own},
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        try:
            end = time.monotonic() + 120
            while not any(shared.glob("*/attempts/*/checkpoint-*")) and time.monotonic() < end:
                time.sleep(0.2)
            process.send_signal(ending)
            said = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == status
    assert "Traceback" not in said
    assert ("steepest resume run" in said) == (ending != signal.SIGKILL)
    assert any(shared.glob("*/attempts/*/checkpoint-*"))
    ran = command(["resume", "run"], tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert not any(shared.iterdir())
    alone = steepest.fit(
        table,
        "late",
        **{"model": "mlp", "hidden": (8,), "learning_rate": 0.01, "batch_size": 32, "epochs": 40},
        out=str(tmp_path / "alone"),
    )
    run = open_run(tmp_path / "run")
    assert len(run.steps) == len(alone.steps)
    np.testing.assert_allclose(run.steps["loss"], alone.steps["loss"], atol=1e-3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--workers", "2"], "--workers is for a fit on Spark. Add --on spark."),
        (["--stalled", "9"], "--stalled is for a fit on Spark. Add --on spark."),
        (["--on", "sprak", "--workers", "2"], "Did you mean 'spark'?"),
        (["--on", "spark"], "how many workers are to take part. Say so: --workers 8"),
        (["--on", "spark", "--workers", "2", "--stalled", "0"], "--stalled is a number of seconds above 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, says, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "flights.csv", "--target", "late", *words])
    assert says in capsys.readouterr().err


def test_without_java_it_says_what_to_install(table, tmp_path):
    words = ["fit", table, "--target", "late", "--on", "spark", "--workers", "1"]
    ran = command(words, tmp_path, JAVA_HOME=str(tmp_path))
    assert ran.returncode == 2
    assert "apt install openjdk-17-jre-headless" in ran.stderr


@pytest.fixture(scope="module")
def session():
    with spark("local[2]") as session:
        yield session


@pytest.mark.slow
def test_a_frame_is_fitted_with_its_vectors_and_without_what_is_dropped(session, table, tmp_path):
    rows = flights().dropna(subset=["arr_delay"]).iloc[::300]
    rows["late"] = rows["arr_delay"] > 15
    known = rows[["late", "distance", "hour", "carrier", "dest"]]
    frame = session.createDataFrame(known)
    assembled = VectorAssembler(inputCols=["distance", "hour"], outputCol="numbers").transform(frame)
    options = {"learning_rate": 0.1, "batch_size": 64, "epochs": 2, "drop": ("dest",)}
    chosen = assembled.select("late", "numbers", "carrier", "dest")
    run = fit("linear", chosen, "late", workers=2, out=str(tmp_path / "run"), **options)
    alone = steepest.fit(known, "late", out=str(tmp_path / "alone"), **options)
    same_weights(run, alone)
    assert [each["name"] for each in run.record["columns"]] == ["distance", "hour", "carrier"]
    assert run.record["dropped"] == alone.record["dropped"]
    call = run.record["command"]
    assert call.startswith("steepest.spark.fit('linear', frame, 'late', learning_rate=0.1, batch_size=64")
    stand_in = Mock(spark=Mock(fit=lambda *words, **named: (words, named)))
    words, named = eval(call, {"steepest": stand_in, "frame": chosen})
    assert words == ("linear", chosen, "late")
    assert named == {**options, "workers": 2, "out": str(tmp_path / "run")}


@pytest.mark.slow
def test_a_keras_model_judged_by_a_file_and_going_on_are_those_of_one_process(
    session, builders, table, capsys
):
    lines = table.read_text("utf-8").splitlines()
    held = "\n".join([lines[0], *lines[30:900]]) + "\n"
    Path("held.csv").write_text(f"{held}{lines[900]},more\n", "utf-8")
    options = {"model": "builders_of_ours:build", "learning_rate": 0.01, "batch_size": 256, "epochs": 2}
    alone = steepest.fit(table, "late", validation="held.csv", out="alone", **options)
    run = steepest.fit(table, "late", validation="held.csv", out="run", on="spark", workers=2, **options)
    same_run(run, alone)
    assert run.record["split"]["validation_rows"] == 870
    assert (run.path / "rejected.csv").read_text() == (alone.path / "rejected.csv").read_text()
    capsys.readouterr()
    Path("whole.csv").write_text(held, "utf-8")
    main(["evaluate", "run", "whole.csv", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["scores"] == pytest.approx(run.record["figures"]["validation"]["scores"], rel=1e-5)
    main(["predict", "run", "whole.csv", "--out", "predicted.csv"])
    assert len(Path("predicted.csv").read_text("utf-8").splitlines()) == 1 + 870
    main(["show", "run"])
    assert "builders_of_ours:build" in capsys.readouterr().out
    assert "builders_of_ours:build" in (run.path / "report.html").read_text("utf-8")
    assert not any(Path(os.environ["STEEPEST_CACHE"], "spark").iterdir()), "what was shared stays"


@pytest.mark.slow
def test_a_keras_model_goes_on_when_a_worker_is_killed_and_from_a_run_of_one_process(
    session, builders, table
):
    options = {"model": "builders_of_ours:build", "learning_rate": 0.01, "batch_size": 64}
    first = steepest.fit(table, "late", epochs=1, out="first", **options)
    alone = steepest.fit(table, "late", from_="first", epochs=30, out="alone")
    said, killed = [], []

    def kill():
        wait_for(lambda: any(Path("shared").glob("*/attempts/0000/steepest.safetensors")))
        wait_for(lambda: len(children()) == 2)
        time.sleep(2)
        killed.append(children()[1])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    on = {"on": "spark", "workers": 2, "shared": "shared", "checkpoint_every": 0.0, "say": said.append}
    run = steepest.fit(table, "late", from_="first", epochs=30, out="run", **on)
    thread.join()
    assert f"Goes on from {first.name} after epoch 1, as if it had not ended there." in said
    assert len([text for text in said if text.startswith("Attempt 1 failed: ")]) == len(killed) == 1
    same_run(run, alone)
    assert len(run.epochs) == 31
    assert not any(Path("shared").iterdir())


@pytest.mark.slow
def test_a_frame_goes_on_where_its_rows_are_the_same_and_else_from_the_parameters(session, tmp_path):
    def frame(scale):
        return session.range(0, 2_000, numPartitions=2).selectExpr(f"sin(id) * {scale} a", "cos(id) > 0 y")

    options = {"learning_rate": 0.01, "batch_size": 64, "optimizer": "sgd"}
    said = []
    asked = {"workers": 2, "epochs": 1, "say": said.append, **options}
    first = fit("linear", frame(1), "y", out=str(tmp_path / "first"), **asked)
    asked["from_"] = str(first.path)
    on = fit("linear", frame(1), "y", out=str(tmp_path / "on"), **asked)
    whole = steepest.fit(frame(1).toArrow(), "y", out=str(tmp_path / "whole"), epochs=2, **options)
    assert f"Goes on from {first.path} after epoch 1, as if it had not ended there." in said
    same_weights(on, whole)
    assert len(on.steps) == len(whole.steps)
    said.clear()
    other = fit("linear", frame(3), "y", out=str(tmp_path / "other"), **{**asked, "learning_rate": 1e-9})
    assert any(text.endswith("not where its descent ended: another learning-rate.") for text in said)
    same_weights(other, first)
    said.clear()
    fit("linear", frame(3), "y", out=str(tmp_path / "another"), **asked)
    assert any(text.endswith("not where its descent ended: its data has changed.") for text in said)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("tree", {}, "There is no model 'tree'"),
        (object(), {}, "On Spark there is no builtins object."),
        ("linear", {"epoch": 3}, "Did you mean 'epochs'?"),
        ("linear", {"data": ("a.csv",)}, "steepest.spark.fit takes no 'data': the frame says it."),
        ("linear", {"workers": 9}, "the cluster has room for 2"),
        ("linear", {"drop": ("nothing",)}, r"has no column 'nothing' \(drop\[0\]\)"),
        ("linear", {"validation": "nothing.csv"}, "there is no file nothing.csv"),
        ("linear", {"from_": "nothing"}, "There is no settings file nothing/settings.toml"),
        ("builders_of_nobody:build", {}, "The module 'builders_of_nobody' of the model"),
    ],
)
def test_what_a_frame_can_not_be_fitted_by_is_refused(session, model, options, says, monkeypatch):
    monkeypatch.setattr("steepest.spark.checks.STARTING", 0.0)
    frame = session.createDataFrame([(1.0, 0), (2.0, 1)], ["x", "y"])
    with pytest.raises(SteepestError, match=says):
        fit(model, frame, "y", **{"workers": 1, **options})
