"""The command line on runs that were interrupted, on complete ones to go on from, and on its cache."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from steepest import checkpoints, networks, preparation, terminal, training
from steepest.cli import main
from steepest.data import blocks
from steepest.run import open_run

ROWS, EPOCHS = 300, 3
WINDOW = 2000
"""Bytes of a window: an epoch's 15 steps are four windows."""

SAME = ("model.safetensors", "history.parquet", "columns.json", "model.json", "rejected.csv")
FIT = ("fit", "rows.csv", "--target", "late", "--model", "mlp", "--hidden", "4", "--dropout", "0.1",
       "--batch-size", "16", "--optimizer", "adam", "--learning-rate", "0.01", "--seed", "3")  # fmt: skip
KERAS = ("fit", "rows.csv", "--target", "late", "--model", "resumable:network", "--batch-size", "16")

BUILDER = """
import keras

def network(columns):
    layers = keras.layers
    return keras.Sequential([keras.Input((columns.width,)), layers.Dense(4, "relu"), layers.Dropout(0.2),
                             layers.BatchNormalization(), layers.Dense(1, "sigmoid")])

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


def same(one: Path, other: Path) -> bool:
    """Tell whether two runs are the same but for their names and times; every file is looked at."""
    files = [{each.name for each in run.iterdir()} for run in (one, other)]
    assert files[0] == files[1]
    epochs = [open_run(run).epochs.drop(columns=["seconds", "rows_per_second"]) for run in (one, other)]
    records = [open_run(run).record for run in (one, other)]
    for record in records:
        for name in ("created", "command", "settings_toml", "seconds"):
            del record[name]
        del record["descent"]["seconds"], record["descent"]["rows_per_second"]
        del record["descent"]["most_epochs"], record["descent"]["why_it_stopped"]
    return (
        epochs[0].equals(epochs[1])
        and records[0] == records[1]
        and all((one / name).read_bytes() == (other / name).read_bytes() for name in SAME)
    )


def kept(here: Path) -> set[str]:
    return {each.name for each in here.iterdir()} - {"rows.csv", "resumable.py", "__pycache__"}


# Ctrl-C, and the same run again

MOMENTS = {"in an epoch": {"windows": 7}, "early": {"windows": 2}, "between epochs": {"epochs": 2}}


def test_the_descents_have_many_windows_and_a_rejected_row(here, made):
    training_rows = open_run(made / "whole").record["split"]["training_rows"]
    cut = blocks.Blocks((np.zeros((training_rows, 4), np.float32),), training_rows, 16)
    assert [steps for steps, _ in cut.shapes()] == [7, 6, 2][: len(cut.shapes())] or len(cut.shapes()) > 1
    assert (made / "whole" / "rejected.csv").read_text().splitlines()[1].startswith("rows.csv,201,")


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("again", [["resume", "run"], ["resume", "run.unfinished"], [*FIT, "--out", "run"]],
                         ids=["resume", "resume unfinished", "the same fit"])  # fmt: skip
def test_ctrl_c_saves_and_the_run_goes_on_to_the_same_bytes(here, made, interrupted, run, moment, again):
    fit = (*FIT, "--epochs", "3", "--out", "run")
    said = interrupted(*fit, **MOMENTS[moment])
    assert said == "steepest: interrupted; what was reached is kept. Go on with: steepest resume run"
    assert kept(here) == {"run.unfinished"}
    status, out, _ = run(*(fit if again[0] == "fit" else again))
    assert status == 0
    assert "report: run/report.html" in out
    assert kept(here) == {"run"}
    assert same(here / "run", made / "whole")
