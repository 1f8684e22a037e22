"""The command line on runs that were interrupted, on complete ones to go on from, and on its cache."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from campaigns import among
from expecting import fails
from steepest import Callback, checkpoints, preparation, terminal, training
from steepest.cli import main
from steepest.combining import read_settings
from steepest.data import blocks
from steepest.run import open_run
from steepest.settings import Settings

ROWS, EPOCHS = 300, 3
WINDOW = 2000
"""Bytes of a window: an epoch's 15 steps are four windows."""

SAME = ("model.safetensors", "history.parquet", "columns.json", "model.json", "rejected.csv")
FIT = ("fit", "rows.csv", "--target", "late", "--model", "mlp", "--hidden", "4", "--dropout", "0.1",
       "--batch-size", "16", "--optimizer", "adam", "--learning-rate", "0.01", "--seed", "3")  # fmt: skip
KERAS = ("fit", "rows.csv", "--target", "late", "--model", "resumable:network", "--batch-size", "16",
         "--learning-rate", "0.01")  # fmt: skip

BUILDER = """
import keras

def network(columns):
    layers = keras.layers
    named = [keras.Input((columns.width,), name="in"), layers.Dense(4, "relu", name="one"),
             layers.Dropout(0.2, name="drop"), layers.BatchNormalization(name="norm"),
             layers.Dense(1, "sigmoid", name="out")]
    return keras.Sequential(named, name="network")

def wider(columns):
    layers = keras.layers
    return keras.Sequential([keras.Input((columns.width,)), layers.Dense(5), layers.Dense(1, "sigmoid")])
"""


def write_rows(path: str | Path, seed: int = 0, scale: float = 1.0) -> None:
    """Write rows of which one has a cell too many."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame({"a": scale * random.normal(size=ROWS), "b": random.choice(["x", "y"], ROWS)})
    table["late"] = np.where(table["a"] / scale + random.normal(size=ROWS) > 0, "yes", "no")
    lines = table.to_csv(index=False).splitlines()
    lines[200] += ",more"
    Path(path).write_text("\n".join(lines) + "\n")


def go_to(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Work in a folder; descents have many windows, and reports, which take long, are not drawn."""
    patch.chdir(folder)
    patch.syspath_prepend(str(folder))
    patch.setattr(blocks, "WINDOW_BYTES", WINDOW)
    patch.setattr(training, "_write_report", lambda path, *_: path.write_text("drawn"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with rows and the runs that nobody interrupted, of three and of five epochs."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        go_to(folder, patch)
        write_rows("rows.csv")
        Path("resumable.py").write_text(BUILDER)
        for words, name in ((FIT, "whole"), (KERAS, "keras")):
            main([*words, "--epochs", "3", "--out", name])
            main([*words, "--epochs", "5", "--out", f"{name}-5"])
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    """An empty working folder with the same rows."""
    go_to(tmp_path, monkeypatch)
    for name in ("rows.csv", "resumable.py"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run the command line in this process; give its exit status, its output and its words on the way."""

    def run(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        status = 0
        try:
            main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(run):
    """Run the command line, and check that it refuses in one line."""

    def refused(*words) -> str:
        status, out, err = run(*words)
        assert (status, out) == (2, "")
        return err.splitlines()[-1].removeprefix("steepest: ")

    return refused


@pytest.fixture
def interrupted(run, monkeypatch):
    """Run the command line and press Ctrl-C when windows, or epochs, are over; give its last word."""

    def interrupted(*words, windows=np.inf, epochs=np.inf) -> str:
        class Pressed(terminal.Progress):
            def on_window_end(self, epoch, rows, loss):
                self.rows += 1
                if self.rows == windows:
                    raise KeyboardInterrupt

            def on_epoch_end(self, figures):
                if figures["epoch"] == epochs:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(terminal, "Progress", Pressed)
            status, out, err = run(*words)
        assert (status, out) == (130, "")
        return err.splitlines()[-1]

    return interrupted


def assert_same(one: Path, other: Path) -> None:
    """Two runs are the same but for their names and times."""
    files = [{each.name for each in run.iterdir()} for run in (one, other)]
    assert files[0] == files[1]
    epochs = [open_run(run).epochs.drop(columns=["seconds", "rows_per_second"]) for run in (one, other)]
    assert epochs[0].equals(epochs[1])
    records = [open_run(run).record for run in (one, other)]
    for name in ("figures", "importances", "target", "columns", "split", "data", "notes"):
        assert records[0][name] == records[1][name]
    for name in ("steps", "epochs", "why_it_stopped", "converged"):
        assert records[0]["descent"][name] == records[1]["descent"][name]
    for name in SAME:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def settings_of(run: Path) -> Settings:
    return replace(Settings(), **read_settings(str(run / "settings.toml")))


def kept(here: Path) -> set[str]:
    return {each.name for each in here.iterdir()} - {"rows.csv", "resumable.py", "__pycache__"}


# Ctrl-C, and the same run again

MOMENTS = {
    "in an epoch": {"windows": 5},
    "in the first epoch": {"windows": 2},
    "after an epoch": {"windows": 7},
    "at the end of an epoch": {"epochs": 2},
}
"""An epoch has three windows; saved is what the window before this one came to."""


class Look(Callback):
    """Sees where windows end."""

    def __init__(self):
        self.ends = []

    def on_window_end(self, epoch, rows, loss):
        self.ends.append((epoch, rows))


def test_the_descents_have_several_windows_an_epoch_and_a_rejected_row(here, made):
    look = Look()
    training.fit(replace(settings_of(made / "whole"), epochs=2, out="run"), callbacks=[look])
    assert [epoch for epoch, _ in look.ends] == [1, 1, 1, 2, 2, 2]
    assert (made / "whole" / "rejected.csv").read_text().splitlines()[1].startswith("rows.csv,201,")


@pytest.mark.parametrize(
    ("moment", "again"),
    [
        *((moment, ("resume", "run")) for moment in MOMENTS),
        ("in an epoch", ("resume", "run.unfinished")),
        ("in an epoch", (*FIT, "--epochs", "3", "--out", "run")),
        (
            "in an epoch",
            (*FIT, "--epochs", "3", "--out", "run", "--memory", "1GB", "--checkpoint-every", "0"),
        ),
    ],
)
def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_bytes(here, made, interrupted, run, moment, again):
    said = interrupted(*FIT, "--epochs", "3", "--out", "run", **MOMENTS[moment])
    assert said == "steepest: interrupted; what was reached is kept. Go on with: steepest resume run"
    assert kept(here) == {"run.unfinished"}
    look = Look()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(terminal, "Progress", lambda: nullcontext(look))
        status, out, _ = run(*again)
    assert status == 0
    assert "report: run/report.html" in out
    assert 0 < len(look.ends) < 9, "it went on where it was"
    assert kept(here) == {"run"}
    assert_same(here / "run", made / "whole")


def test_a_run_is_interrupted_again_and_again(here, made, interrupted, run):
    interrupted(*FIT, "--epochs", "3", "--out", "run", windows=2)
    for _ in range(3):
        interrupted("resume", "run", windows=2)
    assert run("resume", "run")[0] == 0
    assert_same(here / "run", made / "whole")


def test_ctrl_c_before_anything_is_saved_leaves_nothing(here, interrupted):
    said = interrupted(*FIT, "--out", "run", windows=1)
    assert said == "steepest: interrupted; nothing was written."
    assert kept(here) == set()


def test_without_a_name_the_same_fit_goes_on_and_others_get_their_own(here, made, interrupted, run):
    fit = (*FIT, "--epochs", "3")
    assert interrupted(*fit, windows=5).endswith("steepest resume runs/rows")
    assert run(*fit, "--epochs", "1")[0] == 0
    assert {each.name for each in Path("runs").iterdir()} == {"rows.unfinished", "rows-2"}
    assert run(*fit)[0] == 0
    assert {each.name for each in Path("runs").iterdir()} == {"rows", "rows-2"}
    assert_same(here / "runs" / "rows", made / "whole")


DRIVER = """
import sys, time
from pathlib import Path
from steepest import cli, terminal
from steepest.data import blocks

def wait(what):
    Path(what).touch()
    time.sleep(60)

class Slow(terminal.Progress):
    def on_window_end(self, epoch, rows, loss):
        if epoch == 2:
            wait("descends")

blocks.WINDOW_BYTES = 2000
terminal.Progress = Slow
"""

STUCK = "import os\nos.fsync = lambda _: wait('saves')\n"


def until(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("sent", among([signal.SIGTERM, signal.SIGINT], signal.SIGTERM))
def test_a_signal_saves_and_a_second_one_leaves_at_once(here, made, run, sent):
    fit = [*FIT, "--epochs", "3", "--out", "run"]
    script = DRIVER + (STUCK if sent == signal.SIGINT else "") + "cli.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *fit], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(here / "descends", process)
    process.send_signal(sent)
    if sent == signal.SIGINT:
        until(here / "saves", process)
        process.send_signal(sent)
    out, err = process.communicate(timeout=20)
    assert (out, "Traceback" in err) == ("", False)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "steepest: interrupted; nothing was written."
        assert kept(here) == {"descends", "saves"}
        return
    assert process.returncode == 143
    assert err.splitlines()[-1].endswith("what was reached is kept. Go on with: steepest resume run")
    assert kept(here) == {"descends", "run.unfinished"}
    assert run("resume", "run")[0] == 0
    assert_same(here / "run", made / "whole")


# What does not go on


def test_other_settings_are_refused_and_overwrite_begins_anew(here, made, interrupted, refused, run):
    interrupted(*FIT, "--epochs", "3", "--seed", "4", "--out", "run", windows=5)
    said = refused(*FIT, "--epochs", "3", "--out", "run")
    assert said == (
        "run.unfinished is an interrupted run with other settings: seed was 4 and is now 3. "
        "steepest resume run goes on with it; --overwrite begins anew."
    )
    assert kept(here) == {"run.unfinished"}
    assert run(*FIT, "--epochs", "3", "--out", "run", "--overwrite")[0] == 0
    assert_same(here / "run", made / "whole")


def test_changed_data_is_refused_and_overwrite_begins_anew(here, interrupted, refused, run):
    fit = (*FIT, "--epochs", "3", "--out", "run")
    interrupted(*fit, windows=5)
    Path("rows.csv").unlink()
    write_rows("rows.csv", seed=1)
    for words in (fit, ("resume", "run")):
        assert refused(*words) == (
            "The data of the interrupted run run.unfinished has changed since it was begun. "
            "--overwrite begins anew with the data as it is now."
        )
    assert kept(here) == {"run.unfinished"}
    assert run(*fit, "--overwrite")[0] == 0
    assert run(*fit[:-1], "anew")[0] == 0
    assert_same(here / "run", here / "anew")


def test_a_run_that_replaces_another_can_be_interrupted(here, made, interrupted, refused, run):
    fit = (*FIT, "--epochs", "3", "--out", "run")
    assert run(*FIT, "--epochs", "1", "--out", "run")[0] == 0
    interrupted(*fit, "--overwrite", windows=5)
    assert kept(here) == {"run", "run.unfinished"}
    assert open_run("run").record["descent"]["epochs"] == 1
    assert run("resume", "run")[0] == 0
    assert kept(here) == {"run"}
    assert_same(here / "run", made / "whole")
    assert refused(*fit).startswith("The run run exists.")


def test_one_run_is_made_by_one_process(here, made):
    settings = replace(settings_of(made / "whole"), out="run")

    class Second(Callback):
        refused = ()

        def on_epoch_end(self, figures):
            for other in (settings, replace(settings, seed=9)):
                with fails("Another process is making the run run.", "choose another --out"):
                    training.fit(other, overwrite=True)
                self.refused += (other.seed,)

    second = Second()
    training.fit(settings, callbacks=[second])
    assert second.refused == (3, 9) * 3
    assert_same(here / "run", made / "whole")


def test_what_there_is_not_to_go_on_with(here, made, refused):
    (here / "run").symlink_to(made / "whole")
    assert refused("resume", "run") == (
        "The run run is complete. steepest fit --from RUN goes on with a complete one."
    )
    assert refused("resume", "none").startswith("There is no interrupted run none. steepest fit begins one")
    assert refused(*FIT, "--from", "none", "--out", "new").startswith("There is no ")
    assert kept(here) == {"run"}


# On from a complete run


def test_more_epochs_of_a_run_are_a_longer_run(here, made, run):
    status, _, err = run("fit", "--from", made / "whole", "--epochs", "2", "--out", "run")
    assert status == 0
    said = f"Goes on from {made / 'whole'} after epoch 3, as if it had not ended there."
    assert said in err.splitlines()
    assert_same(here / "run", made / "whole-5")
    assert open_run("run").record["descent"]["most_epochs"] == 5


def test_more_epochs_can_be_interrupted_too(here, made, interrupted, run):
    interrupted("fit", "--from", made / "whole", "--epochs", "2", "--out", "run", windows=2)
    assert run("resume", "run")[0] == 0
    assert_same(here / "run", made / "whole-5")


def test_with_other_rates_it_starts_from_the_parameters(here, made, run):
    status, _, err = run("fit", "--from", made / "whole", "--epochs", "1", "--learning-rate", "1e-9",
                         "--optimizer", "sgd", "--out", "run")  # fmt: skip
    assert status == 0
    said = f"Starts with the parameters of {made / 'whole'}, not where its descent ended: "
    assert said + "another optimizer, learning-rate." in err.splitlines()
    before, after = (load_file(path / "model.safetensors") for path in (made / "whole", here / "run"))
    for name, values in before.items():
        np.testing.assert_allclose(after[name], values, atol=1e-6)
    assert open_run("run").record["descent"]["epochs"] == 1


def test_with_another_schedule_it_starts_from_the_parameters(here, made, run):
    status, _, err = run("fit", "--from", made / "whole", "--schedule", "cosine", "--out", "run")
    assert status == 0
    assert "another schedule." in err
    assert open_run("run").record["descent"]["epochs"] == 3, "as many as there, unless told"
    assert run("fit", "--from", "run", "--epochs", "2", "--out", "run-2")[0] == 0
    steps = open_run("run-2").steps
    assert steps["epoch"].max() == 2
    assert steps["learning_rate"].max() == pytest.approx(0.01)
    assert steps["learning_rate"].iloc[-1] < 0.001


@pytest.mark.parametrize("name", ["rows.csv", "other.csv"])
def test_with_other_data_it_starts_from_the_parameters_and_the_columns(here, made, run, name):
    (here / name).unlink(missing_ok=True)
    write_rows(name, seed=1, scale=7.0)
    rates = ("--epochs", "1", "--optimizer", "sgd", "--learning-rate", "1e-9") if name == "other.csv" else ()
    status, _, err = run("fit", name, "--from", made / "whole", *rates, "--out", "run")
    assert status == 0
    said = "its data has changed." if name == "rows.csv" else "another data, optimizer, learning-rate."
    assert f"not where its descent ended: {said}" in err
    assert (here / "run" / "columns.json").read_bytes() == (made / "whole" / "columns.json").read_bytes()
    assert open_run("run").steps["step"].iloc[0] == 1
    if name == "other.csv":
        before, after = (load_file(path / "model.safetensors") for path in (made / "whole", here / "run"))
        np.testing.assert_allclose(after["layer_1.weights"], before["layer_1.weights"], atol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--hidden", "5"), "has another model: its layers are of other sizes. Leave --model and --hidden"),
        (("--model", "linear"), "has another model: its layers are of other sizes."),
        (("--target", "b"), "learned with the target late, and --target is b. Leave --target out"),
        (("--loss", "hinge"), "learned with the loss by default, and --loss is hinge. Leave --loss out"),
    ],
)
def test_another_model_is_no_start(here, made, refused, words, said):
    refusal = refused("fit", "--from", made / "whole", *words, "--out", "run")
    assert refusal.startswith(f"The run {made / 'whole'} {said}")
    assert kept(here) == set()


# Verification


def test_verify_says_that_the_bytes_are_the_same(here, made, run):
    status, out, _ = run("verify", made / "whole", "--json")
    said, found = out.splitlines()
    assert status == 0
    found = json.loads(found)
    assert found["says"] == said
    assert found["steps"] >= 300
    assert 0 < found["interrupted_after"] < found["steps"]
    pattern = r"[\d,]+ steps, interrupted after [\d,]+ and resumed: all [\d,]+ bytes are the same\."
    assert re.fullmatch(pattern, said)
    assert found["compared"] > 300 * 20, "the history and the parameters"


def test_verify_finds_a_descent_that_resumes_otherwise(here, made, refused, monkeypatch):
    filled = checkpoints._filled

    def one_bit(name, template, arrays):
        tree = filled(name, template, arrays)
        return tree._replace(parameters=jnp.nextafter(tree.parameters, jnp.inf)) if name == "state" else tree

    monkeypatch.setattr(checkpoints, "_filled", one_bit)
    assert re.match(r"The resumed descent differs in \d+ of \d+ arrays: ", refused("verify", made / "whole"))


def test_verify_is_for_our_own_models(here, made, refused):
    assert "has a Keras model; only linear and mlp are verified so." in refused("verify", made / "keras")
    assert refused("verify", "none").startswith("There is no run none.")


# The cache


@pytest.fixture
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own, in which small tables are kept too."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("STEEPEST_CACHE", str(folder))
    monkeypatch.setattr(preparation, "CACHED_FROM", 0)
    return folder


def test_the_cache_is_listed_and_cleared(here, made, cache, run):
    assert run("cache")[1] == f"0 tables, 0.0 MiB in {cache}\n"
    for out in ("run", "run-2"):
        assert run(*FIT, "--epochs", "3", "--out", out)[0] == 0
        assert_same(here / out, made / "whole")
    (entry,) = (each for each in cache.iterdir() if each.is_dir())
    status, out, _ = run("cache", "--json")
    *_, listed, total, found = out.splitlines()
    assert status == 0
    assert listed.split()[-2:] == ["299", "rows.csv"]
    assert total.startswith("1 tables, 0.0 MiB in ")
    size = sum(file.stat().st_size for file in entry.iterdir())
    found = json.loads(found)
    assert (found["folder"], found["bytes"]) == (str(cache), size)
    assert [(each["key"], each["bytes"], each["of"]) for each in found["entries"]] == [
        (entry.name, size, ["rows.csv"])
    ]
    (cache / "mine.txt").write_text("not the cache's")
    status, out, _ = run("cache", "--clear", "--json")
    assert (status, json.loads(out.splitlines()[-1])) == (0, {"folder": str(cache), "freed": size})
    assert {each.name for each in cache.iterdir()} == {"lock", "mine.txt"}


def test_a_run_goes_on_with_its_cached_rows_and_without(here, made, cache, interrupted, run):
    for clear in ((), ("--clear",)):
        interrupted(*FIT, "--epochs", "3", "--out", "run", windows=5)
        run("cache", *clear)
        assert run("resume", "run")[0] == 0
        assert_same(here / "run", made / "whole")
        (here / "run").rename(here / f"run{len(clear)}")


# Patience


def test_patience_keeps_the_best_epoch(here, run, interrupted):
    fit = (*FIT, "--learning-rate", "0.1", "--patience", "2", "--monitor", "validation_accuracy", "--epochs")
    assert run(*fit, "30", "--out", "run")[0] == 0
    stopped = open_run("run")
    accuracy = stopped.epochs["validation_accuracy"].to_numpy()
    best = int(accuracy.argmax()) + 1
    assert len(accuracy) == best + 2 < 30
    why = stopped.record["descent"]["why_it_stopped"]
    assert "validation_accuracy" in why
    assert f"{best}" in why
    assert run(*FIT, "--learning-rate", "0.1", "--epochs", best, "--out", "run-best")[0] == 0
    ours, kept = (load_file(Path(name, "model.safetensors")) for name in ("run", "run-best"))
    for name, values in kept.items():
        np.testing.assert_array_equal(ours[name], values)
    assert stopped.record["figures"]["validation"]["scores"]["accuracy"] == pytest.approx(accuracy.max())
    interrupted(*fit, "30", "--out", "again", epochs=best + 1)
    assert run("resume", "again")[0] == 0
    assert_same(here / "again", here / "run")


def test_patience_is_checked(here, refused):
    patient = (*FIT, "--out", "run", "--patience", "2", "--monitor")
    assert refused(*FIT, "--out", "run", "--patience", "0").startswith("Patience lasts at least one epoch")
    assert refused(*patient, "validation_loss", "--validation", "0").endswith("or add --monitor loss.")
    assert "validation_acuracy" in refused(*patient, "validation_acuracy")
    assert kept(here) == set()


# The same for Keras models


def test_a_keras_model_goes_on_between_epochs(here, made, interrupted, run):
    said = interrupted(*KERAS, "--epochs", "3", "--out", "run", epochs=2)
    assert said.endswith("Go on with: steepest resume run")
    assert kept(here) == {"run.unfinished"}
    assert run("resume", "run")[0] == 0
    assert kept(here) == {"run"}
    assert_same(here / "run", made / "keras")


def test_more_epochs_of_a_keras_model_are_a_longer_run(here, made, run):
    status, _, err = run("fit", "--from", made / "keras", "--epochs", "2", "--out", "run")
    assert status == 0
    assert "as if it had not ended there." in err
    assert_same(here / "run", made / "keras-5")


def test_a_keras_model_starts_from_the_weights(here, made, run, refused):
    words = ("--epochs", "1", "--optimizer", "sgd", "--learning-rate", "1e-9")
    assert run("fit", "--from", made / "keras", *words, "--out", "run")[0] == 0
    before, after = (load_file(path / "model.safetensors") for path in (made / "keras", here / "run"))
    for name in (each for each in before if each.startswith("trainable")):
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)
    for words in (("--model", "resumable:wider"), ("--model", "linear")):
        said = refused("fit", "--from", made / "keras", *words, "--out", "new")
        assert said.startswith(f"The run {made / 'keras'} has another model: its layers are of other sizes.")
    assert kept(here) == {"run"}


def test_patience_restores_a_keras_models_best_epoch(here, made, run, refused):
    fit = (
        *KERAS,
        "--learning-rate",
        "0.3",
        "--patience",
        "1",
        "--monitor",
        "validation_accuracy",
        "--epochs",
    )
    assert run(*fit, "20", "--out", "run")[0] == 0
    stopped = open_run("run")
    accuracy = stopped.epochs["validation_accuracy"].to_numpy()
    best = int(accuracy.argmax())
    assert len(accuracy) == best + 2 < 20
    assert stopped.record["figures"]["validation"]["scores"]["accuracy"] == pytest.approx(accuracy[best])
    assert accuracy[best] > accuracy[-1]
    assert "validation_accuracy" in stopped.record["descent"]["why_it_stopped"]
    assert "validation_acuracy" in refused(*KERAS, "--out", "new", "--patience", "1", "--monitor",
                                           "validation_acuracy")  # fmt: skip
