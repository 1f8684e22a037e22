"""The command line end to end on real data: fit, show, predict, evaluate."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import datasets, metrics

from campaigns import among
from steepest.cli import main
from steepest.data.split import Groups
from steepest.run import open_run

ROOT = Path(__file__).parent.parent

STEEPEST = [sys.executable, "-c", "from steepest.cli import main; main()"]


@pytest.fixture
def steepest(capsys):
    """Run the command line in this process; give what it printed on standard output."""

    def run(*words) -> str:
        capsys.readouterr()
        main([str(word) for word in words])
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Real tables with targets of every kind."""
    folder = tmp_path_factory.mktemp("data")
    flights = runpy.run_path(str(ROOT / "examples" / "flights.py"))["departures"]()[::16]
    flights.to_csv(folder / "flights.csv", index=False)
    for name in ("breast_cancer", "iris", "wine", "diabetes", "digits"):
        loaded = getattr(datasets, f"load_{name}")(as_frame=True)
        table = loaded.frame
        if name == "iris":
            table["target"] = np.asarray(loaded.target_names)[table["target"]]
        if name == "breast_cancer":
            table["benign"] = table["target"] == 1
            table["what"] = np.where(table["benign"], "benign", "malignant")
        table.to_csv(folder / f"{name}.csv", index=False)
    diabetes = pd.read_csv(folder / "diabetes.csv")
    diabetes.assign(target=diabetes["target"] / 7).to_csv(folder / "diabetes_real.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def flights(folder) -> Path:
    """A run on 21,000 flights, whole days held out."""
    words = ("fit", folder / "flights.csv", "--target", "late", "--split-by", "date", "--batch-size", 256,
             "--learning-rate", 0.01, "--epochs", 5, "--out", folder / "run")  # fmt: skip
    main([*map(str, words)])
    return folder / "run"


def last_line(out: str):
    return json.loads(out.rstrip().splitlines()[-1])


# fit -> show -> predict -> evaluate on the flights


def test_a_linear_model_beats_chance_on_days_it_has_not_seen(flights):
    scores = open_run(flights).record["figures"]["validation"]["scores"]
    assert scores["auc"] > 0.66
    assert len(open_run(flights).steps) == open_run(flights).record["descent"]["steps"] > 300


def test_show_tells_what_was_trained(flights, folder, steepest):
    out = steepest("show", flights)
    record = open_run(flights).record
    auc = record["figures"]["validation"]["scores"]["auc"]
    for expected in (
        f"run: {flights}",
        f"data: {folder / 'flights.csv'}, 21,049 rows",
        "rows: the target 'late' is missing",
        "whole values of 'date'",
        "binary cross entropy",
        "adam at a learning rate of 0.01 (constant), batches of 256, seed 0",
        f"run again: steepest fit {folder / 'flights.csv'} --target late",
        f"report: {flights / 'report.html'}",
    ):
        assert expected in out, expected
    assert re.search(rf"Area under the ROC curve \(higher is better\) +{auc:.4g} +0\.5\n", out)
    shown = last_line(steepest("show", flights, "--json"))
    assert shown["figures"]["validation"]["scores"] == record["figures"]["validation"]["scores"]
    assert shown["report"] == str(flights / "report.html")


def test_predictions_have_a_row_for_each_row_in_their_order(flights, folder, steepest, tmp_path):
    table = pd.read_csv(folder / "flights.csv")
    out = steepest("predict", flights, folder / "flights.csv", "--out", tmp_path / "p.csv")
    assert out == f"21,049 predictions -> {tmp_path / 'p.csv'}\n"
    steepest("predict", flights, folder / "flights.csv", "--out", tmp_path / "new" / "p.parquet")
    predicted = pd.read_csv(tmp_path / "p.csv", float_precision="round_trip")
    np.testing.assert_array_equal(predicted, pd.read_parquet(tmp_path / "new" / "p.parquet"))
    assert predicted.columns.tolist() == ["prediction", "probability of 1"]
    assert len(predicted) == len(table)
    np.testing.assert_array_equal(predicted["prediction"], predicted["probability of 1"] > 0.5)
    shuffled = table.sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "shuffled.csv", index=False)
    steepest("predict", flights, tmp_path / "shuffled.csv", "--out", tmp_path / "q.csv")
    q = pd.read_csv(tmp_path / "q.csv")
    np.testing.assert_allclose(
        q["probability of 1"], predicted["probability of 1"][shuffled.index], rtol=1e-5
    )


def test_evaluate_gives_scikit_learns_figures_of_predicts_output(flights, folder, steepest, tmp_path):
    steepest("predict", flights, folder / "flights.csv", "--out", tmp_path / "p.csv")
    probability = pd.read_csv(tmp_path / "p.csv")["probability of 1"]
    late = pd.read_csv(folder / "flights.csv")["late"]
    known, probability = late.dropna(), probability[late.notna()]
    found = last_line(steepest("evaluate", flights, folder / "flights.csv", "--json"))
    assert found["rows"] == len(known)
    assert found["left_out"] == [{"reason": "the target 'late' is missing", "rows": int(late.isna().sum())}]
    expected = {
        "auc": metrics.roc_auc_score(known, probability),
        "average_precision": metrics.average_precision_score(known, probability),
        "accuracy": metrics.accuracy_score(known, probability > 0.5),
        "log_loss": metrics.log_loss(known, probability),
        "brier": metrics.brier_score_loss(known, probability),
    }
    assert found["scores"] == pytest.approx(expected, rel=1e-9)


def test_evaluate_on_the_held_out_rows_gives_the_records_figures(flights, folder, steepest, tmp_path):
    import pyarrow as pa

    table = pd.read_csv(folder / "flights.csv").dropna(subset="late")
    days = pa.array(pd.to_datetime(table["date"]))
    groups = Groups(seed=0)
    groups.add(days)
    held = groups.held_out(0.2)(days)
    table[held].to_csv(tmp_path / "held.csv", index=False)
    found = last_line(steepest("evaluate", flights, tmp_path / "held.csv", "--json"))
    recorded = open_run(flights).record["figures"]["validation"]
    assert found["rows"] == recorded["rows"] == held.sum()
    assert found["scores"] == pytest.approx(recorded["scores"], rel=1e-9)
    assert found["baseline"] == recorded["baseline"]


def test_evaluate_prints_a_table_and_what_was_left_out(flights, folder, capsys):
    main(["evaluate", str(flights), str(folder / "flights.csv")])
    out, err = capsys.readouterr()
    assert re.search(r"Area under the ROC curve \(higher is better\) +0\.7\d+ +0\.5\n", out)
    assert re.search(r"baseline: always predicting the training rows' share of '1' \(2\d\.\d%\)", out)
    assert re.fullmatch(r"Left out \d+ rows: the target 'late' is missing\.\n", err)


# Every kind of target

KINDS = {
    "text labels": ("breast_cancer", "what", ["target", "benign"], "accuracy", "benign"),
    "booleans": ("breast_cancer", "benign", ["target", "what"], "accuracy", "False"),
    "0 and 1": ("breast_cancer", "target", ["what", "benign"], "accuracy", "0"),
    "several texts": ("iris", "target", [], "accuracy", "setosa"),
    "several whole numbers": ("digits", "target", [], "accuracy", "0"),
    "counts": ("diabetes", "target", [], "mae", None),
    "real numbers": ("diabetes_real", "target", [], "rmse", None),
}


@pytest.mark.parametrize("kind", among(KINDS, "0 and 1", "text labels", "counts"))
def test_every_kind_of_target_end_to_end(kind, folder, steepest, tmp_path):
    data, target, drop, score, label = KINDS[kind]
    dropped = [word for name in drop for word in ("--drop", name)]
    fitted = steepest("fit", folder / f"{data}.csv", "--target", target, *dropped, "--learning-rate", 0.03,
                      "--epochs", 12, "--out", tmp_path / "run", "--json")  # fmt: skip
    summary = last_line(fitted)
    ours, baseline = (summary["figures"]["validation"][part] for part in ("scores", "baseline"))
    baseline = baseline["scores"]
    better = ours[score] - baseline[score] if score == "accuracy" else baseline[score] - ours[score]
    assert better > (0.2 if score == "accuracy" else 0.15 * baseline[score])
    assert summary["run"] == str(tmp_path / "run")
    assert Path(summary["report"]).read_text("utf-8").lower().startswith("<!doctype html>")
    table = pd.read_csv(folder / f"{data}.csv")
    table.drop(columns=target).to_csv(tmp_path / "rows.csv", index=False)
    steepest("predict", tmp_path / "run", tmp_path / "rows.csv", "--out", tmp_path / "p.parquet")
    predicted = pd.read_parquet(tmp_path / "p.parquet")
    found = last_line(steepest("evaluate", tmp_path / "run", folder / f"{data}.csv", "--json"))["scores"]
    if label is None:
        assert predicted.columns.tolist() == ["prediction"]
        expected = {
            "rmse": metrics.root_mean_squared_error(table[target], predicted["prediction"]),
            "mae": metrics.mean_absolute_error(table[target], predicted["prediction"]),
            "r2": metrics.r2_score(table[target], predicted["prediction"]),
        }
    else:
        assert predicted["prediction"].dtype == table[target].dtype
        shown = [name for name in predicted if name.startswith("probability of ")]
        assert len(shown) == (1 if table[target].nunique() == 2 else table[target].nunique())
        if len(shown) > 1:
            assert shown[0] == f"probability of {label}"
            np.testing.assert_allclose(predicted[shown].sum(axis=1), 1)
        expected = {"accuracy": metrics.accuracy_score(table[target], predicted["prediction"])}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-7)


# Options


def test_options_override_settings_and_reach_the_run(folder, steepest, tmp_path):
    (tmp_path / "s.toml").write_text(
        'target = "target"\nepochs = 9\nseed = 3\nhidden = [4]\nmodel = "linear"\n'
    )
    steepest("fit", folder / "iris.csv", "--settings", tmp_path / "s.toml", "--epochs", 2, "--model", "mlp",
             "--hidden", "5,6", "--activation", "tanh", "--dropout", 0.1, "--optimizer", "nesterov",
             "--schedule", "one_cycle", "--clip-norm", 1, "--tolerance", 0, "--batch-size", "all",
             "--validation", 0.3, "--drop", "sepal width (cm)", "--drop", "sepal length (cm)",
             "--out", tmp_path / "run")  # fmt: skip
    record = open_run(tmp_path / "run").record
    assert record["model"] == {
        "name": "mlp", "hidden": [5, 6], "activation": "tanh", "features": 2,
        "parameters": 2 * 5 + 5 + 5 * 6 + 6 + 6 * 3 + 3,
    }  # fmt: skip
    chosen = {"optimizer": "nesterov", "schedule": "one_cycle", "batch_size": "all", "epochs": 2, "seed": 3}
    assert chosen.items() <= record["descent"].items()
    assert record["split"]["validation_rows"] == 45
    again = record["command"].replace(str(tmp_path / "run"), str(tmp_path / "again")).split(" ", 1)[1]
    steepest(*shlex.split(again))
    for name in ("model.safetensors", "history.parquet", "columns.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_overwrite_is_asked_for(folder, steepest, tmp_path, capsys):
    words = ("fit", folder / "iris.csv", "--target", "target", "--epochs", 1, "--out", tmp_path / "run")
    steepest(*words)
    with pytest.raises(SystemExit) as stop:
        steepest(*words)
    assert stop.value.code == 2
    assert (
        "exists. Choose another --out, add --overwrite, or go on with it: --from RUN --out"
        in capsys.readouterr().err
    )
    steepest(*words, "--overwrite", "--seed", 5)
    assert open_run(tmp_path / "run").record["descent"]["seed"] == 5


def test_results_go_to_standard_output_and_remarks_to_standard_error(folder, tmp_path, capsys):
    table = pd.read_csv(folder / "iris.csv").assign(nothing=np.nan)
    table.loc[:9, "target"] = None
    table.to_csv(tmp_path / "t.csv", index=False)
    words = ["fit", tmp_path / "t.csv", "--target", "target", "--epochs", 1, "--learning-rate", 0.01]
    main([str(word) for word in (*words, "--out", tmp_path / "r")])
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "'target' holds 3 different texts: several classes, categorical cross entropy.",
        "Left out 'nothing': All of its values are missing.",
        "Left out 10 rows: the target 'target' is missing.",
    ]
    assert out.startswith("4 steps in ")
    assert f"report: {tmp_path / 'r' / 'report.html'}\n" in out


# In a process of its own


def spawn(*words, **more):
    return subprocess.run(
        [*STEEPEST, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, **more
    )


def test_a_process_is_quiet_where_nobody_looks_and_ends_with_0(folder, tmp_path):
    done = spawn(
        "fit", folder / "iris.csv", "--target", "target", "--epochs", 2, "--out", tmp_path / "r", "--json",
        "--learning-rate", 0.01,
    )  # fmt: skip
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert last_line(done.stdout)["run"] == str(tmp_path / "r")


def test_a_process_that_fails_says_one_line_and_ends_with_2(tmp_path):
    done = spawn("fit", "none.csv", "--target", "y", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "steepest: there is no file none.csv. The folder . has no file that can be read.\n"
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path):
    done = spawn("fit", "none.csv", "--target", "y", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "there is no file none.csv" in done.stderr


HEAVY = ("jax", "optax", "pandas", "matplotlib", "sklearn", "pyarrow", "keras")


@pytest.mark.parametrize("words", [["--help"], ["fit", "--help"], []])
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys\nfrom steepest.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Usage: steepest" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_loads_nothing_heavy():
    code = (
        f"import sys, steepest; print([name for name in {HEAVY} + ('typer', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("while_", "sent"),
    [
        ("it reads", signal.SIGINT),
        ("it writes", signal.SIGTERM),
        pytest.param("it reads", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("it writes", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_fit_that_is_interrupted_leaves_nothing_or_what_it_saved(folder, tmp_path, sent, while_):
    """The signal comes while the run is written, where the folder aside is seen, or before the descent."""
    slow = (
        "import time, steepest.training as t, pathlib, sys\n"
        "def wait(*_, **__):\n"
        "    pathlib.Path(sys.argv[-1]).with_name('there').touch()\n    time.sleep(60)\n"
        f"t.{'prepare' if while_ == 'it reads' else '_write_report'} = wait\n"
        "from steepest.cli import main\nmain()"
    )
    words = ["fit", folder / "iris.csv", "--target", "target", "--epochs", "1", "--out", tmp_path / "r"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "there").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    (tmp_path / "there").unlink()
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[sent]
    assert "Traceback" not in err
    *_, said = ["", *err.splitlines()]
    if while_ == "it reads":
        assert said == ("steepest: interrupted; nothing was written." if sent == signal.SIGINT else "")
        assert list(tmp_path.iterdir()) == []
        return
    assert said.endswith(f"what was reached is kept. Go on with: steepest resume {tmp_path / 'r'}")
    assert [each.name for each in tmp_path.iterdir()] == ["r.unfinished"]
    main(["resume", str(tmp_path / "r")])
    assert [each.name for each in tmp_path.iterdir()] == ["r"]
    assert open_run(tmp_path / "r").record["descent"]["epochs"] == 1


def test_a_reader_that_goes_away_is_no_error(flights):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*STEEPEST, "show", str(flights)], stdout=writer, stderr=subprocess.PIPE, text=True,
                          timeout=60, check=False)  # fmt: skip
    os.close(writer)
    assert "Traceback" not in done.stderr
